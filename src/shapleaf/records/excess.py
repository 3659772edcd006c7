"""ExcessError: how much more pruned networks lose to shifts than the unpruned one does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .._table import interval
from ..errors import DataError
from ._base import Part, Record


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Excess(Part):
    """The excess error of one pruned model; errors are shares, 0 to 1, lower is better.

    Attributes:
        subject: its name.
        method: how it was pruned.
        net: which network.
        removed: share of its parameters that are gone.
        reference: how much higher the reference's error is under shifts than on nominal data.
        value: the same of the pruned model.
        difference: ``value - reference``: what pruning adds.
        low: lower end of the 95 % interval of the difference.
        high: upper end.
    """

    subject: str
    method: str
    net: str
    removed: float
    reference: float
    value: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slope(Part):
    """How a method's excess error grows with what is removed: a line through the origin.

    Attributes:
        method: the pruning method.
        value: error added by removing everything, 0 to 1, if it grew in proportion; lower is better.
        low: lower end of its 95 % interval; the band around the line is from ``low * removed`` to
            ``high * removed``.
        high: upper end.
        points: number of pruned models behind it.
    """

    method: str
    value: float
    low: float
    high: float
    points: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExcessError(Record):
    """What :func:`shapleaf.excess_error` found.

    Attributes:
        slopes: one for each method.
        points: one for each pruned model.
        unit: of the numbers.
        better: which direction is good.
        settings: the distributions, resamples, seed.

    >>> print(ExcessError(slopes=(Slope(method="WT", value=0.02, low=0.01, high=0.03, points=23),)))
    Excess error: points of error that shifts add, more than without pruning; lower is better
    method  models  at 100 % removed  interval      at 10 %
    ──────  ──────  ────────────────  ────────────  ───────
    WT          23                 2  1.00 to 3.00       0.2
    """

    slopes: tuple[Slope, ...]
    points: tuple[Excess, ...] = ()
    unit: str = "error, 0 to 1"
    better: Literal["higher", "lower"] = "lower"
    settings: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, method: str) -> Slope:
        for one in self.slopes:
            if one.method == method:
                return one
        raise DataError(
            f"no excess error of method {method!r}; there are: {', '.join(o.method for o in self.slopes)}."
        )

    def table(self) -> dict[str, Any]:
        rows = [
            [
                one.method,
                one.points,
                round(100 * one.value, 3),
                interval(one.low, one.high, 2),
                round(10 * one.value, 3),
            ]
            for one in self.slopes
        ]
        return {
            "title": "Excess error: points of error that shifts add, more than without pruning; "
            "lower is better",
            "header": ["method", "models", "at 100 % removed", "interval", "at 10 %"],
            "rows": rows,
            "footer": ", ".join(f"{key}={value}" for key, value in self.settings.items()),
        }

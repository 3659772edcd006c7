"""Pruning curves: the accuracy that is left when more and more units go, and what sums it up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import takewhile
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np
import torch

from .. import _rng
from .._store import Tensor
from ..errors import DataError
from ._base import Part, Record

Order = Literal["least", "most"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PruningCurve(Part):
    """Which examples are classified right when more and more units are removed by the scores of one seed.

    Attributes:
        criterion: name of the scores.
        order: ``"least"`` if the units that are needed least went first, ``"most"`` if those needed most.
        compensation: what made up for the removed units, ``"none"`` if nothing.
        seed: number of the scores among those of the criterion, from 0.
        rates: share of the units of the scored groups that were to go, ascending, ``(rates,)``.
        removed: share that went; less where groups would have lost their last unit.
        params: share of the model's parameters that is left.
        macs: share of its multiply-accumulates that is left.
        right: whether the class with the highest score is the label's, ``(rates, examples)``.

    Raises:
        DataError: the rates are no ascending shares, or their numbers differ.

    >>> right = torch.tensor([[True, True], [True, False], [False, False]])
    >>> shares = dict(rates=(0.0, 0.3, 0.6), removed=(0.0, 0.25, 0.5), params=(1.0,) * 3, macs=(1.0,) * 3)
    >>> one = PruningCurve(criterion="mine", right=right, **shares)
    >>> one.accuracy.tolist(), one.area, one.top(), one.top(0.5)
    ([100.0, 50.0, 0.0], 0.5, 0.0, 0.3)
    """

    criterion: str
    order: Order = "least"
    compensation: str = "none"
    seed: int = 0
    rates: tuple[float, ...]
    removed: tuple[float, ...]
    params: tuple[float, ...]
    macs: tuple[float, ...]
    right: Tensor

    def __post_init__(self) -> None:
        rates = self.rates
        if not rates or list(rates) != sorted(set(rates)) or not 0 <= rates[0] <= rates[-1] <= 1:
            raise DataError(f"the rates of a curve are ascending shares from 0 to 1, received {rates}.")
        if self.right.ndim != 2 or not self.right.numel():
            raise DataError(f"right must be (rates, examples), received {tuple(self.right.shape)}.")
        counts = {name: len(getattr(self, name)) for name in ("removed", "params", "macs", "right")}
        if set(counts.values()) != {len(rates)}:
            raise DataError(f"a curve of {len(rates)} rates needs as many of each, received {counts}.")
        object.__setattr__(self, "right", self.right.detach().cpu().bool())

    @property
    def accuracy(self) -> torch.Tensor:
        """In percent, float64, ``(rates,)``."""
        return 100 * self.right.double().mean(1)

    @property
    def area(self) -> float:
        """A_PR: the mean accuracy over the rates, as a share; higher is better if the least needed went."""
        return self.right.double().mean().item()

    def top(self, share: float = 0.95) -> float:
        """Top-PR: the highest rate up to which accuracy is at least this share of that without pruning.

        Raises:
            DataError: the first rate is not 0, or the share is not within 0 and 1.
        """
        if self.rates[0] or not 0 < share <= 1:
            raise DataError(
                f"Top-PR takes a share from 0 to 1 of the accuracy at rate 0; received {share}, and the "
                f"first rate is {self.rates[0]}."
            )
        right = self.right.sum(1).tolist()
        enough = Fraction(repr(float(share))) * right[0]
        held = takewhile(lambda pair: pair[1] >= enough, zip(self.rates, right, strict=True))
        return [rate for rate, _ in held][-1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PruningCurves(Record):
    """What :func:`shapleaf.pruning_curves` measured: curves of several criteria, orders and seeds.

    Attributes:
        curves: in the order in which they were measured; all at the same rates on the same examples.
        settings: strategy, classes, numbers of units and examples, versions.

    Raises:
        DataError: rates or numbers of examples differ, or two curves have the same names and seed.

    >>> shares = dict(rates=(0.0, 0.5), removed=(0.0, 0.5), params=(1.0, 0.6), macs=(1.0, 0.4))
    >>> rows = ((0, [1, 1]), (1, [1, 0]))
    >>> print(PruningCurves(curves=tuple(
    ...     PruningCurve(criterion="mine", seed=k, right=torch.tensor([[1, 1], row]), **shares)
    ...     for k, row in rows
    ... )))
    Accuracy as units are removed, those needed least first: its mean over 2 rates up to 50 %
    criterion  compensation  seeds   A_PR  std err  Top-PR  std err  A_PR, most needed first
    ─────────  ────────────  ─────  ─────  ───────  ──────  ───────  ───────────────────────
    mine       none              2  0.875    0.125    0.25     0.25                        -
    """

    curves: tuple[PruningCurve, ...]
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seen = set()
        for one in self.curves:
            key = _key(one)
            if key in seen:
                raise DataError(f"there are two curves of {', '.join(map(str, key))}.")
            seen.add(key)
            first = self.curves[0]
            if one.rates != first.rates or one.right.shape != first.right.shape:
                raise DataError(
                    f"the curve of {one.criterion!r} has {len(one.rates)} rates on {one.right.shape[1]} "
                    f"examples, that of {first.criterion!r} {len(first.rates)} on {first.right.shape[1]}; "
                    "measure all at the same rates on the same examples."
                )

    @property
    def criteria(self) -> tuple[str, ...]:
        """The criteria, each once."""
        return tuple(dict.fromkeys(one.criterion for one in self.curves))

    @property
    def compensations(self) -> tuple[str, ...]:
        """The compensations, each once."""
        return tuple(dict.fromkeys(one.compensation for one in self.curves))

    def select(
        self, criterion: str, order: Order = "least", compensation: str | None = None
    ) -> tuple[PruningCurve, ...]:
        """The curves of one criterion, one for each seed.

        Args:
            criterion: its name.
            order: which units went first.
            compensation: its name; None if there is only one.

        Raises:
            DataError: there are none, or of several compensations.
        """
        found = [one for one in self.curves if (one.criterion, one.order) == (criterion, order)]
        kinds = list(dict.fromkeys(one.compensation for one in found))
        if compensation is None and len(kinds) > 1:
            raise DataError(
                f"{criterion!r} was measured with several compensations; name one: {', '.join(kinds)}."
            )
        chosen = tuple(one for one in found if compensation in (None, one.compensation))
        if not chosen:
            known = ", ".join(
                dict.fromkeys(f"{c.criterion} ({c.order}, {c.compensation})" for c in self.curves)
            )
            raise DataError(
                f"no curve of {criterion!r}, {order} needed first, compensation {compensation or 'any'}; "
                f"measured: {known or 'nothing'}."
            )
        return chosen

    def area(
        self, criterion: str, order: Order = "least", compensation: str | None = None
    ) -> tuple[float, float | None]:
        """A_PR, mean and standard error over seeds; None of a single seed.

        Raises:
            DataError: as :meth:`select`.
        """
        return averaged([one.area for one in self.select(criterion, order, compensation)])

    def top(
        self, criterion: str, order: Order = "least", compensation: str | None = None, *, share: float = 0.95
    ) -> tuple[float, float | None]:
        """Top-PR, mean and standard error over seeds; see :meth:`PruningCurve.top`.

        Raises:
            DataError: as :meth:`select`, or the first rate is not 0.
        """
        return averaged([one.top(share) for one in self.select(criterion, order, compensation)])

    def difference(
        self,
        a: str | Sequence[PruningCurve],
        b: str | Sequence[PruningCurve],
        *,
        order: Order = "least",
        compensation: str | None = None,
        resamples: int = 1000,
        seed: int = 0,
    ) -> tuple[float, float, float]:
        """By how much the A_PR of ``a`` exceeds that of ``b``, and its 95 % interval.

        A paired bootstrap: each resample draws the same examples for both, and the same seeds if both were
        measured with the same ones, else seeds of each. Its ends are the 2.5 % and 97.5 % quantiles.

        Args:
            a: a criterion, or curves of :meth:`select`.
            b: another.
            order: of the curves of criteria that are named.
            compensation: likewise.
            resamples: how many.
            seed: names the draws.

        Raises:
            DataError: as :meth:`select`, or there are no resamples.
        """
        if resamples < 1:
            raise DataError(f"resamples must be at least 1, received {resamples}.")
        sides = [
            self.select(one, order, compensation) if isinstance(one, str) else tuple(one) for one in (a, b)
        ]
        first, second = (np.stack([one.right.double().mean(0).numpy() for one in side]) for side in sides)
        paired = [one.seed for one in sides[0]] == [one.seed for one in sides[1]]
        examples, found = first.shape[1], np.empty(resamples)
        for k in range(resamples):
            draw = _rng.stream(seed, "pruning curves", k)
            counts = np.bincount(draw.integers(examples, size=examples), minlength=examples) / examples
            mine = draw.integers(len(first), size=len(first))
            theirs = mine if paired else draw.integers(len(second), size=len(second))
            found[k] = (first @ counts)[mine].mean() - (second @ counts)[theirs].mean()
        low, high = np.quantile(found, [0.025, 0.975]).tolist()
        return float(first.mean() - second.mean()), low, high

    @staticmethod
    def joined(parts: Iterable[PruningCurves]) -> PruningCurves:
        """The curves of several records in one; settings are those on which all agree.

        Raises:
            DataError: there are no parts, or their curves do not fit together.
        """
        records = tuple(parts)
        if not records:
            raise DataError("there are no pruning curves to join.")
        agreed = set.intersection(*(set(one.settings.items()) for one in records))
        return PruningCurves(
            curves=tuple(curve for one in records for curve in one.curves),
            settings={k: v for k, v in records[0].settings.items() if (k, v) in agreed},
        )

    def table(self) -> dict[str, Any]:
        rates = self.curves[0].rates if self.curves else (0.0,)
        return {
            "title": "Accuracy as units are removed, those needed least first: its mean over "
            f"{len(rates)} rates up to {100 * rates[-1]:g} %",
            "header": [
                *("criterion", "compensation", "seeds"),
                *("A_PR", "std err", "Top-PR", "std err", "A_PR, most needed first"),
            ],
            "rows": [
                self._row(*pair) for pair in dict.fromkeys((c.criterion, c.compensation) for c in self.curves)
            ],
            "footer": ", ".join(f"{key}={value}" for key, value in self.settings.items()),
        }

    def _row(self, criterion: str, compensation: str) -> list[object]:
        pair = (criterion, compensation)
        found = [one for one in self.curves if (one.criterion, one.compensation) == pair]
        orders = {one.order for one in found}
        area: tuple[float | None, float | None] = (None, None)
        top, most = area, None
        if "least" in orders:
            area = self.area(criterion, "least", compensation)
            if found[0].rates[0] == 0:
                top = self.top(criterion, "least", compensation)
        if "most" in orders:
            most = self.area(criterion, "most", compensation)[0]
        return [criterion, compensation, len({one.seed for one in found}), *area, *top, most]


def _key(one: PruningCurve) -> tuple[str, str, str, int]:
    return one.criterion, one.order, one.compensation, one.seed


def averaged(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and its standard error; None of a single value.

    >>> averaged([1.0, 3.0]), averaged([2.0])
    ((2.0, 1.0), (2.0, None))
    """
    return fmean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else None

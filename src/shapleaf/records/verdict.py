"""Verdict: how far each method may go, in plain sentences, with the numbers beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .._table import interval, percent
from ._base import Part, Record

Extent = Literal["fully", "moderately", "not at all"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Advice(Part):
    """What one method may do where some distributions are expected; shares of parameters, 0 to 1.

    Attributes:
        method: the pruning method.
        expected: ``nominal`` data only, all ``shifted`` distributions, or the name of a family of shifts.
        extent: how far to prune.
        remove: the share of the parameters that may be removed: ``worst``, but not more than ``nominal``,
            and 0 where the extent is "not at all".
        worst: the potential on the worst of these distributions.
        low: lower end of its 95 % interval.
        high: upper end.
        mean: the potential averaged over these distributions.
        nominal: the potential on nominal data, for comparison.
        weakest: the worst of these distributions.
        below: the next smaller share that was measured there; of several nets, the mean.
        above: the next larger one, which was too much there; None beyond the largest.
        certain: whether the numbers are sure enough to tell this extent from another.
        sentence: all this in words.
    """

    method: str
    expected: str
    extent: Extent
    remove: float
    worst: float
    low: float
    high: float
    mean: float
    nominal: float
    weakest: str
    below: float
    above: float | None = None
    certain: bool = True
    sentence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict(Record):
    """What :func:`shapleaf.verdict` concludes.

    Attributes:
        advice: for each method, of nominal data, of all shifts and of each family of shifts.
        notes: what holds for all: what to do about it, and how sure it is.
        delta: how much the error may rise, absolute, 0 to 1.
        unit: of the numbers.
        settings: the rules.

    >>> numbers = dict(remove=0.85, worst=0.85, low=0.69, high=0.85, mean=0.85, nominal=0.85, below=0.69)
    >>> one = Advice(method="WT", expected="nominal", extent="fully", weakest="clean", **numbers)
    >>> print(Verdict(advice=(one,), delta=0.005))
    Verdict: % of the parameters that may be removed, error up to 0.5 points higher
    method  expected  prune  remove  worst  interval      mean  measured beside  weakest  certain
    ──────  ────────  ─────  ──────  ─────  ────────────  ────  ───────────────  ───────  ───────
    WT      nominal   fully      85     85  69.0 to 85.0    85  69.0, -          clean    yes
    """

    advice: tuple[Advice, ...]
    notes: tuple[str, ...] = ()
    delta: float
    unit: str = "share of the parameters"
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict in words: one sentence for each piece of advice, then the notes."""
        return (*(one.sentence for one in self.advice if one.sentence), *self.notes)

    def table(self) -> dict[str, Any]:
        rows = []
        for one in self.advice:
            ends = interval(one.low, one.high)
            above = "-" if one.above is None else f"{100 * one.above:.1f}"
            numbers = [percent(one.remove), percent(one.worst), ends, percent(one.mean)]
            beside = f"{100 * one.below:.1f}, {above}"
            rows.append([one.method, one.expected, one.extent, *numbers, beside, one.weakest, one.certain])
        header = ["method", "expected", "prune", "remove", "worst", "interval", "mean", "measured beside"]
        return {
            "title": f"Verdict: % of the parameters that may be removed, error up to {100 * self.delta:g} "
            "points higher",
            "header": [*header, "weakest", "certain"],
            "rows": rows,
            "footer": "\n".join(self.sentences),
        }

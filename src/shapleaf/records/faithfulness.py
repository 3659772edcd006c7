"""Faithfulness: how well scores foretell what removing units costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ._base import Part, Record

Measure = Literal["example", "pooled", "spearman"]
_MEASURES: tuple[Measure, ...] = ("example", "pooled", "spearman")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Correlation(Part):
    """How the scores of the units removed go with the rise of the loss, over random sets of one size.

    A correlation is None where a side does not vary.

    Attributes:
        group: name of the group.
        criterion: name of the scores.
        removed: number of units in each set.
        units: number of units of the group.
        sets: number of sets that were removed.
        example: Pearson's r of each example, averaged; None too if scores are not per example.
        examples: number of examples behind it: those where neither side is constant.
        pooled: Pearson's r of the sum of mean scores and the rise of the mean loss.
        spearman: Spearman's rank correlation of the same two.
        predicted: mean over sets of the sum of mean scores.
        rise: mean over sets of the rise of the mean loss, in its own units.
    """

    group: str
    criterion: str
    removed: int
    units: int
    sets: int
    example: float | None = None
    examples: int = 0
    pooled: float | None = None
    spearman: float | None = None
    predicted: float
    rise: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Faithfulness(Record):
    """What :func:`shapleaf.faithfulness` measured: 1 is best, random scores get about 0.

    Attributes:
        rows: one for each group, criterion and number of units removed, in this order.
        settings: what was measured if not the loss, sets, examples, loss, what absent units leave behind,
            seed, versions.

    >>> one = dict(group="fc", criterion="mine", units=8, sets=100, predicted=2.0, rise=1.0)
    >>> measured = ((1, 0.9), (3, 0.8), (7, 0.6))
    >>> print(Faithfulness(rows=tuple(Correlation(removed=k, pooled=r, **one) for k, r in measured)))
    Faithfulness to the loss when units are removed
    group  criterion  removed  example  examples  pooled  spearman  predicted  rise
    ─────  ─────────  ───────  ───────  ────────  ──────  ────────  ─────────  ────
    fc     mine       1              -         0     0.9         -          2     1
    fc     mine       3              -         0     0.8         -          2     1
    fc     mine       7              -         0     0.6         -          2     1
    fc     mine       2 to 6         -         -    0.75         -          -     -
    """

    rows: tuple[Correlation, ...]
    settings: dict[str, str] = field(default_factory=dict)

    def curve(self, group: str, criterion: str) -> tuple[Correlation, ...]:
        """The rows of one group and criterion, fewest units removed first.

        Raises:
            KeyError: there is none.
        """
        rows = [row for row in self.rows if (row.group, row.criterion) == (group, criterion)]
        if not rows:
            known = ", ".join(f"{g}/{c}" for g, c in self._curves())
            raise KeyError(f"no curve of group {group!r} and criterion {criterion!r}; measured: {known}")
        return tuple(sorted(rows, key=lambda row: row.removed))

    def area(self, group: str, criterion: str, measure: Measure = "pooled") -> float | None:
        """Mean correlation from a quarter to 80 % of the units removed, where pruning happens.

        The area under the curve by the trapezoid rule over the number removed (linear, not its logarithm),
        divided by its width. None unless the curve reaches both ends and is defined between.

        Raises:
            KeyError: there is no such curve.
        """
        curve = self.curve(group, criterion)
        low, high = _range(curve[0].units)
        found = [(row.removed, getattr(row, measure)) for row in curve]
        if found[0][0] > low or found[-1][0] < high:
            return None
        first = max(i for i, (removed, _) in enumerate(found) if removed <= low)
        last = min(i for i, (removed, _) in enumerate(found) if removed >= high)
        used = found[first : last + 1]
        if any(value is None for _, value in used):
            return None
        inside = [removed for removed, _ in used if low < removed < high]
        places = sorted({low, *inside, high})
        heights = [_between(used, place) for place in places]
        if len(places) == 1:
            return heights[0]
        parts = zip(places, places[1:], heights, heights[1:], strict=False)
        return sum((b - a) * (u + v) / 2 for a, b, u, v in parts) / (high - low)

    def _curves(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys((row.group, row.criterion) for row in self.rows))

    def table(self) -> dict[str, Any]:
        rows: list[list[object]] = []
        for group, criterion in self._curves():
            curve = self.curve(group, criterion)
            for row in curve:
                kept = [row.example, row.examples, row.pooled, row.spearman, row.predicted, row.rise]
                rows.append([group, criterion, f"{row.removed:,}", *kept])
            areas = {measure: self.area(group, criterion, measure) for measure in _MEASURES}
            if any(value is not None for value in areas.values()):
                low, high = _range(curve[0].units)
                area = [areas["example"], None, areas["pooled"], areas["spearman"], None, None]
                rows.append([group, criterion, f"{low:,} to {high:,}", *area])
        header = ["group", "criterion", "removed", *_MEASURES[:1], "examples", *_MEASURES[1:]]
        return {
            "title": f"Faithfulness to {self.settings.get('target', 'the loss')} when units are removed",
            "header": [*header, "predicted", "rise"],
            "rows": rows,
            "footer": ", ".join(f"{key}={value}" for key, value in self.settings.items()),
        }


def _range(units: int) -> tuple[int, int]:
    """A quarter and 80 % of the units, as whole numbers between these."""
    low = -(-units // 4)
    return low, max(low, units * 4 // 5)


def _between(points: Sequence[tuple[int, float]], place: int) -> float:
    """Height of a piecewise linear curve."""
    below = max(point for point in points if point[0] <= place)
    above = min(point for point in points if point[0] >= place)
    if above[0] == below[0]:
        return below[1]
    return below[1] + (above[1] - below[1]) * (place - below[0]) / (above[0] - below[0])

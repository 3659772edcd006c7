"""The geometry of the score charts: from a record to coordinates, labels and path data.

Everything here is arithmetic on lists; the markup is in the template. Each chart is drawn on
a canvas of ``WIDTH`` by ``HEIGHT`` and scales with its column, so that type keeps its size
from phone to desktop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..records.plan import Plan
from ..records.scores import Scores

WIDTH, HEIGHT = 320, 196
RIGHT, TOP, BOTTOM = 304.0, 26.0, 158.0
CHARTS = 60  # more groups than these are listed, not drawn
POINTS = 3000  # on the whole page, which keeps it below 300 KB
DENSEST = 96  # marks in one chart, before they run into each other
_TINY, _HUGE = 1e-290, 1e290
_SKEWED = 0.1  # median beside the largest score
_EDGE = 0.03  # room beyond the outermost marks
MINUS = "\N{MINUS SIGN}"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Tick(NamedTuple):
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One group's scores, sorted, ready to be drawn.

    Attributes:
        name: the group.
        size, kept: how many units it has and keeps; ``kept`` is None without a plan.
        drawn: how many of them have a mark.
        broken: how many have a score that is no finite number, and so no mark.
        low, high: the range of the finite scores.
        exponent: the axis is labelled in units of this power of ten, such as "10⁻⁵"; or empty.
        root: whether the scores stand at their signed square roots.
        left: where the plot begins, right of the labels.
        zero: height of the zero line, None if it is not in view.
        y, x: the ticks.
        dots, crosses: path data of the units kept and removed.
        bars, cut_bars: path data of their error bars.
    """

    name: str
    size: int
    kept: int | None
    drawn: int
    broken: int
    low: float
    high: float
    exponent: str
    root: bool
    left: float
    zero: float | None
    y: tuple[Tick, ...]
    x: tuple[Tick, ...]
    dots: str
    crosses: str
    bars: str
    cut_bars: str


def charts(scores: Scores, plan: Plan | None, room: int = 1) -> list[Chart]:
    """A chart for each scored group, in order; of very many groups, those that lose the most units.

    ``room`` divides how many groups and marks are drawn at most.
    """
    names = list(scores.values)
    removed = {
        name: scores.values[name].shape[-1] - len(plan.keep[name]) if _planned(scores, plan, name) else 0
        for name in names
        if plan is not None
    }
    if len(names) > CHARTS // room:
        chosen = set(sorted(names, key=lambda name: -removed.get(name, 0))[: CHARTS // room])
        names = [name for name in names if name in chosen]
    limit = min(DENSEST, POINTS // room // max(len(names), 1))
    root = skewed(scores)
    return [_chart(scores, plan, name, limit, root) for name in names]


def _planned(scores: Scores, plan: Plan | None, name: str) -> bool:
    """Whether the plan speaks of the very units that were scored."""
    if plan is None or name not in plan.keep:
        return False
    return bool(plan.graph[name].size == scores.values[name].shape[-1])


class _Marks(NamedTuple):
    """Units in the order of their scores, and the ranks among them that are drawn."""

    order: list[int]
    kept: list[int]
    cut: list[int]


def _marks(values: list[float], keep: set[int] | None, limit: int) -> _Marks:
    order = sorted((unit for unit, v in enumerate(values) if abs(v) < _HUGE), key=values.__getitem__)
    cut = [rank for rank, unit in enumerate(order) if keep is not None and unit not in keep]
    kept = [rank for rank, unit in enumerate(order) if keep is None or unit in keep]
    share = _share(len(cut), len(kept), limit)
    return _Marks(order, spread(kept, limit - share), spread(cut, share))


def _chart(scores: Scores, plan: Plan | None, name: str, limit: int, root: bool) -> Chart:
    values, errors = _summary(scores, name)
    errors = [error if 0 < error < _HUGE else 0.0 for error in errors]
    keep = set(plan.keep[name]) if plan is not None and _planned(scores, plan, name) else None
    order, kept, cut = _marks(values, keep, limit)
    shown = [order[rank] for rank in kept + cut]
    scale = axis(
        min((values[unit] - errors[unit] for unit in shown), default=0.0),
        max((values[unit] + errors[unit] for unit in shown), default=1.0),
        root,
    )
    left = max(40.0, 10 + 6.5 * max(map(len, scale.labels)))

    def x(rank: int) -> float:
        return left + 8 + (RIGHT - left - 14) * (rank / (len(order) - 1) if len(order) > 1 else 0.5)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * scale.place(value)

    def bars(ranks: list[int]) -> str:
        ends = [(r, values[order[r]], errors[order[r]]) for r in ranks if errors[order[r]]]
        return "".join(f"M{_n(x(r))} {_n(y(v - error))}V{_n(y(v + error))}" for r, v, error in ends)

    return Chart(
        name=name,
        size=len(values),
        kept=None if keep is None else len(keep),
        drawn=len(shown),
        broken=len(values) - len(order),
        low=values[order[0]] if order else math.nan,
        high=values[order[-1]] if order else math.nan,
        exponent=scale.exponent,
        root=root,
        left=left,
        zero=round(y(0.0), 1) if scale.low <= 0 <= scale.high else None,
        y=tuple(Tick(round(y(s), 1), text) for s, text in zip(scale.steps, scale.labels, strict=True)),
        x=tuple(Tick(round(x(r), 1), f"{r + 1:,}") for r in _places(len(order))),
        dots="".join(f"M{_n(x(r))} {_n(y(values[order[r]]))}h0" for r in kept),
        crosses="".join(f"M{_n(x(r) - 2.5)} {_n(y(values[order[r]]) - 2.5)}l5 5m0-5l-5 5" for r in cut),
        bars=bars(kept),
        cut_bars=bars(cut),
    )


def _summary(scores: Scores, name: str) -> tuple[list[float], list[float]]:
    """One score and standard error per unit; per-example scores are averaged here."""
    values = scores.values[name].double()
    if values.ndim > 1:
        count = values.shape[0]
        spread = values.std(0) / math.sqrt(count) if count > 1 else values[0] * 0
        return values.mean(0).tolist(), spread.tolist()
    error = scores.stderr.get(name)
    return values.tolist(), [0.0] * len(values) if error is None else error.double().tolist()


def _share(cut: int, kept: int, limit: int) -> int:
    """How many marks the removed units get: their proportion, yet both kinds enough to be seen."""
    if cut + kept <= limit:
        return cut
    wanted = round(limit * cut / (cut + kept))
    least, most = min(cut, limit // 4), limit - min(kept, limit // 4)
    return min(cut, max(least, limit - kept, min(wanted, most)))


def spread(ranks: Sequence[int], limit: int) -> list[int]:
    """At most ``limit`` of the ranks, evenly apart, both ends included.

    >>> spread(range(10), 4), spread(range(3), 4)
    ([0, 3, 6, 9], [0, 1, 2])
    """
    if len(ranks) <= limit:
        return list(ranks)
    if limit < 2:
        return list(ranks[:limit])
    return [ranks[round(i * (len(ranks) - 1) / (limit - 1))] for i in range(limit)]


def _places(count: int) -> list[int]:
    """The ranks that are labelled: first, middle and last."""
    return sorted({0, count // 2, count - 1}) if count > 4 else list(range(count))


class Axis(NamedTuple):
    """The range that is drawn, the labelled values within it, and their power of ten, if any.

    On a square-root axis a value stands at the signed root of it: what is near zero is spread
    out, and a negative value stays below zero.
    """

    low: float
    high: float
    steps: tuple[float, ...]
    labels: tuple[str, ...]
    exponent: str = ""
    root: bool = False

    def place(self, value: float) -> float:
        """Where a value stands between the low end, 0, and the high end, 1."""
        low, at, high = (self._mapped(v) for v in (self.low, value, self.high))
        return _EDGE + (1 - 2 * _EDGE) * (at - low) / (high - low)

    def _mapped(self, value: float) -> float:
        return math.copysign(math.sqrt(abs(value)), value) if self.root else value


def axis(low: float, high: float, root: bool = False) -> Axis:
    """An axis for a range: two to seven round steps; zero in view when it is within one span.

    >>> axis(-0.013, 0.171).labels
    ('0', '0.05', '0.10', '0.15')
    >>> axis(2e-6, 4e-5)[3:5]
    (('0', '1', '2', '3', '4'), '10⁻⁵')
    >>> axis(-0.002, 0.2, root=True).labels
    ('0', '0.02', '0.05', '0.1', '0.2')
    """
    if 2 * low - high <= 0 <= 2 * high - low:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)) + _TINY:
        pad = abs(high) / 2 if abs(high) > _TINY else 1.0
        low, high = low - pad, high + pad
    steps, digits = _root_steps(low, high) if root else ([], 0)
    if len(steps) < 2:
        steps, digits = _even_steps(low, high)
    power = math.floor(math.log10(max(map(abs, steps))) + 1e-9)
    exponent = power if power < -2 or power > 3 else 0
    labels = [f"{step / 10.0**exponent:.{max(0, digits + exponent)}f}" if step else "0" for step in steps]
    if root:
        labels = [f"{float(label):g}" for label in labels]
    return Axis(
        low=low,
        high=high,
        steps=tuple(steps),
        labels=tuple(label.replace("-", MINUS) for label in labels),
        exponent=f"10{str(exponent).translate(SUPERSCRIPT)}" if exponent else "",
        root=root,
    )


def _even_steps(low: float, high: float) -> tuple[list[float], int]:
    """Multiples of 1, 2 or 5 times a power of ten, and the decimals they need."""
    raw = (high - low) / 6
    power = math.floor(math.log10(raw))
    factor = next(f for f in (1, 2, 5, 10) if f * 10.0**power >= raw * (1 - 1e-9))
    step = factor * 10.0**power
    indices = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [k * step for k in indices], -power - (factor == 10)


def _root_steps(low: float, high: float) -> tuple[list[float], int]:
    """Zero and 1, 2 or 5 times powers of ten, far enough apart on a square-root axis."""
    if not low <= 0 <= high:
        return [], 0
    gap = (math.sqrt(high) + math.sqrt(-low)) / 6
    steps, least = [0.0], 0
    for sign, end in ((1, high), (-1, -low)):
        last = math.inf
        for power in range(math.floor(math.log10(max(end, _TINY))), -400, -1):
            if 3 * 10.0**power < gap**2 / 10:
                break
            for value in (5 * 10.0**power, 2 * 10.0**power, 10.0**power):
                root = math.sqrt(value)
                if value <= end and gap <= root <= last - gap:
                    steps.append(sign * value)
                    last, least = root, min(least, power)
    return sorted(steps), -least


def skewed(scores: Scores) -> bool:
    """Whether, in most groups, most scores are tiny beside the largest: a linear axis would hide them."""
    ratios = []
    for values in scores.values.values():
        means = values.double().mean(0) if values.ndim > 1 else values.double()
        sizes = means.abs()[means.abs() < _HUGE]
        if sizes.numel() and sizes.max() > 0:
            ratios.append(float(sizes.median() / sizes.max()))
    return bool(ratios) and sorted(ratios)[len(ratios) // 2] < _SKEWED


def _n(value: float) -> str:
    """A coordinate to a tenth, as short as it goes."""
    return f"{value:.1f}".removesuffix(".0")

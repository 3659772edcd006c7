"""The sections of a page about criteria side by side: a table, curves, and who agrees with whom.

What is said and drawn is decided here, how it looks in ``templates/comparison.html.j2``. Every list is cut at
some length, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from .._table import enumerated
from ..records.comparison import Compared, Comparison, RankCorrelation
from ..records.pruning_curves import Order, PruningCurve
from . import series
from .cells import METHODS, Cell, Table, clip, left_out, some
from .charts import MINUS
from .lines import Frame, Layer, Plot, mark
from .series import Dot

TITLES = {"criteria": "Criteria", "removals": "Removal", "alike": "Agreement"}
ROWS, COLUMNS, RATES = 40, 16, 10  # criteria in a table, and in a heat map; rates in a table
ORDERS: dict[Order, str] = {"least": "Least needed first", "most": "Most needed first"}
MEANINGS = {
    "A_PR": "A_PR: the mean accuracy over the rates at which units are removed, the least needed first, as a "
    "share. Top-PR: the highest rate that keeps 95 % of the accuracy.",
    "A_PR, most first": "Most first: the same with the most needed units removed first, a control; lower "
    "is better.",
    "Sensitivity-n": "Sensitivity-n: how well scores of random sets of a group foretell, summed, what "
    "removing them costs (Pearson’s r, from a quarter to 80 % of the group).",
    "single units": "Single units: rank correlation of the scores with what removing one unit alone costs, "
    "within groups; small, over all.",
    "stability": "Stability: rank correlation of scores from so many examples with those from all; likewise.",
    "steps": "Steps: what attribution took in training steps, forward and backward over the same examples; "
    "small, in seconds of the processor.",
}
_NONE = Cell("–")


def parts(found: Comparison, room: int = 1) -> dict[str, Any]:
    """What each section shows, in the order of the page; sections without anything to show are absent.

    Args:
        found: what was measured.
        room: lists are cut at their usual length divided by this.
    """
    every = {
        "criteria": criteria(found, ROWS // room),
        "removals": removals(found, room),
        "alike": alike(found, COLUMNS // room),
    }
    return {name: part for name, part in every.items() if part}


def headline(found: Comparison) -> str:
    """The comparison in one sentence: whose order keeps the accuracy for longest."""
    areas = {name: curve.area for name, curve in found.ordered().items()}
    if not areas:
        return f"{len(found.criteria)} criteria side by side."
    ranked = sorted(areas, key=lambda name: -areas[name])
    best, last, alike = ranked[0], ranked[-1], found.leaders()[1:]
    said = f"{clip(best)} keeps the most accuracy as units go: {areas[best]:.3f} on average over the rates"
    if alike:
        said += f"; {enumerated([clip(name) for name in alike])} cannot be told from it"
    if last in (best, *alike):
        return f"{said}."
    return f"{said}{';' if alike else ','} {clip(last)} the least, {areas[last]:.3f}."


def criteria(found: Comparison, most: int = ROWS) -> dict[str, Any]:
    """One row a criterion, the best in its column in the colour of what is better."""
    shown = _shown(found, most)
    columns = {head: cells for head, cells in _columns(found, shown).items() if set(cells) != {_NONE}}
    rows = tuple(
        (clip(one.name), tuple(cells[place] for cells in columns.values())) for place, one in enumerate(shown)
    )
    table = Table(("criterion", *columns), rows, left_out(len(shown), len(found.criteria), "criteria"))
    return {"headline": headline(found), "said": _said(found), "table": table, "notes": _notes(columns)}


def _shown(found: Comparison, most: int) -> list[Compared]:
    """Those of the largest areas, if there are too many, in their order."""
    if len(found.criteria) <= most:
        return list(found.criteria)
    areas = {name: curve.area for name, curve in found.ordered().items()}
    ranked = sorted(found.criteria, key=lambda one: -areas.get(one.name, 0.0))
    chosen = {one.name for one in ranked[:most]}
    return [one for one in found.criteria if one.name in chosen]


def _columns(found: Comparison, shown: Sequence[Compared]) -> dict[str, list[Cell]]:
    """What the table shows of each criterion, by the head of the column."""
    least, control = ([found.curve(one.name, order) for one in shown] for order in ORDERS)
    first = [curve for curve in least if curve is not None]
    columns = {"A_PR": _best([_area(curve) for curve in least])}
    if first and not first[0].rates[0]:
        columns["Top-PR (%)"] = _best([None if c is None else 100 * c.top() for c in least], "{:.0f}")
    for name in found.compensations:
        areas = [_area(found.curve(one.name, "least", name)) for one in shown]
        columns[f"A_PR, {clip(name.partition('(')[0])}"] = _best(areas)
    columns["A_PR, most first"] = _best([_area(curve) for curve in control], high=False)
    columns["Sensitivity-n"] = _best([one.sensitivity for one in shown], "{:.2f}")
    columns["single units"] = _ranks([one.ablation for one in shown])
    for samples in dict.fromkeys(s.samples for one in found.criteria for s in one.stability):
        alike = [next((s for s in one.stability if s.samples == samples), None) for one in shown]
        columns[f"stability at {samples:,}"] = _ranks(alike)
    columns["steps"] = [Cell(_steps(one.steps), f"{one.cpu:.2g} s") for one in shown]
    return columns


def _steps(found: float | None) -> str:
    if found is None:
        return _NONE.text
    return f"{found:.2g}" if found < 100 else f"{found:,.0f}"


def _area(curve: PruningCurve | None) -> float | None:
    return None if curve is None else curve.area


def _best(values: Sequence[float | None], form: str = "{:.3f}", *, high: bool = True) -> list[Cell]:
    """Cells of numbers; those that read as the best one stand out, unless all do."""
    texts = ["" if value is None else form.format(value).replace("-", MINUS) for value in values]
    known = [value for value in values if value is not None]
    if not known:
        return [_NONE for _ in values]
    best = form.format((max if high else min)(known)).replace("-", MINUS)
    style = "better" if set(texts) - {""} != {best} else ""
    return [Cell(text, style=style if text == best else "") if text else _NONE for text in texts]


def _ranks(found: Sequence[RankCorrelation | None]) -> list[Cell]:
    """Rank correlations within groups; below them, small, those over all."""
    cells = _best([None if one is None else one.within for one in found], "{:.2f}")
    overall = [None if one is None else one.overall for one in found]
    return [
        cell if value is None else cell._replace(small=f"{value:.2f}".replace("-", MINUS))
        for cell, value in zip(cells, overall, strict=True)
    ]


def _said(found: Comparison) -> str:
    examples = found.settings.get("examples")
    return (
        f"Scores {f'of {examples} examples ' if examples else ''}side by side; accuracy and the cost of "
        "removals are measured on others. The best of each column stands out."
    )


def _notes(columns: Iterable[str]) -> list[str]:
    """What the columns mean."""
    return [said for head, said in MEANINGS.items() if any(one.startswith(head) for one in columns)]


# ── curves ───────────────────────────────────────────────────────────────────────────────────


def removals(found: Comparison, room: int = 1) -> dict[str, Any] | None:
    """Accuracy against the units removed: a chart for each order and compensation."""
    kinds = [(ORDERS[order], order, "none") for order in ORDERS]
    kinds += [(f"With {clip(name)}", "least", name) for name in found.compensations]
    named = {title: found.ordered(order, name) for title, order, name in kinds}
    named = {title: curves for title, curves in named.items() if curves}
    if not named:
        return None
    first = next(iter(named.values()))
    drawn = dict(sorted(first.items(), key=lambda pair: -pair[1].area)[:METHODS])
    names = [name for name in first if name in drawn]
    plots = [_plot(title, {n: curves[n] for n in names if n in curves}) for title, curves in named.items()]
    more = left_out(len(names), len(first), "criteria")
    return {
        "plots": plots,
        "legend": [(clip(name), place, mark(place)) for place, name in enumerate(names)],
        "control": ORDERS["most"] in named,
        "examples": f"{next(iter(first.values())).right.shape[1]:,}",
        "more": more and f"{more[:-1]}: those of the largest areas.",
        "tables": [(title, _numbers(curves, ROWS // room)) for title, curves in named.items()],
    }


def dots(curve: PruningCurve) -> list[Dot]:
    """The points of a curve in percent: share of the units removed, and accuracy."""
    return [Dot(100 * rate, y, y, y) for rate, y in zip(curve.rates, curve.accuracy.tolist(), strict=True)]


def _plot(title: str, curves: dict[str, PruningCurve]) -> Plot:
    lines = [dots(curve) for curve in curves.values()]
    frame = Frame((0.0, 100.0), [dot for line in lines for dot in line])
    layers = [Layer(f"line s{place}", frame.line(line)) for place, line in enumerate(lines) if len(line) > 1]
    layers += [frame.marks(line, place) for place, line in enumerate(lines)]
    told = "; ".join(f"{clip(name)}: mean {100 * curve.area:.1f}" for name, curve in curves.items())
    return frame.plot(title, (series.UNITS, series.label_of("accuracy")), layers, told=clip(told, 400))


def _numbers(curves: dict[str, PruningCurve], most: int) -> Table:
    rates = some(next(iter(curves.values())).rates, RATES)
    rows = []
    for name, curve in list(curves.items())[:most]:
        at = dict(zip(curve.rates, curve.accuracy.tolist(), strict=True))
        rows.append((clip(name), tuple(Cell(f"{at[rate]:.1f}") for rate in rates)))
    head = ("accuracy (%) without", *(f"{100 * rate:.3g} %" for rate in rates))
    return Table(head, tuple(rows), left_out(len(rows), len(curves), "criteria"))


# ── agreement ────────────────────────────────────────────────────────────────────────────────


def alike(found: Comparison, most: int = COLUMNS) -> dict[str, Any] | None:
    """Rank correlations and overlaps of every two criteria, as tables whose cells are shaded."""
    if len(found.criteria) < 2:
        return None
    shown = [found.names.index(one.name) for one in _shown(found, most)]
    names = [clip(found.names[place]) for place in shown]
    more = left_out(len(shown), len(found.criteria), "criteria")

    def heat(head: str, matrix: Sequence[Sequence[float]]) -> Table:
        rows = tuple(
            (name, tuple(_shade(matrix[i][j]) for j in shown)) for name, i in zip(names, shown, strict=True)
        )
        return Table((head, *names), rows, more)

    ranks = [
        ("Within groups, averaged by their units", heat("within groups", found.within.tolist())),
        ("Over all units in one list", heat("over all", found.overall.tolist())),
    ]
    sets = []
    for share, matrix in zip(found.shares, found.overlaps.tolist(), strict=True):
        percent = f"{100 * share:.3g}\N{NO-BREAK SPACE}%"
        sets.append((f"The first {percent}", heat(f"first {percent}", matrix)))
    return {"ranks": ranks, "sets": sets}


def _shade(value: float) -> Cell:
    if math.isnan(value):
        return _NONE
    return Cell(f"{value:.2f}".replace("-", MINUS), shade=round(10 * value))

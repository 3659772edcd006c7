"""Whether pruned models still do what the unpruned one does: under noise, by features, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..records.features import HeatMap
from ..records.outcomes import Subject
from ..records.robustness import ClassCounts, Robustness
from ..records.similarity import NoiseSimilarity
from . import series
from .cells import METHODS, Cell, Table, clip, left_out, share, signed, some, worded
from .lines import Frame, Layer, Plot
from .series import Dot, Line

_SHADES = 5  # lines of a method
_COLUMNS = 6  # sizes of noise in a table
_ROWS, _MODELS, _CLASSES = 30, 12, 20  # of the tables


def noise(found: NoiseSimilarity, room: int = 1) -> dict[str, Any] | None:
    """How alike the pruned models and their references respond to noise."""
    charts: list[list[Plot]] = []
    tables: list[Table] = []
    sides: tuple[tuple[series.Likeness, str], ...] = (
        ("matching", series.MATCHING),
        ("distance", series.DISTANCE),
    )
    for measure, label in sides:
        every = series.noise(found, measure)
        if not every:
            return None
        chosen = {
            method: _shown(lines, max(2, _SHADES // room)) for method, lines in list(every.items())[:METHODS]
        }
        dots = [dot for lines in chosen.values() for line in lines for dot in line.dots]
        first, last = min(dot.x for dot in dots), max(dot.x for dot in dots)
        frame = Frame((first, last if last > first else first + 1.0), dots, whole=True)
        charts.append([_likeness(frame, method, lines, label) for method, lines in chosen.items()])
        tables.append(_likenesses(chosen, label, _ROWS // room))
    return {
        "charts": list(zip(("Matching labels", "Softmax distance"), charts, tables, strict=True)),
        "yardsticks": [clip(one.name) for one in found.subjects if one.role == "separate"][:METHODS],
        "examples": f"{found.examples:,}",
    }


def _shown(lines: Sequence[Line], most: int) -> list[Line]:
    """Some of a method's lines, and all yardsticks."""
    own = [line for line in lines if line.role == "pruned"]
    return [*some(own, most), *[line for line in lines if line.role != "pruned"][:most]]


def _likeness(frame: Frame, method: str, lines: Sequence[Line], label: str) -> Plot:
    own = [line for line in lines if line.role == "pruned"]
    depth = [_SHADES - (len(own) - 1 - place) * _SHADES // max(len(own) - 1, 1) for place in range(len(own))]
    layers = [Layer(f"ribbon h{d}", frame.band(line.dots)) for line, d in zip(own, depth, strict=True)]
    layers += [Layer(f"line h{d}", frame.line(line.dots)) for line, d in zip(own, depth, strict=True)]
    layers += [Layer("level", frame.line(line.dots)) for line in lines if line.role != "pruned"]
    note = f"{', '.join(line.label.removesuffix(' % removed') for line in own)} % removed"
    return frame.plot(clip(method), (series.EPSILON, label), layers, told=f"{label}: {note}", note=note)


def _likenesses(chosen: dict[str, list[Line]], label: str, most: int) -> Table:
    own = [
        (f"{method}, {line.label}", line)
        for method, lines in chosen.items()
        for line in lines
        if line.role == "pruned"
    ]
    others = [(line.label, line) for line in next(iter(chosen.values())) if line.role != "pruned"]
    rows = tuple(
        (clip(name), tuple(map(_ends, some(line.dots, _COLUMNS))))
        for name, line in (*some(own, most), *others)
    )
    dots = some(own[0][1].dots, _COLUMNS)
    head = (f"{label} at ε =", *(f"{dot.x:g}" for dot in dots))
    return Table(head, rows, left_out(len(rows) - len(others), len(own), "pruned models"))


def _ends(dot: Dot) -> Cell:
    return Cell(f"{dot.y:.3g}", f"{dot.low:.3g}–{dot.high:.3g}")


def features(found: HeatMap, room: int = 1) -> dict[str, Any] | None:
    """Whose informative pixels convince whom: a table whose cells are shaded."""
    places = some(range(len(found.subjects)), _MODELS // room)
    if not places:
        return None
    names = [clip(found.subjects[place].name) for place in places]
    half = (found.interval[..., 1] - found.interval[..., 0]) / 2
    rows = tuple(
        (
            name,
            tuple(_seen(float(found.confidence[row, column]), float(half[row, column])) for column in places),
        )
        for name, row in zip(names, places, strict=True)
    )
    whole = tuple(Cell(f"{float(found.whole[place]):.2f}") for place in places)
    return {
        "table": Table(
            ("features of", *names),
            (*rows, ("all features", whole)),
            left_out(len(places), len(found.subjects), "models"),
        ),
        "kept": f"{found.kept:,}",
        "features": f"{found.features:,}",
        "examples": f"{found.examples:,}",
    }


def _seen(confidence: float, half: float) -> Cell:
    return Cell(f"{confidence:.2f}", f"± {half:.2f}", shade=round(10 * min(max(confidence, 0.0), 1.0)))


def classes(robustness: Robustness, room: int = 1) -> dict[str, Any] | None:
    """Which classes lose: for each method, of the model that may be pruned that far on nominal data."""
    nominal = {one.distribution for one in robustness.potential.limits if one.nominal}
    chosen = [_limit(robustness, method) for method in series.methods(robustness.subjects)[:METHODS]]
    if not robustness.classes or not chosen:
        return None
    places = [place for place, _ in chosen]
    order = sorted(robustness.classes, key=lambda one: int((one.won - one.lost)[places].sum()))
    first = next((one for one in order if one.distribution in nominal), None)
    shown = [
        one for one in (first, next((one for one in order if one is not first), None)) if one is not None
    ]
    tables = [_lost(one, robustness.class_names, chosen, _CLASSES // room) for one in shown]
    return {"tables": tables, "all": len(robustness.classes)}


def _limit(robustness: Robustness, method: str) -> tuple[int, Subject]:
    """Of a method, the model pruned as far as the potential on nominal data, or else the least pruned."""
    own = [
        pair
        for pair in enumerate(robustness.subjects)
        if (pair[1].method, pair[1].role) == (method, "pruned")
    ]
    limits = [one.value for one in robustness.potential.limits if one.method == method and one.nominal]
    within = [pair for pair in own if limits and pair[1].removed <= max(limits) + 1e-9]
    if within:
        return max(within, key=lambda pair: pair[1].removed)
    return min(own, key=lambda pair: pair[1].removed)


def _lost(
    found: ClassCounts, names: Sequence[str], chosen: Sequence[tuple[int, Subject]], most: int
) -> tuple[str, Table]:
    """The change of each class's accuracy, and the examples lost and won, those that lose the most first."""
    places = [place for place, _ in chosen]
    examples, lost, won = (tensor.tolist() for tensor in (found.examples, found.lost, found.won))
    order = sorted(
        (c for c, n in enumerate(examples) if n),
        key=lambda c: sum(won[i][c] - lost[i][c] for i in places) / examples[c],
    )
    rows = tuple(
        (clip(names[c]), tuple(_moved(lost[i][c], won[i][c], examples[c]) for i in places))
        for c in order[:most]
    )
    heads = (f"{one.method}, {share(one.removed)} removed" for _, one in chosen)
    head = ("class", *map(clip, heads))
    return worded(found.distribution), Table(head, rows, left_out(len(rows), len(order), "classes"))


def _moved(lost: int, won: int, examples: int) -> Cell:
    points = 100 * (won - lost) / examples
    style = "worse" if points < 0 else "better" if points > 0 else ""
    return Cell(signed(points), f"{lost:,} lost, {won:,} won", style)

"""The sections of a page about robustness: the verdict first, then the evidence, a table under every chart.

What is said and drawn is decided here, how it looks in ``templates/robustness.html.j2``. Every list is cut at
some length, and says so, so that the page stays below 300 KB whatever was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..records.excess import ExcessError
from ..records.robustness import Robustness
from ..records.verdict import Advice, Verdict
from . import series
from .cells import METHODS, Cell, Table, clip, left_out, share, signed, some, worded
from .charts import spread
from .likeness import classes, features, noise
from .lines import Frame, Layer, Plot, mark
from .series import Dot, Line

TITLES = {
    "verdict": "Verdict",
    "curves": "Accuracy",
    "potential": "Prune potential",
    "excess": "Excess error",
    "noise": "Noise",
    "features": "Informative features",
    "classes": "Classes",
}
DISTRIBUTIONS, BARS, CELLS, POINTS = 24, 132, 500, 48  # most that are drawn; in a table; dots with whiskers
_FEW = 5  # dots of a line are marked in small charts, too
_SPACE = "\N{NO-BREAK SPACE}"


def parts(robustness: Robustness, room: int = 1) -> dict[str, Any]:
    """What each section shows, in the order of the page; sections without anything to show are absent.

    Args:
        robustness: what was measured.
        room: lists are cut at their usual length divided by this.
    """
    found = {
        "verdict": verdict(robustness.verdict),
        "curves": curves(robustness, room),
        "potential": potentials(robustness, room),
        "excess": excess(robustness.excess) if robustness.excess is not None else None,
        "noise": noise(robustness.similarity, room) if robustness.similarity is not None else None,
        "features": features(robustness.features, room) if robustness.features is not None else None,
        "classes": classes(robustness, room),
    }
    return {name: part for name, part in found.items() if part}


def headline(found: Verdict) -> str:
    """The verdict in one sentence, on the method that may remove the most where shifts are expected."""
    sides = {name: {one.method: one.remove for one in found.advice if one.expected == name}
             for name in ("shifted", "nominal")}  # fmt: skip
    shifted, nominal = sides["shifted"], sides["nominal"]
    if not (shifted or nominal):
        return ""
    best = max(
        {**shifted, **nominal}, key=lambda method: (shifted.get(method, 0.0), nominal.get(method, 0.0))
    )
    if best not in nominal:
        return f"Where the tested shifts are expected, {clip(best)} may remove {share(shifted[best])}."
    said = f"On data as in training, {clip(best)} may remove {share(nominal[best])} of the parameters"
    if best in shifted:
        said += f"; where the tested shifts are expected, {share(shifted[best])}"
    return f"{said}."


def verdict(found: Verdict) -> dict[str, Any] | None:
    """Sentences, and the extents by method and what is expected."""
    if not found.advice:
        return None
    expected = tuple(dict.fromkeys(one.expected for one in found.advice))[:DISTRIBUTIONS]
    methods = tuple(dict.fromkeys(one.method for one in found.advice))[:METHODS]
    by = {(one.method, one.expected): one for one in found.advice}
    rows = tuple(
        (
            clip(method),
            tuple(_extent(by[method, name]) if (method, name) in by else Cell("–") for name in expected),
        )
        for method in methods
    )
    said = [one.sentence for one in found.advice if one.expected in ("nominal", "shifted") and one.sentence]
    return {
        "headline": headline(found),
        "points": f"{100 * found.delta:g}",
        "sentences": [_told(sentence, 320) for sentence in said[: 2 * METHODS]],
        "notes": [_told(note, 600) for note in found.notes[: METHODS + 6]],  # a line each, and what is of all
        "table": Table(("method", *map(clip, expected)), rows),
    }


def _told(text: str, length: int) -> str:
    """A sentence in which no number is parted from its %."""
    return clip(text, length).replace(" %", f"{_SPACE}%")


def _extent(one: Advice) -> Cell:
    style = {"fully": "better", "moderately": "", "not at all": "worse"}[one.extent]
    ends = f"{share(one.worst)}, {100 * one.low:.0f}–{100 * one.high:.0f}"
    weakest = f"; {worded(one.weakest)}" if one.expected != "nominal" and one.weakest else ""
    return Cell(one.extent + ("" if one.certain else " (?)"), ends + weakest, style)


# ── curves ───────────────────────────────────────────────────────────────────────────────────


def curves(robustness: Robustness, room: int = 1) -> dict[str, Any] | None:
    """The quality on each distribution against the share removed; on nominal data, all metrics."""
    names = series.distributions(robustness)
    if not names:
        return None
    main, drawn = series.quality(robustness), _drawn(robustness, names, DISTRIBUTIONS // room)
    measured = {one.metric for one in robustness.curves if one.distribution == drawn[0]}
    metrics = [metric for metric in (main, "agreement", "calibration error") if metric in measured]
    return {
        "metric": main,
        "nominal": [_curve(robustness, metric, drawn[0]) for metric in metrics],
        "nominal_name": worded(drawn[0]),
        "shifted": [_curve(robustness, main, name, small=True) for name in drawn[1:]],
        "all": len(names),
        "drawn": len(drawn),
        "legend": _keys(series.methods(robustness.subjects)),
        "table": _numbers(robustness, main, drawn, CELLS // room),
    }


def _drawn(robustness: Robustness, names: Sequence[str], most: int) -> list[str]:
    """The distributions that are shown: of very many, the first and those where the least may be removed."""
    if len(names) <= most:
        return list(names)
    found = dict.fromkeys(names, 0.0)
    for bars in series.potentials(robustness.potential).values():
        for bar in bars:
            found[bar.label] = found.get(bar.label, 0.0) + bar.value
    chosen = {names[0], *sorted(names[1:], key=found.__getitem__)[: most - 1]}
    return [name for name in names if name in chosen]


def _curve(robustness: Robustness, metric: str, name: str, *, small: bool = False) -> Plot:
    """One chart; a small one has lines alone."""
    lines = series.curves(robustness, metric, name)
    pruned = [line for line in lines if line.role == "pruned" and line.method < METHODS]
    yardstick = "separate" if metric == "agreement" else "reference"
    levels = [line for line in lines if line.role == yardstick][:METHODS]
    bands = not small and len({line.method for line in pruned}) == len(pruned)  # not of several nets
    shown = [dot for line in (*pruned, *levels) for dot in line.dots]
    frame = Frame(
        (0.0, 100.0), shown if bands else [Dot(dot.x, dot.y, dot.y, dot.y) for dot in shown], whole=small
    )
    layers = [layer for line in pruned if bands for layer in _ribbon(frame, line)]
    layers += [Layer("level", frame.level(line.dots[0])) for line in levels]
    layers += [Layer(f"line s{line.method}", frame.line(line.dots)) for line in pruned if len(line.dots) > 1]
    layers += [frame.marks(line.dots, line.method) for line in pruned if not small or len(line.dots) < _FEW]
    ends = "; ".join(
        f"{clip(line.label)} from {line.dots[0].y:.1f} to {line.dots[-1].y:.1f}" for line in pruned
    )
    level = f"{levels[0].dots[0].y:.1f}{_SPACE}%" if levels else ""
    heading, note = worded(name), f"unpruned {level}" if level else ""
    if not small:
        heading = f"{metric[0].upper()}{metric[1:]}"
    if metric == "agreement":
        note = f"separate {level}" if level else "with the unpruned network"
    axes = (series.REMOVED, series.label_of(metric))
    return frame.plot(heading, axes, layers, told="" if small else clip(ends, 400), note=note)


def _ribbon(frame: Frame, line: Line) -> list[Layer]:
    """A line's intervals: a band; of a single dot, a stroke."""
    if len(line.dots) > 1:
        return [Layer(f"ribbon s{line.method}", frame.band(line.dots))]
    return [Layer(f"whisker s{line.method}", frame.bars(line.dots))]


def _keys(methods: Sequence[str]) -> list[tuple[str, int, Layer]]:
    return [(clip(method), place, mark(place)) for place, method in enumerate(methods[:METHODS])]


def _numbers(robustness: Robustness, metric: str, names: Sequence[str], most: int) -> Table:
    """A metric of every model on every distribution that is drawn."""
    values = {(o.subject, o.distribution): o for o in robustness.curves if o.metric == metric}
    subjects = some(robustness.subjects, max(3, most // len(names)))
    rows = []
    for one in subjects:
        found = [values.get((one.name, name)) for name in names]
        cells = [
            Cell("–") if o is None else Cell(f"{o.value:.1f}", f"{o.low:.1f}–{o.high:.1f}") for o in found
        ]
        rows.append((clip(one.name), (Cell(f"{100 * one.removed:.1f}"), *cells)))
    head = (f"{metric} (%) of model", "removed (%)", *map(worded, names))
    return Table(head, tuple(rows), left_out(len(rows), len(robustness.subjects), "models"))


# ── potential and excess ─────────────────────────────────────────────────────────────────────


def potentials(robustness: Robustness, room: int = 1) -> dict[str, Any] | None:
    """How much each method may remove on each distribution."""
    found = series.potentials(robustness.potential)
    names = [bar.label for bar in next(iter(found.values()), ())]
    if not names:
        return None
    drawn = set(_drawn(robustness, names, max(2, BARS // min(len(found), METHODS) // room)))
    shown = {
        method: [bar for bar in bars if bar.label in drawn] for method, bars in list(found.items())[:METHODS]
    }
    methods = [
        {"name": clip(method), "style": place % METHODS, "bars": [_bar(bar) for bar in bars]}
        for place, (method, bars) in enumerate(shown.items())
    ]
    cells = {
        (method, bar.label): Cell(f"{bar.value:.1f}", f"{bar.low:.0f}–{bar.high:.0f}")
        for method, bars in shown.items()
        for bar in bars
    }
    rows = tuple(
        (worded(name), tuple(cells.get((method, name), Cell("–")) for method in shown))
        for name in names
        if name in drawn
    )
    head = ("potential (% of parameters) on", *map(clip, shown))
    return {
        "methods": methods,
        "points": f"{100 * robustness.potential.deltas[0]:g}",
        "grid": _grid(robustness),
        "table": Table(head, rows, left_out(len(drawn), len(names), "distributions")),
    }


def _bar(bar: series.Bar) -> dict[str, Any]:
    low, high = max(0.0, bar.low), min(100.0, bar.high)
    return {
        "name": worded(bar.label),
        "value": f"{bar.value:.0f}",
        "width": round(bar.value, 1),
        "low": round(low, 1),
        "span": round(max(0.0, high - low), 1),
        "ends": f"{low:.0f}–{high:.0f}",
    }


def _grid(robustness: Robustness) -> str:
    """The shares that were tried: what the potential can be."""
    tried = sorted({round(100 * one.removed, 1) for one in robustness.subjects if one.role == "pruned"})
    shown = [f"{tried[place]:g}" for place in spread(range(len(tried)), 12)]
    return f"{', '.join(shown)}{' and others between' if len(shown) < len(tried) else ''}"


def excess(found: ExcessError) -> dict[str, Any] | None:
    """How much more the pruned models lose to shifts, and how it grows."""
    every = series.fits(found)
    fits = [fit for fit in every[:METHODS] if fit.dots]
    if not fits:
        return None
    ends = [dot for fit in fits for dot in fit.dots]
    ends += [Dot(100.0, fit.slope, fit.low, fit.high) for fit in fits]
    plots = []
    for place, fit in enumerate(fits):
        frame = Frame((0.0, 100.0), ends)  # one scale for all: slopes can be compared by eye
        wedge = (Dot(0.0, 0.0, 0.0, 0.0), Dot(100.0, fit.slope, fit.low, fit.high))
        layers = [
            Layer(f"ribbon s{place}", frame.band(wedge)),
            Layer(f"whisker s{place}", frame.bars(fit.dots[:POINTS])),
            Layer(f"line plain s{place}", frame.line(wedge)),
            frame.marks(fit.dots, place),
        ]
        slope = f"{signed(fit.slope)} points at 100{_SPACE}%, {signed(fit.low)} to {signed(fit.high)}"
        plots.append(
            frame.plot(clip(fit.method), (series.REMOVED, series.EXCESS), layers, told=slope, note=slope)
        )
    rows = tuple((clip(fit.method), _slope(fit)) for fit in fits)
    head = ("method", "models", "points of error at 100 % removed", "for every 10 % removed")
    return {"plots": plots, "table": Table(head, rows, left_out(len(fits), len(every), "methods"))}


def _slope(fit: series.Fit) -> tuple[Cell, ...]:
    ends = f"{signed(fit.low)} to {signed(fit.high)}"
    return Cell(f"{len(fit.dots):,}"), Cell(signed(fit.slope), ends), Cell(signed(fit.slope / 10, 2))

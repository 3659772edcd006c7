"""The figures of records by matplotlib, for papers and slides: ``pip install 'shapleaf[plots]'``.

Each function takes a record and returns a figure; :func:`save` writes it, :func:`write` all of a record.
Methods differ by colour (Okabe and Ito's, which the colour-blind can tell apart), marker and dashes.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .. import _store
from ..errors import DataError
from ..integrations import require
from ..records.comparison import Comparison
from ..records.excess import ExcessError
from ..records.features import HeatMap
from ..records.potential import Potential
from ..records.pruning_curves import PruningCurves
from ..records.robustness import Robustness
from ..records.similarity import NoiseSimilarity
from . import comparison as sides
from . import series
from .cells import some
from .series import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#222222")
_MARKERS = "osD^vPX*"
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))
_STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9.0,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.bbox": "tight",
    "svg.fonttype": "none",
    "svg.hashsalt": "shapleaf",
}
_SIZE = (5.6, 3.4)  # inches: a column and a half of a paper
_SHADES = 6  # lines of one method that can be told apart
P = ParamSpec("P")
R = TypeVar("R")


def _styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run with the style of all figures; matplotlib's own settings are then as before."""

    @functools.wraps(draw)
    def _drawn(*words: P.args, **options: P.kwargs) -> R:
        with _matplotlib().rc_context(_STYLE):
            return draw(*words, **options)

    return _drawn


@_styled
def accuracy(robustness: Robustness, distribution: str | None = None, metric: str | None = None) -> Figure:
    """A metric against the share of parameters removed, a line per method and net, bands of 95 %.

    Args:
        robustness: what was measured.
        distribution: on which data; by default the first nominal ones.
        metric: "accuracy", "mean IoU", "agreement" or "calibration error"; by default the first two that is.

    Raises:
        DataError: nothing was measured of that name.
        MissingExtraError: matplotlib is not installed: ``pip install 'shapleaf[plots]'``.
    """
    metric = metric or series.quality(robustness)
    distribution = distribution or series.distributions(robustness)[0]
    lines = series.curves(robustness, metric, distribution)
    alone = len({one.net for one in robustness.subjects if one.role == "pruned"}) < 2
    figure, axes = _axes(series.REMOVED, series.label_of(metric), f"on {distribution}")
    seen: set[str] = set()
    for line in lines:
        if line.role == "reference":
            _level(axes, line.dots[0].y, "unpruned" if "unpruned" not in seen else "")
            seen.add("unpruned")
        elif line.role == "pruned":
            _draw(axes, line, "" if line.label in seen else line.label, band=alone)
            seen.add(line.label)
    axes.set_xlim(0, 100)
    figure.legend(loc="outside right upper")
    return figure


@_styled
def potential(found: Potential) -> Figure:
    """How much each method may remove on each distribution, bars with 95 % intervals.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    bars = series.potentials(found)
    labels = [bar.label for bar in next(iter(bars.values()), ())]
    height = 0.8 / max(len(bars), 1)
    points = f"{100 * found.deltas[0]:g}" if found.deltas else "0"
    size = (_SIZE[0], 1.2 + len(labels) * (0.14 + 0.08 * len(bars)))
    title = f"error up to {points} points higher"
    figure, axes = _axes(series.POTENTIAL, "test distribution (name and severity)", title, size)
    for place, (method, ones) in enumerate(bars.items()):
        at = [row - 0.4 + height * (place + 0.5) for row in range(len(ones))]
        spread = [
            [max(0.0, bar.value - bar.low) for bar in ones],
            [max(0.0, bar.high - bar.value) for bar in ones],
        ]
        axes.barh(at, [bar.value for bar in ones], height, xerr=spread, label=method, color=_colour(place),
                  hatch=("", "//", "..", "xx")[place % 4], edgecolor="white", linewidth=0.4,
                  error_kw={"elinewidth": 0.8, "ecolor": "#333333"})  # fmt: skip
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    figure.legend(loc="outside right upper")
    return figure


@_styled
def excess(found: ExcessError) -> Figure:
    """The error that shifts add beyond what they add without pruning, with each method's slope and its band.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure, axes = _axes(series.REMOVED, series.EXCESS, "lower is better")
    for place, fit in enumerate(series.fits(found)):
        colour = _colour(place)
        x, y = [dot.x for dot in fit.dots], [dot.y for dot in fit.dots]
        ends = [[dot.y - dot.low for dot in fit.dots], [dot.high - dot.y for dot in fit.dots]]
        look: dict[str, Any] = {"color": colour, "markersize": 3.5, "elinewidth": 0.6, "alpha": 0.8}
        axes.errorbar(x, y, ends, fmt=_MARKERS[place % len(_MARKERS)], **look)
        label = f"{fit.method}: {fit.slope:+.1f} at 100 %"
        axes.plot([0, 100], [0, fit.slope], color=colour, linestyle=_dashes(place), label=label)
        axes.fill_between([0, 100], [0, fit.low], [0, fit.high], color=colour, alpha=0.12, linewidth=0)
    axes.axhline(0, color="#555555", linewidth=0.8)
    axes.set_xlim(0, 100)
    figure.legend(loc="outside right upper", title="slope (points)", alignment="left")
    return figure


@_styled
def noise(found: NoiseSimilarity) -> Figure:
    """How alike pruned models and their reference respond to noise: matching labels and softmax distance.

    One row for each method; darker lines have lost more. Dashed grey: independently trained networks.

    Raises:
        DataError: no pruned model was compared.
        MissingExtraError: matplotlib is not installed.
    """
    matching, distance = series.noise(found, "matching"), series.noise(found, "distance")
    if not matching:
        raise DataError("no pruned model was compared with its reference; there is nothing to draw.")
    rows = len(matching)
    figure = _figure((8.4, 2.5 * rows + 0.2))
    grid = figure.subplots(rows, 2, squeeze=False)
    for pair, method in zip(grid, matching, strict=True):
        for axes, lines, label in zip(
            pair, (matching[method], distance[method]), (series.MATCHING, series.DISTANCE), strict=True
        ):
            axes.set_xlabel(series.EPSILON)
            axes.set_ylabel(label)
            axes.set_title(method, loc="left", fontsize=9)
            _shades(axes, lines)
        pair[1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), fontsize=8)
    return figure


@_styled
def features(found: HeatMap) -> Figure:
    """Whose informative features convince whom: the confidence in the true class, as a heat map.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    names = [one.name for one in found.subjects]
    side = 1.6 + 0.5 * len(names)
    figure, axes = _axes(
        "model that looks (name)", "model whose features are left (name)", "", (side + 1, side)
    )
    axes.grid(visible=False)
    image = axes.imshow(found.confidence.tolist(), vmin=0, vmax=1, cmap="cividis")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    for row, values in enumerate(found.confidence.tolist()):
        for column, value in enumerate(values):
            colour = "black" if value > 0.6 else "white"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=7)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("confidence in the true class (0 to 1)")
    axes.set_title(f"{found.kept:,} of {found.features:,} features left", loc="left", fontsize=9)
    return figure


@_styled
def pruning(found: PruningCurves) -> Figure:
    """Accuracy against the share of units removed, a line per criterion, with its standard error over seeds.

    Lines of units that are needed most and went first, the control, are dotted.

    Raises:
        DataError: there are no curves.
        MissingExtraError: matplotlib is not installed.
    """
    if not found.curves:
        raise DataError("there are no pruning curves to draw.")
    several = any(one.seed != found.curves[0].seed for one in found.curves)
    title = "mean and standard error over seeds" if several else ""
    figure, axes = _axes(series.UNITS, series.label_of("accuracy"), title)
    for line in series.pruning(found):
        if line.role == "control":
            colour, x, y = _colour(line.method), [dot.x for dot in line.dots], [dot.y for dot in line.dots]
            axes.plot(x, y, color=colour, linestyle=(0, (1, 2)), linewidth=1.0, label=line.label)
            _band(axes, line, colour)
        else:
            _draw(axes, line, line.label, band=True)
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside right upper")
    return figure


@_styled
def comparison(found: Comparison) -> Figure:
    """Criteria side by side: the accuracy as units go, in either order, and rank correlations within groups.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    orders = {title: found.ordered(order) for order, title in sides.ORDERS.items()}
    orders = {title: curves for title, curves in orders.items() if curves}
    names, side = found.names, 2.0 + 0.32 * len(found.names)
    figure = _figure((3.6 * len(orders) + side + 2.4, max(3.4, side)))
    *panels, heat = figure.subplots(1, len(orders) + 1, squeeze=False)[0]
    for axes, (title, curves) in zip(panels, orders.items(), strict=True):
        axes.set(xlabel=series.UNITS, ylabel=series.label_of("accuracy"), xlim=(0, 100))
        axes.set_title(title, loc="left", fontsize=9)
        for name, curve in curves.items():
            place = names.index(name)
            look: dict[str, Any] = {"color": _colour(place), "linestyle": _dashes(place), "markersize": 3.0}
            x, y = zip(*((dot.x, dot.y) for dot in sides.dots(curve)), strict=True)
            look["fillstyle"] = ("full", "none")[place // len(_MARKERS) % 2]  # colours and marks repeat
            axes.plot(x, y, marker=_MARKERS[place % len(_MARKERS)], label=name, linewidth=1.2, **look)
    heat.grid(visible=False)
    heat.set(xlabel="criterion (name)", ylabel="criterion (name)")
    heat.set_title("Agreement within groups", loc="left", fontsize=9)
    image = heat.imshow(found.within.tolist(), vmin=-1, vmax=1, cmap="PuOr")
    heat.set_xticks(range(len(names)), names, rotation=45, ha="right")
    heat.set_yticks(range(len(names)), names)
    figure.colorbar(image, ax=heat, shrink=0.8).set_label("rank correlation (-1 to 1)")
    if panels:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure atomically, as its suffix says: .svg, .pdf or .png; equal figures give equal files.

    Raises:
        DataError: the place cannot be written, or matplotlib does not know the suffix.
    """
    kind = Path(path).suffix.lstrip(".").lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise DataError(f"{path} ends with .{kind}; use .svg, .pdf or .png.")
    undated: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with _matplotlib().rc_context(_STYLE), _store.atomic(path) as temporary:
        figure.savefig(temporary, format=kind, metadata=undated.get(kind), dpi=200)


def write(robustness: Robustness, folder: str | os.PathLike[str], kind: str = "svg") -> list[Path]:
    """Every figure that the record has numbers for, a file each.

    Returns:
        The files, in the order of the report.

    Raises:
        DataError: the folder cannot be written, or the kind is none of svg, pdf and png.
        MissingExtraError: matplotlib is not installed.
    """
    figures = {
        f"accuracy-{number:02d}-{re.sub('[^A-Za-z0-9.+]+', '-', name)}": accuracy(robustness, name)
        for number, name in enumerate(series.distributions(robustness))
    }
    figures["potential"] = potential(robustness.potential)
    if robustness.excess is not None:
        figures["excess-error"] = excess(robustness.excess)
    if robustness.similarity is not None and series.noise(robustness.similarity, "matching"):
        figures["noise"] = noise(robustness.similarity)
    if robustness.features is not None:
        figures["features"] = features(robustness.features)
    paths = [Path(folder) / f"{name}.{kind}" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        save(figure, path)
    return paths


def _matplotlib() -> Any:
    return require("matplotlib", "plots")


def _figure(size: tuple[float, float]) -> Figure:
    """An empty figure that no window shows."""
    made: Figure = require("matplotlib.figure", "plots").Figure(figsize=size, layout="constrained")
    return made


def _axes(x: str, y: str, title: str, size: tuple[float, float] = _SIZE) -> tuple[Figure, Axes]:
    figure = _figure(size)
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, loc="left", fontsize=9)
    return figure, axes


def _colour(method: int) -> str:
    return _COLOURS[method % len(_COLOURS)]


def _dashes(method: int) -> Any:
    return _DASHES[method // 2 % len(_DASHES)]


def _level(axes: Axes, value: float, label: str) -> None:
    axes.axhline(value, color="#555555", linewidth=1.0, linestyle=(0, (2, 2)), label=label or None)


def _draw(axes: Axes, line: Line, label: str, *, band: bool) -> None:
    colour = _colour(line.method)
    look: dict[str, Any] = {"linestyle": _dashes(line.method), "linewidth": 1.4, "markersize": 4.0}
    x, y = [dot.x for dot in line.dots], [dot.y for dot in line.dots]
    axes.plot(x, y, color=colour, marker=_MARKERS[line.method % len(_MARKERS)], label=label or None, **look)
    if band:
        _band(axes, line, colour)


def _band(axes: Axes, line: Line, colour: Any) -> None:
    low, high = [dot.low for dot in line.dots], [dot.high for dot in line.dots]
    axes.fill_between([dot.x for dot in line.dots], low, high, color=colour, alpha=0.12, linewidth=0)


def _shades(axes: Axes, lines: Sequence[Line]) -> None:
    """Some lines of one method, the more removed the darker; yardsticks dashed, on top."""
    shown = some([line for line in lines if line.role == "pruned"], _SHADES)
    colours = _matplotlib().colormaps["viridis"]
    for place, line in enumerate((*shown, *(line for line in lines if line.role != "pruned"))):
        look: dict[str, Any] = {"color": "black", "linewidth": 1.6, "linestyle": (0, (4, 2))}
        if line.role == "pruned":
            shade = colours(0.85 - 0.8 * place / max(len(shown) - 1, 1))
            look = {"color": shade, "linewidth": 1.2, "marker": _MARKERS[place], "markersize": 3}
        axes.plot([dot.x for dot in line.dots], [dot.y for dot in line.dots], label=line.label, **look)
        _band(axes, line, look["color"])

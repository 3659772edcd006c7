"""The figures: every axis named with its unit, the same bytes each time, nothing left behind."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import robust
import sides
from shapleaf.errors import DataError, MissingExtraError
from shapleaf.records import PruningCurve, PruningCurves, Robustness
from shapleaf.reporting import plots, series

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def found() -> Robustness:
    """Three methods, four shares, three shifts."""
    return robust.robustness(methods=("WT", "FT", "PFP"), points=4, shifts=3)


def figures(found: Robustness) -> dict[str, Any]:
    assert found.excess is not None
    assert found.similarity is not None
    assert found.features is not None
    return {
        "accuracy": plots.accuracy(found),
        "agreement": plots.accuracy(found, "shot noise 3", "agreement"),
        "potential": plots.potential(found.potential),
        "excess": plots.excess(found.excess),
        "noise": plots.noise(found.similarity),
        "features": plots.features(found.features),
    }


def test_every_axis_of_every_figure_says_what_it_is_and_its_unit(found: Robustness) -> None:
    for name, figure in figures(found).items():
        assert figure.axes, name
        for axes in figure.axes:
            labels = [axes.get_xlabel(), axes.get_ylabel()]
            if axes.get_label() == "<colorbar>":
                labels = labels[1:]
            for label in labels:
                assert re.search(r"\(.+\)$", label), f"{name}: {label!r} names no unit"


def test_criteria_side_by_side(tmp_path: Path) -> None:
    compared = sides.comparison(10)
    figure = plots.comparison(compared)
    least, most, heat, bar = figure.axes
    for axes in (least, most, heat):
        assert all(re.search(r"\(.+\)$", text) for text in (axes.get_xlabel(), axes.get_ylabel()))
    assert bar.get_ylabel() == "rank correlation (-1 to 1)"
    curve = compared.curve("criterion 3", "most")
    assert curve is not None
    assert list(most.lines[3].get_ydata()) == curve.accuracy.tolist()
    looks = {(line.get_color(), line.get_marker(), line.get_fillstyle()) for line in least.lines}
    assert len(looks) == 10
    assert heat.images[0].get_array().tolist() == compared.within.tolist()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(compared.names)
    plots.save(figure, tmp_path / "comparison.svg")
    assert len(plots.comparison(replace(compared, curves=None)).axes) == 2


def test_the_lines_are_those_of_the_record(found: Robustness) -> None:
    (axes,) = plots.accuracy(found).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) == {"unpruned", "WT", "FT", "PFP"}
    wt = series.curves(found, "accuracy", "clean")[2]
    assert wt.label == "WT"
    assert list(lines["WT"].get_xdata()) == [dot.x for dot in wt.dots]
    assert list(lines["WT"].get_ydata()) == [dot.y for dot in wt.dots]
    assert len(axes.collections) == 3  # a band each
    looks = {(line.get_color(), line.get_marker()) for line in list(lines.values())[1:]}
    assert len(looks) == 3
    assert axes.get_title(loc="left") == "on clean"


def test_methods_of_several_nets_stand_in_the_key_once() -> None:
    figure = plots.accuracy(robust.robustness(methods=("WT",), points=2, shifts=0, nets=2, extras=False))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["unpruned", "WT"]
    assert len(figure.axes[0].collections) == 0


def test_bars_have_the_intervals_of_the_record(found: Robustness) -> None:
    (axes,) = plots.potential(found.potential).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "clean", "gaussian noise 3", "shot noise 3", "impulse noise 3"]  # fmt: skip
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == [bar.value for bars in series.potentials(found.potential).values() for bar in bars]
    assert axes.get_title(loc="left") == "error up to 0.5 points higher"


def test_slopes_are_told_in_points(found: Robustness) -> None:
    figure = plots.excess(found.excess)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["WT: +2.0 at 100 %", "FT: +3.2 at 100 %", "PFP: +4.4 at 100 %"]


def test_the_heat_map_shows_its_numbers(found: Robustness) -> None:
    axes = plots.features(found.features).axes[0]
    shown = [text.get_text() for text in axes.texts]
    assert shown == [f"{value:.2f}" for row in found.features.confidence.tolist() for value in row]


def test_pruning_curves_have_a_line_each_and_dotted_controls() -> None:
    shares: Any = {"rates": (0.0, 0.5), "removed": (0.0, 0.4), "params": (1.0, 0.5), "macs": (1.0, 0.5)}
    right = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    kinds: list[tuple[str, Any]] = [("lrp", "least"), ("lrp", "most"), ("random", "least")]
    curves = tuple(PruningCurve(criterion=c, order=order, right=right, **shares) for c, order in kinds)
    (axes,) = plots.pruning(PruningCurves(curves=curves)).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["lrp", "lrp, most needed first", "random"]
    assert [*lines["lrp"].get_xdata(), *lines["lrp"].get_ydata()] == [0, 40, 100, 50]
    assert lines["lrp"].get_color() == lines["lrp, most needed first"].get_color()
    assert lines["lrp"].get_linestyle() != lines["lrp, most needed first"].get_linestyle()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("units removed (%)", "accuracy (%)")
    assert len(axes.collections) == 3
    with pytest.raises(DataError, match="there are no pruning curves to draw"):
        plots.pruning(PruningCurves(curves=()))


def test_equal_figures_are_equal_files_and_no_setting_is_changed(found: Robustness, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    for name in ("a.svg", "b.svg"):
        plots.save(plots.accuracy(found), tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert "<dc:date>" not in text
    assert "parameters removed (%)" in text  # text stays text
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not matplotlib.pyplot.get_fignums()


def test_write_makes_a_file_of_every_figure(found: Robustness, tmp_path: Path) -> None:
    paths = plots.write(robust.robustness(methods=("WT",), points=2, shifts=1), tmp_path / "new", "pdf")
    names = [
        "accuracy-00-clean",
        "accuracy-01-gaussian-noise-3",
        "potential",
        "excess-error",
        "noise",
        "features",
    ]
    assert [path.name for path in paths] == [f"{name}.pdf" for name in names]
    assert all(path.read_bytes().startswith(b"%PDF") for path in paths)
    bare = replace(found, excess=None, similarity=None, features=None)
    assert [path.stem for path in plots.write(bare, tmp_path)][4:] == ["potential"]


def test_bad_input(found: Robustness, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no 'accuracy' on 'nowhere'"):
        plots.accuracy(found, "nowhere")
    with pytest.raises(DataError, match=r"ends with \.docx; use \.svg, \.pdf or \.png"):
        plots.save(plots.accuracy(found), tmp_path / "a.docx")
    similarity = found.similarity
    names = ("subjects", "against", "matching", "matching_interval", "distance", "distance_interval")
    lone = {name: getattr(similarity, name)[:1] for name in names} | {"correct": None}
    with pytest.raises(DataError, match="no pruned model was compared"):
        plots.noise(replace(similarity, **lone))


def test_without_matplotlib(found: Robustness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"shapleaf\[plots\]"):
        plots.accuracy(found)

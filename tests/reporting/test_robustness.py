"""The sections about robustness: what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest

import robust
from shapleaf.records import Advice, Report, Robustness, Verdict
from shapleaf.reporting import render, robustness
from shapleaf.reporting.robustness import headline, parts

SPACE = "\N{NO-BREAK SPACE}"


@pytest.fixture(scope="module")
def small() -> Robustness:
    """Two methods, three shares, two shifts."""
    return robust.robustness(methods=("WT", "FT"), points=3, shifts=2)


def advice(method: str, expected: str, remove: float, **more: object) -> Advice:
    given = {
        "worst": remove,
        "low": 0.1,
        "high": 0.9,
        "mean": remove,
        "nominal": 0.9,
        "weakest": "fog 3",
        "below": 0.0,
    }
    extent = "fully" if remove > 0.8 else "moderately" if remove else "not at all"
    return Advice(method=method, expected=expected, extent=extent, remove=remove, **given | more)


TRAINED = "On data as in training, {} of the parameters"
SHIFTED = "; where the tested shifts are expected, {}."


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([("A", "nominal", 0.9), ("A", "shifted", 0.2), ("B", "nominal", 0.5), ("B", "shifted", 0.4)],
         TRAINED.format("B may remove 50 %") + SHIFTED.format("40 %")),
        ([("A", "nominal", 0.9), ("A", "shifted", 0.0), ("B", "nominal", 0.5), ("B", "shifted", 0.0)],
         TRAINED.format("A may remove 90 %") + SHIFTED.format("nothing")),
        ([("A", "nominal", 0.9)], TRAINED.format("A may remove 90 %") + "."),
        ([("A", "shifted", 0.3)], "Where the tested shifts are expected, A may remove 30 %."),
        ([("A", "noise", 0.3)], ""),
    ],
)  # fmt: skip
def test_the_headline_is_of_the_method_that_is_best_under_shifts(given: list, said: str) -> None:
    found = Verdict(advice=tuple(advice(*one) for one in given), delta=0.005)
    assert headline(found).replace(SPACE, " ") == said


def test_the_verdict_has_a_cell_for_each_method_and_expectation(small: Robustness) -> None:
    found = Verdict(
        advice=(
            advice("WT", "nominal", 0.9),
            advice("WT", "shifted", 0.3, certain=False, sentence="Careful."),
            advice("FT", "nominal", 0.0),
        ),
        notes=("A note.",),
        delta=0.01,
    )
    part = parts(replace(small, verdict=found))["verdict"]
    assert part["table"].head == ("method", "nominal", "shifted")
    (_, wt), (_, ft) = part["table"].rows
    assert [(cell.text, cell.small.replace(SPACE, " "), cell.style) for cell in wt] == [
        ("fully", "90 %, 10–90", "better"), ("moderately (?)", "30 %, 10–90; fog 3", "")]  # fmt: skip
    assert [(cell.text, cell.style) for cell in ft] == [("not at all", "worse"), ("–", "")]
    assert (part["sentences"], part["notes"], part["points"]) == (["Careful."], ["A note."], "1")
    notes = tuple(f"{number} % of it" for number in range(12))
    part = parts(replace(small, verdict=replace(found, notes=notes)))["verdict"]
    assert part["notes"][-1] == f"11{SPACE}% of it"


def test_every_section_has_a_title_and_a_table_and_every_chart_its_axes(small: Robustness) -> None:
    found = parts(small)
    assert list(found) == list(robustness.TITLES)
    noise = [plot for _, plots, _ in found["noise"]["charts"] for plot in plots]
    plots = [*found["curves"]["nominal"], *found["curves"]["shifted"], *found["excess"]["plots"], *noise]
    assert len(plots) == 3 + 2 + 2 + 4
    for plot in plots:
        assert plot.x_label.endswith(")"), plot.x_label  # with a unit
        assert "(" in plot.y_label, plot.y_label
        assert plot.x
        assert plot.y
        assert all(layer.path for layer in plot.layers)
    assert [plot.y_label for plot in found["curves"]["nominal"]] == [
        "accuracy (%)", "agreement with unpruned (%)", "calibration error (%)"]  # fmt: skip


def test_numbers_under_the_curves_are_those_of_the_record(small: Robustness) -> None:
    table = parts(small)["curves"]["table"]
    assert table.head == ("accuracy (%) of model", "removed (%)", "clean", "gaussian noise 3", "shot noise 3")
    name, cells = table.rows[-1]
    one = small.curve("accuracy", "clean")[-1]
    assert name == one.subject == "FT 97 % 0"
    assert cells[0].text == "97.0"
    assert (cells[1].text, cells[1].small) == (f"{one.value:.1f}", f"{one.low:.1f}–{one.high:.1f}")
    assert table.more == ""


def test_the_potential_says_which_shares_were_tried(small: Robustness) -> None:
    part = parts(small)["potential"]
    assert part["grid"] == "15, 84, 97"
    assert [bar["name"] for bar in part["methods"][0]["bars"]] == [
        "clean",
        "gaussian noise 3",
        "shot noise 3",
    ]
    bar = part["methods"][0]["bars"][0]
    assert (bar["value"], bar["width"], bar["low"], bar["span"], bar["ends"]) == (
        "84",
        84.0,
        74.0,
        15.0,
        "74–89",
    )
    assert part["table"].rows[0][1][0].text == "84.0"


def test_slopes_are_in_points(small: Robustness) -> None:
    (_, (models, slope, tenth)), _ = parts(small)["excess"]["table"].rows
    assert (models.text, slope.text, slope.small, tenth.text) == ("3", "+2.0", "+1.2 to +2.9", "+0.20")


def test_what_was_not_measured_has_no_section() -> None:
    found = robust.robustness(methods=("WT",), points=2, shifts=0, extras=False)
    assert list(parts(found)) == ["verdict", "curves", "potential"]
    page = render(Report(title="t", rows=(), robustness=found))
    assert "Excess error" not in page
    empty = replace(found, curves=(), potential=replace(found.potential, limits=(), pooled=()),
                    verdict=Verdict(advice=(), delta=0.005))  # fmt: skip
    assert parts(empty) == {}
    assert "Nothing was measured." in render(Report(title="t", rows=(), robustness=empty))


def test_a_single_pruned_model_is_a_mark_not_a_line() -> None:
    found = parts(robust.robustness(methods=("WT",), points=1, shifts=1, extras=False))
    for plot in (*found["curves"]["nominal"], *found["curves"]["shifted"]):
        styles = [layer.style for layer in plot.layers]
        assert "line s0" not in styles
        assert "mark round s0" in styles


def test_several_nets_are_lines_without_bands() -> None:
    found = parts(robust.robustness(methods=("WT",), points=3, shifts=1, nets=2))
    styles = [layer.style for layer in found["curves"]["nominal"][0].layers]
    assert styles.count("line s0") == styles.count("level") == 2
    assert not any(style.startswith("ribbon") for style in styles)


def test_long_lists_are_cut_and_say_so() -> None:
    found = robust.robustness(methods=tuple(map(str, range(10))), points=12, shifts=40)
    part = parts(found)
    assert len(part["curves"]["shifted"]) == 23
    assert part["curves"]["all"] == 41
    assert part["curves"]["table"].more == "20 of 122 models are shown."
    assert part["potential"]["table"].more == "16 of 41 distributions are shown."
    assert len(parts(found, 4)["curves"]["shifted"]) == 5

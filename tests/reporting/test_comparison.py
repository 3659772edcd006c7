"""The sections about criteria side by side: what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import sides
from shapleaf.records import Comparison, Report
from shapleaf.reporting import comparison, render
from shapleaf.reporting.comparison import alike, criteria, dots, headline, parts, removals

SPACE = "\N{NO-BREAK SPACE}"


@pytest.fixture(scope="module")
def found() -> Comparison:
    return sides.comparison(refit=True)


def columns(found: Comparison) -> dict[str, list[tuple[str, str, str]]]:
    table = criteria(found)["table"]
    cells = zip(*(row for _, row in table.rows), strict=True)
    shown = [[(cell.text, cell.small, cell.style) for cell in column] for column in cells]
    return dict(zip(table.head[1:], shown, strict=True))


def test_the_headline_says_whose_order_keeps_the_most(found: Comparison) -> None:
    assert headline(found) == (
        "criterion 0 keeps the most accuracy as units go: 0.825 on average over the rates, criterion 2 the "
        "least, 0.650."
    )
    assert headline(replace(found, curves=None)) == "3 criteria side by side."
    assert headline(sides.comparison(1)).endswith("0.825 on average over the rates.")


def test_the_headline_says_who_cannot_be_told_from_the_best(
    found: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = found.names
    start = "criterion 0 keeps the most accuracy as units go: 0.825 on average over the rates; "
    monkeypatch.setattr(Comparison, "leaders", lambda self: (first, second))
    assert headline(found) == f"{start}criterion 1 cannot be told from it; criterion 2 the least, 0.650."
    monkeypatch.setattr(Comparison, "leaders", lambda self: (first, second, third))
    assert headline(found) == f"{start}criterion 1 and criterion 2 cannot be told from it."


def test_the_table_marks_the_best_of_each_column(found: Comparison) -> None:
    shown = columns(found)
    assert shown["A_PR"] == [("0.825", "", "better"), ("0.738", "", ""), ("0.650", "", "")]
    assert shown["Top-PR (%)"] == [("25", "", "better"), ("0", "", ""), ("0", "", "")]
    assert shown["A_PR, LeastSquares"] == [("0.887", "", "")] * 3  # all are the best
    assert shown["A_PR, most first"] == [("0.350", "", "")] * 3
    assert shown["single units"] == [("0.90", "1.00", "better"), ("0.40", "0.50", ""), ("−0.10", "0.00", "")]
    assert shown["stability at 30"] == [("0.75", "", "better"), ("0.38", "", ""), ("–", "", "")]
    assert [text for text, _, _ in shown["steps"]] == ["3", "63", "123"]
    stepless = replace(found, criteria=tuple(replace(c, steps=None) for c in found.criteria))
    assert [cell[:2] for cell in columns(stepless)["steps"]] == [
        ("–", small) for _, small, _ in shown["steps"]
    ]


def test_every_column_is_explained(found: Comparison) -> None:
    notes = " ".join(criteria(found)["notes"])
    for name in ("A_PR", "Top-PR", "Most first", "Sensitivity-n", "Single units", "Stability", "Steps"):
        assert name in notes
    bare = replace(found, curves=None, criteria=tuple(replace(c, stability=()) for c in found.criteria))
    part = criteria(bare)
    assert part["table"].head == ("criterion", "Sensitivity-n", "single units", "steps")
    assert [note.partition(":")[0] for note in part["notes"]] == ["Sensitivity-n", "Single units", "Steps"]


def test_a_chart_for_each_order_and_compensation_on_the_same_criteria(found: Comparison) -> None:
    part = removals(found)
    assert [plot.name for plot in part["plots"]] == [
        "Least needed first", "Most needed first", f"With {sides.REFIT}"]  # fmt: skip
    for plot in part["plots"]:
        assert (plot.x_label, plot.y_label) == ("units removed (%)", "accuracy (%)")
        assert [layer.style for layer in plot.layers[:3]] == ["line s0", "line s1", "line s2"]
    assert [name for name, _, _ in part["legend"]] == list(found.names)
    assert part["examples"] == "20"
    _, table = part["tables"][0]
    assert table.head == ("accuracy (%) without", "0 %", "25 %", "50 %", "75 %")
    assert [cell.text for cell in table.rows[1][1]] == ["100.0", "90.0", "70.0", "35.0"]


def test_of_many_criteria_those_of_the_largest_areas_are_drawn_and_it_is_said() -> None:
    part = removals(sides.comparison(10))
    assert len(part["legend"]) == 8
    assert part["more"] == "8 of 10 criteria are shown: those of the largest areas."
    assert part["control"]
    assert len(part["tables"][0][1].rows) == 10
    shown = criteria(sides.comparison(60))["table"]
    assert len(shown.rows) == 40
    assert shown.more == "40 of 60 criteria are shown."


def test_dots_are_in_percent(found: Comparison) -> None:
    curve = found.curve("criterion 1")
    assert curve is not None
    assert [(dot.x, dot.y) for dot in dots(curve)] == [(0, 100), (25, 90), (50, 70), (75, 35)]


def test_heat_maps_have_a_shade_for_every_number(found: Comparison) -> None:
    part = alike(found)
    assert [name for name, _ in part["ranks"] + part["sets"]] == [
        "Within groups, averaged by their units", "Over all units in one list", f"The first 25{SPACE}%",
        f"The first 50{SPACE}%"]  # fmt: skip
    (_, cells), *_ = part["ranks"][0][1].rows
    assert [(cell.text, cell.shade) for cell in cells] == [("1.00", 10), ("0.00", 0), ("−1.00", -10)]
    assert [cell.text for cell in part["sets"][1][1].rows[0][1]] == ["1.00", "0.50", "0.00"]
    nothing = alike(replace(found, overall=torch.full((3, 3), torch.nan)))["ranks"][1][1]
    assert nothing.rows[0][1][0].text == "–"
    assert alike(sides.comparison(1)) is None


def test_a_page_of_criteria_alone(found: Comparison) -> None:
    page = render(Report(title="three", rows=(), comparison=found))
    assert f'<p class="lead">{headline(found)}</p>' in page
    for name, title in comparison.TITLES.items():
        assert f'<section id="{name}"' in page
        assert f'<a href="#{name}">{title}</a>' in page
    assert 'class="n q-10"' in page
    assert "parameters" not in page


def test_what_was_not_measured_has_no_section() -> None:
    bare = replace(sides.comparison(1), curves=None)
    assert list(parts(bare)) == ["criteria"]

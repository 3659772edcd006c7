"""The record of criteria side by side: its table, its matrices, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sides
from shapleaf.errors import DataError
from shapleaf.records import Comparison, PruningCurve, PruningCurves, RankCorrelation


@pytest.fixture
def found() -> Comparison:
    return sides.comparison(refit=True)


def test_one_row_a_criterion_with_all_that_was_measured(found: Comparison) -> None:
    table = found.table()
    assert table["title"] == "Comparison of 3 criteria"
    rows = [dict(zip(table["header"], row, strict=True)) for row in table["rows"]]
    # of 20 right: 20, 20, 18, 8 | 4, 2, 2 for the control | 20, 19, 12 refitted
    assert rows[0] == {
        "criterion": "criterion 0", "A_PR": 0.825, "Top-PR": 0.25, "A_PR, most first": 0.35,
        f"A_PR, {sides.REFIT}": 0.8875, "Sensitivity-n": 0.8, "ablation": 0.9, "ablation, overall": 1.0,
        "stability at 10": 0.5, "stability at 30": 0.75, "seconds": 1.5, "steps": 3.0, "evaluations": None,
    }  # fmt: skip
    assert rows[2]["stability at 10"] is None
    assert table["footer"] == "examples=100, seed=0"


def test_what_was_not_measured_has_no_column(found: Comparison) -> None:
    bare = replace(
        found,
        curves=None,
        criteria=tuple(replace(c, sensitivity=None, ablation=None, stability=()) for c in found.criteria),
    )
    assert bare.table()["header"] == ["criterion", "seconds", "steps", "evaluations"]
    assert bare.curve("criterion 0") is None
    assert bare.compensations == ()
    stepless = replace(found, step=None, criteria=tuple(replace(c, steps=None) for c in found.criteria))
    assert [*stepless.table()["header"]] == [head for head in found.table()["header"] if head != "steps"]


def test_pairs_by_name(found: Comparison) -> None:
    assert found.correlation("criterion 0", "criterion 2") == RankCorrelation(within=-1.0, overall=-1.0)
    assert found.correlation("criterion 0", "criterion 1").within == 0
    assert found.overlap("criterion 0", "criterion 2", 0.5) == 0
    nothing = replace(found, within=torch.full((3, 3), torch.nan))
    assert nothing.correlation("criterion 0", "criterion 1") == RankCorrelation(within=None, overall=0.0)
    with pytest.raises(KeyError, match="no criterion 'other'; compared: criterion 0, "):
        found["other"]
    with pytest.raises(KeyError, match=r"no overlap at 0.1; measured: 0.25, 0.5"):
        found.overlap("criterion 0", "criterion 1", 0.1)


def test_curves_by_order_and_compensation(found: Comparison) -> None:
    assert found.compensations == (sides.REFIT,)
    assert list(found.ordered("most")) == list(found.names)
    refit = found.curve("criterion 1", "least", sides.REFIT)
    assert refit is not None
    assert refit.accuracy.tolist() == [100, 100, 95, 60]
    assert found.curve("criterion 1", "most", sides.REFIT) is None


def test_who_leads_and_who_cannot_be_told_from_it(found: Comparison) -> None:
    assert found.leaders() == ("criterion 0",)  # every image that others get right, and more
    assert found.leaders("most") == found.names  # all the same
    assert found.leaders("most", sides.REFIT) == replace(found, curves=None).leaders() == ()
    assert found.table()["footer"] == "examples=100, seed=0"

    def right(*each: int) -> PruningCurve:
        rows = torch.tensor(each).bool()[None]
        return PruningCurve(
            criterion="", right=rows, rates=(0.5,), removed=(0.5,), params=(1.0,), macs=(1.0,)
        )

    # Behind by 1, 1, -1, 0 of four images: .25, and a standard error of .48; by all four images; not at all.
    curves = [right(1, 1, 0, 1), right(0, 0, 1, 1), right(0, 0, 0, 0), right(1, 1, 0, 1)]
    named = tuple(replace(one, criterion=f"criterion {k}") for k, one in enumerate(curves))
    some = replace(sides.comparison(4), curves=PruningCurves(curves=named))
    assert some.leaders() == ("criterion 0", "criterion 3", "criterion 1")
    said = "A_PR: criterion 0, criterion 3 and criterion 1 cannot be told apart."
    assert some.table()["footer"].splitlines()[0] == said


def test_a_single_image_tells_nothing(found: Comparison) -> None:
    assert found.curves is not None
    curves = tuple(replace(one, right=one.right[:, -1:]) for one in found.curves.curves)
    single = replace(found, curves=replace(found.curves, curves=curves))
    assert len({one.area for one in single.ordered().values()}) > 1
    assert len(single.leaders()) == 3


def test_without_a_first_rate_of_0_there_is_no_top(found: Comparison) -> None:
    assert found.curves is not None
    later = replace(found.curves, curves=tuple(
        replace(c, rates=(0.1, *c.rates[1:])) for c in found.curves.curves))  # fmt: skip
    header = replace(found, curves=later).table()["header"]
    assert "A_PR" in header
    assert "Top-PR" not in header


def test_it_is_saved_whole(found: Comparison, tmp_path: Path) -> None:
    found.save(tmp_path / "comparison")
    assert Comparison.load(tmp_path / "comparison") == found
    stepless = replace(found, step=None, criteria=tuple(replace(c, steps=None) for c in found.criteria))
    stepless.save(tmp_path / "stepless")
    assert Comparison.load(tmp_path / "stepless") == stepless


def test_what_does_not_fit_is_refused(found: Comparison) -> None:
    with pytest.raises(DataError, match=r"within of 3 criteria must be \(3, 3\), received \(2, 2\)"):
        replace(found, within=torch.eye(2))
    with pytest.raises(DataError, match=r"overlaps of 3 criteria must be \(2, 3, 3\), received \(0,\)"):
        replace(found, overlaps=torch.zeros(0))
    with pytest.raises(DataError, match="criteria need different names, received criterion 0, criterion 0"):
        replace(found, criteria=(found.criteria[0], *found.criteria[:1]))

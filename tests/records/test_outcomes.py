"""Outcomes: exact errors, look-up, and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from measured import chain, joined, masks, seen
from shapleaf.errors import DataError
from shapleaf.records import Observed, Outcomes, Subject


def test_wrong_is_a_matrix_and_errors_are_exact() -> None:
    one = seen("clean", [[1], [0, 2], []], 3)
    assert one.wrong.tolist() == [[False, True, False], [True, False, True], [False] * 3]
    assert one.errors == (Fraction(1, 3), Fraction(2, 3), Fraction(0))
    assert (one.subjects, one.examples) == (3, 3)


def test_o25_errors_of_segmentations_are_of_the_data_set() -> None:
    # Class 1: TP 1 in example A; TP 1, FP 1, FN 2 in B: 2 of 5 together, not the mean of 1 and 1/4.
    assert masks([[[1, 0, 0], [1, 1, 2]]]).errors == (Fraction(3, 5),)


def test_classes_that_never_occur_do_not_count() -> None:
    one = masks([[[1, 1, 0]]])  # class 0 has no pixels
    assert one.errors == (Fraction(1, 2),)
    assert masks([[[0, 0, 0]]]).errors == (Fraction(1),)


def test_segmentations_are_not_right_or_wrong_as_a_whole() -> None:
    with pytest.raises(DataError, match="'clean' holds segmentations"):
        masks([[[1, 0, 0]]]).wrong  # noqa: B018


def test_look_up() -> None:
    outcomes = joined(*(chain([0.9, 0.5], [seen("clean", [0, 1, 2], 4)], net=net) for net in ("a", "b")))
    assert outcomes.index("WT b 0.9") == 4
    assert (outcomes.reference("a"), outcomes.reference("b")) == (0, 3)
    assert outcomes.curves() == {("WT", "a"): (2, 1), ("WT", "b"): (5, 4)}
    assert outcomes["clean"] is outcomes.observed[0]


def test_look_up_of_what_is_not_there() -> None:
    outcomes = chain([0.5], [seen("clean", [0, 1], 4)])
    with pytest.raises(DataError, match="no model is named 'x'; there are: dense 0, WT 0 0.5"):
        outcomes.index("x")
    with pytest.raises(DataError, match="net '7' has 0 models of role 'reference', expected 1"):
        outcomes.reference("7")
    with pytest.raises(DataError, match="no distribution is named 'fog'; there are: clean"):
        outcomes["fog"]
    with pytest.raises(DataError, match="none of the models is pruned"):
        Outcomes(subjects=outcomes.subjects[:1], observed=()).curves()


@pytest.mark.parametrize("removed", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_0_and_1(removed: float) -> None:
    with pytest.raises(DataError, match="'a': removed is the share"):
        Subject(name="a", removed=removed)


def test_models_have_names() -> None:
    with pytest.raises(DataError, match="no name"):
        Subject(name="")


GOOD = seen("clean", [0, 1], 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.zeros(2, dtype=torch.int64)}, r"expected \(2,\) and twice \(models, 2\)"),
        ({"confidence": torch.ones(1, 3)}, r"have shapes"),
        ({"labels": torch.zeros(3, 1, dtype=torch.int64)}, r"have shapes"),
        ({"predicted": torch.zeros(2, 3)}, "whole numbers"),
        ({"labels": torch.tensor([0, -1, 0])}, "negative"),
        ({"confidence": torch.full((2, 3), 1.5)}, "not a probability"),
        ({"confidence": torch.full((2, 3), torch.nan)}, "not a probability"),
        (
            {
                "labels": torch.empty(0, dtype=torch.int64),
                "predicted": torch.empty(2, 0, dtype=torch.int64),
                "confidence": torch.empty(2, 0),
            },
            "no examples",
        ),
        ({"overlaps": torch.zeros(2, 3, 4, dtype=torch.int64)}, "have shapes"),
    ],
)
def test_tensors_that_do_not_fit(changes: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        replace(GOOD, **changes)


def test_overlaps_have_four_axes() -> None:
    with pytest.raises(DataError, match=r"overlaps have shape \(1, 1, 2\)"):
        replace(masks([[[1, 0, 0]]]), overlaps=torch.zeros(1, 1, 2, dtype=torch.int64))


def test_names_are_their_own() -> None:
    a, b = Subject(name="a"), Subject(name="b")
    with pytest.raises(DataError, match="two models are named 'a'"):
        Outcomes(subjects=(a, a), observed=())
    with pytest.raises(DataError, match="two distributions are named 'clean'"):
        Outcomes(subjects=(a, b), observed=(GOOD, GOOD))


def test_observed_fits_the_subjects_and_classes() -> None:
    a, b = Subject(name="a"), Subject(name="b")
    with pytest.raises(DataError, match="predictions of 2 models, expected 1"):
        Outcomes(subjects=(a,), observed=(GOOD,))
    with pytest.raises(DataError, match="holds 2 classes, but there are 1"):
        Outcomes(subjects=(a, b), observed=(GOOD,), classes=("x",))
    with pytest.raises(DataError, match="some distributions hold segmentations"):
        Outcomes(subjects=(a, b), observed=(GOOD, masks([[[1, 0, 0]]] * 2, "other")))


@pytest.mark.parametrize("one", [GOOD, masks([[[1, 0, 0]], [[0, 1, 0]]])])
def test_it_comes_back_from_a_file(one: Observed, tmp_path: Path) -> None:
    outcomes = Outcomes(subjects=(Subject(name="a"), Subject(name="b")), observed=(one,), classes=("0", "1"))
    outcomes.save(tmp_path / "outcomes")
    loaded = Outcomes.load(tmp_path / "outcomes")
    assert loaded == outcomes
    assert loaded["clean"].errors == one.errors

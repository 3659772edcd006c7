"""Noise similarity as a record: its checks, its potential, its table, its file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from shapleaf import DataError
from shapleaf.records import NoisePotential, NoiseSimilarity, Subject


def similarity(correct: torch.Tensor | None, *, scored: int = 500) -> NoiseSimilarity:
    """A reference, WT at 15, 46 and 85 %, a separate network; one epsilon."""
    removed = (0.15, 0.46, 0.85)
    subjects = (
        Subject(name="dense", role="reference"),
        *(Subject(name=f"WT {r}", method="WT", removed=r) for r in removed),
        Subject(name="other", role="separate"),
    )
    draws = 1 if correct is None else correct.shape[-1]
    ends = torch.tensor([0.0, 1.0]).expand(5, 1, 2)
    return NoiseSimilarity(
        subjects=subjects,
        against=("dense",) * 5,
        epsilons=(0.3,),
        examples=scored,
        matching=torch.ones(5, 1, draws),
        matching_interval=ends,
        distance=torch.zeros(5, 1, draws),
        distance_interval=ends,
        correct=correct,
        scored=scored,
    )


def counts(*draws: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor(draws).T[:, None]


def test_potential_is_over_all_models_and_strict() -> None:
    """500 examples, 460 right: half a point is 2.5 examples, so 458 still counts and 457 does not."""
    found = similarity(counts((460, 458, 457, 458, 0), (460, 457, 457, 457, 500))).potential()
    assert found.removed.tolist() == [[[0.85, 0.0]]]  # a later success counts; a separate network never
    assert (found.methods, found.references) == (("WT",), ("dense",))
    assert similarity(counts((460, 459, 458, 457, 0))).potential().removed.tolist() == [[[0.46]]]


def test_equality_is_not_enough() -> None:
    """Of 1,000 examples half a point is exactly 5, which no rounding may turn into less."""
    one = similarity(counts((900, 896, 895, 894, 0)), scored=1000)
    assert one.potential().removed.item() == 0.15
    assert one.potential(0.0).removed.item() == 0.0
    assert one.potential(0.0061).removed.item() == 0.85
    assert similarity(counts((300, 299, 297, 300, 0)), scored=600).potential(0).removed.item() == 0.0


def test_the_deviation_is_the_median_distance_to_the_mean() -> None:
    removed = torch.tensor([[[0.0, 0.1, 0.8]]], dtype=torch.float64)  # mean .3: distances .3, .2, .5
    found = NoisePotential(methods=("WT",), references=("dense",), epsilons=(0.1,), removed=removed)
    assert found.mean.item() == pytest.approx(0.3)
    assert found.deviation.item() == pytest.approx(0.3)


def test_each_method_and_reference_has_its_own_curve() -> None:
    one = similarity(counts((460, 460, 460, 460, 460)))
    subjects = tuple(dataclasses.replace(s, method="FT") if s.removed == 0.85 else s for s in one.subjects)
    found = dataclasses.replace(one, subjects=subjects).potential()
    assert (found.methods, found.removed.flatten().tolist()) == (("WT", "FT"), [0.46, 0.85])


def test_without_labels_there_is_no_accuracy() -> None:
    one = similarity(None)
    assert "accuracy %" in str(one)
    for ask in (lambda: one.accuracy, one.potential):
        with pytest.raises(DataError, match="had no labels"):
            ask()


def test_without_pruned_models_there_is_no_potential() -> None:
    one = similarity(counts((460,) * 5))
    alone = tuple(dataclasses.replace(subject, role="control") for subject in one.subjects)
    with pytest.raises(DataError, match="no subject has the role 'pruned'"):
        dataclasses.replace(one, subjects=alone).potential()


def test_the_table_has_a_row_per_subject_and_epsilon() -> None:
    rows = similarity(counts((460, 458, 457, 458, 450))).table()["rows"]
    assert [row[0] for row in rows] == ["WT 0.15", "WT 0.46", "WT 0.85", "other", "dense"]
    assert rows[0] == ["WT 0.15", "dense", 15, 0.3, 100, 0, "0 to 100", 0, 0, "0 to 1", pytest.approx(91.6)]
    assert rows[-1][1] is None


def test_equal_draws_do_not_spread() -> None:
    one = similarity(None)
    equal = torch.full((len(one.subjects), 1, 3), 0.95, dtype=torch.float64)
    assert dataclasses.replace(one, matching=equal).table()["rows"][0][5] == 0


def test_tensors_that_do_not_fit_are_refused() -> None:
    one = similarity(None)
    with pytest.raises(DataError, match=r"matching has shape \(4, 1, 1\), expected 5 subjects x 1 epsilons"):
        dataclasses.replace(one, matching=one.matching[1:])
    with pytest.raises(DataError, match="5 subjects, but 1 names"):
        dataclasses.replace(one, against=("dense",))


@pytest.mark.parametrize("labelled", [True, False])
def test_round_trip(labelled: bool, tmp_path: Path) -> None:
    one = similarity(counts((460, 458, 457, 458, 450)) if labelled else None)
    one.save(tmp_path / "one")
    assert NoiseSimilarity.load(tmp_path / "one") == one
    if labelled:
        one.potential().save(tmp_path / "two")
        assert NoisePotential.load(tmp_path / "two") == one.potential()

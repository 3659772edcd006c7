"""The bootstrap over examples: whole counts, alike for all, from the seed alone."""

from __future__ import annotations

import pytest
import torch

from measured import chain, masks, seen
from shapleaf.errors import CriterionError
from shapleaf.evaluation import resampling
from shapleaf.evaluation.resampling import ends, resample, resampled_errors, weights
from shapleaf.records import Outcomes, Subject


def test_a_resample_draws_as_many_examples_as_there_are() -> None:
    drawn = weights(50, 20, seed=0)
    assert drawn.shape == (20, 50)
    assert bool((drawn.sum(1) == 50).all())
    assert bool((drawn == drawn.round()).all() and (drawn >= 0).all())
    assert len({tuple(row.tolist()) for row in drawn}) == 20


def test_each_example_is_drawn_once_on_average() -> None:
    drawn = weights(10, 4000, seed=1)
    assert drawn.mean(0).sub(1).abs().max().item() < 4 * (0.9 / 4000) ** 0.5
    assert drawn.var().item() == pytest.approx(0.9, abs=0.05)


def test_a_resample_depends_on_its_own_number_alone() -> None:
    assert torch.equal(weights(7, 5, seed=3)[3:], weights(7, 2, seed=3, first=3))
    assert not torch.equal(weights(7, 5, seed=3), weights(7, 5, seed=4))


def test_sums_are_those_of_the_drawn_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.arange(12.0).view(6, 2)
    whole = resample(values, 9, seed=0)
    assert torch.equal(whole, weights(6, 9, seed=0) @ values.double())
    monkeypatch.setattr(resampling, "_CELLS", 13)  # two resamples at a time
    assert torch.equal(resample(values, 9, seed=0), whole)
    assert torch.equal(resample(values[:, 0], 9, seed=0), whole[:, 0])


def test_errors_of_distributions_of_one_size_are_resampled_alike() -> None:
    observed = [seen("clean", [[0], [1]], 8, nominal=True), seen("fog", [[1], [0]], 8), seen("x", [1, 2], 5)]
    found = resampled_errors(chain([0.5], observed), 30, seed=0)
    assert torch.equal(found["clean"].flip(1), found["fog"])
    assert torch.equal(found["clean"] * 8, weights(8, 30, seed=0)[:, :2])
    assert found["x"].shape == (30, 2)


def test_errors_of_segmentations_are_pooled_before_they_are_divided() -> None:
    one = masks([[[1, 0, 0], [1, 1, 2]]])
    found = resampled_errors(Outcomes(subjects=(Subject(name="a"),), observed=(one,)), 40, seed=0)["clean"]
    # By how often the first of the two is drawn, 0 to 2: 1/4, 2/5 or 1.
    by_count = torch.tensor([0.75, 0.6, 0.0], dtype=torch.float64)
    assert torch.allclose(found[:, 0], by_count[weights(2, 40, seed=0)[:, 0].long()], atol=1e-15, rtol=0)


def test_ends_are_values_that_occurred() -> None:
    low, high = ends(torch.tensor([0.0] * 3 + [0.5] * 94 + [0.9] * 3))
    assert (low.item(), high.item()) == (0.0, pytest.approx(0.9))
    assert ends(torch.ones(5, 3)).shape == (2, 3)


def test_there_are_resamples() -> None:
    with pytest.raises(CriterionError, match="resamples must be at least 1, received 0"):
        resample(torch.ones(3), 0, seed=0)

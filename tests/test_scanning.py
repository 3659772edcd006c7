"""Loss curves: measured against masks laid by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import shapleaf as sl


@pytest.fixture
def case() -> tuple[nn.Module, sl.Scores, list[tuple[torch.Tensor, torch.Tensor]]]:
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4)).double()
    data = [
        (torch.randn(7, 3).double(), torch.randint(4, (7,))),
        (torch.randn(4, 3).double(), torch.randint(4, (4,))),
    ]
    graph = sl.trace(model, data[0][0][:1])
    scores = sl.Scores(graph=graph, values={"0": torch.tensor([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])})
    return model, scores, data


def rises_by_hand(
    model: nn.Module, data: list[tuple[torch.Tensor, torch.Tensor]], gone: list[int]
) -> torch.Tensor:
    """Rise of each example's loss when hidden units are set to zero."""
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    hidden = model[1](model[0](x))
    cut = hidden.clone()
    cut[:, gone] = 0
    loss = nn.functional.cross_entropy
    return loss(model[2](cut), y, reduction="none") - loss(model[2](hidden), y, reduction="none")


def test_curve_is_the_mean_rise_as_the_lowest_go(case) -> None:
    model, scores, data = case
    curve = sl.scan(model, scores, data, points=3, removal=sl.Zero()).curves["0"]
    order = [1, 2, 0, 5, 4, 3]
    assert curve[:, 0].tolist() == [0, 2, 4, 6]
    for removed, rise, error in curve[1:].tolist():
        by_hand = rises_by_hand(model, data, order[: int(removed)])
        assert rise == pytest.approx(by_hand.mean().item(), abs=1e-12)
        assert error == pytest.approx(by_hand.std().item() / 11**0.5, abs=1e-12)
    assert curve[0].tolist() == [0, 0, 0]


def test_batches_do_not_matter(case) -> None:
    model, scores, data = case
    whole = [tuple(torch.cat(parts) for parts in zip(*data, strict=True))]
    a, b = (sl.scan(model, scores, d).curves["0"] for d in (data, whole))
    assert torch.allclose(a, b, atol=1e-12)


def test_mean_removal_is_the_default(case) -> None:
    model, scores, data = case
    default = sl.scan(model, scores, data).curves["0"]
    mean = sl.scan(model, scores, data, removal=sl.CalibrationMean(data)).curves["0"]
    assert torch.equal(default, mean)
    assert not torch.allclose(default, sl.scan(model, scores, data, removal=sl.Zero()).curves["0"])


def test_one_pass_of_the_data_is_enough(case) -> None:
    model, scores, data = case
    assert torch.equal(
        sl.scan(model, scores, iter(data)).curves["0"], sl.scan(model, scores, data).curves["0"]
    )


def test_scores_are_kept_and_saved_with_their_curves(case, tmp_path) -> None:
    model, scores, data = case
    scanned = sl.scan(model, scores, data)
    assert torch.equal(scanned.values["0"], scores.values["0"])
    scanned.save(tmp_path / "scores")
    assert sl.Scores.load(tmp_path / "scores") == scanned


def test_bad_input(case) -> None:
    model, scores, data = case
    with pytest.raises(sl.CriterionError, match="points=1: a curve needs at least 2"):
        sl.scan(model, scores, data, points=1)
    per_example = sl.Scores(graph=scores.graph, values={"0": torch.zeros(5, 6)})
    with pytest.raises(sl.CriterionError, match="scores of 0 are per example"):
        sl.scan(model, per_example, data)
    with pytest.raises(sl.StaleGraphError):
        sl.scan(nn.Linear(3, 2), scores, data)

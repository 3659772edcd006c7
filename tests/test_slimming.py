"""The five lines in one call."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import shapleaf as sl
from shapleaf import slimming
from shapleaf.scanning import curved
from shapleaf.slimming import EFFORTS, steps


@pytest.fixture
def task() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Four classes told apart by two of eight inputs, and a network that has learnt it."""
    x = torch.randn(400, 8)
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[100:]), y[100:]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model, (x[100:200], y[100:200]), (x[:100], y[:100])


def test_half_the_macs_and_most_of_the_accuracy(task) -> None:
    model, calibration, test = task
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    slimmed = sl.slim(model, calibration, sl.Macs(keep=0.5), test=test)
    report = slimmed.report
    assert report["MACs"].value <= 0.5 * report["MACs"].reference
    assert report["accuracy"].value >= report["accuracy"].reference - 10
    assert sum(p.numel() for p in slimmed.model.parameters()) == slimmed.receipt.plan.after.params
    assert report.receipt == slimmed.receipt
    assert report.scores is not None
    assert report.scores.curves.keys() == report.scores.values.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training


def test_shuffled_data_leave_the_callers_random_numbers_alone(task) -> None:
    model, calibration, test = task
    loaders = [DataLoader(TensorDataset(*part), 50, shuffle=True) for part in (calibration, test)]
    before = torch.get_rng_state()
    sl.slim(model, loaders[0], sl.Macs(keep=0.5), test=loaders[1], effort="fast")
    assert torch.equal(torch.get_rng_state(), before)


def test_parts_can_be_chosen(task) -> None:
    model, calibration, test = task
    slimmed = sl.slim(
        model, calibration, sl.Units(keep=0.5), test=test, criterion=sl.WeightNorm(), strategy=sl.Uniform()
    )
    assert [len(kept) for kept in slimmed.receipt.plan.keep.values()] == [32, 32]
    assert slimmed.report.scores is not None
    assert slimmed.report.scores.criterion == "WeightNorm(p=1.0)"


def test_without_a_test_set_the_report_says_so(task) -> None:
    model, calibration, _ = task
    report = sl.slim(model, calibration, sl.Params(keep=0.5)).report
    assert report.settings["data"].startswith("the calibration examples themselves")


def test_a_budget_out_of_reach_names_the_nearest(task) -> None:
    model, calibration, _ = task
    with pytest.raises(sl.BudgetError, match=r"The nearest is Params\(keep="):
        sl.slim(model, calibration, sl.Params(keep=1))


def test_it_prints_as_its_report(task) -> None:
    model, calibration, _ = task
    done = sl.slim(model, calibration, sl.Params(keep=0.5), criterion=sl.WeightNorm(), strategy=sl.Uniform())
    assert repr(done) == str(done.report)


def test_efforts(task) -> None:
    """Fast refits; the others distil as well, for longer; a compensation of one's own comes instead."""
    model, calibration, _ = task
    names = {effort: [type(step).__name__ for step in steps(effort, [])] for effort in EFFORTS}
    assert names == {
        "fast": ["LeastSquares"],
        "balanced": ["LeastSquares", "Distill"],
        "best": ["LeastSquares", "Distill"],
    }
    fast = sl.slim(model, calibration, sl.Params(keep=0.5), effort="fast").receipt
    assert fast.compensation == "LeastSquares()"
    assert [effect.step for effect in fast.effects] == ["none", "LeastSquares()"]
    assert fast.effects[1].error < fast.effects[0].error
    own = sl.slim(model, calibration, sl.Params(keep=0.5), compensate=sl.FoldMean(calibration)).receipt
    assert own.compensation == "FoldMean()"
    bare = sl.slim(model, calibration, sl.Params(keep=0.5), compensate=()).receipt
    assert (bare.compensation, bare.effects) == ("none", ())


def test_a_generator_is_refused_before_any_work(task) -> None:
    model, calibration, _ = task
    once = (batch for batch in [calibration])
    with pytest.raises(sl.DataError, match="a generator can be only once. Pass a list"):
        sl.slim(model, once, sl.Params(keep=0.5))
    assert next(once) is calibration


def test_the_test_data_may_be_a_generator(task) -> None:
    model, calibration, test = task
    options = {"criterion": sl.WeightNorm(), "strategy": sl.Uniform(), "effort": "fast"}
    reports = [
        sl.slim(model, calibration, sl.Params(keep=0.5), test=data, **options).report
        for data in (test, iter([test]))
    ]
    assert reports[0]["accuracy"] == reports[1]["accuracy"]


def test_an_unknown_effort_names_those_there_are(task) -> None:
    model, calibration, _ = task
    with pytest.raises(sl.PlanError, match="effort='most': expected 'fast', 'balanced', 'best'"):
        sl.slim(model, calibration, sl.Params(keep=0.5), effort="most", compensate=())


def test_curves_are_measured_only_where_they_are_needed_and_not_known(task, monkeypatch) -> None:
    model, calibration, _ = task
    scanned = []

    def spy(model: nn.Module, scores: sl.Scores, data: object) -> sl.Scores:
        scanned.append(scores.criterion)
        return curved(model, scores, data)

    monkeypatch.setattr(slimming, "curved", spy)
    for criterion, strategy in (
        (None, None),
        (sl.WeightNorm(), sl.Uniform()),
        (sl.WeightNorm(), None),
        (sl.WeightNorm(p=2), sl.Tradeoff()),
    ):
        sl.slim(
            model, calibration, sl.Params(keep=0.5), effort="fast", criterion=criterion, strategy=strategy
        )
    assert scanned[1:] == ["WeightNorm(p=1.0)", "WeightNorm(p=2)"]

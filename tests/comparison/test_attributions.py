"""Scores that are compared: attributed once, aggregated as attribute does, timed, named when they fail."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import shapleaf as sl
from shapleaf import _context
from shapleaf.comparison.attributions import (
    aggregated,
    attributed,
    independent,
    timed,
    training_step,
)
from shapleaf.criteria import Needs, Probe
from sides import WORTH, Fixed, Seen, gain, ids


def test_scores_are_those_of_attribute_and_those_per_example_are_kept(case: Any, data: Any) -> None:
    one = case(aggregate=sl.MeanPlusStd(2.0))
    found = attributed(one, {"taylor": sl.Taylor(signed=True), "norm": sl.WeightNorm()}, data)
    for name, criterion in (("taylor", sl.Taylor(signed=True)), ("norm", sl.WeightNorm())):
        straight = sl.attribute(one.model, one.graph, data, criterion, loss=gain)
        assert torch.allclose(found[name].scores.values["0"], straight.values["0"], atol=1e-12)
        assert found[name].scores.settings == straight.settings
        assert found[name].scores.criterion == repr(criterion)
    x = torch.arange(1.0, 7.0).double()
    assert torch.allclose(found["taylor"].each["0"], x[:, None] * torch.tensor([WORTH], dtype=torch.float64))
    assert found["norm"].each == {}


def test_every_example_is_asked_for_once(case: Any, data: Any) -> None:
    criterion = Seen()
    attributed(case(), {"seen": criterion}, data)
    assert ids(criterion.asked) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("criterion", "alone"),
    [
        (sl.Taylor(), True),
        (sl.APoZ(), True),
        (sl.LRP(), True),
        (sl.LeaveOneOut(), True),
        (sl.LeaveOneOut(removal=sl.CalibrationMean()), False),
        (sl.LeaveOneOut(removal=sl.Reference(0.5)), True),
        (sl.LeaveOneOut(removal=sl.Reference("mean")), False),
        (sl.Conductance(), True),
        (sl.Conductance(baseline=sl.Reference("mean")), False),
        (sl.Shapley(), True),
        (sl.Shapley(sl.Permutation()), True),
        (sl.Shapley(sl.Permutation(truncate=0.1)), False),
        (sl.Shapley(sl.Adaptive(sl.Path(), confidence=0.9)), False),
        (sl.Shapley(sl.Corrected()), False),
        (sl.OptimalBrainSurgeon(), False),
        (sl.WeightNorm(), False),
        (Fixed((1.0,)), False),
    ],
)
def test_whose_scores_of_an_example_stand_for_themselves(criterion: sl.Criterion, alone: bool) -> None:
    assert independent(criterion) is alone


def test_scores_of_units_stay_what_they_are() -> None:
    values = torch.tensor([1.0, -2.0])
    assert aggregated(values, sl.AbsMean()) is values
    assert aggregated(torch.tensor([[1.0, -2.0], [1.0, 4.0]]), sl.AbsMean()).tolist() == [1, 3]


class Broken:
    needs: ClassVar[Needs] = Needs.NOTHING

    def __init__(self, error: Exception) -> None:
        self.error = error

    def score(self, probe: Probe) -> Tensor:
        raise self.error


def test_a_criterion_that_fails_is_named(case: Any, data: Any) -> None:
    criteria = {"fine": sl.WeightNorm(), "wrong size": Fixed((1.0, 2.0))}
    with pytest.raises(
        sl.CriterionError, match=r"criterion 'wrong size': group 0: .* expected scores of shape"
    ):
        attributed(case(), criteria, data)
    with pytest.raises(ZeroDivisionError) as caught:
        attributed(case(), {"mine": Broken(ZeroDivisionError())}, data)
    assert caught.value.__notes__ == ["This was criterion 'mine' of the comparison."]


def test_a_training_step_leaves_the_model_as_it_was(data: Any) -> None:
    model = nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2)).double().train()
    model[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    draw = torch.get_rng_state()
    step = training_step(model, data, _context.cross_entropy)
    assert step.wall > 0
    assert step.cpu > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [False, *[True] * 5]
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert torch.equal(draw, torch.get_rng_state())


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_a_training_step_has_gradients_wherever_it_is_asked_for(
    model: nn.Module, data: Any, off: Any
) -> None:
    with off():
        assert training_step(model, data, gain) is not None
        assert not torch.is_grad_enabled()


class Recomputed(nn.Module):
    def __init__(self, inner: nn.Module, how: Any) -> None:
        super().__init__()
        self.first, self.inner, self.how = nn.Linear(1, 1).double(), inner, how

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self.inner, self.first(x))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_training_step_may_recompute(model: nn.Module, data: Any, reentrant: bool) -> None:
    again = Recomputed(model, partial(checkpoint, use_reentrant=reentrant))
    assert training_step(again, data, gain) is not None


def test_there_is_no_training_step_where_no_gradient_goes(model: nn.Module, data: Any) -> None:
    frozen = Recomputed(model, torch.no_grad()(lambda inner, x: inner(x)))
    assert training_step(frozen, data, gain) is None


def test_time_is_that_of_the_work(model: nn.Module) -> None:
    found, seconds = timed(lambda: sum(range(10000)), model)
    assert found == 49995000
    assert seconds.wall > 0

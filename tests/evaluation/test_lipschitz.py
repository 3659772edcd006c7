"""Lipschitz-like sensitivity: known exactly for linear models, intervals, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import special, stats
from torch import Tensor, nn

import shapleaf as sl
from measured import Fn
from shapleaf import CriterionError, DataError
from shapleaf.data import Batch
from shapleaf.evaluation import Lipschitz


def linear(weight: Tensor) -> nn.Module:
    return Fn(lambda x: x.flatten(1) @ weight.to(x.dtype).T)


def values(metric: Lipschitz, model: nn.Module, inputs: Tensor) -> list[float]:
    return [row.value for row in metric.rows(model, None, Batch(inputs))]


def test_a_scaled_rotation_moves_everything_alike() -> None:
    turn = torch.linalg.qr(torch.randn(6, 6).double())[0]
    rows = Lipschitz().rows(linear(2.5 * turn), None, Batch(torch.randn(20, 6).double()))
    assert [row.metric for row in rows] == [
        "sensitivity (random)",
        "sensitivity (random, 95% below)",
        "sensitivity (worst)",
        "sensitivity (worst, 95% below)",
    ]
    for row in rows:
        assert (row.value, row.low) == (pytest.approx(2.5, rel=1e-9), pytest.approx(2.5, rel=1e-9))
        assert (row.unit, row.better, row.reference) == ("score per input", "lower", None)


def test_the_worst_of_a_linear_model_is_its_largest_singular_value() -> None:
    weight = torch.randn(5, 3, 4).double().flatten(1)
    found = values(Lipschitz(steps=60), linear(weight), torch.randn(10, 3, 4).double())
    assert found[2:] == pytest.approx([torch.linalg.matrix_norm(weight, 2).item()] * 2, rel=1e-6)
    few = values(Lipschitz(steps=1), linear(weight), torch.randn(10, 3, 4).double())
    assert found[0] < few[2] < found[2]  # never above, and nearer with every step


def test_random_directions_in_closed_form() -> None:
    """Of diag(3, 1): the mean of sqrt(9 cos^2 + sin^2), a complete elliptic integral."""
    expected = 3 * 2 / math.pi * special.ellipe(8 / 9)
    rows = Lipschitz(draws=4, steps=0).rows(
        linear(torch.tensor([[3.0, 0.0], [0.0, 1.0]])), None, Batch(torch.zeros(2000, 2).double())
    )
    assert len(rows) == 2
    low, high = rows[0].low, rows[0].high
    assert low is not None
    assert high is not None
    assert low < rows[0].value < high
    assert rows[0].value == pytest.approx(expected, abs=2 * (high - low))  # four standard errors
    assert high - low == pytest.approx(0.03, abs=0.01)


def test_it_is_local() -> None:
    """relu passes everything at 1 and nothing at -1."""
    inputs = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).double()
    found = Lipschitz().rows(Fn(torch.relu), None, Batch(inputs))
    assert [row.value for row in found][::2] == pytest.approx([0.5, 0.5])
    assert values(Lipschitz(), Fn(lambda x: x * 0), inputs) == [0, 0, 0, 0]


def test_probabilities_have_a_scale() -> None:
    """At 0 the slope of softmax (x, 0) is 1/4 for each of the two; at scores of a hundred it is nothing."""
    model = Fn(lambda x: torch.cat([x, 0 * x], 1))
    metric = Lipschitz(radius=1e-4, probabilities=True)
    found = metric.rows(model, None, Batch(torch.zeros(3, 1).double()))
    assert [row.value for row in found] == pytest.approx([math.sqrt(2) / 4] * 4, rel=1e-5)
    assert found[0].unit == "probability per input"
    assert values(metric, model, 100 + torch.zeros(3, 1).double()) == pytest.approx([0] * 4, abs=1e-12)


def test_models_are_moved_in_the_same_directions() -> None:
    inputs, model = torch.randn(8, 4), nn.Linear(4, 3)
    for row in Lipschitz().rows(model, model, Batch(inputs)):
        assert (row.reference, row.reference_low, row.reference_high) == (row.value, row.low, row.high)
    first = Lipschitz().rows(model, None, Batch(inputs[:1]))
    assert (first[0].low, first[0].high) == (None, None)
    parts = [values(Lipschitz(), model, inputs)[0]]
    each = [Lipschitz().rows(model, None, Batch(inputs[i : i + 1], None, i))[0].value for i in range(8)]
    assert sum(each) / 8 == pytest.approx(parts[0], rel=1e-5)  # named by the example, not by the batch


def test_the_interval_of_the_quantile_covers() -> None:
    """Slopes are uniform on [0, 1] here: the 95 % quantile is .95, in its interval 19 times of 20."""
    inputs = torch.rand(400, 1).double()
    model = Fn(lambda x: torch.cat([x * x / 2, 0 * x], 1))
    row = Lipschitz(radius=1e-6, steps=0, draws=2).rows(model, None, Batch(inputs))[1]
    assert row.low is not None
    assert row.high is not None
    assert row.low < 0.95 < row.high
    ordered = inputs[:, 0].sort().values
    places = [int((ordered < end - 1e-4).sum()) for end in (row.low, row.high)]
    inside = stats.binom.cdf(places[1], 400, 0.95) - stats.binom.cdf(places[0], 400, 0.95)
    assert inside == pytest.approx(0.95, abs=0.03)
    few = Lipschitz(steps=0).rows(model, None, Batch(inputs[:10]))[1]
    assert few.high is None


def test_it_is_a_metric_of_evaluate_and_leaves_the_model_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    data = [(torch.randn(6, 4), torch.randint(3, (6,)))]
    report = sl.evaluate(model, data, [Lipschitz()], reference=nn.Linear(4, 3))
    assert report["sensitivity (worst)"].value >= report["sensitivity (random)"].value > 0
    assert report["sensitivity (worst)"].reference is not None
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("wrong", [{"radius": 0}, {"radius": math.inf}, {"draws": 0}, {"steps": -1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(CriterionError, match="expected a finite radius above 0"):
        Lipschitz(**wrong)  # type: ignore[arg-type]


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match=r"one tensor of real numbers; received torch.int64"):
        values(Lipschitz(), nn.Identity(), torch.zeros(2, 3).long())
    with pytest.raises(DataError, match="received dict"):
        Lipschitz().rows(nn.Identity(), None, Batch({"x": torch.zeros(2, 3)}))
    broken = Fn(lambda x: torch.where(x > 1, math.inf, x))
    with pytest.raises(DataError, match="the output for example 7 is not finite"):
        Lipschitz().rows(broken, None, Batch(torch.tensor([[0.0], [2.0]]), None, 6))
    with pytest.raises(DataError, match=r"expected class scores of shape \(2, classes\)"):
        values(Lipschitz(), Fn(lambda x: x.sum(1)), torch.zeros(2, 3))
    with pytest.raises(CriterionError, match=r"use Lipschitz\(steps=0\)"):
        values(Lipschitz(), Fn(lambda x: (x > 0).float()), torch.ones(2, 3))

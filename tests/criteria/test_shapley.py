"""Taking units away: against really pruned networks, enumeration, and closed forms."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.errors import CriterionError
from zoo import Apply, conv, head, settle

X = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 0])
CLOSE = {"rtol": 0, "atol": 1e-12}


def net(units: int = 4) -> nn.Module:
    return settle(
        nn.Sequential(
            *(conv(2, units), nn.BatchNorm2d(units), nn.ReLU(), nn.MaxPool2d(2)),
            *(conv(units, 5), nn.ReLU(), head(5)),
        )
    )  # fmt: skip


def scores(model: nn.Module, criterion: sl.Criterion, name: str = "0", **options: Any) -> Tensor:
    options = {"aggregate": None, "groups": [name], **options}
    return sl.attribute(model, sl.trace(model, X), [(X, Y)], criterion, **options).values[name]


@torch.no_grad()
def loss(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), Y, reduction="none")


def test_leave_one_out_is_the_rise_after_pruning_one_unit() -> None:
    model = net()
    graph = sl.trace(model, X)
    expected = [
        loss(sl.prune(model, sl.plan(graph, {"0": [j for j in range(4) if j != i]})).model) - loss(model)
        for i in range(4)
    ]
    torch.testing.assert_close(scores(model, sl.LeaveOneOut()), torch.stack(expected, 1), **CLOSE)


def test_shapley_values_average_over_all_orders_of_really_pruning() -> None:
    model = net(3)
    graph = sl.trace(model, X)
    worth = {}
    for left in [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]:
        worth[left] = loss(sl.prune(model, sl.plan(graph, {"0": left})).model)
    with torch.no_grad():  # nobody: a plan keeps at least one unit, so the consumer reads zeros
        worth[()] = F.cross_entropy(
            model[4:](torch.zeros(4, 3, 3, 3, dtype=torch.float64)), Y, reduction="none"
        )
    expected = torch.zeros(4, 3, dtype=torch.float64)
    for order in permutations(range(3)):
        left = {0, 1, 2}
        for unit in order:
            before = worth[tuple(sorted(left))]
            left.remove(unit)
            expected[:, unit] += (worth[tuple(sorted(left))] - before) / 6
    torch.testing.assert_close(scores(model, sl.Shapley(sl.Exact())), expected, **CLOSE)


def test_efficiency() -> None:
    model = net()
    with torch.no_grad():
        nobody = F.cross_entropy(model[4:](torch.zeros(4, 4, 3, 3, dtype=torch.float64)), Y, reduction="none")
    for estimator in (sl.Exact(), sl.Permutation(2), sl.Permutation(3, antithetic=False, shared=True)):
        total = scores(model, sl.Shapley(estimator)).sum(1)
        torch.testing.assert_close(total, nobody - loss(model), **CLOSE)


def test_calibration_means_stand_in_for_absent_units() -> None:
    model = net()
    read = model[:4](X).detach()
    mean = read.mean((0, 2, 3), keepdim=True)
    expected = []
    for unit in range(4):
        changed = read.clone()
        changed[:, unit] = mean[:, unit]
        with torch.no_grad():
            rest: Tensor = model[4:](changed)
        expected.append(F.cross_entropy(rest, Y, reduction="none") - loss(model))
    found = scores(model, sl.LeaveOneOut(sl.CalibrationMean()))
    torch.testing.assert_close(found, torch.stack(expected, 1), **CLOSE)
    other = scores(model, sl.LeaveOneOut(sl.CalibrationMean([(X * 2, None)])))
    assert not torch.allclose(other, found)


def test_the_default_is_the_path_of_random_signs_with_absent_units_zero() -> None:
    assert sl.Shapley() == sl.Shapley(sl.Path(5, "signs", 4, 10), sl.Zero())
    assert sl.LeaveOneOut() == sl.LeaveOneOut(sl.Zero())


def test_the_default_passes_a_norm_written_by_hand() -> None:
    """Whose statistic is one of squares: masks below zero would make it negative, and its root nan."""
    norm = Apply(lambda self, x: x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt())
    model = settle(nn.Sequential(nn.Linear(6, 12), nn.Tanh(), norm, nn.Linear(12, 3)))
    x = torch.randn(10, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    data, graph = (x, torch.arange(10) % 3), sl.trace(model, x)
    exact, default = (
        sl.attribute(model, graph, data, criterion, aggregate=None).values["0"]
        for criterion in (sl.Shapley(sl.Exact()), sl.Shapley())
    )
    assert (default - exact).norm() < 0.3 * exact.norm()


def test_criteria_are_values() -> None:
    for criterion in (sl.Shapley(sl.Permutation(4)), sl.LeaveOneOut(sl.CalibrationMean())):
        assert len({criterion, replace(criterion)}) == 1
    assert repr(sl.Shapley(sl.Exact())) == "Shapley(estimator=Exact(), removal=Zero(), target=Loss())"
    data = [(X, Y)]
    assert repr(sl.LeaveOneOut(sl.CalibrationMean(data))) == (
        "LeaveOneOut(removal=CalibrationMean(), target=Loss())"
    )


@pytest.mark.parametrize(
    ("criterion", "evaluations"),
    [
        (sl.Shapley(), 3 * 5 * 4 + 2),
        (sl.Shapley(sl.Path(4, "gaussian", 2)), 3 * 4 * 2 + 2),
        (sl.Shapley(sl.Exact()), 2**4),
        (sl.Shapley(sl.Permutation(6)), 6 * (4 - 1) + 2),
        (sl.LeaveOneOut(), 4 + 1),
    ],
    ids=repr,
)
@pytest.mark.parametrize("size", [1, 4])
def test_evaluations_are_those_stated(criterion: sl.Criterion, evaluations: int, size: int) -> None:
    model = net()
    batches = [*zip(X.split(size), Y.split(size), strict=True)]
    rows = []
    graph = sl.trace(model, X)
    handle = model.register_forward_hook(lambda _, __, output: rows.append(len(output)))
    found = sl.attribute(model, graph, batches, criterion, groups=["0"]).evaluations
    handle.remove()
    assert found == {"0": evaluations}
    # A forward with its backward counts 3. Every batch also records its prefix and verifies it, and does so
    # again when it is repeated for several coalitions at a time.
    gradients = isinstance(getattr(criterion, "estimator", None), sl.Path)
    played = 2 + (evaluations - 2) // 3 if gradients else evaluations
    assert 4 * (played + 2) <= sum(rows) <= 4 * (2 * played + 6)


def test_a_linear_suffix_and_loss_make_all_of_them_equal() -> None:
    """With nothing curved behind the units each is worth what it contributes, whoever else is there."""

    def run(self: Any, x: Tensor) -> Tensor:
        return self.out(F.avg_pool2d(F.relu(self.a(x)), 2).flatten(1))

    model = settle(Apply(run, a=conv(2, 5), out=nn.Linear(45, 3)))

    def linear(output: Tensor, target: Tensor) -> Tensor:
        return -output.gather(1, target[:, None])[:, 0]

    pooled = F.avg_pool2d(F.relu(model.a(X)), 2)
    weights = model.out.weight.view(3, 5, 3, 3)[Y]
    expected = (pooled * weights).flatten(2).sum(2).detach()
    for criterion in (
        sl.Taylor(signed=True),
        sl.LeaveOneOut(),
        sl.Shapley(sl.Exact()),
        sl.Shapley(sl.Path(1, "line")),
        sl.Shapley(sl.Path(5, "line")),
        sl.Shapley(sl.Permutation(2)),
        sl.Shapley(sl.Permutation(1, antithetic=False, shared=True)),
    ):
        torch.testing.assert_close(scores(model, criterion, "a", loss=linear), expected, **CLOSE)
    torch.testing.assert_close(scores(model, sl.Taylor(), "a", loss=linear), expected.abs(), **CLOSE)


def test_too_many_units_for_enumeration_are_named() -> None:
    with pytest.raises(
        CriterionError, match=r"at most 16 units; group '0' has 20. Use Permutation\(\) or Path\(\)"
    ):
        scores(net(20), sl.Shapley(sl.Exact()))


def test_units_twice_are_worth_the_same() -> None:
    """Symmetry, through a network: the second channel is a copy of the first, for producer and consumer."""
    model = net()
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias, *model[1].state_dict().values()):
            if tensor.ndim:
                tensor[1] = tensor[0]
        model[4].weight[:, 1] = model[4].weight[:, 0]
    values = scores(model, sl.Shapley(sl.Exact()))
    torch.testing.assert_close(values[:, 0], values[:, 1], **CLOSE)


def test_a_dead_unit_is_worth_exactly_nothing() -> None:
    model = net()
    with torch.no_grad():
        model[4].weight[:, 2] = 0
    for criterion in (
        sl.Shapley(sl.Exact()),
        sl.Shapley(sl.Permutation(4)),
        sl.Shapley(sl.Path(4, "gaussian", 2)),
        sl.LeaveOneOut(),
        sl.Taylor(),
        sl.Sensitivity(),
    ):
        assert scores(model, criterion)[:, 2].tolist() == [0, 0, 0, 0]


def test_occlusion_by_one_unit_is_leave_one_out() -> None:
    assert torch.equal(scores(net(), sl.Occlusion()), scores(net(), sl.LeaveOneOut()))


def test_occlusion_shares_the_rise_of_every_run_of_units() -> None:
    model = net()
    graph = sl.trace(model, X)
    rises = [
        loss(sl.prune(model, sl.plan(graph, {"0": [j for j in range(4) if not i <= j < i + 3]})).model)
        - loss(model)
        for i in range(2)
    ]
    first, second = rises
    expected = torch.stack([first, (first + second) / 2, (first + second) / 2, second], 1) / 3
    torch.testing.assert_close(scores(model, sl.Occlusion(3)), expected, **CLOSE)
    whole = scores(model, sl.Occlusion(4))
    torch.testing.assert_close(whole.sum(1), scores(model, sl.Shapley(sl.Exact())).sum(1), **CLOSE)
    assert whole.std(1).max() == 0


def test_windows_out_of_range() -> None:
    with pytest.raises(CriterionError, match=r"Occlusion\(window=5\) is wider than group 0 of 4 units"):
        scores(net(), sl.Occlusion(5))
    with pytest.raises(CriterionError, match="must be at least 1 unit, received 0"):
        sl.Occlusion(0)


REMOVALS = [sl.Zero(), sl.CalibrationMean(), sl.Reference(), sl.Reference("mean")]


@pytest.mark.parametrize("removal", REMOVALS, ids=repr)
def test_integrated_gradients_are_the_straight_path(removal: Any) -> None:
    model = net()
    found = scores(model, sl.IntegratedGradients(7, removal))
    assert torch.equal(found, scores(model, sl.Shapley(sl.Path(7, "line"), removal)))
    ends = scores(model, sl.Occlusion(4, removal)).sum(1)  # with all units, and with none
    many = scores(model, sl.IntegratedGradients(64, removal)).sum(1)
    torch.testing.assert_close(many, ends, rtol=0, atol=3e-3)
    with pytest.raises(CriterionError, match="must be at least 1, received 0"):
        sl.IntegratedGradients(0)


@pytest.mark.parametrize(
    "criterion", [sl.Shapley(sl.Exact()), sl.LeaveOneOut(), sl.IntegratedGradients(4)], ids=repr
)
def test_a_game_is_played_for_its_target(criterion: Any) -> None:
    """What falls is a cost that rises; and no labels are needed where the class is named."""
    model = net()
    graph = sl.trace(model, X)
    found = scores(model, replace(criterion, target=sl.Logit(1)))
    as_loss = scores(model, criterion, loss=lambda output, _: -output[:, 1])
    torch.testing.assert_close(found, as_loss, **CLOSE)
    alone = sl.attribute(
        model, graph, [X], replace(criterion, target=sl.Logit(1)), aggregate=None, groups=["0"]
    )
    assert torch.equal(alone.values["0"], found)
    assert alone.settings["loss"] == "none"

"""Owen's integral of moments: exact where theory says so, close where it does not, and harmless."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from games import network, random
from shapleaf import _context
from shapleaf.data import Batch
from shapleaf.errors import CriterionError
from shapleaf.game import Estimate, Estimator, Exact, OwenMoments, Path
from shapleaf.game.layer import LayerGame
from shapleaf.game.toys import QuadraticGame
from zoo import settle

CLASSES = 4


def squared(output: Tensor, target: Tensor) -> Tensor:
    return (output - F.one_hot(target, CLASSES)).square().sum(1)


def dense(units: int, *hidden: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A random network of dense layers, and 20 examples."""
    sizes = [6, units, *hidden, CLASSES]
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    return settle(nn.Sequential(*layers[:-1])), 2 * random(20, 6), torch.arange(20) % CLASSES


def maps() -> tuple[nn.Module, Tensor, Tensor]:
    """Eight maps, then convolution, norm, ReLU in place, max-pool, flatten, linear."""
    layers = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.BatchNorm2d(6),
    ]
    layers += [nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 4, CLASSES)]
    return settle(nn.Sequential(*layers)), 2 * random(15, 3, 6, 6), torch.arange(15) % CLASSES


def played(
    net: tuple[nn.Module, Tensor, Tensor],
    estimator: Estimator,
    loss: Callable[..., Tensor] = _context.cross_entropy,
    group: str = "0",
    cuts: tuple[int, ...] = (),
    **options: Any,
) -> Estimate:
    model, x, y = net
    ends = [0, *cuts, len(x)]
    batches = [Batch(x[a:b], y[a:b], a) for a, b in pairwise(ends)]
    with _context.inference(model):
        return estimator.estimate(LayerGame(model, sl.trace(model, x)[group], batches, loss, **options))


def relative_error(values: Tensor, exact: Tensor) -> float:
    return ((values - exact).square().mean() / exact.square().mean()).sqrt().item()


def correlation(values: Tensor, exact: Tensor) -> float:
    """Spearman's, of means over examples."""
    ranks = torch.stack([v.mean(0).argsort().argsort().double() for v in (values, exact)])
    return torch.corrcoef(ranks)[0, 1].item()


@pytest.mark.parametrize("points", [1, 3, 8])
def test_squared_error_of_a_linear_readout_is_exact(points: int) -> None:
    """The values are ⟨c_i, 2y − ŷ − b⟩ (specification, 11.3)."""
    model, x, y = net = dense(10)
    readout = model[2]
    contributions = torch.relu(model[0](x))[:, :, None] * readout.weight.T
    closed = QuadraticGame(contributions.detach(), F.one_hot(y, CLASSES).double(), readout.bias.detach())
    estimate = played(net, OwenMoments(points), squared)
    torch.testing.assert_close(estimate.values, closed.shapley(), rtol=0, atol=1e-12)
    assert estimate.gap is not None
    assert estimate.gap.abs().max() < 1e-12


def test_fewer_units_than_outputs_are_exact_too() -> None:
    """The covariance of the outputs is singular then."""
    net = dense(2)
    exact = played(net, Exact(), squared).values
    torch.testing.assert_close(played(net, OwenMoments(2), squared).values, exact, rtol=0, atol=1e-12)


def test_cost_does_not_depend_on_units_and_nothing_is_drawn() -> None:
    for units in (5, 9):
        first, second = (played(dense(units, 7), OwenMoments(points=3)) for _ in range(2))
        assert first.evaluations == 6 * 3 + 2
        assert first.values.shape == (20, units)
        assert first.stderr is None
        assert not first.shared
        assert torch.equal(first.values, second.values)


def test_units_that_feed_the_outputs_are_nearly_exact() -> None:
    net = dense(12)
    exact = played(net, Exact()).values
    moments, path = (
        relative_error(played(net, how).values, exact) for how in (OwenMoments(8), Path(16, "line"))
    )
    assert moments < 0.015
    assert path > 3 * moments


def test_behind_a_layer_it_beats_the_straight_path_at_the_same_cost() -> None:
    net = dense(12, 32)
    exact = played(net, Exact()).values
    moments, path = played(net, OwenMoments(8)), played(net, Path(16, "line"))
    assert moments.evaluations == path.evaluations == 50
    assert relative_error(moments.values, exact) < 0.1
    assert relative_error(moments.values, exact) < 0.6 * relative_error(path.values, exact)
    assert correlation(moments.values, exact) > 0.95


def test_gap_closes_with_more_points() -> None:
    """There is no variance at either end, so the integral of the slope is what the ends differ by."""
    gaps = [played(dense(10, 16), OwenMoments(points)).gap for points in (4, 64)]
    few, many = (gap.abs().max().item() for gap in gaps if gap is not None)
    assert many < 0.005
    assert few > 10 * many


def test_convolution_norm_and_max_pool() -> None:
    net = maps()
    exact = played(net, Exact()).values
    found = played(net, OwenMoments(8)).values
    assert relative_error(found, exact) < 0.2
    assert correlation(found, exact) > 0.9


def test_units_behind_a_pool_and_flatten_own_all_their_places() -> None:
    net = maps()
    exact = played(net, Exact(), group="3").values
    assert relative_error(played(net, OwenMoments(8), group="3").values, exact) < 0.01


def test_dead_units_get_nothing() -> None:
    model, x, y = dense(6, 8)
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, -1
    assert (played((model, x, y), OwenMoments(4)).values[:, 2] == 0).all()


@pytest.mark.parametrize("net", [dense(7, 9), maps()], ids=["dense", "maps"])
@pytest.mark.parametrize("cuts", [(3,), (1, 2, 9)])
def test_batches_make_no_difference(net: Any, cuts: tuple[int, ...]) -> None:
    whole = played(net, OwenMoments(3)).values
    cut = played(net, OwenMoments(3), cuts=cuts).values
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_memory_makes_no_difference(rows: int) -> None:
    """Four times what a gradient through masks takes, so that 7 rows are 1 at a time."""
    net = maps()
    whole = played(net, OwenMoments(3))
    with _context.inference(net[0]):
        one = LayerGame(net[0], sl.trace(*net[:2])["0"], [Batch(*net[1:])], _context.cross_entropy).parts[0]
    cut = played(net, OwenMoments(3), memory=rows * one.row_bytes)
    torch.testing.assert_close(cut.values, whole.values, rtol=0, atol=1e-10)
    assert cut.evaluations == whole.evaluations


def test_absent_units_may_leave_their_means_behind() -> None:
    model, x, y = dense(8, 10)
    graph, means = sl.trace(model, x), sl.CalibrationMean()
    exact, moments, zero = (
        sl.attribute(model, graph, [(x, y)], sl.Shapley(how, removal), groups=["0"], aggregate=None).values[
            "0"
        ]
        for how, removal in ((sl.Exact(), means), (OwenMoments(8), means), (sl.Exact(), sl.Zero()))
    )
    assert relative_error(moments, exact) < 0.1 < relative_error(zero, exact)


def test_the_model_is_left_as_it_was() -> None:
    model, x, y = maps()
    model.train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    kept = x.clone()
    sl.attribute(model, sl.trace(model, x), [(x, y)], sl.Shapley(OwenMoments(2)))
    assert model.training
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("layer", [nn.LayerNorm(7), nn.Softmax(1)])
def test_networks_without_rules_are_refused(layer: nn.Module) -> None:
    model = settle(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 7), layer, nn.Linear(7, CLASSES)))
    name = "layer_norm" if isinstance(layer, nn.LayerNorm) else "softmax"
    with pytest.raises(CriterionError, match=rf"group 0 through '{name}' \(call 3:{name}#0\).*Use Path\(\)"):
        played((model, random(4, 6), torch.arange(4)), OwenMoments())


def test_a_game_of_losses_alone_is_refused() -> None:
    with pytest.raises(CriterionError, match="OwenMoments propagates moments .* received a FunctionGame"):
        OwenMoments().estimate(network())


@pytest.mark.parametrize("arguments", [{"points": 0}, {"samples": 1}])
def test_arguments_out_of_range(arguments: dict[str, int]) -> None:
    with pytest.raises(CriterionError, match="OwenMoments needs points >= 1 and samples >= 2"):
        OwenMoments(**arguments)

"""DASP: closed forms, its two exact ends, its known accuracy, and how work is cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shapleaf as sl
from games import network, random
from shapleaf import _context
from shapleaf.data import Batch
from shapleaf.errors import CriterionError
from shapleaf.game import DASP, Estimate, Exact
from shapleaf.game import dasp as module
from shapleaf.game.dasp import coalition_sizes
from shapleaf.game.layer import LayerGame
from zoo import settle

CLASSES = 4


def squared(output: Tensor, target: Tensor) -> Tensor:
    return (output - nn.functional.one_hot(target, CLASSES)).square().sum(1)


def dense(units: int, *hidden: int) -> nn.Module:
    sizes = [6, units, *hidden, CLASSES]
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    return settle(nn.Sequential(*layers[:-1]))


def maps() -> nn.Module:
    layers = [
        nn.Conv2d(2, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Conv2d(5, 6, 3),
        nn.BatchNorm2d(6),
    ]
    layers += [nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6, CLASSES)]
    return settle(nn.Sequential(*layers))


def data(model: nn.Module, examples: int = 20) -> tuple[Tensor, Tensor]:
    shape = (2, 5, 5) if isinstance(model[0], nn.Conv2d) else (6,)
    return 2 * random(examples, *shape), torch.arange(examples) % CLASSES


def game(model: nn.Module, loss: Any = _context.cross_entropy, *cuts: int, **options: Any) -> LayerGame:
    x, y = data(model)
    ends = [0, *cuts, len(x)]
    batches = [Batch(x[a:b], y[a:b], a) for a, b in pairwise(ends)]
    return LayerGame(model, sl.trace(model, x)["0"], batches, loss, **options)


def played(model: nn.Module, estimator: Any, *arguments: Any, **options: Any) -> Estimate:
    with _context.inference(model):
        estimate: Estimate = estimator.estimate(game(model, *arguments, **options))
    return estimate


def relative_error(values: Tensor, exact: Tensor) -> float:
    return ((values - exact).square().mean() / exact.square().mean()).sqrt().item()


def correlation(values: Tensor, exact: Tensor) -> float:
    ranks = torch.stack([v.mean(0).argsort().argsort().double() for v in (values, exact)])
    return torch.corrcoef(ranks)[0, 1].item()


def test_sizes_are_the_middles_of_even_runs() -> None:
    assert coalition_sizes(7, None) == [*range(7)]
    assert coalition_sizes(16, 4) == [2, 6, 10, 14]
    assert coalition_sizes(10, 1) == [5]
    assert coalition_sizes(3, 8) == [0, 1, 2]
    assert coalition_sizes(1, None) == [0]


@pytest.mark.parametrize("units", [2, 3, 10])
def test_squared_error_of_a_linear_readout_is_exact_with_all_sizes(units: int) -> None:
    model = dense(units)
    exact, found = played(model, Exact(), squared), played(model, DASP(), squared)
    torch.testing.assert_close(found.values, exact.values, rtol=0, atol=1e-12)
    assert found.gap is not None
    assert found.gap.abs().max() < 1e-12


@pytest.mark.parametrize(("units", "error"), [(9, 0.0), (10, 0.01)])
def test_one_size_is_exact_where_it_lies_in_the_middle(units: int, error: float) -> None:
    """Of 9 units, 4 of the 8 others; of 10 it is 5 of the 9 others."""
    model = dense(units)
    exact, found = played(model, Exact(), squared).values, played(model, DASP(1), squared).values
    if error:
        assert relative_error(found, exact) > error
    else:
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", [dense(6, 8), maps()], ids=["dense", "maps"])
@pytest.mark.parametrize("size", [0, -1])
def test_the_smallest_and_largest_size_are_exact(
    model: nn.Module, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else: what a unit gains alone. Everybody else: leaving one out."""
    players = model[0].weight.shape[0]
    monkeypatch.setattr(module, "coalition_sizes", lambda *_: [size % players])
    found = played(model, DASP()).values
    with _context.inference(model):
        rest = torch.full((players, 20, players), 0.0 if size == 0 else 1.0).double()
        without, present = (
            rest.scatter(2, torch.arange(players)[:, None, None].expand(-1, 20, 1), to) for to in (0.0, 1.0)
        )
        one = game(model)
        expected = one.loss(without) - one.loss(present)
    torch.testing.assert_close(found, expected.T, rtol=0, atol=1e-11)


def test_a_trained_network_with_one_layer_behind() -> None:
    """Specification 11.7: relative error at most .35, rank correlation of the mean at least .9."""
    model = dense(12, 32)
    x, y = data(model)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    exact = played(model, Exact()).values
    for estimator, error in ((DASP(), 0.35), (DASP(4), 0.4)):
        found = played(model, estimator).values
        assert relative_error(found, exact) < error
        assert correlation(found, exact) > 0.9


def test_convolution_norm_and_max_pool() -> None:
    exact, found = played(maps(), Exact()).values, played(maps(), DASP()).values
    assert relative_error(found, exact) < 0.15
    assert correlation(found, exact) > 0.85


def test_single_precision_is_enough() -> None:
    """Eight units straight into five and fewer logits: covariances are singular and must stay definite."""
    for units in (3, 8):
        model = dense(units)
        exact = played(model, DASP()).values
        x, y = data(model)
        single, graph = model.float(), sl.trace(model, x.float())
        shapley = sl.Shapley(DASP())
        found = sl.attribute(single, graph, [(x.float(), y)], shapley, aggregate=None).values["0"]
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-4)


def test_cost_and_what_is_reported() -> None:
    for estimator, sizes in ((DASP(), 7), (DASP(3), 3), (DASP(20), 7)):
        estimate = played(dense(7, 5), estimator)
        assert estimate.evaluations == 4 * 7 * sizes + 2
        assert estimate.values.shape == (20, 7)
        assert estimate.stderr is None
        assert not estimate.shared
    assert torch.equal(played(dense(7, 5), DASP()).values, played(dense(7, 5), DASP()).values)


@pytest.mark.parametrize("model", [dense(5, 6), maps()], ids=["dense", "maps"])
def test_batches_and_memory_make_no_difference(model: nn.Module) -> None:
    whole = played(model, DASP()).values
    with _context.inference(model):
        one = game(model).parts[0].row_bytes
    for cuts, rows in (((3,), 100), ((1, 2, 9), 20), ((), 7)):
        cut = played(model, DASP(), _context.cross_entropy, *cuts, memory=rows * one).values
        torch.testing.assert_close(cut, whole, rtol=0, atol=1e-10)


def test_absent_units_may_leave_their_means_behind() -> None:
    model = dense(8, 10)
    x, y = data(model)
    graph, means = sl.trace(model, x), sl.CalibrationMean()
    exact, found, zero = (
        sl.attribute(model, graph, [(x, y)], sl.Shapley(how, removal), groups=["0"], aggregate=None).values[
            "0"
        ]
        for how, removal in ((sl.Exact(), means), (DASP(), means), (sl.Exact(), sl.Zero()))
    )
    assert relative_error(found, exact) < 0.1 < relative_error(zero, exact)


def test_networks_without_rules_are_refused() -> None:
    model = settle(
        nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 4))
    )
    with pytest.raises(CriterionError, match=r"through 'layer_norm' \(call 3:layer_norm#0\).*Use Path\(\)"):
        played(model, DASP(1))


def test_a_game_of_losses_alone_is_refused() -> None:
    with pytest.raises(CriterionError, match="DASP propagates moments .* received a FunctionGame"):
        DASP().estimate(network())


@pytest.mark.parametrize("arguments", [{"sizes": 0}, {"samples": 1}])
def test_arguments_out_of_range(arguments: dict[str, int]) -> None:
    with pytest.raises(CriterionError, match="DASP needs sizes >= 1 or None and samples >= 2"):
        DASP(**arguments)

"""Means and variances behind a group: every call by its rule, written in place or not, or refused."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from games import random
from shapleaf import _context
from shapleaf.data import Batch
from shapleaf.errors import CriterionError
from shapleaf.game import OwenMoments
from shapleaf.game.layer import LayerGame
from shapleaf.game.propagation import Spread, expected_loss, normals, pieces
from zoo import Apply, settle

X, Y = random(6, 3), torch.arange(6) % 4


def values(behind: Any, loss: Any = _context.cross_entropy, **modules: nn.Module) -> Tensor:
    """Values of 5 units that a linear layer reads before ``behind`` runs."""

    def run(self: Any, x: Tensor) -> Any:
        return behind(self, self.b(F.relu(self.a(x))))

    model = settle(Apply(run, a=nn.Linear(3, 5), b=nn.Linear(5, 6), c=nn.Linear(6, 4), **modules))
    group = sl.trace(model, X)["a"]
    with _context.inference(model):
        game = LayerGame(model, group, [Batch(X, Y)], loss)
        return OwenMoments(2).estimate(game).values


def summed(self: Any, x: Tensor) -> Tensor:
    kept = x.add(1)
    x += 1
    return self.c(x.mul_(2).relu_() + kept)


SAME = {
    "methods": lambda self, x: self.c((x + 1).mul(2).relu() + (x + 1)),
    "in place": summed,
    "functional": lambda self, x: self.c(F.relu(torch.add(x, 1) * 2, inplace=True) + torch.add(1, x)),
    "leaky": lambda self, x: self.c(F.leaky_relu_((x + 1) * 2, 0.0) + (1 + x)),
    "positional": lambda self, x: self.c(F.leaky_relu((x + 1) / 0.5, 0.0, True) - (-x - 1)),
    "shapes": lambda self, x: self.c(
        torch.cat([h.squeeze(1) for h in F.relu(x.view(x.size(0), 2, -1).add(1) * 2).split(1, 1)], dim=1)
        + torch.stack([x[:, i] for i in range(x.shape[-1])], -1)
        + 1
    ),
    "attributes": lambda self, x: self.c(F.relu((x + 1) * 2).T.contiguous().T + F.dropout(x + 1, 0.5, False)),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_function_has_the_same_moments_however_it_is_written(name: str) -> None:
    torch.testing.assert_close(values(SAME[name]), values(SAME["methods"]), rtol=0, atol=1e-12)


def test_in_place_writes_reach_later_reads() -> None:
    def behind(self: Any, x: Tensor) -> Tensor:
        x.relu_()
        return self.c(x)

    expected = values(lambda self, x: self.c(F.relu(x)))
    torch.testing.assert_close(values(behind), expected, rtol=0, atol=1e-12)


def test_a_view_of_what_was_written_to_is_not_read() -> None:
    def behind(self: Any, x: Tensor) -> Tensor:
        view = x.view(x.shape[0], 2, 3)
        x.relu_()
        return self.c(view.flatten(1))

    with pytest.raises(CriterionError, match="'flatten'.*in place through another view"):
        values(behind)


def scores(self: Any, x: Tensor) -> Tensor:
    x[:, 0] = 0
    return self.c(x)


REFUSED = {
    "softmax": lambda self, x: self.c(F.softmax(x, 1)),
    "layer_norm": lambda self, x: self.c(F.layer_norm(x, (6,))),
    "linear": lambda self, x: F.linear(X[:4, :1].T.expand(6, 4), x[:4, :4]),
    "__setitem__": scores,
    "mean": lambda self, x: self.c(x - x.mean(0)),
    "cumsum": lambda self, x: self.c(x.cumsum(1)),
    "lt": lambda self, x: self.c(x * (x < 0)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_without_a_rule_is_refused_by_name(name: str) -> None:
    """Where examples influence each other, the game itself says so."""
    with pytest.raises(CriterionError, match=rf"'{name}'.*Use Path\(\)|Either the model or the loss mixes"):
        values(REFUSED[name])


def test_units_read_again_behind_their_own_readers_are_refused() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        stream = self.a(x)
        for layer in (self.b, self.c):
            stream = stream + F.relu(layer(stream))
        return self.head(stream)

    layers = {"a": nn.Linear(3, 5), "b": nn.Linear(5, 5), "c": nn.Linear(5, 5), "head": nn.Linear(5, 4)}
    model = settle(Apply(run, **layers))
    with pytest.raises(CriterionError, match=r"call c:linear#0.*on the units already"):
        sl.attribute(model, sl.trace(model, X), [(X, Y)], sl.Shapley(OwenMoments()))


def test_parallel_readers_of_one_group_add_up() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        hidden = F.relu(self.a(x))
        return torch.cat([self.b(hidden), self.c(hidden)], 1)

    def error(output: Tensor, target: Tensor) -> Tensor:
        return (output - F.one_hot(target, 4)).square().sum(1)

    model = settle(Apply(run, a=nn.Linear(3, 5), b=nn.Linear(5, 2), c=nn.Linear(5, 2)))
    graph = sl.trace(model, X)
    assert len(graph["a"].sites) == 2
    exact, moments = (
        sl.attribute(model, graph, [(X, Y)], sl.Shapley(how), loss=error, aggregate=None).values["a"]
        for how in (sl.Exact(), OwenMoments(1))
    )
    torch.testing.assert_close(moments, exact, rtol=0, atol=1e-12)


def test_outputs_in_a_dictionary() -> None:
    def loss(output: dict[str, Tensor], target: Tensor) -> Tensor:
        return F.cross_entropy(output["logits"], target, reduction="none") * output["weight"]

    def behind(self: Any, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.c(F.relu(x)), "weight": torch.arange(len(x)).double()}

    plain = values(lambda self, x: self.c(F.relu(x)))
    torch.testing.assert_close(values(behind, loss), plain * torch.arange(6)[:, None], rtol=0, atol=1e-12)


def test_an_output_that_does_not_depend_on_the_units_is_refused() -> None:
    with pytest.raises(CriterionError, match="no tensor of the model's output is known to depend"):
        values(lambda self, x: self.c(x).new_zeros(6, 4))


def test_pieces_are_even_runs_within_memory() -> None:
    model = settle(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)))
    group = sl.trace(model, X)["0"]
    with _context.inference(model):
        row = LayerGame(model, group, [Batch(X, Y)], _context.cross_entropy).parts[0].row_bytes
        found = {
            rows: [
                piece.examples
                for piece in pieces(
                    LayerGame(model, group, [Batch(X, Y)], _context.cross_entropy, memory=rows * row)
                )
            ]
            for rows in (100, 16, 6)
        }
    assert found == {100: [6], 16: [3, 3], 6: [1] * 6}


def played(mean: Tensor, covariance: Tensor, *, full: bool, samples: int = 32) -> Tensor:
    """Expected cross-entropy of class 0 of Gaussian logits."""
    spread = Spread(mean, covariance.diagonal(dim1=1, dim2=2), (lambda: covariance) if full else None)
    reader: Any = SimpleNamespace(spread=lambda leaf: spread if leaf is mean else None)
    target = torch.zeros(len(mean), dtype=torch.long)
    losses = SimpleNamespace(
        losses=lambda output, times: F.cross_entropy(output, target.repeat(times), reduction="none")
    )
    part: Any = losses
    return expected_loss(mean, reader, part, samples)


@pytest.mark.parametrize("full", [True, False])
def test_expected_cross_entropy_of_gaussian_logits(full: bool) -> None:
    """Ten logits of variance 1: within .05, where the loss of the mean is .3 off (specification)."""
    mean, root = random(50, 10), random(50, 10, 10, seed=1)
    covariance = root @ root.transpose(1, 2)
    scale = covariance.diagonal(dim1=1, dim2=2).rsqrt()
    covariance = covariance * scale[:, :, None] * scale[:, None]
    if not full:
        covariance = torch.eye(10).double().expand(50, 10, 10)
    noise = random(20_000, 10, seed=2)
    root = torch.linalg.cholesky(covariance)
    target = torch.zeros(20_000, dtype=torch.long)
    exact = torch.stack([F.cross_entropy(m + noise @ r.T, target) for m, r in zip(mean, root, strict=True)])
    naive = F.cross_entropy(mean, target[:50], reduction="none")
    found = played(mean, covariance, full=full)
    assert (found - exact).square().mean().sqrt() < 0.05
    assert (naive - exact).square().mean().sqrt() > 0.2


def test_expected_loss_without_variance_is_the_loss() -> None:
    mean = random(3, 4)
    zero = torch.zeros(3, 4, 4).double()
    expected = F.cross_entropy(mean, torch.zeros(3, dtype=torch.long), reduction="none")
    for full in (True, False):
        torch.testing.assert_close(played(mean, zero, full=full), expected, rtol=0, atol=1e-14)


def test_more_outputs_than_samples_take_more_samples() -> None:
    """A squared error is exact for any covariance: normals are uncorrelated, whatever their number."""
    noise = normals(40, 40)
    assert noise.shape == (80, 40)
    torch.testing.assert_close(noise.T @ noise / 80, torch.eye(40).double(), rtol=0, atol=1e-10)
    assert noise.sum(0).abs().max() < 1e-10


def test_normals_are_repeatable_and_leave_the_generator_alone() -> None:
    state = torch.get_rng_state()
    first = normals(5, 16).clone()
    normals.cache_clear()
    assert torch.equal(normals(5, 16), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert math.isclose(normals(1000, 16).square().mean().item(), 1)


def test_outputs_beyond_the_sequences_are_refused() -> None:
    mean = torch.zeros(1, 30_000).double()
    reader: Any = SimpleNamespace(spread=lambda leaf: Spread(mean, mean + 1))
    part: Any = SimpleNamespace(name="g")
    with pytest.raises(CriterionError, match="30,000 random numbers per example; .* up to 21,201"):
        expected_loss(mean, reader, part, 32)


@pytest.mark.parametrize("estimator", [sl.OwenMoments(), sl.DASP()], ids=["OwenMoments", "DASP"])
def test_one_number_for_each_example(estimator: Any) -> None:
    """A regression: outputs of shape (examples,); squared errors of a linear readout, so both are exact."""

    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x))).squeeze(1)

    model = settle(Apply(run, a=nn.Linear(3, 5), b=nn.Linear(5, 1)))
    data = (X, Y.double())
    graph = sl.trace(model, X)
    exact, found = (
        sl.attribute(model, graph, data, sl.Shapley(by), loss=squared, aggregate=None).values["a"]
        for by in (sl.Exact(), estimator)
    )
    assert (found - exact).abs().max() < 1e-10


def squared(output: Tensor, target: Tensor) -> Tensor:
    return (output - target) ** 2

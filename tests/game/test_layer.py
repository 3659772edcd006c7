"""The game over all data: how it is cut into batches, stacked and spread makes no difference."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf import _context
from shapleaf.data import Batch
from shapleaf.errors import CriterionError
from shapleaf.game import Game
from shapleaf.game.layer import LayerGame
from zoo import Apply, conv, head, settle

X = torch.randn(7, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 2, 1, 1, 0, 1, 2])
STACK = torch.rand(5, 7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def plain() -> nn.Module:
    """Four channels after the first convolution."""
    return settle(nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 5), nn.ReLU(), head(5)))


def play(model: nn.Module, *cuts: int, first: int = 0, **options: Any) -> LayerGame:
    """The game at the first group, with the examples in batches that end at the cuts."""
    ends = [0, *cuts, len(X)]
    batches = [Batch(X[a:b], Y[a:b], first + a) for a, b in pairwise(ends)]
    group = sl.trace(model, X)["0"]
    with _context.inference(model):
        return LayerGame(model, group, batches, _context.cross_entropy, **options)


def reference(model: nn.Sequential, mask: Tensor) -> Tensor:
    hidden = model[:3](X)
    loss: Tensor = F.cross_entropy(model[3:](hidden * mask[:, :, None, None]), Y, reduction="none")
    return loss


def test_it_is_a_game() -> None:
    game = play(plain(), first=7)
    assert isinstance(game, Game)
    assert (game.players, game.examples, game.name) == (4, 7, "0")
    assert game.ids == (7, 8, 9, 10, 11, 12, 13)
    assert (game.dtype, game.device) == (torch.float64, torch.device("cpu"))
    assert game.evaluations == 0


@pytest.mark.parametrize("cuts", [(), (3,), (1, 2, 6)])
def test_stacked_coalitions_in_any_batches_are_those_of_the_masked_network(cuts: tuple[int, ...]) -> None:
    model, game = plain(), play(plain(), *cuts)
    mask = STACK.clone().requires_grad_()
    expected = torch.stack([reference(model, one) for one in mask])
    (slopes,) = torch.autograd.grad(expected.sum(), mask)
    torch.testing.assert_close(game.loss(STACK), expected.detach(), rtol=0, atol=1e-12)
    loss, gradient = game.gradient(STACK)
    torch.testing.assert_close(loss, expected.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient, slopes, rtol=0, atol=1e-12)
    assert game.evaluations == 5 + 15
    torch.testing.assert_close(game.loss(STACK[0]), expected[0].detach(), rtol=0, atol=1e-12)


def test_memory_decides_how_many_rows_run_at_a_time() -> None:
    model = plain()
    one = play(model).parts[0].row_bytes
    for rows, parts, width in (
        (1, [1] * 7, 1),
        (3, [2, 2, 3], 1),
        (7, [7], 1),
        (14, [7], 2),
        (10**4, [7], 146),
    ):
        game = play(model, memory=rows * one)
        assert ([part.examples for part in game.parts], game.width) == (parts, width)
        torch.testing.assert_close(
            game.loss(STACK[0]), reference(model, STACK[0]).detach(), rtol=0, atol=1e-12
        )
    # 1,152 bytes of each example are kept: those of seven are more than the 7,985 that one pass takes.
    assert [part.cached for part in play(model, memory=one).parts] == [True] * 6 + [False]
    with pytest.raises(
        CriterionError, match=r"one example takes about [\d,]+ bytes at group 0, more than .*=100 "
    ):
        play(model, memory=100)


def test_rows_are_counted_by_what_is_kept_and_computed() -> None:
    """Per example: 3 x 36 inputs; kept 4 x 36; then conv and ReLU of 5 x 36, pool 5, flatten 5, linear 4."""
    numbers = 3 * 36 + 4 * 36 + 2 * (2 * 5 * 36)
    assert numbers * 8 <= play(plain()).parts[0].row_bytes <= 1.2 * numbers * 8


def test_a_model_that_cannot_be_repeated_plays_one_by_one() -> None:
    """The number of examples is a Python integer by the time the suffix runs."""

    def run(self: Any, x: Tensor) -> Tensor:
        rows = x.size(0)
        hidden = F.relu(self.a(x))
        return self.head(F.relu(self.b(hidden)).view(rows, 5, 6, 6))

    model = settle(Apply(run, a=conv(3, 4), b=conv(4, 5), head=head(5)))
    group = sl.trace(model, X)["a"]
    with _context.inference(model):
        game = LayerGame(model, group, [Batch(X, Y)], _context.cross_entropy)
        assert game.parts[0].cached
        assert game.parts[0].tiled(2) is None
        losses = game.loss(STACK)
    for mask, loss in zip(STACK, losses, strict=True):
        expected = F.cross_entropy(
            model.head(F.relu(model.b(F.relu(model.a(X)) * mask[:, :, None, None]))), Y, reduction="none"
        )
        torch.testing.assert_close(loss, expected.detach(), rtol=0, atol=1e-12)

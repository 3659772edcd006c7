"""Toy games: their losses, gradients and closed forms."""

from itertools import permutations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shapleaf.errors import CriterionError
from shapleaf.game.toys import FunctionGame, QuadraticGame, TableGame, UnanimityGame


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_shapley(game):
    """Mean marginal contribution over all orders of leaving, one order after another."""
    values = torch.zeros(game.examples, game.players, dtype=torch.float64)
    orders = list(permutations(range(game.players)))
    for order in orders:
        mask = torch.ones(game.examples, game.players, dtype=game.dtype)
        before = game.loss(mask)
        for unit in order:
            mask[:, unit] = 0
            after = game.loss(mask)
            values[:, unit] += (after - before) / len(orders)
            before = after
    return values


def games():
    contributions, target = random(3, 4, 2), random(3, 2, seed=1)
    return [
        QuadraticGame(contributions, target, random(2, seed=2)),
        UnanimityGame([(0,), (1, 3), (0, 1, 3), ()], random(3, 4, seed=3), players=4),
    ]


@pytest.mark.parametrize("game", games(), ids=lambda game: game.name)
def test_closed_form_is_the_mean_over_all_orders(game):
    torch.testing.assert_close(game.shapley(), slow_shapley(game), rtol=0, atol=1e-12)


@pytest.mark.parametrize("game", [*games(), TableGame(random(3, 16, seed=4))], ids=lambda game: game.name)
def test_gradient_is_the_derivative_of_the_loss_and_costs_three(game):
    mask, step = random(3, 4, seed=5), 1e-6
    loss, gradient = game.gradient(mask)
    assert game.evaluations == 3
    torch.testing.assert_close(loss, game.loss(mask), rtol=0, atol=0)
    for unit in range(4):
        shift = torch.zeros(3, 4, dtype=torch.float64)
        shift[:, unit] = step
        slope = (game.loss(mask + shift) - game.loss(mask - shift)) / (2 * step)
        torch.testing.assert_close(gradient[:, unit], slope, rtol=1e-7, atol=1e-7)
    assert game.evaluations == 3 + 1 + 8


def test_gradient_of_a_loss_that_ignores_its_masks_is_zero():
    game = FunctionGame(lambda mask: mask.detach().sum(1) + 0 * mask[:, 0], players=2, ids=(0,))
    assert game.gradient(torch.ones(1, 2, dtype=torch.float64))[1].tolist() == [[0, 0]]


def test_gradient_does_not_touch_the_mask():
    mask = torch.ones(3, 4, dtype=torch.float64)
    games()[0].gradient(mask)
    assert not mask.requires_grad


@settings(deadline=None)  # the first call loads kernels
@given(st.lists(st.sets(st.integers(0, 3)), min_size=1, max_size=5), st.integers(0, 99))
def test_unanimity_and_its_table_have_the_same_multilinear_extension(coalitions, seed):
    worth = random(2, len(coalitions), seed=seed)
    game = UnanimityGame([tuple(members) for members in coalitions], worth, players=4)
    columns = [torch.tensor([bits[::-1]] * 2, dtype=torch.float64) for bits in product((0, 1), repeat=4)]
    table = TableGame(torch.stack([game.loss(column) for column in columns], dim=1))
    mask = random(2, 4, seed=seed + 1)
    torch.testing.assert_close(game.loss(mask), table.loss(mask), rtol=1e-12, atol=1e-12)


def test_quadratic_game_by_hand():
    game = QuadraticGame(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[4.0]]), torch.tensor([0.5]))
    assert game.loss(torch.tensor([[1.0, 0.0]])).item() == (4 - 1.5) ** 2
    assert game.shapley().tolist() == [[4.0, 8.0]]  # c_i (2 * 4 - 3.5 - 0.5)
    assert game.shapley().sum().item() == (4 - 0.5) ** 2 - (4 - 3.5) ** 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UnanimityGame([(0, 0)], torch.ones(1, 1), 2), r"\(0, 0\) must name each member once"),
        (lambda: UnanimityGame([(2,)], torch.ones(1, 1), 2), "out of 0 to 1"),
        (lambda: UnanimityGame([(0,)], torch.ones(1, 2), 2), r"received \(1, 2\)"),
        (lambda: TableGame(torch.ones(2, 6)), r"2 \*\* players\), received \(2, 6\)"),
        (lambda: TableGame(torch.ones(4)), r"received \(4,\)"),
        (lambda: TableGame(torch.ones(2, 4), ids=(1,)), "1 ids for 2 examples"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(CriterionError, match=message):
        make()

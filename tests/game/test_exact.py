"""Exact values: the toy max network of Ancona et al. (2020), and what Shapley values must satisfy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shapleaf.errors import CriterionError
from shapleaf.game import Exact
from shapleaf.game.toys import FunctionGame, QuadraticGame, TableGame, UnanimityGame

POINTS = torch.tensor([(0.0, 1), (1, 0), (1, 2), (2, 1)], dtype=torch.float64)


def max_network(points, row, readout):
    """relu units A, B, C, D of two inputs, whose readout learns the larger input; squared error."""
    weight = torch.tensor([[-row, 1, 1, 1], [row, -1, 1, 1]], dtype=torch.float64)
    units = (points @ weight).relu()
    readout = torch.tensor(readout, dtype=torch.float64)
    target = points.max(1).values
    return FunctionGame(lambda mask: ((mask * units) @ readout - target) ** 2, 4, range(len(points)))


def uniform_square():
    """Nodes and weights that integrate polynomials of degree 6 over each triangle of [0, 10]^2."""
    nodes, weights = np.polynomial.legendre.leggauss(4)
    nodes, weights = torch.from_numpy(nodes + 1) / 2, torch.from_numpy(weights) / 2
    u, v = torch.cartesian_prod(nodes, nodes).T
    wu, wv = torch.cartesian_prod(weights, weights).T
    lower = torch.stack([10 * u, 10 * u * v], dim=1)
    return torch.cat([lower, lower.flip(1)]), torch.cat([wu * wv * u] * 2)


@pytest.mark.parametrize(
    ("readout", "expected"),
    [((1, 0.5, 0.5, 0), (3 / 8, 3 / 8, 7 / 4, 0)), ((1, 0.5, 0.5, -0.1), (0.425, 0.425, 2, -0.4))],
)
def test_torchpruner_points(readout, expected):
    estimate = Exact().estimate(max_network(POINTS, 0.5, readout))
    assert estimate.values.mean(0).tolist() == pytest.approx(expected, abs=1e-14)
    assert estimate.evaluations == 16
    assert estimate.stderr is None
    assert estimate.gap.abs().max() < 1e-14


@pytest.mark.parametrize(
    ("last", "expected"),
    [(0, (25 / 4, 25 / 4, 75 / 2, 0)), (-0.1, (85 / 12, 85 / 12, 130 / 3, -26 / 3))],
)
def test_uniform_inputs_by_quadrature(last, expected):
    points, weights = uniform_square()
    assert weights.sum().item() == pytest.approx(1, abs=1e-14)
    values = Exact().estimate(max_network(points, 0.25, (2, 0.5, 0.5, last))).values
    assert (weights @ values).tolist() == pytest.approx(expected, abs=1e-10)


def test_mean_plus_two_std_over_uniform_inputs():
    points, weights = uniform_square()
    values = Exact().estimate(max_network(points, 0.25, (2, 0.5, 0.5, 0))).values
    std = (weights @ values**2 - (weights @ values) ** 2).sqrt()
    assert std.tolist() == pytest.approx((9.99132, 9.99132, 23.19902, 0), abs=5e-6)


def test_unit_that_changes_nothing_is_exactly_zero():
    estimate = Exact().estimate(max_network(POINTS, 0.5, (1, 0.5, 0.5, 0)))
    assert torch.equal(estimate.values[:, 3], torch.zeros(4, dtype=torch.float64))
    losses = torch.randn(5, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    without_fourth = losses.view(5, 4, 2, 8)[:, :, :1].expand(5, 4, 2, 8).reshape(5, 64)
    values = Exact().estimate(TableGame(without_fourth)).values
    assert torch.equal(values[:, 3], torch.zeros(5, dtype=torch.float64))
    assert (values[:, [0, 1, 2, 4, 5]] != 0).all()


def test_duplicated_units_are_worth_the_same():
    torch.manual_seed(0)
    contributions = torch.randn(6, 5, 3, dtype=torch.float64)
    contributions[:, 4] = contributions[:, 1]
    weight = torch.randn(3, 3, dtype=torch.float64)
    game = FunctionGame(
        lambda mask: torch.logsumexp(torch.einsum("en,eno->eo", mask, contributions) @ weight, 1), 5, range(6)
    )
    values = Exact().estimate(game).values
    assert (values[:, 4] - values[:, 1]).abs().max() < 1e-14


worths = st.integers(-5, 5)
coalitions = st.dictionaries(st.frozensets(st.integers(0, 5)), worths, min_size=1, max_size=8)


@settings(deadline=None)  # the first call loads kernels
@given(coalitions)
def test_random_unanimity_games_match_their_closed_form(terms):
    worth = torch.tensor([list(terms.values())] * 2, dtype=torch.float64)
    game = UnanimityGame([tuple(members) for members in terms], worth, players=6)
    estimate = Exact().estimate(game)
    torch.testing.assert_close(estimate.values, game.shapley(), rtol=0, atol=1e-12)
    assert estimate.gap.abs().max() < 1e-12
    idle = [unit for unit in range(6) if not any(unit in members for members in terms)]
    assert (estimate.values[:, idle] == 0).all()


@settings(deadline=None)  # the first call loads kernels
@given(coalitions, st.permutations(range(6)))
def test_values_follow_their_units_when_units_change_places(terms, order):
    worth = torch.tensor([list(terms.values())], dtype=torch.float64)
    values = Exact().estimate(UnanimityGame([tuple(members) for members in terms], worth, 6)).values
    moved = UnanimityGame([tuple(order[unit] for unit in members) for members in terms], worth, 6)
    torch.testing.assert_close(Exact().estimate(moved).values[:, order], values, rtol=0, atol=1e-12)


def test_linear_readout_matches_its_closed_form():
    torch.manual_seed(1)
    game = QuadraticGame(*(torch.randn(shape, dtype=torch.float64) for shape in ((4, 8, 3), (4, 3), (3,))))
    torch.testing.assert_close(Exact().estimate(game).values, game.shapley(), rtol=0, atol=1e-12)


def test_one_player_gets_everything():
    assert Exact().estimate(TableGame(torch.tensor([[3.0, 1.0]]))).values.tolist() == [[2.0]]


def test_more_than_sixteen_units_are_refused_before_any_evaluation():
    game = QuadraticGame(torch.ones(1, 17, 1), torch.ones(1, 1), torch.zeros(1), name="conv1")
    with pytest.raises(CriterionError, match=r"'conv1' has 17\. Use Permutation\(\) or Path\(\)"):
        Exact().estimate(game)
    assert game.evaluations == 0


def test_shapiq_agrees():
    shapiq = pytest.importorskip("shapiq")
    losses = np.random.default_rng(0).normal(size=(1, 32))
    powers = 2 ** np.arange(5)
    computer = shapiq.ExactComputer(n_players=5, game=lambda sets: -losses[0, np.atleast_2d(sets) @ powers])
    expected = computer("SV", 1)
    values = Exact().estimate(TableGame(torch.from_numpy(losses))).values[0]
    assert values.tolist() == pytest.approx([expected[(unit,)] for unit in range(5)], abs=1e-12)

"""Least squares over coalitions: exact where theory says so, honest about its error where it draws."""

from math import ceil, comb

import pytest
import torch

from games import network, random
from shapleaf.errors import CriterionError
from shapleaf.game import Exact, Permutation, Regression
from shapleaf.game.toys import FunctionGame, QuadraticGame, TableGame, UnanimityGame


def quadratic(players=50, name="quadratic"):
    return QuadraticGame(random(3, players, 4), random(3, 4, seed=1), random(4, seed=2), name=name)


@pytest.mark.parametrize("players", [1, 2, 3, 4, 7])
def test_all_coalitions_give_exact_values(players):
    game = TableGame(random(3, 2**players))
    estimate = Regression(per_unit=40).estimate(game)
    torch.testing.assert_close(estimate.values, Exact().estimate(game).values, rtol=0, atol=1e-10)
    assert estimate.evaluations == 2**players
    assert estimate.stderr is None
    assert not estimate.shared


def test_unanimity_by_hand():
    worth = torch.tensor([[1.0, -2, 3, 4]], dtype=torch.float64)
    game = UnanimityGame([(0,), (0, 1), (1, 2, 3), (0, 1, 2, 3)], worth, players=5)
    values = Regression().estimate(game).values
    assert values[0].tolist() == pytest.approx([1 - 1 + 1, -1 + 1 + 1, 1 + 1, 1 + 1, 0], abs=1e-12)


def test_a_slow_solution_of_the_kernel_agrees():
    """Lundberg & Lee (2017), equation 8, under the constraint of efficiency, by Lagrange's multiplier."""
    n, game = 5, TableGame(random(1, 32))
    losses = [game.loss(torch.tensor([[c >> i & 1 for i in range(n)]]).double()).item() for c in range(32)]
    system, right = torch.zeros(n + 1, n + 1).double(), torch.zeros(n + 1).double()
    for c in range(1, 31):
        z = torch.tensor([c >> i & 1 for i in range(n)]).double()
        size = c.bit_count()
        weight = (n - 1) / (comb(n, size) * size * (n - size))
        system[:n, :n] += weight * torch.outer(z, z)
        right[:n] += weight * z * (losses[0] - losses[c])
    system[n, :n] = system[:n, n] = 1
    right[n] = losses[0] - losses[31]
    values = Regression(per_unit=20).estimate(game).values
    torch.testing.assert_close(values[0], torch.linalg.solve(system, right)[:n], rtol=0, atol=1e-12)


@pytest.mark.parametrize("per_unit", [3, 8])
def test_pairs_are_exact_for_squared_error(per_unit):
    game = quadratic()
    estimate = Regression(per_unit).estimate(game)
    torch.testing.assert_close(estimate.values, game.shapley(), rtol=0, atol=1e-8)
    assert estimate.stderr.max() < 1e-8
    assert estimate.evaluations == per_unit * 50 + 2
    assert estimate.shared


def test_few_pairs_shrink_towards_the_equal_share():
    game = quadratic()
    exact = game.shapley()
    equal = exact.mean(1, keepdim=True)
    distances = []
    for per_unit in (0.2, 0.5, 1):
        estimate = Regression(per_unit).estimate(game)
        distances.append((estimate.values - equal).norm().item())
        assert estimate.stderr is None
    assert 0 < distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("per_unit", [0.1, 1, 2, 3, 8])
def test_values_sum_to_what_is_lost_without_all(per_unit):
    game = network()
    estimate = Regression(per_unit).estimate(game)
    ends = [game.loss(torch.full((5, 10), end, dtype=torch.float64)) for end in (0.0, 1.0)]
    torch.testing.assert_close(estimate.values.sum(1), ends[0] - ends[1], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(estimate.gap, torch.zeros(5).double(), rtol=0, atol=1e-10)
    assert estimate.evaluations == 2 * ceil(per_unit * 10 / 2) + 2


def test_what_depends_on_size_alone_is_no_noise():
    """Losses of degree 7 in the number of units present: all are worth the same."""
    game = FunctionGame(lambda mask: mask.mean(1).sub(0.5).mul(2).pow(7) * -3, players=40, ids=range(2))
    values = Regression(4).estimate(game).values
    torch.testing.assert_close(values, torch.full((2, 40), 6 / 40, dtype=torch.float64), rtol=0, atol=1e-10)


def test_idle_units_are_near_zero_only():
    values = Regression().estimate(network()).values[:, 3]
    assert (values != 0).all()
    assert values.abs().max() < 0.1 * Exact().estimate(network()).values.abs().max()


def test_draws_depend_on_seed_and_group_alone():
    base = Regression().estimate(network()).values
    assert torch.equal(Regression().estimate(network()).values, base)
    assert not torch.allclose(Regression().estimate(network(), seed=1).values, base)
    assert not torch.allclose(Regression().estimate(network(name="other")).values, base)


def test_cutting_the_batch_or_playing_several_at_once_changes_nothing():
    whole = Regression().estimate(network(range(5)))
    parts = [Regression().estimate(network(ids)) for ids in (range(3), range(3, 5))]
    for field in ("values", "stderr"):
        together = torch.cat([getattr(part, field) for part in parts])
        torch.testing.assert_close(together, getattr(whole, field), rtol=0, atol=1e-12)
    wide = network(range(5))
    wide.width = 7
    torch.testing.assert_close(Regression().estimate(wide).values, whole.values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["table", "network"])
def test_standard_errors_cover_the_truth(kind):
    game = TableGame(random(4, 2**9)) if kind == "table" else network(range(4))
    exact, errors = Exact().estimate(game).values, []
    for seed in range(100):
        estimate = Regression(per_unit=12).estimate(game, seed)
        errors.append((estimate.values - exact) / estimate.stderr)
    spread = torch.stack(errors)
    # A jackknife errs on the large side: 100 independent draws.
    assert (spread.abs() <= 1).double().mean().item() == pytest.approx(0.71, abs=0.05)
    assert (spread.abs() <= 1.96).double().mean().item() == pytest.approx(0.955, abs=0.02)
    assert spread.mean(0).abs().max() < 4 / 10


def test_leaving_out_each_pair_gives_the_standard_error(monkeypatch):
    """The closed form of the jackknife against fits without each pair."""
    import shapleaf.game.regression as module

    seen = []
    fit = module._fit
    monkeypatch.setattr(module, "_fit", lambda *args: seen.append(args) or fit(*args))
    Regression(per_unit=4).estimate(network())
    ((design, weights, rises, sizes),) = seen
    keep = ~torch.eye(len(design), dtype=torch.bool)
    fits = torch.stack([fit(design[k], weights[k], rises[k], sizes[k])[0] for k in keep])
    by_hand = (len(fits) - 1) / len(fits) * (fits - fit(*seen[0])[0]).square().sum(0)
    torch.testing.assert_close(fit(*seen[0])[1], by_hand.sqrt(), rtol=1e-8, atol=0)


def test_more_coalitions_come_closer():
    game = network()
    exact = Exact().estimate(game).values
    few, many = (Regression(k).estimate(game).values - exact for k in (6, 60))
    assert many.norm() < 0.5 * few.norm()


def test_better_than_shared_orders_at_the_same_cost():
    game = network()
    exact = Exact().estimate(game).values
    fit, orders = (
        sum((one.estimate(game, seed).values - exact).square().sum() for seed in range(10))
        for one in (Regression(10), Permutation(10, shared=True))
    )
    assert fit < orders


@pytest.mark.parametrize("per_unit", [0, -1, float("inf"), float("nan")])
def test_refusals(per_unit):
    with pytest.raises(CriterionError, match="Regression needs per_unit > 0"):
        Regression(per_unit)

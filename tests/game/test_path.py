"""Gradients along the path: exact where theory says so, measured where it does not."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from games import network, random
from shapleaf._rng import stream
from shapleaf.errors import CriterionError
from shapleaf.game import Exact, Path, Permutation
from shapleaf.game.toys import FunctionGame, QuadraticGame, UnanimityGame

KINDS = [
    Path(8),
    Path(8, "line"),
    Path(8, "signs", 3),
    Path(8, "gaussian", 4),
    Path(8, "gaussian", 3),
    Path(8, "bernoulli", 4),
    Path(8, "bernoulli", 3),
]
SAMPLED = [kind for kind in KINDS if kind.masks != "line"]


def relative_error(values, exact):
    return ((values - exact).square().mean() / exact.square().mean()).sqrt().item()


@pytest.mark.parametrize("points", [1, 2, 16])
def test_line_is_exact_for_squared_error(points):
    game = QuadraticGame(random(3, 50, 4), random(3, 4, seed=1), random(4, seed=2))
    values = Path(points, "line").estimate(game).values
    torch.testing.assert_close(values, game.shapley(), rtol=0, atol=1e-12 * game.shapley().abs().max().item())


@settings(deadline=None)  # the first call loads kernels
@given(
    st.dictionaries(st.frozensets(st.integers(0, 5)), st.integers(-4, 4), min_size=1, max_size=8),
)
def test_three_points_are_exact_for_interactions_of_six(terms):
    worth = torch.tensor([list(terms.values())] * 2, dtype=torch.float64)
    game = UnanimityGame([tuple(members) for members in terms], worth, players=6)
    estimate = Path(3, "line").estimate(game)
    torch.testing.assert_close(estimate.values, game.shapley(), rtol=0, atol=1e-12)
    assert estimate.gap.abs().max() < 1e-12
    idle = [unit for unit in range(6) if not any(unit in members for members in terms)]
    assert (estimate.values[:, idle] == 0).all()


def test_two_points_are_not():
    game = UnanimityGame([range(6)], torch.ones(1, 1, dtype=torch.float64), players=6)
    assert Path(2, "line").estimate(game).values[0, 0].item() == pytest.approx(11 / 72, abs=1e-12)


def test_linear_losses_are_exact_for_every_estimator():
    weight = random(3, 7)
    game = FunctionGame(lambda mask: (weight * mask).sum(1), players=7, ids=range(3))
    exact = [
        Exact(),
        Permutation(2),
        Path(1),
        Path(4, "line"),
        Path(8, "gaussian", 1),
        Path(1, "bernoulli", 1),
    ]
    for estimator in exact:
        torch.testing.assert_close(estimator.estimate(game).values, -weight, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", [Path(), Path(8), Path(7, "gaussian", 6), Path(2, "line")], ids=repr)
def test_shared_noise_makes_squared_error_exact(estimator):
    """Its slopes are linear in the masks: what the noise adds at q it takes away at 1 - q."""
    game = QuadraticGame(random(3, 20, 4), random(3, 4, seed=1), random(4, seed=2))
    torch.testing.assert_close(estimator.estimate(game).values, game.shapley(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("estimator", KINDS, ids=repr)
def test_cost_dead_units_and_shape(estimator):
    game = network()
    estimate = estimator.estimate(game)
    assert estimate.evaluations == game.evaluations == 3 * 8 * estimator.draws + 2
    assert estimate.values.shape == (5, 10)
    assert (estimate.values[:, 3] == 0).all()
    assert not estimate.shared


@pytest.mark.parametrize("estimator", KINDS, ids=repr)
def test_gap_is_what_the_sum_misses(estimator):
    game = network()
    estimate = estimator.estimate(game)
    ends = [game.loss(torch.full((5, 10), end, dtype=torch.float64)) for end in (0.0, 1.0)]
    torch.testing.assert_close(estimate.gap, ends[0] - ends[1] - estimate.values.sum(1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("estimator", KINDS, ids=repr)
def test_cutting_the_batch_changes_nothing(estimator):
    whole = estimator.estimate(network(range(5)))
    parts = [estimator.estimate(network(ids)) for ids in (range(3), range(3, 5))]
    together = torch.cat([part.values for part in parts])
    torch.testing.assert_close(together, whole.values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", SAMPLED, ids=repr)
def test_draws_depend_on_seed_group_and_example(estimator):
    base = estimator.estimate(network()).values
    assert torch.equal(estimator.estimate(network()).values, base)
    assert not torch.allclose(estimator.estimate(network(), seed=1).values, base)
    assert not torch.allclose(estimator.estimate(network(name="other")).values, base)
    twice = network(ids=(0, 0))
    twice.ids = (0, 1)
    first, second = estimator.estimate(twice).values
    assert not torch.allclose(first, second)


@pytest.mark.parametrize(
    "estimator", [Path(6, "signs", 32, 0), Path(6, "gaussian", 32, 0), Path(6, "bernoulli", 32)], ids=repr
)
def test_sampled_masks_are_unbiased_and_know_their_error(estimator):
    # 2000 independent estimates of one game, so that the mean is 45 times more exact than each.
    worth = torch.tensor([[1.0, -2, 3, 2]], dtype=torch.float64).expand(2000, -1)
    game = UnanimityGame([(0,), (0, 1), (1, 2, 3), (0, 1, 2, 3)], worth, players=4)
    estimate = estimator.estimate(game)
    error = estimate.values - game.shapley()
    assert (error.mean(0).abs() <= 4 * error.std(0) / 2000**0.5).all()
    # The variance reported is unbiased; it is itself sampled, hence 10 %.
    assert (estimate.stderr.square().mean(0) / error.var(0)).tolist() == pytest.approx([1] * 4, abs=0.1)
    covered = (error.abs() <= estimate.stderr).double().mean().item()
    assert covered == pytest.approx(0.68, abs=0.05)


@pytest.mark.parametrize("masks", ["signs", "gaussian", "bernoulli"])
def test_agrees_with_the_formula_written_out(masks):
    """Fixed draws through the two forms of section 5(d): bracket factor, and trapezoid weights."""
    game = network(ids=(7,), players=4)
    nodes, weights = np.polynomial.legendre.leggauss(3)
    plain, curvature = np.zeros((2, 4))
    generator = stream(5, "path", "fc", 0, 7)
    draws = {
        "signs": lambda: generator.integers(0, 2, (2, 4)) * 2.0 - 1,
        "gaussian": lambda: generator.standard_normal((2, 4)),
        "bernoulli": lambda: generator.uniform(-0.5, 0.5, (2, 4)),
    }[masks]()
    for q, weight, noise in zip(nodes / 2 + 0.5, weights / 2, (draws[0], draws[1], draws[0]), strict=True):
        if masks == "bernoulli":
            mask = (noise < q - 0.5).astype(float)
            factor = np.where(mask == 1, 0.5 / q, 0.5 / (1 - q))
        else:
            mask = q + np.sqrt(q * (1 - q)) * noise
            factor = 1 + (1 - 2 * q) / (2 * np.sqrt(q * (1 - q))) * noise
        gradient = game.gradient(torch.from_numpy(mask)[None])[1][0].numpy()
        plain -= weight * gradient
        curvature -= weight * gradient * (factor - 1)
    for prior in (0, 10):
        share = 1 if masks == "bernoulli" else 3 / (3 + min(prior, 4 / 6))
        values = Path(3, masks, 1, prior).estimate(game, seed=5).values[0]
        assert values.tolist() == pytest.approx(plain + share * curvature, abs=1e-13)


@pytest.mark.parametrize("masks", ["signs", "gaussian", "bernoulli"])
def test_standard_error_needs_two_independent_draws(masks):
    assert Path(4, masks, 1).estimate(network()).stderr is None
    assert Path(4, masks, 2).estimate(network()).stderr is None
    assert Path(4, masks, 3).estimate(network()).stderr is not None
    assert Path(4, masks, 4).estimate(network()).stderr is not None
    assert Path(4, "line").estimate(network()).stderr is None


def error_on_network(estimator):
    game = network(range(64))
    return relative_error(estimator.estimate(game).values, Exact().estimate(game).values)


def test_antithetic_pairs_take_most_of_the_noise_out():
    # Measured: .18 at 96 evaluations, .27 at 120.
    assert error_on_network(Path(8, "gaussian", 4, 0)) < 0.8 * error_on_network(Path(8, "gaussian", 5, 0))


def test_sampled_masks_remove_the_bias_of_the_line_on_a_real_loss():
    kinds = [Path(16, "line"), Path(16, "gaussian", 16, 0), Path(16, "signs", 16, 0)]
    assert [error_on_network(kind) for kind in kinds] == pytest.approx([0.33, 0.10, 0.10], abs=0.02)


def test_the_prior_pays_at_few_draws_and_goes_with_many():
    """Measured at 60 and 1,920 evaluations, without and with the prior."""
    few = [error_on_network(Path(prior=prior)) for prior in (0, 10)]
    many = [error_on_network(Path(draws=128, prior=prior)) for prior in (0, 10)]
    assert few[1] < few[0]
    assert abs(many[1] - many[0]) < 0.02


def test_bernoulli_masks_lose_units_before_a_max_pool():
    """Known failure: an absent map is all ties, and one arbitrary position gets the gradient."""
    maps = random(16, 8, 4).relu() + 0.1
    game = FunctionGame(lambda mask: -(mask[:, :, None] * maps).amax(2).sum(1), players=8, ids=range(16))
    exact = maps.amax(2)
    assert relative_error(Path(4, "line").estimate(game).values, exact) < 1e-12
    assert relative_error(Path(4, "bernoulli", 64).estimate(game).values, exact) > 0.25


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Path(masks="straight"), "'signs', 'gaussian', 'bernoulli', 'line'; received 'straight'"),
        (lambda: Path(points=0), "received 0, 4 and 10.0"),
        (lambda: Path(draws=-1), "received 5, -1 and 10.0"),
        (lambda: Path(prior=-1), "received 5, 4 and -1"),
        (lambda: Path(masks="line", draws=2), "draws=2 would repeat the same work"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(CriterionError, match=message):
        make()

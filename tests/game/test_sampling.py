"""Draws added up: running mean and variance, and the protocol that samplers share."""

import numpy as np
import pytest
import torch

from games import network
from shapleaf.game import Exact, Path, Permutation, Sampler
from shapleaf.game.sampling import Running, sample


def test_samplers_are_those_that_draw():
    assert all(isinstance(sampler, Sampler) for sampler in (Path(), Permutation()))
    assert not isinstance(Exact(), Sampler)


@pytest.mark.parametrize(
    "sampler", [Path(), Path(3, "gaussian", 3), Permutation(6), Permutation(3, False)], ids=repr
)
def test_cost_is_what_a_draw_takes(sampler):
    game = network()
    sample(sampler, game, 0)
    assert game.evaluations == 2 + sampler.rounds * sampler.cost(game.players) + 0


def test_running_mean_and_variance_agree_with_numpy_far_from_zero():
    draws = 1e6 + np.random.default_rng(0).normal(size=(50, 3))
    running = Running()
    for draw in draws:
        running.add(torch.from_numpy(draw))
    assert running.mean.numpy() == pytest.approx(draws.mean(0), rel=1e-15)
    assert running.variance_of_mean().numpy() == pytest.approx(draws.var(0, ddof=1) / 50, rel=1e-9)


def test_one_draw_has_no_variance():
    running = Running()
    running.add(torch.ones(2))
    assert running.variance_of_mean() is None


def test_it_goes_on_from_where_it_was():
    draws = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).double()
    whole, first = Running(), Running()
    for draw in draws:
        whole.add(draw)
    for draw in draws[:4]:
        first.add(draw)
    later = Running(first.count, first.mean, first.squares)
    for draw in draws[4:]:
        later.add(draw)
    assert torch.equal(later.mean, whole.mean)
    assert torch.equal(later.variance_of_mean(), whole.variance_of_mean())

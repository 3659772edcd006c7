"""Weights drawn by their sensitivity: unbiased, reproducible, and hybrid where that errs less."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shapleaf._draws import adapt
from shapleaf.sensitivity import Sensed
from shapleaf.weights import WeightProbe
from shapleaf.weights.filters import Filters

SCORES = torch.tensor([[0.5, 0.3, 0.2, 1.0], [0.25, 0.25, 0.25, 0.25]]).double()
WEIGHTS = torch.tensor([[1.0, 2, 3, -4], [1, 1, 1, 1]]).double()


def filters(
    *, weights: Tensor = WEIGHTS, scores: Tensor = SCORES, seed: int = 0, hybrid: bool = False
) -> Filters:
    outputs = torch.arange(len(weights))[:, None].expand(weights.shape)
    probe = WeightProbe(nn.Identity(), {"w": weights}, seed=seed)
    return Filters(probe, {"w": Sensed(scores, outputs, 1, 1)}, 1e-16, hybrid=hybrid)


def test_filters_are_the_signs_of_each_output() -> None:
    found = filters()
    assert found.most.tolist() == [3, 1, 4]
    assert found.share.tolist() == [0.5, 0.5, 0.5]
    assert np.allclose(found.alpha, 6 * np.log(16e16))  # sensitivities of each add up to one


def test_o11_drawn_weights_keep_their_expectation() -> None:
    found = filters()
    wanted = np.array([2.0, 0, 3])
    draws = adapt(found._chance, wanted, found._filter)
    for number in (0, 2):
        drawn = []
        for seed in range(20_000):
            found._probe = WeightProbe(nn.Identity(), {"w": WEIGHTS}, seed=seed)
            drawn.append(found._draw(number, int(draws[number])))
        factors = np.array(drawn)
        error = factors.std(0) / 20_000**0.5
        assert (np.abs(factors.mean(0) - 1) <= 3 * error).all()
        assert (factors == 0).any()
        assert abs((factors > 0).sum(1).mean() - wanted[number]) <= 1


def test_the_same_seed_draws_the_same() -> None:
    a, b, c = (filters(seed=seed).choose(5)["w"].factors for seed in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_full_and_empty_filters_are_as_they_were() -> None:
    assert filters().choose(8)["w"].factors.tolist() == [[1.0] * 4, [1.0] * 4]
    assert not filters().choose(0)["w"].keep.any()


def test_only_weights_that_contribute_are_kept() -> None:
    scores = SCORES.clone()
    scores[0] = 0
    weights = WEIGHTS.clone()
    weights[1, 1] = 0
    scores[1, 1] = 0
    for hybrid in (False, True):
        found = filters(scores=scores, weights=weights, hybrid=hybrid).choose(8)["w"]
        assert found.keep.tolist() == [[False] * 4, [True, False, True, True]]
    nothing = filters(scores=torch.zeros(2, 4).double()).choose(8)["w"]
    assert not nothing.keep.any()


def test_hybrid_keeps_the_top_where_the_tail_is_light() -> None:
    """Drawing errs by f(m), about 200; what is left of 4 weights at most by 3: so nothing is drawn."""
    found = filters(hybrid=True).choose(4)["w"]
    assert set(found.factors.flatten().tolist()) == {0.0, 1.0}
    order = SCORES[0, :3].argsort(descending=True)
    kept = found.keep[0, :3][order].tolist()
    assert kept == sorted(kept, reverse=True)


def test_hybrid_draws_where_the_tail_is_heavy() -> None:
    """Sensitivities that hardly differ over 4,000 weights: the tail adds up, the bound does not."""
    scores = torch.full((1, 4000), 0.9).double()
    plain, mixed = (
        filters(weights=torch.ones(1, 4000).double(), scores=scores, hybrid=hybrid).choose(3900)["w"]
        for hybrid in (False, True)
    )
    assert len(plain.factors.unique()) > 2
    tail = 3 * 0.9 * 100
    alpha = 6 * np.log(16e16) * 0.9 * 4000
    u = alpha / (3 * 3900)
    assert tail > (np.sqrt(u * u + 6 * u) + u) / 2
    assert torch.equal(plain.factors, mixed.factors)


def test_weights_that_no_call_reads_are_left_out() -> None:
    probe = WeightProbe(nn.Identity(), {"w": WEIGHTS})
    outputs = torch.tensor([[0] * 4, [-1] * 4])
    scores = SCORES.clone()
    scores[1] = 0
    found = Filters(probe, {"w": Sensed(scores, outputs, 1, 1)}, 1e-16, hybrid=False)
    assert found.most.tolist() == [3, 1]
    assert found.share.tolist() == [1, 1]


def test_sensitivities_of_very_unlike_sizes() -> None:
    """Weights that decayed to next to nothing are hit after more draws than there are integers."""
    scores = torch.tensor([[1.0, 3e-17, 1e-17, 1e-18]]).double()
    for hybrid in (False, True):
        made = filters(weights=torch.ones(1, 4).double(), scores=scores, hybrid=hybrid)
        assert made.choose(3)["w"].keep[0, 0]


@pytest.mark.parametrize("count", [1, 3, 6])
def test_about_as_many_as_asked(count: int) -> None:
    kept = [int(filters(seed=seed).choose(count)["w"].keep.sum()) for seed in range(40)]
    assert abs(np.mean(kept) - count) <= 2  # a filter's draws are rounded up

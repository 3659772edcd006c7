"""Draws belong to an image, not to its batch."""

import numpy as np
import pytest
import torch

from shapleaf.shifts.draws import Draws

KINDS = {
    "normal": lambda draws: draws.normal(3, 5),
    "uniform": lambda draws: draws.uniform(3, 5),
    "integers": lambda draws: draws.integers(-2, 9, 3, 5),
    "poisson": lambda draws: draws.poisson(torch.full((len(draws.ids), 15), 7.0, dtype=torch.float64)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_draws_do_not_depend_on_the_batch(kind):
    together = KINDS[kind](Draws(3, "x", ids=(5, 2, 9)))
    assert len(together) == 3
    for place, number in enumerate((5, 2, 9)):
        assert torch.equal(KINDS[kind](Draws(3, "x", ids=(number,)))[0], together[place])


@pytest.mark.parametrize("kind", KINDS)
def test_draws_differ_by_seed_name_id_and_order(kind):
    draws = Draws(3, "x", ids=(5,))
    found = [KINDS[kind](draws), KINDS[kind](draws)]
    found += [
        KINDS[kind](Draws(*start, ids=ids))
        for start, ids in (((4, "x"), (5,)), ((3, "y"), (5,)), ((3, "x"), (6,)))
    ]
    assert len({tensor.numpy().tobytes() for tensor in found}) == 5


def test_draws_of_all_ids_have_the_right_distribution():
    draws = Draws(0, "x", ids=tuple(range(20_000)))
    normal, uniform, integers = draws.normal(), draws.uniform(), draws.integers(0, 4)
    assert normal.shape == uniform.shape == integers.shape == (20_000,)
    assert abs(float(normal.mean())) < 4 / 20_000**0.5
    assert float(normal.std()) == pytest.approx(1, abs=0.02)
    assert abs(float(uniform.mean()) - 0.5) < 4 * (1 / 12 / 20_000) ** 0.5
    assert (integers.bincount() - 5000).abs().max() < 4 * 61
    # neighbours are independent
    assert abs(float(np.corrcoef(normal[:-1], normal[1:])[0, 1])) < 4 / 20_000**0.5
    assert abs(float(np.corrcoef(normal, uniform)[0, 1])) < 4 / 20_000**0.5


def test_poisson_has_mean_and_variance_of_its_rate():
    counts = Draws(0, "x", ids=(1, 2)).poisson(torch.full((2, 40_000), 3.0, dtype=torch.float64))
    assert counts.mean(1).tolist() == pytest.approx([3, 3], abs=4 * (3 / 40_000) ** 0.5)
    assert counts.var(1).tolist() == pytest.approx([3, 3], rel=0.04)

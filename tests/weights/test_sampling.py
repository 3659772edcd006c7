"""The error bound, the draws that minimise it, and how many different weights are hit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shapleaf.weights.sampling import (
    adapted,
    allocation,
    difficulty,
    draws_for,
    error,
    expected_unique,
    rounded_up,
    unique,
)


def one(value: float) -> np.ndarray:
    return np.array([float(value)])


def adapt(chances: list[float], wanted: int) -> int:
    return int(adapted(np.array(chances), np.zeros(len(chances), np.int64), one(wanted))[0])


def test_o8_expected_number_of_different_weights() -> None:
    p = np.array([0.5, 0.3, 0.2])
    found = [expected_unique(p, n) for n in (1, 2, 3, 5)]
    assert np.allclose(found, [1.00, 1.62, 2.02, 2.473], atol=5e-4)
    assert [math.ceil(value - 1e-9) for value in found] == [1, 2, 3, 3]
    assert adapt([0.5, 0.3, 0.2], 2) == 2
    assert [adapt([0.5, 0.3, 0.2], wanted) for wanted in (0, 1)] == [0, 1]


def test_o8_of_equal_weights() -> None:
    """With chances 1/10 the expectation passes 5 at ceil(ln 2 / ln(10/9)) = 7 draws, and 4 at 5 draws."""
    p = np.full(10, 0.1)
    assert math.ceil(math.log(2) / math.log(10 / 9)) == 7
    assert expected_unique(p, 6) < 5 < expected_unique(p, 7)
    assert adapt([0.1] * 10, 5) == 5  # rounded up, 4.095 is 5, as 1.62 is 2 above
    assert adapt([0.1] * 10, 6) == 7  # and 5.217 is 6


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1e-6, 1), min_size=2, max_size=9), st.integers(1, 8))
def test_o8_it_is_the_fewest(values: list[float], wanted: int) -> None:
    wanted = min(wanted, len(values) - 1)
    p = np.array(values) / sum(values)
    draws = adapt([*p], wanted)
    assert expected_unique(p, draws) > wanted - 1
    assert draws == 1 or expected_unique(p, draws - 1) <= wanted - 1 + 1e-6


def test_o8_simulated() -> None:
    p = np.array([0.5, 0.3, 0.2])
    draws = np.random.default_rng(0).multinomial(5, p, size=20_000)
    assert (draws > 0).sum(1).mean() == pytest.approx(expected_unique(p, 5), abs=0.02)


def test_filters_are_counted_apart() -> None:
    chances, filters = np.array([0.5, 0.5, 0.5, 0.3, 0.2, 1]), np.array([0, 0, 1, 1, 1, 2])
    assert unique(chances, filters, np.array([2.0, 3, 0])).tolist() == pytest.approx([1.5, 2.02, 0])
    assert adapted(chances, filters, np.array([1.0, 2, 0])).tolist() == [1, 2, 0]


def test_o9_the_error_and_its_inverse() -> None:
    assert error(one(12), one(4))[0] == pytest.approx(1.822876, abs=1e-6)
    assert draws_for(one(12), error(one(12), one(4)))[0] == pytest.approx(4, rel=1e-12)
    assert difficulty(one(1), one(1), one(1), 1e-16)[0] == pytest.approx(237.684, abs=5e-4)
    high, low = (math.log(8 * (1024 + 1) * 9 / 1e-16), math.log(16 / 1e-16))
    assert (high, low) == pytest.approx((48.05, 39.61), abs=0.01)


def test_o9_equal_filters_get_equal_shares() -> None:
    found = allocation(np.full(4, 7.0), np.ones(4), np.full(4, 50.0), 30)
    assert np.allclose(found, 7.5, rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(1e-3, 1e4), st.floats(1e-3, 1), st.integers(1, 500)), min_size=1, max_size=12
    ),
    st.floats(0.01, 0.99),
)
def test_o9_marginal_errors_are_equal_inside_the_bounds(
    filters: list[tuple[float, float, int]], part: float
) -> None:
    alpha, share, most = (np.array(values, float) for values in zip(*filters, strict=True))
    budget = part * most.sum()
    found = allocation(alpha, share, most, budget)
    assert found.sum() == pytest.approx(budget, rel=1e-9)
    assert bool(((found >= 0) & (found <= most)).all())
    step = found * 1e-5
    marginal = share * (error(alpha, found - step) - error(alpha, found + step)) / (2 * step)
    inside = found < most
    if inside.any():
        price = marginal[inside]
        assert np.allclose(price, price[0], rtol=1e-4)
        assert bool((marginal[~inside] >= price[0] * (1 - 1e-4)).all())  # what is full would take more


def test_o9_no_other_allocation_errs_less() -> None:
    rng = np.random.default_rng(0)
    alpha, share, most = rng.uniform(1, 100, 6), rng.uniform(0.1, 1, 6), np.full(6, 40.0)
    found = allocation(alpha, share, most, 60)
    best = (share * error(alpha, found)).sum()
    for _ in range(200):
        moved = found + rng.normal(0, 0.5, 6)
        moved *= 60 / moved.sum()
        if bool(((moved > 0) & (moved <= most)).all()):
            assert (share * error(alpha, moved)).sum() >= best - 1e-9


def test_the_ends_of_the_budget() -> None:
    most = np.array([3.0, 5])
    assert allocation(np.ones(2), np.ones(2), most, 8).tolist() == [3, 5]
    assert allocation(np.ones(2), np.ones(2), most, 100).tolist() == [3, 5]
    assert allocation(np.ones(2), np.ones(2), most, 0).tolist() == [0, 0]
    assert rounded_up(np.array([2.00000001, 2.01, 7]), np.array([5.0, 5, 6])).tolist() == [2, 3, 6]

"""The error bound, and the draws that minimise it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shapleaf._draws import coefficient
from shapleaf.weights.sampling import allocation, error, rounded_up


def one(value: float) -> np.ndarray:
    return np.array([float(value)])


def test_o9_the_error_and_its_inverse() -> None:
    assert error(one(12), one(4))[0] == pytest.approx(1.822876, abs=1e-6)
    f = error(one(12), one(4))[0]
    assert 12 * (6 + 4 * f) / (4 * 3 * f * f) == pytest.approx(4, rel=1e-12)
    assert coefficient(one(1), one(1), one(1), 1e-16)[0] == pytest.approx(237.684, abs=5e-4)
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

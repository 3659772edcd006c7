"""How many draws give how many different units, and how many an error level allows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shapleaf import _draws
from shapleaf._draws import coefficient, error_level, most_draws, whole

SHARES = st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=12).map(lambda s: np.array(s) / sum(s))


def different(shares: np.ndarray, draws: float) -> float:
    return float(_draws.different(shares, draws)[0])


def adapt(shares: np.ndarray, wanted: int) -> int:
    return int(_draws.adapt(shares, np.array([wanted]))[0])


def draws(error: float, coefficient: float) -> int:
    """How many an error level allows, of which :func:`error_level` is the inverse."""
    return max(1, math.ceil(3 * (6 + 2 * error) * coefficient / error**2))


def test_o8_expected_different_units() -> None:
    shares = np.array([0.5, 0.3, 0.2])
    found = np.array([different(shares, n) for n in (1, 2, 3, 5)])
    assert found.tolist() == pytest.approx([1.0, 1.62, 2.02, 2.473], abs=5e-4)
    assert whole(found).tolist() == [1, 2, 3, 3]
    assert [adapt(shares, wanted) for wanted in (0, 1, 2)] == [0, 1, 2]


def test_o8_uniform_shares() -> None:
    """Five of ten need ln 2 / ln(10/9) = 6.579 draws on average; rounded up, so 7. Rounding the number of
    units up instead, as adapt(2) = 2 above does, five draws are enough: 4.095 units count as five."""
    shares = np.full(10, 0.1)
    assert math.ceil(math.log(2) / math.log(10 / 9)) == 7
    assert different(shares, math.log(2) / math.log(10 / 9)) == pytest.approx(5)
    assert different(shares, 6) < 5 < different(shares, 7)
    assert (adapt(shares, 5), adapt(shares, 6)) == (5, 7)
    assert [whole(np.array(different(shares, n))) for n in (4, 5)] == [4, 5]


def test_o8_simulated() -> None:
    shares = np.array([0.5, 0.3, 0.2])
    found = np.random.default_rng(0).multinomial(5, shares, size=20_000)
    assert (found > 0).sum(1).mean() == pytest.approx(different(shares, 5), abs=0.02)


@given(SHARES)
def test_o8_adapt_is_the_fewest(shares: np.ndarray) -> None:
    for units in range(1, len(shares)):
        fewest = adapt(shares, units)
        assert whole(np.array(different(shares, fewest))) >= units
        assert fewest == 1 or whole(np.array(different(shares, fewest - 1))) < units


def test_owners_are_counted_apart() -> None:
    shares, owners = np.array([0.5, 0.5, 0.5, 0.3, 0.2, 1]), np.array([0, 0, 1, 1, 1, 2])
    found = _draws.different(shares, np.array([2.0, 3, 0]), owners)
    assert found.tolist() == pytest.approx([1.5, 2.02, 0])
    assert _draws.adapt(shares, np.array([1, 2, 0]), owners).tolist() == [1, 2, 0]


def test_most_draws_against_counting() -> None:
    shares = np.array([0.4, 0.3, 0.15, 0.1, 0.05, 0.0])
    hit = [whole(np.array(different(shares, n))) for n in range(500)]
    counted = [max(n for n in range(1, 500) if hit[n] <= k) for k in range(1, 5)]
    assert most_draws(shares, np.arange(1, 7)).tolist() == [*counted, math.inf, math.inf]


def test_tiny_shares_need_very_many_draws() -> None:
    """Beyond 2^53 doubles are not integers any more; the search ends all the same."""
    shares = np.array([1 - 1e-18, 1e-18])
    assert most_draws(shares, np.array([1]))[0] == pytest.approx(1e9, rel=1e-3)  # 1 + 1e-9 counts as one
    shares = np.array([1 - 2e-18, 1e-18, 1e-18])
    found = most_draws(shares, np.array([2]))[0]
    assert different(shares, found) == pytest.approx(2, abs=1e-6)
    assert found > 2**53
    assert adapt(np.array([1 - 2e-16, 3e-17, 1e-17]), 3) == _draws.MOST  # for which SiPP searched for ever


def test_o10_coefficient_and_draws() -> None:
    """Two linear layers: one place, one weight per kernel."""
    each = float(coefficient(1.0, 1, 1, 1e-16))
    assert each == pytest.approx(2 * 3 * math.log(16e16)) == pytest.approx(237.684, abs=5e-4)
    first, second = (np.array(s) for s in ([0.6, 0.3, 0.2, 0.1], [0.9, 0.05, 0.05]))
    allowed = [draws(300, each * float(s.sum())) for s in (first, second)]
    assert allowed == [6, 5]
    kept = [whole(np.array(different(s / s.sum(), m))) for s, m in zip((first, second), allowed, strict=True)]
    assert kept == [3, 2]


def test_o10_the_same_order_by_one_parameter() -> None:
    """The level is the one parameter t = 18 (6 + 2 e) / e^2 of ceil(t sum s ln(8 (P + 1) k / delta))."""
    for error in (5.0, 100.0, 300.0, 1e4):
        for total, places, kernel in ((1.2, 1, 1), (7.5, 1024, 9)):
            t = 18 * (6 + 2 * error) / error**2
            expected = math.ceil(t * total * math.log(8 * (places + 1) * kernel / 1e-16))
            assert draws(error, float(coefficient(total, places, kernel, 1e-16))) == expected


def test_o11_delta_enters_by_a_ratio_of_logarithms() -> None:
    assert coefficient(1, 1024, 9, 1e-16) / 6 == pytest.approx(48.05, abs=5e-3)
    assert coefficient(1, 1, 1, 1e-16) / 6 == pytest.approx(39.61, abs=5e-3)
    ratio = coefficient(1, 1024, 9, 1e-2) / coefficient(1, 1, 1, 1e-2)
    assert ratio == pytest.approx(math.log(8 * 1025 * 9e2) / math.log(1600))


@given(st.integers(1, 10**9), st.floats(1e-3, 1e6))
def test_the_level_of_so_many_draws_allows_them(number: int, factor: float) -> None:
    level = float(error_level(np.array(float(number)), factor))
    assert draws(level * (1 + 1e-9), factor) <= number <= draws(level * (1 - 1e-6), factor)

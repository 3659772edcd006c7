"""Surfaces through scattered measurements."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from shapleaf._grids import Surface


def test_few_widths_are_met_exactly_though_they_are_no_smooth_function() -> None:
    widths = np.array([[4.0], [8.0], [12.0], [16.0]])
    values = np.array([1.0, 5.0, 2.0, 3.0])
    found = Surface(np.repeat(widths, 20, 0), np.repeat(values, 20))
    assert found(widths) == pytest.approx(values, rel=2e-3)


def test_powers_are_straight_between_nodes_and_beyond_what_was_seen_nothing_changes() -> None:
    widths = np.arange(1.0, 101.0)[:, None]
    found = Surface(widths, 0.3 * widths[:, 0] ** 1.5)
    places = np.array([[7.3], [33.0], [99.5]])
    assert found(places) == pytest.approx(0.3 * places[:, 0] ** 1.5, rel=1e-4)
    assert found(np.array([[0.01], [1000.0]])) == pytest.approx([0.3, 300.0], rel=1e-4)


def test_two_axes_each_have_their_own_slope() -> None:
    rng = np.random.default_rng(0)
    widths = rng.integers(1, 9, (200, 2)).astype(float)
    found = Surface(widths, widths[:, 0] * widths[:, 1] ** 2)
    every = np.array([*itertools.product(range(1, 9), range(1, 9))], float)
    assert found(every) == pytest.approx(every[:, 0] * every[:, 1] ** 2, rel=1e-3)


def test_what_was_not_measured_continues_its_neighbours() -> None:
    every = np.array([*itertools.product((1, 2, 4, 8), (1, 2, 4, 8))], float)
    seen = every[(every != (4, 8)).any(1)]
    found = Surface(seen, seen[:, 0] * seen[:, 1])
    assert found(np.array([[4.0, 8.0]])) == pytest.approx([32.0], rel=1e-2)


def test_an_outlier_is_outvoted() -> None:
    values = np.full(9, 2.0)
    values[4] = 40.0
    assert Surface(np.full((9, 1), 16.0), values)(np.array([[16.0]])) == pytest.approx([2.0], rel=0.02)
    assert np.exp(np.log(values).mean()) > 2.7  # as a plain mean of logarithms has it


def test_without_axes_it_is_one_value() -> None:
    assert Surface(np.zeros((5, 0)), np.full(5, 3.0))(np.zeros((2, 0))) == pytest.approx([3.0, 3.0])


def test_widths_that_fill_no_register_may_take_longer() -> None:
    """Of 32 multiples of 8 every second is one of 16; the factor of 1.3 is found though no node shows it."""
    widths = np.repeat(np.arange(8.0, 264.0, 8.0), 3)[:, None]
    odd = widths[:, 0] % 16 > 0
    values = 0.01 * widths[:, 0] * np.where(odd, 1.3, 1.0)
    found = Surface(widths, values)(widths) / values
    assert found == pytest.approx(np.ones(len(values)), abs=0.06)
    places = np.array([[120.0], [128.0], [136.0]])
    assert Surface(widths, values)(places) == pytest.approx([1.56, 1.28, 1.768], rel=0.06)

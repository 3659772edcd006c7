"""How many weights each filter keeps when they are drawn at random, and the draw (SiPP).

The positive and the negative weights of an output channel are two *filters* here. Drawing ``m`` weights
with probabilities proportional to their sensitivities errs by at most ``f(m)``, relative to the output,
but for a small chance ``delta`` (Baykal et al. 2019; Liebenwein et al. 2021).
"""

from __future__ import annotations

import numpy as np

from .._draws import Floats, Integers, error_level

K = 3.0
"""The constant of the error's denominator."""


def error(alpha: Floats, count: Floats) -> Floats:
    """``f(m) = (sqrt(u^2 + 6 u) + u) / 2`` with ``u = alpha / (K m)``: the relative error after m draws.

    Args:
        alpha: the coefficient of a filter; see :func:`shapleaf._draws.coefficient`.
        count: its draws, m.

    >>> error(np.array([12.0]), np.array([4.0])).round(6)
    array([1.822876])
    """
    return error_level(count, alpha / (3 * K)) / 2


def allocation(alpha: Floats, share: Floats, most: Floats, budget: float) -> Floats:
    """The draws of every filter that minimise the summed error: ``sum share_i f_i(m_i)``.

    Subject to ``sum m_i = budget`` and ``0 <= m_i <= most_i``. A convex problem: inside its bounds every
    filter has the same marginal error ``-share_i f_i'(m_i)``, which is found by bisection.

    Args:
        alpha: of each filter, positive.
        share: the weight of its error, positive.
        most: how many weights it has.
        budget: the sum, at most that of ``most``.

    >>> allocation(np.ones(2), np.ones(2), np.array([9.0, 9.0]), 6).round(9)
    array([3., 3.])
    """
    if budget >= most.sum():
        return most.copy()
    if budget <= 0:
        return np.zeros_like(most)
    scale = np.log(alpha / (K * share))

    def given(price: float) -> Floats:
        return np.minimum(alpha / (K * np.exp(_steepness(price + scale))), most)

    low, high = -1.0, 1.0  # logarithms of prices; the higher, the fewer
    while given(low).sum() < budget:
        low *= 2
    while given(high).sum() > budget:
        high *= 2
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (middle, high) if given(middle).sum() > budget else (low, middle)
    return given(high)


def _steepness(wanted: Floats) -> Floats:
    """``log u`` at which ``-f'(m) alpha / K``, a function of u alone, has this logarithm.

    ``(u^1.5 (u + 3) / sqrt(u + 6) + u^2) / 2``: nearly straight in logarithms (its slope rises from 1.5 to
    2), so that a few steps of Newton's method are exact.
    """
    found = wanted / 2
    for _ in range(7):
        u = np.exp(found)
        root = np.sqrt(u) * (u + 3) / np.sqrt(u + 6)
        slope = (root * (1.5 + u / (u + 3) - u / (2 * u + 12)) + 2 * u) / (root + u)
        found = found - (found + np.log((root + u) / 2) - wanted) / slope
    return found


def summed(filters: Integers, values: Floats, count: int) -> Floats:
    """The sum of the values of every filter.

    >>> summed(np.array([0, 1, 0]), np.array([1.0, 2, 3]), 2)
    array([4., 2.])
    """
    return np.bincount(filters, values, count).astype(np.float64)


def rounded_up(counts: Floats, most: Floats) -> Integers:
    """Counts as integers, up, but for what is above by rounding errors alone.

    >>> rounded_up(np.array([2.0000000001, 2.3]), np.array([5.0, 2]))
    array([2, 2])
    """
    return np.minimum(np.ceil(counts - 1e-6), most).astype(np.int64)

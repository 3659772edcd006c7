"""How many weights each filter keeps when they are drawn at random, and the draw (SiPP).

The positive and the negative weights of an output channel are two *filters* here. Drawing ``m`` weights
with probabilities proportional to their sensitivities errs by at most ``f(m)``, relative to the output,
but for a small chance ``delta`` (Baykal et al. 2019; Liebenwein et al. 2021).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
C = 3.0
"""The constant of the sample complexity."""
K = 3.0
"""The constant of the error's denominator."""


def difficulty(total: Floats, places: Floats, kernel: Floats, delta: float) -> Floats:
    """``alpha`` of each filter: ``2 C ln(8 (P + 1) kappa / delta)`` times its summed sensitivity.

    >>> difficulty(np.ones(1), np.ones(1), np.ones(1), 1e-16).round(3)
    array([237.684])
    """
    return 2 * C * np.log(8 * (places + 1) * kernel / delta) * total


def error(alpha: Floats, count: Floats) -> Floats:
    """``f(m) = (sqrt(u^2 + 6 u) + u) / 2`` with ``u = alpha / (K m)``: the relative error after m draws.

    >>> error(np.array([12.0]), np.array([4.0])).round(6)
    array([1.822876])
    """
    u = alpha / (K * count)
    return (np.sqrt(u * u + 6 * u) + u) / 2


def draws_for(alpha: Floats, wanted: Floats) -> Floats:
    """The inverse of :func:`error`: how many draws an error takes.

    >>> draws_for(np.array([12.0]), error(np.array([12.0]), np.array([4.0]))).round(12)
    array([4.])
    """
    return alpha * (6 + 4 * wanted) / (4 * K * wanted * wanted)


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


def expected_unique(chances: Floats, draws: int) -> float:
    """How many different weights that many draws with replacement are expected to hit.

    >>> round(expected_unique(np.array([0.5, 0.3, 0.2]), 3), 2)
    2.02
    """
    return float(unique(chances, np.zeros(len(chances), np.int64), np.array([float(draws)]))[0])


def unique(chances: Floats, filters: Integers, draws: Floats) -> Floats:
    """The same for many filters at once: ``sum_j 1 - (1 - p_j)^N``.

    Args:
        chances: of every weight; those of a filter add up to 1.
        filters: which filter each weight is of.
        draws: of each filter.

    >>> unique(np.array([0.5, 0.5, 1]), np.array([0, 0, 1]), np.array([2.0, 7]))
    array([1.5, 1. ])
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        missed = np.where(draws[filters] > 0, np.exp(draws[filters] * np.log1p(-chances)), 1.0)
    return summed(filters, 1 - missed, len(draws))


def summed(filters: Integers, values: Floats, count: int) -> Floats:
    """The sum of the values of every filter.

    >>> summed(np.array([0, 1, 0]), np.array([1.0, 2, 3]), 2)
    array([4., 2.])
    """
    return np.bincount(filters, values, count).astype(np.float64)


def adapted(chances: Floats, filters: Integers, wanted: Floats) -> Integers:
    """The fewest draws of each filter whose expected number of different weights, rounded up, is wanted.

    Args:
        chances: of every weight, as for :func:`unique`.
        filters: which filter each weight is of.
        wanted: of each filter; less than the number of its weights.

    >>> adapted(np.array([0.5, 0.3, 0.2]), np.zeros(3, np.int64), np.array([2.0]))
    array([2])
    """

    def enough(draws: Floats) -> npt.NDArray[np.bool_]:
        return unique(chances, filters, draws) > wanted - 1 + 1e-9

    low, high = np.zeros(len(wanted)), np.ones(len(wanted))
    low = np.where(wanted > 0, low, -1)
    high = np.where(wanted > 0, high, 0)
    while not (reached := enough(high) | (high >= 2**60)).all():
        low, high = np.where(reached, low, high), np.where(reached, high, 2 * high)
    while bool((high - low > 1).any()):
        middle = np.floor((low + high) / 2)
        reached = enough(middle)
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return high.astype(np.int64)


def rounded_up(counts: Floats, most: Floats) -> Integers:
    """Counts as integers, up, but for what is above by rounding errors alone.

    >>> rounded_up(np.array([2.0000000001, 2.3]), np.array([5.0, 2]))
    array([2, 2])
    """
    return np.minimum(np.ceil(counts - 1e-6), most).astype(np.int64)

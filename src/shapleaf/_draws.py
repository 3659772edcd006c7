"""Drawing units at random in proportion to what they are worth: how many draws for how many different ones.

The formulas of "Provable Filter Pruning" (Liebenwein et al. 2020) as its authors' code has them.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

CONFIDENCE = 3.0
"""C: a sensitivity seen in the samples is by this factor off the true one, at most."""


def different(shares: Array, draws: float | Array) -> Array:
    """How many different units so many draws with replacement give on average: ``sum 1 - (1 - p)^N``.

    >>> [round(float(different(np.array([0.5, 0.3, 0.2]), n)), 3) for n in (1, 2, 3, 5)]
    [1.0, 1.62, 2.02, 2.473]
    """
    with np.errstate(divide="ignore"):
        log = np.log1p(-np.minimum(shares, 1.0))
    found: Array = -np.expm1(np.asarray(draws, float)[..., None] * log).sum(-1)
    return found


def whole(expected: Array) -> Array:
    """An expected number of units, rounded up; what is above an integer by rounding alone is that integer.

    >>> whole(np.array([1.0 + 1e-12, 1.62])).tolist()
    [1.0, 2.0]
    """
    return np.ceil(expected - 1e-9)


def most_draws(shares: Array, units: npt.NDArray[np.int64]) -> Array:
    """The most draws that give so many different units, on average and rounded up; infinite if any do.

    Args:
        shares: the probability of each unit, summing to one.
        units: numbers of different units, each at least one.

    >>> most_draws(np.array([0.5, 0.3, 0.2]), np.array([1, 2, 3])).tolist()
    [1.0, 2.0, inf]
    """
    parts = np.array_split(units, -(-len(units) // 256))  # each takes memory for all shares
    return np.concatenate([_most_draws(shares[shares > 0], part) for part in parts])


def _most_draws(mass: Array, units: npt.NDArray[np.int64]) -> Array:
    low, high = np.ones(len(units)), np.full(len(units), 2.0)
    endless = units >= len(mass)
    while (short := ~endless & (whole(different(mass, high)) <= units)).any():
        low, high = np.where(short, high, low), np.where(short, 2 * high, high)
    # Doubles beyond 2^53 are no longer neighbours of integers; there the middle is one of the two.
    while (apart := ~endless & (high - low > np.maximum(1, 1e-15 * high))).any():
        middle = np.floor((low + high) / 2)
        few = whole(different(mass, middle)) <= units
        low, high = np.where(apart & few, middle, low), np.where(apart & ~few, middle, high)
    return np.where(endless, np.inf, low)


def adapt(shares: Array, units: int) -> int:
    """The fewest draws that give so many different units, on average and rounded up.

    Args:
        shares: the probability of each unit, summing to one.
        units: fewer than there are units with a share.

    >>> adapt(np.array([0.5, 0.3, 0.2]), 2), adapt(np.full(10, 0.1), 5)
    (2, 5)
    """
    return 1 if units <= 1 else int(most_draws(shares, np.array([units - 1]))[0]) + 1


def coefficient(total: float, places: float, kernel: float, delta: float) -> float:
    """What the sensitivities of a layer and its size say of its error: ``2 C ln(8 (P + 1) k / delta) sum s``.

    Args:
        total: the sum of the sensitivities of its inputs.
        places: how many places its output has, P.
        kernel: how many weights connect one input channel with one output channel, k.
        delta: the probability with which the error may be larger than promised.

    >>> round(coefficient(1.0, 1, 1, 1e-16), 3)
    237.684
    """
    return 2 * CONFIDENCE * math.log(8 * (places + 1) * kernel / delta) * total


def draws(error: float, coefficient: float) -> int:
    """How many draws an error level allows: ``3 (6 + 2 e) coefficient / e^2``, rounded up.

    >>> draws(300, 237.684 * 1.2), draws(300, 237.684)
    (6, 5)
    """
    return max(1, math.ceil(3 * (6 + 2 * error) * coefficient / error**2))


def error_level(draws: Array, coefficient: float) -> Array:
    """The smallest error level at which so many draws are enough: the inverse of :func:`draws`.

    >>> float(error_level(np.array(18.0), 1.0)), float(error_level(np.array(np.inf), 1.0))
    (1.1804..., 0.0)
    """
    reach = 3 * coefficient / draws
    found: Array = reach + np.sqrt(reach**2 + 6 * reach)
    return found

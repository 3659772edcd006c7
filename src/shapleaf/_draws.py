"""Drawing units or weights in proportion to what they are worth: how many draws for how many different ones.

The formulas of "Provable Filter Pruning" and of SiPP (Liebenwein et al. 2020; Baykal et al. 2019) as their
authors' code has them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

CONFIDENCE = 3.0
"""C: a sensitivity seen in the samples is by this factor off the true one, at most."""

MOST = 2**53
"""Draws beyond which none with a share that counts is missed."""


def different(shares: Floats, draws: float | Floats, owners: Integers | None = None) -> Floats:
    """How many different ones so many draws with replacement give on average: ``sum 1 - (1 - p)^N``.

    Args:
        shares: the probability of each; those of one owner sum to one.
        draws: of every owner.
        owners: whose each is, from 0; all are of one by default.

    >>> [round(float(different(np.array([0.5, 0.3, 0.2]), n)[0]), 3) for n in (1, 2, 3, 5)]
    [1.0, 1.62, 2.02, 2.473]
    >>> different(np.array([0.5, 0.5, 1]), np.array([2.0, 7]), np.array([0, 0, 1])).tolist()
    [1.5, 1.0]
    """
    owners = np.zeros(len(shares), np.int64) if owners is None else owners
    return _different(_missing(shares), np.atleast_1d(np.asarray(draws, float)), owners)


def _missing(shares: Floats) -> Floats:
    """The logarithm of the probability that one draw misses; of a sure hit the lowest number there is."""
    found: Floats = np.log1p(-np.minimum(shares, 1 - 2.0**-53))
    return np.where(shares < 1, found, np.finfo(float).min)


def _different(missing: Floats, draws: Floats, owners: Integers) -> Floats:
    with np.errstate(over="ignore"):
        hit = -np.expm1(draws[owners] * missing)
    return np.bincount(owners, hit, len(draws)).astype(np.float64)


def whole(expected: Floats) -> Floats:
    """An expected number, rounded up; what is above an integer by rounding alone is that integer.

    >>> whole(np.array([1.0 + 1e-12, 1.62])).tolist()
    [1.0, 2.0]
    """
    return np.ceil(expected - 1e-9)


def adapt(shares: Floats, wanted: Floats | Integers, owners: Integers | None = None) -> Integers:
    """The fewest draws of every owner that give so many different ones, on average and rounded up.

    Args:
        shares: as for :func:`different`.
        wanted: of every owner, fewer than it has with a share; more count as :data:`MOST`.
        owners: as for :func:`different`.

    >>> shares = np.array([0.5, 0.3, 0.2])
    >>> adapt(shares, np.array([2])).tolist(), adapt(np.full(10, 0.1), np.array([5])).tolist()
    ([2], [5])
    """
    owners = np.zeros(len(shares), np.int64) if owners is None else owners
    return np.minimum(_fewest(shares, np.asarray(wanted, float), owners), MOST).astype(np.int64)


def most_draws(shares: Floats, units: Integers) -> Floats:
    """The most draws that give so many different ones, on average and rounded up; infinite if any do.

    Args:
        shares: of one owner.
        units: numbers of different ones, each at least one.

    >>> most_draws(np.array([0.5, 0.3, 0.2]), np.array([1, 2, 3])).tolist()
    [1.0, 2.0, inf]
    """
    mass = shares[shares > 0]
    parts = np.array_split(units, -(-len(units) // 256))  # each takes memory for all shares
    found = [
        _fewest(np.tile(mass, len(part)), part.astype(float) + 1, np.repeat(np.arange(len(part)), len(mass)))
        for part in parts
    ]
    return np.concatenate(found) - 1


def _fewest(shares: Floats, wanted: Floats, owners: Integers) -> Floats:
    missing = _missing(shares)

    def enough(draws: Floats) -> npt.NDArray[np.bool_]:
        return whole(_different(missing, draws, owners)) >= wanted

    endless = wanted > np.bincount(owners[shares > 0], minlength=len(wanted))
    low, high = np.zeros(len(wanted)), np.where(wanted > 0, 1.0, 0.0)
    while (short := ~endless & ~enough(high)).any():
        low, high = np.where(short, high, low), np.where(short, 2 * high, high)
    # Doubles beyond 2^53 are no longer neighbours of integers; there the middle is one of the two.
    while (apart := ~endless & (high - low > np.maximum(1, 1e-15 * high))).any():
        middle = np.floor((low + high) / 2)
        reached = enough(middle)
        low, high = np.where(apart & ~reached, middle, low), np.where(apart & reached, middle, high)
    return np.where(endless, np.inf, high)


def coefficient(
    total: float | Floats, places: float | Floats, kernel: float | Floats, delta: float
) -> Floats:
    """What sensitivities and sizes say of an error: ``2 C ln(8 (P + 1) k / delta) sum s``.

    Args:
        total: the sum of the sensitivities: of a layer's inputs, or of a filter's weights of one sign.
        places: how many places the layer's output has, P.
        kernel: how many weights connect one input channel with one output channel, k.
        delta: the probability with which the error may be larger than promised.

    >>> round(float(coefficient(1.0, 1, 1, 1e-16)), 3)
    237.684
    """
    found: Floats = 2 * CONFIDENCE * np.log(8 * (np.asarray(places) + 1) * kernel / delta) * total
    return found


def error_level(draws: Floats, coefficient: float | Floats) -> Floats:
    """The smallest error level e at which so many draws are enough: ``draws = 3 (6 + 2 e) c / e^2``.

    >>> float(error_level(np.array(18.0), 1.0)), float(error_level(np.array(np.inf), 1.0))
    (1.1804..., 0.0)
    """
    reach = 3 * coefficient / draws
    found: Floats = reach + np.sqrt(reach**2 + 6 * reach)
    return found

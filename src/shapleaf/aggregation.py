"""From scores per example to one score per unit, in one pass over any number of batches and ranks.

An aggregation is configuration only; :meth:`Aggregation.start` gives a state that takes in batches
and can be merged with the states of other batches or ranks. How the data were cut makes no
difference beyond rounding in double precision. NaN in one example's score makes the unit's
result NaN. The standard errors are those over examples: the examples seen are taken as a
sample of all examples there could be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from .errors import CriterionError, DataError

Result = tuple[Tensor, Tensor | None]
S = TypeVar("S", bound="State")


@runtime_checkable
class State(Protocol):
    """What an aggregation remembers of the examples seen so far; it can be pickled."""

    def update(self, values: Tensor) -> None:
        """Take in one batch of scores, ``(batch, units)``."""
        ...

    def merge(self: S, other: S) -> None:
        """Take in everything that another state of the same aggregation has seen."""
        ...

    def result(self) -> Result:
        """Score and standard error of each unit, ``(units,)`` each, in double precision on the CPU.

        The standard error is None where too few examples were seen to tell.

        Raises:
            DataError: no example was seen.
        """
        ...


@runtime_checkable
class Aggregation(Protocol):
    """How scores per example, ``(examples, units)``, become one score per unit, ``(units,)``."""

    def start(self, units: int) -> State:
        """An empty state for a group of so many units."""
        ...


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean over examples: what a unit is worth to the dataset.

    >>> state = Mean().start(units=2)
    >>> state.update(torch.tensor([[1.0, -2.0], [3.0, 2.0]]))
    >>> value, stderr = state.result()
    >>> value.tolist(), stderr.tolist()
    ([2.0, 0.0], [1.0, 2.0])
    """

    def start(self, units: int) -> State:
        return _Mean(self, units)


@dataclass(frozen=True, slots=True)
class AbsMean:
    """The mean of absolute scores: what a unit changes, for better or worse.

    >>> state = AbsMean().start(units=2)
    >>> state.update(torch.tensor([[1.0, -2.0], [3.0, 2.0]]))
    >>> state.result()[0].tolist()
    [2.0, 2.0]
    """

    def start(self, units: int) -> State:
        return _AbsMean(self, units)


@dataclass(frozen=True, slots=True)
class AbsOfMean:
    """The absolute value of the mean: what a unit changes over all, helping some and harming others.

    Its standard error is that of the mean.

    >>> state = AbsOfMean().start(units=2)
    >>> state.update(torch.tensor([[1.0, -2.0], [-4.0, 2.0]]))
    >>> state.result()[0].tolist()
    [1.5, 0.0]
    """

    def start(self, units: int) -> State:
        return _AbsOfMean(self, units)


@dataclass(frozen=True, slots=True)
class MeanPlusStd:
    """Mean plus ``k`` standard deviations over examples: keeps units that matter to few examples.

    The aggregation of Ancona et al. (2020), with ``k=2``; the standard deviation is that of the
    examples seen (divided by their number, not by one less). Its standard error is by the delta
    method: with ``s`` the standard deviation and ``m3, m4`` the central moments,
    ``n Var(mean + k s) = s^2 + k m3 / s + k^2 (m4 - s^4) / (4 s^2)``.

    Raises:
        CriterionError: ``k`` is not finite.

    >>> state = MeanPlusStd(k=2).start(units=2)
    >>> state.update(torch.tensor([[1.0, -2.0], [3.0, 2.0]]))
    >>> state.result()[0].tolist()
    [4.0, 4.0]
    """

    k: float = 2.0

    def __post_init__(self) -> None:
        if not abs(self.k) < float("inf"):
            raise CriterionError(f"MeanPlusStd needs a finite k, received {self.k}.")

    def start(self, units: int) -> State:
        return _MeanPlusStd(self, units)


@dataclass(frozen=True, slots=True)
class Quantile:
    """The ``q`` quantile over examples, linear between order statistics: robust against few of them.

    Keeps every score: 8 bytes per example and unit. The standard error is half the distance
    between the order statistics ``sqrt(n q (1 - q))`` ranks below and above, where the
    true quantile lies in about 68 % of samples; None if there are too few examples for such ranks.

    Attributes:
        q: from 0, the minimum, over 0.5, the median, to 1, the maximum.

    Raises:
        CriterionError: ``q`` is not between 0 and 1.

    >>> state = Quantile(0.5).start(units=1)
    >>> state.update(torch.tensor([[5.0], [1.0], [90.0]]))
    >>> state.result()[0].tolist()
    [5.0]
    """

    q: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.q <= 1:
            raise CriterionError(f"Quantile needs 0 <= q <= 1, received {self.q}.")

    def start(self, units: int) -> State:
        return _Quantile(self, units)


class _State:
    """What made the state, so that only its like is merged into it."""

    def __init__(self, aggregation: Aggregation, units: int) -> None:
        self.aggregation = aggregation
        self.units = units

    def _checked(self, values: Tensor) -> Tensor:
        if values.ndim != 2 or values.shape[1] != self.units:
            raise CriterionError(
                f"scores to aggregate must be (batch, units) = (…, {self.units}), "
                f"received {tuple(values.shape)}."
            )
        return values.detach().cpu().double()

    def _check_same(self, other: _State) -> None:
        if (self.aggregation, self.units) != (other.aggregation, other.units):
            raise CriterionError(
                f"cannot merge {other.aggregation} of {other.units} units into {self.aggregation} "
                f"of {self.units}; start both from the same aggregation and group."
            )


class _Moments(_State):
    """Number, mean and sums of the 2nd to 4th powers of deviations, merged as in Pébay (2008)."""

    def __init__(self, aggregation: Aggregation, units: int) -> None:
        super().__init__(aggregation, units)
        self.count = 0
        self.mean, self.power2, self.power3, self.power4 = torch.zeros(4, units, dtype=torch.float64)

    def update(self, values: Tensor) -> None:
        values = self._checked(values)
        if len(values):
            mean = values.mean(0)
            deviation = values - mean
            powers = [(deviation**exponent).sum(0) for exponent in (2, 3, 4)]
            self._absorb(len(values), mean, *powers)

    def merge(self, other: _Moments) -> None:
        self._check_same(other)
        if other.count:
            self._absorb(other.count, other.mean, other.power2, other.power3, other.power4)

    def _absorb(self, count: int, mean: Tensor, power2: Tensor, power3: Tensor, power4: Tensor) -> None:
        total = self.count + count
        a, b = self.count / total, count / total
        shift = mean - self.mean
        self.power4 = (
            self.power4
            + power4
            + shift**4 * (total * a * b * (a * a - a * b + b * b))
            + 6 * shift**2 * (a * a * power2 + b * b * self.power2)
            + 4 * shift * (a * power3 - b * self.power3)
        )
        self.power3 = (
            self.power3
            + power3
            + shift**3 * (total * a * b * (a - b))
            + 3 * shift * (a * power2 - b * self.power2)
        )
        self.power2 = self.power2 + power2 + shift**2 * (total * a * b)
        self.mean = self.mean + shift * b
        self.count = total


class _Mean(_Moments):
    def result(self) -> Result:
        _seen(self.count)
        if self.count == 1:
            return self.mean.clone(), None
        return self.mean.clone(), (self.power2 / (self.count - 1) / self.count).sqrt()


class _AbsMean(_Mean):
    def update(self, values: Tensor) -> None:
        super().update(values.abs())


class _AbsOfMean(_Mean):
    def result(self) -> Result:
        mean, stderr = super().result()
        return mean.abs(), stderr


class _MeanPlusStd(_Moments):
    def __init__(self, aggregation: MeanPlusStd, units: int) -> None:
        super().__init__(aggregation, units)
        self.k = aggregation.k

    def result(self) -> Result:
        _seen(self.count)
        variance = self.power2 / self.count
        std = variance.sqrt()
        value = self.mean + self.k * std
        if self.count == 1:
            return value, None
        k, power3, power4 = self.k, self.power3 / self.count, self.power4 / self.count
        spread = variance + k * power3 / std + k**2 * (power4 - variance**2) / (4 * variance)
        # Equal scores have no spread; NaN fails the comparison too and stays NaN.
        spread = torch.where(variance > 0, spread.clamp_min(0), variance)
        return value, (spread / self.count).sqrt()


class _Quantile(_State):
    def __init__(self, aggregation: Quantile, units: int) -> None:
        super().__init__(aggregation, units)
        self.q = aggregation.q
        self._values: list[Tensor] = []

    def update(self, values: Tensor) -> None:
        self._values.append(self._checked(values).clone())

    def merge(self, other: _Quantile) -> None:
        self._check_same(other)
        self._values.extend(other._values)

    def result(self) -> Result:
        count = sum(map(len, self._values))
        _seen(count)
        ordered = torch.cat(self._values).T.contiguous().sort(1).values.T  # rows of memory sort faster
        ordered[:, ordered.isnan().any(0)] = torch.nan
        rank = self.q * (count - 1)
        reach = (count * self.q * (1 - self.q)) ** 0.5
        value = _at(ordered, rank)
        if not 0 < rank - reach < rank + reach < count - 1:
            return value, None
        return value, (_at(ordered, rank + reach) - _at(ordered, rank - reach)) / 2


def _at(ordered: Tensor, rank: float) -> Tensor:
    """The value at a rank counted from 0, linear between two."""
    below = int(rank)
    above = min(below + 1, len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], rank - below)


def _seen(count: int) -> None:
    if not count:
        raise DataError("no example was seen, so there is nothing to aggregate; check the calibration data.")

"""How much of a model may stay, or must go."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral, Real

from .errors import BudgetError
from .records import Cost


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much may stay, or must go: exactly one of ``keep`` and ``remove``.

    A float is a fraction, taken as the decimal it prints as; an int is an absolute amount. Use
    :class:`Units`, :class:`Params` or :class:`Macs`.

    Raises:
        BudgetError: both or none are given, or a fraction is not within 0 and 1.
    """

    keep: float | int | None = None
    remove: float | int | None = None

    def __post_init__(self) -> None:
        if (self.keep is None) == (self.remove is None):
            raise BudgetError(f"{type(self).__name__} takes exactly one of keep= and remove=.")
        for name in ("keep", "remove"):
            value = getattr(self, name)
            if isinstance(value, Integral):
                object.__setattr__(self, name, int(value))
            elif isinstance(value, Real):
                object.__setattr__(self, name, float(value))
            elif value is not None:
                raise BudgetError(f"{self}: {name}= must be a number, received {type(value).__name__}.")
        if isinstance(self._amount, float) and not 0 <= self._amount <= 1:
            raise BudgetError(f"{self}: a fraction lies between 0 and 1; give an int for an absolute amount.")
        if self._amount < 0:
            raise BudgetError(f"{self}: an amount is not negative.")

    @property
    def _amount(self) -> float | int:
        value = self.keep if self.keep is not None else self.remove
        assert value is not None
        return value

    def measure(self, cost: Cost) -> int:
        """The part of a cost that this budget is about."""
        name = type(self).__name__.lower()
        value: int = getattr(cost, name)
        return value

    def limit(self, full: Cost) -> int:
        """The most that may remain."""
        total, value = self.measure(full), self._amount
        amount = Fraction(repr(value)) * total if isinstance(value, float) else value
        return math.floor(amount if self.keep is not None else total - amount)

    def __str__(self) -> str:
        word = f"keep={self.keep}" if self.keep is not None else f"remove={self.remove}"
        return f"{type(self).__name__}({word})"


@dataclass(frozen=True, kw_only=True)
class Units(Budget):
    """A budget on the number of units in the scored groups.

    >>> print(Units(keep=0.75))
    Units(keep=0.75)
    """

    __str__ = Budget.__str__


@dataclass(frozen=True, kw_only=True)
class Params(Budget):
    """A budget on the model's parameters (elements).

    >>> Params(keep=0.29).limit(Cost(units=1, params=100, macs=1))
    29
    """

    __str__ = Budget.__str__


@dataclass(frozen=True, kw_only=True)
class Macs(Budget):
    """A budget on the multiply-accumulates for one example (half of the "FLOPs" of most papers).

    >>> Macs(remove=30).limit(Cost(units=1, params=1, macs=100))
    70
    """

    __str__ = Budget.__str__

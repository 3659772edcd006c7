"""When units go while a model trains, and how much may stay each time."""

from __future__ import annotations

from dataclasses import dataclass, field

from ._context import number
from .errors import BudgetError


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When units go, and how much may stay each time; the base of all schedules.

    Units go at the training steps ``start``, ``start + every``, and so on, ``steps`` times. Of your own
    schedule write the curve, ``keep``; the last time always leaves what the budget says, exactly.

    Args:
        steps: how many times units go.
        every: training steps from one time to the next.
        start: the training step of the first.

    Raises:
        BudgetError: one of them is no such number.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Slowly(Schedule):
    ...     def keep(self, progress, final):
    ...         return 1 - (1 - final) * progress**2
    >>> Slowly(steps=4, every=100).keeps(0.5)
    (0.96875, 0.875, 0.71875, 0.5)
    """

    steps: int
    every: int
    start: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("every", 1), ("start", 0)):
            value = number(getattr(self, name))
            object.__setattr__(self, name, value)
            if type(value) is not int or value < least:
                raise BudgetError(f"{self}: {name} must be a whole number, at least {least}.")

    def keep(self, progress: float, final: float) -> float:
        """The share of the dense model's cost that may stay after this share of the steps."""
        raise NotImplementedError

    def keeps(self, final: float) -> tuple[float, ...]:
        """The shares that may stay after each step; the last is the final one."""
        return (*(self.keep(k / self.steps, final) for k in range(1, self.steps)), final)

    def at(self, done: int) -> int | None:
        """The training step at which units go next once they have gone so many times; None at the end."""
        return self.start + done * self.every if done < self.steps else None


@dataclass(frozen=True, kw_only=True)
class OneShot(Schedule):
    """All at once, at the training step ``start``.

    >>> OneShot(start=100).keeps(0.5), OneShot(start=100).at(0)
    ((0.5,), 100)
    """

    steps: int = field(default=1, init=False, repr=False)
    every: int = field(default=1, init=False, repr=False)

    def keep(self, progress: float, final: float) -> float:
        """Everything before, the final share afterwards."""
        return final if progress >= 1 else 1.0


@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """Equal parts of the dense model each time.

    >>> Linear(steps=4, every=100).keeps(0.5)
    (0.875, 0.75, 0.625, 0.5)
    """

    def keep(self, progress: float, final: float) -> float:
        """``1 - (1 - final) * progress``."""
        return 1 - (1 - final) * progress


@dataclass(frozen=True, kw_only=True)
class Cubic(Schedule):
    """Much at first, while there is plenty, and less and less each time.

    Zhu and Gupta 2017, To prune, or not to prune, equation 1, from a sparsity of zero. Its first time, at
    which nothing would go, is left out.

    >>> Cubic(steps=4, every=100).keeps(0.5)
    (0.7109375, 0.5625, 0.5078125, 0.5)
    """

    def keep(self, progress: float, final: float) -> float:
        """``final + (1 - final) * (1 - progress)**3``."""
        return final + (1 - final) * (1 - progress) ** 3


@dataclass(frozen=True, kw_only=True)
class Geometric(Schedule):
    """The same share of what is left each time.

    >>> Geometric(steps=2, every=100).keeps(0.25)
    (0.5, 0.25)
    """

    def keep(self, progress: float, final: float) -> float:
        """``final**progress``."""
        return float(final**progress)

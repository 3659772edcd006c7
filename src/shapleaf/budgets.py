"""How much of a model may stay, or must go."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from numbers import Integral, Real
from typing import ClassVar, Self

from .errors import BudgetError, StaleGraphError
from .records import Cost, Graph, Group, LatencyTable, Plan
from .records.latency import Predictor


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much may stay, or must go: exactly one of ``keep`` and ``remove``.

    A float is a fraction, taken as the decimal it prints as; an int is an absolute amount. Use
    :class:`Units`, :class:`Params`, :class:`Macs` or :class:`Latency`.

    Attributes:
        monotone: whether fewer units never cost more.
        unit: what an absolute amount counts, where the budget's name does not say it.

    Raises:
        BudgetError: both or none are given, or a fraction is not within 0 and 1.
    """

    monotone: ClassVar[bool] = True
    unit: ClassVar[str] = ""

    keep: float | int | None = None
    remove: float | int | None = None

    def __post_init__(self) -> None:
        if (self.keep is None) == (self.remove is None):
            raise BudgetError(f"{type(self).__name__} takes exactly one of keep= and remove=.")
        for name in ("keep", "remove"):
            value = getattr(self, name)
            if isinstance(value, Integral | Real) and not isinstance(value, bool):
                object.__setattr__(self, name, int(value) if isinstance(value, Integral) else float(value))
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

    def check(self, graph: Graph) -> None:
        """Refuse a graph that this budget cannot be measured on."""

    def covers(self, group: Group) -> bool:
        """Whether it can say what fewer units of a group cost; else all of them stay."""
        return True

    def after(self, plan: Plan) -> Self:
        """The same budget for the model that a plan leaves, traced anew; fractions are then of that model."""
        return self

    def measure(self, cost: Cost, kept: Mapping[str, int] | None = None) -> int:
        """The part of a cost that this budget is about, when groups keep so many units (all by default)."""
        name = type(self).__name__.lower()
        value: int = getattr(cost, name)
        return value

    def limit(self, full: Cost) -> int:
        """The most that may remain."""
        return self.most(self.measure(full))

    def most(self, total: int) -> int:
        """The most that may remain of so much."""
        value = self._amount
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


@dataclass(frozen=True, kw_only=True)
class Nonzeros(Budget):
    """A budget on single weights: the scalars that are not zero, among all parameters of the model as it is.

    Biases and norms count, though no weight of theirs is removed (Liebenwein et al. 2021). It is one for
    :func:`shapleaf.sparsify`; whole units are removed by the others.

    >>> Nonzeros(keep=0.29).most(100), Nonzeros(remove=30).most(100)
    (29, 70)
    """

    unit: ClassVar[str] = "non-zero parameters"

    __str__ = Budget.__str__

    def check(self, graph: Graph) -> None:
        """Refuse any graph: units are not counted by their weights' values."""
        raise BudgetError(
            f"{self} counts single weights, which shapleaf.sparsify removes; for whole units use Params."
        )


@dataclass(frozen=True, kw_only=True)
class Latency(Budget):
    """A budget on the time of one batch, as a table of measured times predicts it.

    A fraction is one of the time of the model as it is; an absolute amount counts whole microseconds. The
    metric that measures a model's time is :class:`shapleaf.evaluation.Latency`.

    Args:
        keep, remove: as in every budget.
        table: what :func:`shapleaf.profile` measured on the machine that the model is for.
        scale: by how much pruned models take longer than the table predicts; see :meth:`corrected`.
        pruned: what the table's model has lost before the model that the budget is for; see :meth:`after`.

    Raises:
        BudgetError: as every budget, or the table is none.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64))
    >>> inputs = torch.randn(500, 64)
    >>> graph = sl.trace(model, inputs)
    >>> table = sl.profile(model, graph, inputs, runs=20)
    >>> plan = sl.allocate(sl.attribute(model, graph, None, sl.WeightNorm()), Latency(keep=0.9, table=table))
    >>> table.predict(plan) < table.dense
    True
    """

    monotone: ClassVar[bool] = False
    unit: ClassVar[str] = "microseconds"

    table: LatencyTable = field(repr=False, hash=False)
    scale: float = field(default=1.0, repr=False)
    pruned: Plan | None = field(default=None, repr=False, hash=False)
    _predict: Predictor = field(init=False, repr=False, compare=False)

    __str__ = Budget.__str__

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.table, LatencyTable):
            raise BudgetError(
                f"{self}: table= must be what shapleaf.profile returned, "
                f"received {type(self.table).__name__}."
            )
        object.__setattr__(self, "_predict", self.table.predictor() if self.table.complete else None)

    def check(self, graph: Graph) -> None:
        """Refuse the graph of another model, and a table that was not finished."""
        whole = graph if self.pruned is None else self.pruned.graph
        self.table.check(whole)
        left = {group.name: group.size for group in whole} | self._left()
        for group in graph:
            if not self.covers(group) and 1 not in self._left().values():
                due = left.get(group.name, "no")
                raise StaleGraphError(
                    f"{self} is for a model with {due} units in group {group.name}; the one received has "
                    f"{group.size}. Give it every plan that led there: budget.after(plan)."
                )

    def covers(self, group: Group) -> bool:
        """Whether the table was measured for these units.

        They are others where a convolution or norm has a single group left: then each channel is one.
        """
        return self.pruned is None or self._left().get(group.name) == group.size

    def after(self, plan: Plan) -> Self:
        """The same budget for the model that a plan leaves: its times are still those of the whole table.

        Groups that are in its graph no more, since one unit is left of them, keep that one.

        Raises:
            StaleGraphError, DataError: the plan belongs to another model, or the table is not finished.

        >>> import torch, shapleaf as sl
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> inputs = torch.randn(50, 3)
        >>> graph = sl.trace(model, inputs)
        >>> budget = Latency(keep=0.9, table=sl.profile(model, graph, inputs, runs=20))
        >>> plan = sl.plan(graph, {"0": range(4)})
        >>> left = sl.trace(sl.prune(model, plan).model, inputs)
        >>> budget.after(plan).check(left)
        """
        self.check(plan.graph)
        return replace(self, pruned=plan if self.pruned is None else self.pruned.compose(plan))

    def measure(self, cost: Cost, kept: Mapping[str, int] | None = None) -> int:
        """Microseconds of a batch, as predicted."""
        time = self._predict({**self._left(), **(kept or {})})
        return round(1e3 * (time if time == self.table.dense else time * self.scale))

    def _left(self) -> dict[str, int]:
        """How many units of the table's groups were left before."""
        return {} if self.pruned is None else {name: len(units) for name, units in self.pruned.keep.items()}

    def corrected(self, plan: Plan, measured: float) -> Latency:
        """The same budget, where the model that a plan left took another time than the table predicts.

        Args:
            plan: what the table was asked about.
            measured: its time relative to the whole model's, as :func:`shapleaf.relative_time` has it.

        Raises:
            BudgetError: the time is not positive.
            StaleGraphError, DataError: as :meth:`after`.
        """
        if not measured > 0:
            raise BudgetError(f"{self}: measured={measured} must be positive, a share of the model's time.")
        predicted = self._predict(self.after(plan)._left())
        return replace(self, scale=measured * self.table.dense / predicted)

"""Pruning while a model trains: how each step is planned, and the object that carries the steps out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer

from . import _context, _store
from .allocation import allocate, plan
from .attribution import attribute
from .budgets import Budget, Units
from .costs import cost
from .criteria import Criterion, OptimalBrainSurgeon
from .cuts import attributes, slicing
from .data import batches, repeatable
from .errors import BudgetError, DataError, PlanError
from .records import Cost, Graph, Group, Plan, Receipt, Scores
from .scanning import curved
from .schedules import Schedule
from .strategies import ErrorLevel, Global, Strategy, Tradeoff, Uniform
from .surgery import Compensation, LeastSquares, optimizers, prune_, replay
from .tracing import trace

Planning = Callable[[nn.Module, Any, Budget], Plan]
"""From a model, calibration data and a budget to the units that stay."""
Making = Compensation | Sequence[Compensation] | Callable[[Any], Compensation] | None
"""A compensation, several in order, what makes one of the calibration data, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Planner:
    """From a model, calibration data and a budget to a plan: trace, attribute, scan, allocate.

    Args:
        criterion: how units are scored; ``OptimalBrainSurgeon(felt=True)`` by default.
        strategy: how the budget is spread over the groups; ``Tradeoff()`` by default. The curves that it
            needs are measured where the criterion has none, unless it is ``Global()``, ``Uniform()``
            or ``ErrorLevel()``.
        loss: ``f(output, target)``, one value per example.
        groups: shell patterns of the groups to prune; all by default.
        min_keep, multiple_of: as for :func:`shapleaf.allocate`.
        seed: names every random draw.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
    >>> data = [(torch.randn(50, 4), torch.randint(3, (50,)))]
    >>> plan = Planner(criterion=sl.Taylor(), multiple_of=1)(model, data, sl.Macs(keep=0.3))
    >>> len(plan.keep["0"])
    9
    """

    criterion: Criterion | None = None
    strategy: Strategy | None = None
    loss: _context.Loss = _context.cross_entropy
    groups: Sequence[str] | None = None
    min_keep: int = 1
    multiple_of: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        _context.several("groups", self.groups)

    def __call__(self, model: nn.Module, data: Any, budget: Budget) -> Plan:
        """The plan.

        Raises:
            ShapleafError: as the four verbs do.
        """
        graph = _traced(model, data)
        criterion = self.criterion or OptimalBrainSurgeon(felt=True)
        scores = attribute(model, graph, data, criterion, loss=self.loss, groups=self.groups, seed=self.seed)
        if not isinstance(self.strategy, Global | Uniform | ErrorLevel):
            scores = curved(model, scores, data, loss=self.loss)
        return self.allocate(scores, budget, self.strategy or Tradeoff())

    def allocate(self, scores: Scores, budget: Budget, strategy: Strategy) -> Plan:
        """The plan by scores that are known."""
        return allocate(
            scores, budget, strategy=strategy, min_keep=self.min_keep, multiple_of=self.multiple_of
        )


class Pruner:
    """Prunes a model in steps while you train it, and can be saved and resumed with the rest of the run.

    The loop stays yours. After an optimizer step ask :meth:`due`; :meth:`step` then scores the units of the
    model as it is, prunes it in place to what the schedule allows, and slices the optimizer's state. What
    may stay is counted from the cost of the model given here; the last step meets the budget.

    Args:
        model: the whole, not yet pruned model; its modes, hooks and random state stay as they are.
        optimizer: of the model's parameters; None if there is none. Learning rates and their schedulers,
            parameter groups and gradients are kept; biases that compensation adds join their weights' group.
        calibration: labelled batches ``(inputs, labels)``, the same each time.
        budget: what may stay in the end.
        schedule: when units go: ``Cubic(steps=8, every=200)``.
        planner: how each step is planned: a :class:`Planner`, or any function of the model, the data and a
            budget that returns a plan.
        compensate: what surviving weights do to make up, each time: a compensation, several in order, or
            what makes one of the calibration data; None for nothing.

    Raises:
        BudgetError: the schedule ends at a budget that cannot be met.
        PlanError: the model is compiled, or wrapped to run on several devices.
        ShapleafError: the model cannot be traced, or calibration data are not what they must be.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
    >>> optimizer = torch.optim.Adam(model.parameters())
    >>> x, y = torch.randn(50, 4), torch.randint(3, (50,))
    >>> schedule = sl.Linear(steps=2, every=10)
    >>> pruner = Pruner(model, optimizer, [(x, y)], sl.Macs(keep=0.5), schedule, compensate=None)
    >>> for step in range(20):
    ...     nn.functional.cross_entropy(model(x), y).backward()
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    ...     if pruner.due(step):
    ...         receipt = pruner.step()
    >>> pruner
    Pruner(2 of 2 steps of Linear(steps=2, every=10, start=0) to Macs(keep=0.5) done)
    >>> model[0].out_features
    16
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None,
        calibration: Any,
        budget: Budget,
        schedule: Schedule,
        *,
        planner: Planning | None = None,
        compensate: Making = LeastSquares,
    ) -> None:
        _check_bare(model)
        self.model, self._optimizer = model, optimizer
        self.calibration, self.budget, self.schedule = calibration, budget, schedule
        self.planner: Planning = planner or Planner()
        self.compensate = _made(compensate, calibration)
        self._receipts: list[Receipt] = []
        with _context.rng(0):
            graph = _traced(model, calibration)
        self._dense = replace(cost(graph), units=_units(graph, self.planner))
        self._check_attainable(graph)

    @property
    def optimizer(self) -> Optimizer | None:
        """Whose state is sliced; another one of the same parameters can be put in its place.

        It is given the biases that compensation added so far, each at the end of its weight's group.
        """
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Optimizer | None) -> None:
        self._optimizer = optimizer
        self._adopt()

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """What each step so far did. In this order they can be replayed on a copy or a fresh model."""
        return tuple(self._receipts)

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return len(self._receipts) >= self.schedule.steps

    @property
    def target(self) -> Budget:
        """What the next step prunes to: an absolute amount, for the model as it is by now.

        Raises:
            BudgetError: all steps are done.
        """
        if self.finished:
            raise BudgetError(
                f"all {self.schedule.steps} steps of {self.schedule} are done; ask due() first."
            )
        full, limit = self.budget.measure(self._dense), self.budget.limit(self._dense)
        share = self.schedule.keeps(limit / max(full, 1))[len(self._receipts)]
        last = len(self._receipts) + 1 == self.schedule.steps
        keep = limit if last else max(limit, math.floor(share * full))
        return replace(self._rest, keep=keep, remove=None)

    @property
    def _rest(self) -> Budget:
        """The budget for what the steps so far have left."""
        plans = [receipt.plan for receipt in self._receipts]
        return self.budget.after(reduce(Plan.compose, plans)) if plans else self.budget

    def due(self, step: int) -> bool:
        """Whether units are to go after this training step, counted as you like.

        True from the step that the schedule names until :meth:`step` is called, however often it is asked
        and in whatever order. Where several times have passed, they are made up for one by one.
        """
        at = self.schedule.at(len(self._receipts))
        return at is not None and step >= at

    def step(self) -> Receipt:
        """Plan, prune in place, slice the optimizer's state.

        If it raises, model, optimizer and this object are as before.

        Raises:
            BudgetError: all steps are done.
            ShapleafError: as the verbs do.
        """
        target = self.target
        with _context.rng(0):
            graph = _traced(self.model, self.calibration)
            excess = target.measure(self._counted(graph)) - int(target.keep or 0)
            if isinstance(target, Units):  # groups with one unit left, say, are in the graph no more
                target = Units(keep=max(0, _units(graph, self.planner) - excess))
            chosen = plan(graph, {}) if excess <= 0 else self.planner(self.model, self.calibration, target)
            number = f"{len(self._receipts) + 1} of {self.schedule} to {self.budget}"
            chosen = replace(chosen, made_by={**chosen.made_by, "step": number})
            receipt = prune_(self.model, chosen, optimizer=self.optimizer, compensate=self.compensate)
        self._receipts.append(receipt)
        self._adopt()
        return receipt

    def state_dict(self) -> dict[str, Any]:
        """What was done so far, as strings and tensors: ``torch.load(weights_only=True)`` takes it."""
        packed = [dict(zip(("record", "tensors"), _store.pack(r), strict=True)) for r in self._receipts]
        return {"budget": str(self.budget), "schedule": str(self.schedule), "receipts": packed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give a whole model the shapes of the one saved, and go on after its last step.

        Call it first, then ``model.load_state_dict`` and ``optimizer.load_state_dict``.

        Raises:
            DataError: this is no state of a pruner, or is damaged.
            PlanError: it was saved with another budget or schedule, or belongs to another model, or this
                one was pruned in another way meanwhile. Nothing is changed then.
        """
        receipts = self._loaded(state)
        mine = len(self._receipts)
        if receipts[:mine] != self._receipts:
            raise PlanError(
                f"this pruner has done {mine} of its steps, in another way than the state that is loaded; "
                "units do not come back. Build the model, its optimizer and the pruner anew, then load."
            )
        done: list[Receipt] = []
        try:
            with optimizers.restored_on_failure(self.optimizer), slicing.restored_on_failure(self.model):
                for receipt in receipts[mine:]:
                    self._replay(receipt)
                    done.append(receipt)
        except BaseException:
            for receipt in reversed(done):
                attributes.undo(self.model, receipt.edits)
            raise
        self._receipts = receipts
        self._adopt()

    def __repr__(self) -> str:
        done = f"{len(self._receipts)} of {self.schedule.steps} steps of {self.schedule}"
        return f"Pruner({done} to {self.budget} done)"

    def _adopt(self) -> None:
        """Give the optimizer the biases that compensation added."""
        for name in dict.fromkeys(name for receipt in self._receipts for name, _ in receipt.biases):
            layer = self.model.get_submodule(name)
            bias, weight = layer._parameters["bias"], attributes.weights(layer)[0]
            assert bias is not None
            for group in self.optimizer.param_groups if self.optimizer is not None else ():
                _move(group, f"{name}.bias", bias, here=any(p is weight for p in group["params"]))

    def _loaded(self, state: Mapping[str, Any]) -> list[Receipt]:
        receipts = saved_receipts(state)
        saved = {name: state.get(name) for name in ("budget", "schedule")}
        mine = {"budget": str(self.budget), "schedule": str(self.schedule)}
        if saved != mine:
            raise PlanError(
                f"the state was saved on the way of {saved['schedule']} to {saved['budget']}; this pruner "
                f"goes that of {mine['schedule']} to {mine['budget']}. Load it with the old ones; for another"
                " way from there on, give the pruned model to a new Pruner."
            )
        return receipts

    def _replay(self, receipt: Receipt) -> None:
        what = slicing.cuts(receipt.plan)
        receipt.plan.graph.check(self.model)
        if what and self.optimizer is not None and self.optimizer.state:
            try:
                optimizers.slice_state(self.optimizer, self.model, what)
            except PlanError as error:
                raise PlanError(f"load the pruner's state before that of the optimizer: {error}") from error
        replay(self.model, receipt)

    def _counted(self, graph: Graph) -> Cost:
        """What the model costs now; its units are what is left of those that could go in the beginning."""
        gone = sum(r.plan.before.units - r.plan.after.units for r in self._receipts)
        return replace(cost(graph), units=self._dense.units - gone)

    def _check_attainable(self, graph: Graph) -> None:
        """Refuse now what could not be met at the end."""
        self.budget.check(graph)
        if isinstance(self.planner, Planner):
            values = {group.name: torch.zeros(group.size) for group in _chosen(graph, self.planner)}
            blank = Scores(graph=graph, values=values)
            self.planner.allocate(blank, self.budget, Global())


def saved_receipts(state: Mapping[str, Any]) -> list[Receipt]:
    """The receipts in the state of a :class:`Pruner`, in order.

    Raises:
        DataError: there are none, or they are damaged.
    """
    try:
        packed = [(str(part["record"]), dict(part["tensors"])) for part in state["receipts"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"this is no state of a Pruner ({type(error).__name__}: {error}).") from error
    return [_store.unpack(Receipt, *part, where=f"receipt {i}") for i, part in enumerate(packed)]


def _check_bare(model: nn.Module) -> None:
    """Refuse wrappers that keep what was true of the whole model."""
    if isinstance(model, DistributedDataParallel | DataParallel):
        raise PlanError(
            f"{type(model).__name__} keeps the shapes of the parameters that it was given. Pass "
            "model.module, and wrap it anew after every step."
        )
    if isinstance(getattr(model, "_orig_mod", None), nn.Module):
        raise PlanError("this is a compiled model. Pass the model that was given to torch.compile.")


def _made(compensate: Making, data: Any) -> Compensation | Sequence[Compensation] | None:
    if compensate is None or isinstance(compensate, Sequence):
        return compensate
    if isinstance(compensate, Compensation) and not isinstance(compensate, type):
        return compensate
    make: Callable[[Any], Compensation] = compensate
    return make(data)


def _traced(model: nn.Module, data: Any) -> Graph:
    example = next(iter(batches(repeatable(data), limit=2, labelled=False)))
    return trace(model, _context.on_device(example.inputs, model))


def _chosen(graph: Graph, planner: Planning) -> tuple[Group, ...]:
    """The groups that a planner scores."""
    patterns = planner.groups if isinstance(planner, Planner) else None
    return graph.groups if patterns is None else graph.select(*patterns)


def _units(graph: Graph, planner: Planning) -> int:
    """The units that can go, which a budget of units counts."""
    sizes = {group.name: group.size for group in _chosen(graph, planner)}
    return sum(
        size
        for name, size in sizes.items()
        if all(member in sizes and not graph[member].blocked for member in graph.tied(name))
    )


def _move(group: dict[str, Any], name: str, parameter: Tensor, *, here: bool) -> None:
    """Take a parameter out of an optimizer's group, or put it at its end."""
    kept = [i for i, other in enumerate(group["params"]) if other is not parameter]
    for key, end in (("params", parameter), ("param_names", name)):
        if key in group:
            group[key][:] = [group[key][i] for i in kept] + [end] * here

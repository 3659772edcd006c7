"""In which order units go: across groups, their scores alone do not decide."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np

from ._draws import coefficient, error_level, most_draws
from .budgets import Budget
from .costs import Costs
from .errors import PlanError
from .records import Graph, Scores

Keys = Mapping[str, np.ndarray]


@runtime_checkable
class Strategy(Protocol):
    """Gives every unit a key: the smaller the earlier it goes, ties in the order of the groups.

    ``ranked`` maps groups to their scores in ascending order (of tied groups the first stands for
    all, with the sum of their scores); the keys of a group must be ascending as well.
    """

    def keys(self, ranked: Keys, scores: Scores, budget: Budget) -> Keys: ...


@dataclass(frozen=True)
class Global:
    """One ranking across all groups: the lowest scores go first, wherever they are.

    Nothing keeps a wide group, whose units share its worth, from losing nearly all of them.

    >>> Global().keys({"a": np.array([1.0, 3.0])}, None, None)["a"].tolist()
    [1.0, 3.0]
    """

    def keys(self, ranked: Keys, scores: Scores, budget: Budget) -> Keys:
        """The scores themselves."""
        return ranked


@dataclass(frozen=True)
class Uniform:
    """The same fraction of every group.

    >>> Uniform().keys({"a": np.array([1.0, 3.0])}, None, None)["a"].tolist()
    [0.5, 1.0]
    """

    def keys(self, ranked: Keys, scores: Scores, budget: Budget) -> Keys:
        """The fraction of the group that is gone once the unit is."""
        return {name: (np.arange(len(values)) + 1) / len(values) for name, values in ranked.items()}


@dataclass(frozen=True)
class Tradeoff:
    """Least loss for what is saved: units go in the order of measured rise of the loss per cost.

    Scores rank the units within a group; across groups the slopes of the curves that
    :func:`shapleaf.scan` measured decide, divided by what one unit saves in the currency of the
    budget. Slopes are those of the curve's lower convex hull, so that they never fall.

    Raises:
        PlanError: the scores have no curves.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> data = [(torch.randn(20, 3), torch.randint(2, (20,)))]
    >>> scores = sl.attribute(model, sl.trace(model, torch.zeros(1, 3)), data, sl.Taylor())
    >>> plan = sl.allocate(sl.scan(model, scores, data), sl.Macs(keep=0.5), strategy=Tradeoff())
    >>> len(plan.keep["0"])
    4
    """

    def keys(self, ranked: Keys, scores: Scores, budget: Budget) -> Keys:
        """The slope of each unit's stretch of the curve, per unit of the budget that it saves."""
        costs = Costs(scores.graph)
        full = budget.measure(costs({}))
        found = {}
        for name in ranked:
            tie = scores.graph.tied(name)
            missing = [member for member in tie if member not in scores.curves]
            if missing:
                raise PlanError(
                    f"Tradeoff needs the loss curve of {missing[0]}; measure it first: "
                    "scores = shapleaf.scan(model, scores, calibration)."
                )
            portions = scores.graph.portions(name)
            # Where a unit less may cost more, what half of them save says more.
            gone = 1 if budget.monotone else -(-portions // 2)
            fewer = {m: scores.graph.units(m, portions - gone) for m in tie}
            saved = (full - budget.measure(costs(fewer), fewer)) / max(full, 1) / gone
            slopes = sum(_slopes(scores.curves[m].numpy()).reshape(portions, -1).sum(1) for m in tie)
            found[name] = np.asarray(slopes) / max(saved, 1e-12)
        return found


@dataclass(frozen=True)
class ErrorLevel:
    """One error level for all layers, on which the sensitivities of their inputs decide how many stay.

    The bound of "Provable Filter Pruning" (Liebenwein et al. 2020): at relative error e a layer is content
    with ``m = 3 (6 + 2 e) c / e^2`` inputs drawn in proportion to their sensitivity, where
    ``c = 6 ln(8 (P + 1) k / delta) sum s`` knows the places P of its output and the weights k of a kernel.
    The different ones among them, ``sum 1 - (1 - s / sum s)^m`` on average and rounded up, are how many it
    keeps. A unit's key is the smallest error level at which its layer keeps fewer: the budget picks the
    level. Layers whose sensitivity lies in few units thus lose many. Meant for the scores of
    :class:`~shapleaf.PFP`; any that are not negative will do.

    Where several layers read a group, the largest of their constants counts.

    Args:
        delta: the probability with which the error may be larger; it hardly matters.

    Raises:
        PlanError: scores are negative, or all zero in a group, or no layer with weights reads a group.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    >>> values = {"0": torch.tensor([0.6, 0.3, 0.2, 0.1]), "1": torch.tensor([0.9, 0.05, 0.05])}
    >>> scores = sl.Scores(graph=sl.trace(model, torch.zeros(1, 5)), values=values)
    >>> sl.allocate(scores, sl.Units(keep=5), strategy=ErrorLevel()).keep
    {'0': (0, 1, 2), '1': (0, 2)}
    """

    delta: float = 1e-16

    def __post_init__(self) -> None:
        if not 0 < self.delta < 1:
            raise PlanError(f"ErrorLevel(delta=...) is a probability, received {self.delta}.")

    def keys(self, ranked: Keys, scores: Scores, budget: Budget) -> Keys:
        """The smallest error level at which the layers that read the group keep a unit less."""
        return {name: self._levels(name, values, scores.graph) for name, values in ranked.items()}

    def _levels(self, name: str, values: np.ndarray, graph: Graph) -> np.ndarray:
        total = float(values.sum())
        if float(values.min()) < 0 or total <= 0:
            wrong = "are all zero" if total == 0 else f"are negative ({float(values.min()):.3g})"
            raise PlanError(
                f"the scores of {name} {wrong}, and an error level needs sensitivities: attribute with PFP() "
                "on data that reach the group, or leave it out (groups=...)."
            )
        factor = max(
            float(coefficient(total, places, kernel, self.delta))
            for member in graph.tied(name)
            for places, kernel in _readers(graph, member)
        )
        left = np.arange(len(values) - 1, 0, -1)  # how many remain once a unit is gone
        levels = error_level(most_draws(values / total, left), factor)
        # A layer is never content with none.
        return np.append(levels, np.finfo(float).max)


def _readers(graph: Graph, name: str) -> Iterator[tuple[float, int]]:
    """Of each layer that reads a group: the places of its output, and the weights of a kernel."""
    shapes = {info.name: info.shape for info in graph.tensors}
    sizes = {group.name: group.size for group in graph}
    macs: dict[str, float] = {}
    for op in graph.ops:
        lengths = [
            a.fixed + sum(n * sizes[g] for g, n in zip(a.groups, a.per_unit, strict=True)) for a in op.axes
        ]
        macs[op.call] = macs.get(op.call, 0.0) + op.scale * math.prod(lengths)
    read = {site.call: shapes[site.weight] for site in graph[name].sites if site.weight and site.call in macs}
    if not read:
        raise PlanError(
            f"group {name} is read by no layer with weights, so it has no error level; leave it out "
            "(groups=...), or use another strategy, such as Uniform()."
        )
    for call, shape in read.items():
        yield macs[call] / math.prod(shape), math.prod(shape[2:])


def _slopes(curve: np.ndarray) -> np.ndarray:
    """Rise per unit along the lower convex hull of (units removed, rise), one value per unit."""
    hull: list[tuple[float, float]] = []
    for x, y in curve[:, :2]:
        while len(hull) > 1:
            (x0, y0), (x1, y1) = hull[-2:]
            if (y1 - y0) * (x - x1) < (y - y1) * (x1 - x0):
                break
            hull.pop()
        hull.append((x, y))
    pieces = [np.full(round(x1 - x0), (y1 - y0) / (x1 - x0)) for (x0, y0), (x1, y1) in pairwise(hull)]
    return np.concatenate(pieces)

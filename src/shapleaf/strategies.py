"""In which order units go: across groups, their scores alone do not decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np

from .budgets import Budget
from .costs import Costs
from .errors import PlanError
from .records import Scores

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

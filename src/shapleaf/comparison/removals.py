"""What removing units from a group really costs, and how well scores foretell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _context
from .._progress import progress
from .._rng import stream
from ..data import Batch
from ..game.game import without
from ..game.layer import LayerGame
from ..records import Faithfulness, Group, RankCorrelation
from .attributions import Case
from .ranks import Values, correlation, weighted


class Alone(NamedTuple):
    """Single units of a group, and the rise of the mean cost when each of them alone is removed."""

    units: Tensor
    rises: Tensor


def ablated(case: Case, groups: Sequence[Group], data: Sequence[Batch]) -> dict[str, Alone]:
    """Remove single units, all others whole: all of a group, or so many at most, drawn by seed.

    Costs one evaluation for each unit removed, and one more for each group.

    >>> import shapleaf as sl
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> case = Case(model, sl.trace(model, torch.zeros(1, 3)), sl.Comparing(ablated=3))
    >>> ablated(case, case.graph.groups, [Batch(torch.ones(5, 3), torch.zeros(5).long())])["0"].rises.shape
    torch.Size([3])
    """
    model, _, settings, seed = case
    if not settings.ablated:
        return {}
    cost = partial(case.target.cost, loss=case.loss)
    found = {}
    with _context.inference(model), progress("single units", len(groups)) as step:
        for group in groups:
            order = stream(seed, "compare", "single units", group.name).permutation(group.size)
            units = torch.from_numpy(order)[: settings.ablated].sort().values
            game = LayerGame(model, group, data, cost)
            costs = without(game, torch.eye(group.size)[units]).cpu().double()
            found[group.name] = Alone(units, (costs[1:] - costs[0]).mean(1))
            step(group.name)
    return found


def agreement(scores: Values, alone: Mapping[str, Alone]) -> RankCorrelation:
    """Whether scores rank the units that were removed as the rise of the cost does.

    >>> alone = {"a": Alone(torch.tensor([0, 2]), torch.tensor([0.1, 0.3]))}
    >>> agreement({"a": torch.tensor([5.0, 9.0, 4.0])}, alone).within
    -1.0
    """
    chosen = {name: scores[name][one.units] for name, one in alone.items()}
    return correlation(chosen, {name: one.rises for name, one in alone.items()})


def pooled_area(found: Faithfulness, criterion: str, groups: Sequence[Group]) -> float | None:
    """Sensitivity-n from a quarter to 80 % of the units, averaged over groups by their units.

    None where no group has it: the sizes do not reach that far, or nothing varies.
    """
    return weighted((group.size, found.area(group.name, criterion, "pooled")) for group in groups)

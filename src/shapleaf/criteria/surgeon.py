"""OptimalBrainSurgeon: what is lost of a unit once the others have made up for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._progress import progress
from .._ridge import scale
from ..errors import CriterionError
from .probe import Consumer, Elimination, Needs, Probe


@dataclass(frozen=True)
class OptimalBrainSurgeon:
    """What the consumers lose of a unit that the units left cannot give them (Hassibi & Stork 1993).

    Units go one after the other, the cheapest first. What a unit costs is how much the error of its
    consumers' outputs grows when it goes and their other weights are refitted by least squares, as
    :class:`~shapleaf.LeastSquares` does afterwards: with G the second moments of what a consumer reads, P the
    inverse of G, and W its weights, ``tr(W_u^T (P_uu)^-1 W_u) / 2`` for the block u of the unit (equation
    5, for blocks and a linear layer). Two units that say the same are thus not both lost, and one that does
    not vary over the data costs nothing: a bias takes its place. A single example thus ranks nothing.

    Every consumer's error is taken relative to its whole output; the score is the rise of
    ``-log(1 - error)``, summed over consumers: the share of the signal that gets through multiplies
    from layer to layer, so scores of different groups can be compared, and the last units of a
    group are the dearest. The curve of a group is their sum; :class:`~shapleaf.Tradeoff` allocates by it.

    Args:
        steps: in how many rounds the units of a group go; errors are worked out anew after each.
        ridge: a penalty on the refit, in units of each input's variance.
        felt: weigh a consumer's outputs by the mean square of the loss's gradient there, which takes
            labels; otherwise all count alike.

    >>> import shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 1)).double()
    >>> same = torch.tensor([[1.0, 2, 3], [1, 2, 3], [0, 0, 5]])  # the first two say the same
    >>> _ = model[0].weight.data.copy_(same)
    >>> _ = model[1].weight.data.fill_(1.0)
    >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)).double()
    >>> scores = sl.attribute(model, sl.trace(model, x[:1]), x, OptimalBrainSurgeon(ridge=1e-6))
    >>> [round(value, 3) for value in scores.values["0"].sort().values[:1].tolist()]
    [0.0]
    """

    steps: int = 32
    ridge: float = 0.1
    felt: bool = False
    needs: ClassVar[Needs] = Needs.CONSUMERS

    def score(self, probe: Probe) -> Elimination:
        """What each unit costs, and the curve.

        Raises:
            CriterionError: no layer with weights reads the group.
        """
        consumers = [_Refit(consumer, self.ridge) for consumer in probe.consumers]
        if not consumers:
            raise CriterionError(
                f"group {probe.group.name} is read by no layer with weights, so nothing can be refitted; "
                "use another criterion, such as Shapley()."
            )
        size = probe.group.size
        values, last = torch.zeros(size, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        alive, curve = torch.arange(size), [(0.0, 0.0, 0.0)]
        with progress(probe.group.name, -(-size // -(-size // self.steps))) as step:
            while len(alive):
                costs = torch.stack([consumer.costs(alive) for consumer in consumers]).sum(0)
                going = torch.argsort(costs, stable=True)[: -(-size // self.steps)]
                values[alive[going]] = costs[going].maximum(last)
                last = values[alive[going]].max()
                for consumer in consumers:
                    consumer.remove(alive[going])
                alive = alive[torch.ones(len(alive), dtype=torch.bool).index_fill(0, going, value=False)]
                curve.append((size - len(alive), sum(consumer.lost for consumer in consumers), 0.0))
                step("")
        return Elimination(values, torch.tensor(curve, dtype=torch.float64))


class _Refit:
    """A consumer as its inputs go: the inverse of their moments, and its refitted weights."""

    def __init__(self, consumer: Consumer, ridge: float) -> None:
        self.units = consumer.units.to("cpu")
        self.weight = consumer.weight * consumer.felt.sqrt()
        self.whole = float((consumer.gram @ self.weight * self.weight).sum()) / 2
        self.error = 0.0
        penalised = consumer.gram + torch.diag(ridge * scale(consumer.gram))
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(penalised))

    def costs(self, alive: Tensor) -> Tensor:
        """The rise of -log(1 - error) when each of the units goes; none for units that it does not read."""
        rise = torch.zeros(len(alive), dtype=torch.float64)
        order = torch.argsort(self.units, stable=True)
        known, counts = self.units[order].unique_consecutive(return_counts=True)
        starts = counts.cumsum(0) - counts
        for length in counts[known >= 0].unique().tolist() if self.whole else []:
            alike = ((counts == length) & (known >= 0)).nonzero()[:, 0]
            index = order[starts[alike][:, None] + torch.arange(length)].to(self.weight.device)
            weight = self.weight[index]
            block = self.inverse[index[:, :, None], index[:, None, :]]
            lost = (torch.linalg.solve(block, weight) * weight).sum((1, 2)) / 2
            rise[torch.searchsorted(alive, known[alike])] = lost.to("cpu")
        return -torch.log1p(-(rise / (self.whole or 1.0) / (1 - self.error)).clamp(max=1 - _LEAST))

    def remove(self, units: Tensor) -> None:
        """Take the units' features away and refit the others."""
        going = torch.isin(self.units, units)
        gone = going.nonzero()[:, 0].to(self.weight.device)
        if not len(gone):
            return
        block, before = self.inverse[gone][:, gone], self.weight[gone]
        solved = torch.linalg.solve(block, before)
        if self.whole:
            self.error = min(self.error + float((solved * before).sum()) / 2 / self.whole, 1 - _LEAST)
        across = self.inverse[:, gone]
        self.weight = self.weight - across @ solved
        self.inverse = self.inverse - across @ torch.linalg.solve(block, across.T)
        stay = (~going).to(gone.device)
        self.weight, self.units = self.weight[stay], self.units[~going]
        self.inverse = self.inverse[stay][:, stay]

    @property
    def lost(self) -> float:
        """-log(1 - error)."""
        return -math.log1p(-self.error)


_LEAST = 1e-3
"""A consumer never loses everything: its bias stays."""

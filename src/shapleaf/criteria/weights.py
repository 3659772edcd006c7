"""Criteria that look at no data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._rng import stream
from .probe import Needs, Probe


@dataclass(frozen=True)
class Random:
    """Uniform random scores in [0, 1): the baseline that every criterion must beat.

    >>> import shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> scores = sl.attribute(model, sl.trace(model, torch.zeros(1, 3)), None, Random(), seed=1)
    >>> scores.values["0"].shape
    torch.Size([4])
    """

    needs: ClassVar[Needs] = Needs.NOTHING

    def score(self, probe: Probe) -> Tensor:
        """Scores ``(units,)``, drawn from the seed and the group's name."""
        return torch.from_numpy(stream(probe.seed, "random", probe.group.name).random(probe.group.size))


@dataclass(frozen=True)
class WeightNorm:
    """The p-norm of a unit's incoming weights, bias excluded (Li et al. 2017, p = 1).

    A unit with several producers (the residual stream) counts the weights of all of them.

    >>> import shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> _ = torch.nn.init.constant_(model[0].weight, -2.0)
    >>> sl.attribute(model, sl.trace(model, torch.zeros(1, 3)), None, WeightNorm()).values["0"].tolist()
    [6.0, 6.0, 6.0, 6.0]
    """

    p: float = 1.0
    needs: ClassVar[Needs] = Needs.NOTHING

    def score(self, probe: Probe) -> Tensor:
        """Norms ``(units,)``."""
        norms: Tensor = torch.linalg.vector_norm(probe.incoming(), self.p, dim=1)
        return norms

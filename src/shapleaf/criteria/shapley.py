"""Criteria that play the game: units are really taken away."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from ..game import Estimate, Estimator, Path
from ..game.game import without
from ..game.layer import MEMORY
from ..masking import Removal, Zero
from .probe import Needs, Probe


@dataclass(frozen=True)
class LeaveOneOut:
    """The rise of the loss when one unit is removed and all others stay, one by one.

    Costs one evaluation per unit and one more. ``removal`` says what the absent unit leaves behind;
    ``memory`` is how many bytes its activations may take, about.

    >>> import shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> data = [(torch.ones(5, 3), torch.zeros(5, dtype=torch.long))]
    >>> sl.attribute(model, sl.trace(model, torch.zeros(1, 3)), data, LeaveOneOut()).evaluations
    {'0': 5}
    """

    removal: Removal = field(default_factory=Zero)
    memory: int = field(default=MEMORY, repr=False)
    needs: ClassVar[Needs] = Needs.GAME

    def score(self, probe: Probe) -> Estimate:
        """Rises of the loss ``(examples, units)``, signed; nothing is sampled."""
        game = probe.game
        losses = without(game, torch.eye(game.players))
        return Estimate(
            values=(losses[1:] - losses[0]).T,
            stderr=None,
            evaluations=game.evaluations,
            shared=False,
            gap=None,
        )


@dataclass(frozen=True)
class Shapley:
    """Shapley values of the units of a group, for the loss of each example.

    The rise of the loss when the unit is removed, averaged over all orders of removal (Ancona et al.
    2020, equation 5).

    Args:
        estimator: how they are estimated; ``Path()`` costs the same for any number of units.
        removal: what the absent unit leaves behind.
        memory: bytes that activations may take, about: batches are cut, or coalitions stacked, to fit.

    Under ``torch.autocast`` the network behind the group runs in its precision.

    >>> import shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> data = [(torch.ones(5, 3), torch.zeros(5, dtype=torch.long))]
    >>> sl.attribute(model, sl.trace(model, torch.zeros(1, 3)), data, Shapley(sl.Exact())).evaluations
    {'0': 16}
    """

    estimator: Estimator = field(default_factory=Path)
    removal: Removal = field(default_factory=Zero)
    memory: int = field(default=MEMORY, repr=False)
    needs: ClassVar[Needs] = Needs.GAME

    def score(self, probe: Probe) -> Estimate:
        """Shapley values ``(examples, units)`` with the estimator's standard errors."""
        return self.estimator.estimate(probe.game, probe.seed)

"""Criteria that play the game: units are really taken away."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import CriterionError
from ..game import Estimate, Estimator, Path
from ..game.game import without
from ..game.layer import MEMORY, LayerGame
from ..masking import Removal, Zero
from .probe import Needs, Probe
from .targets import Loss, Target, check_target


@dataclass(frozen=True)
class LeaveOneOut:
    """The rise of the loss when one unit is removed and all others stay, one by one.

    Costs one evaluation per unit and one more. It is ``Occlusion`` by a window of one unit.

    Args:
        removal: what the absent unit leaves behind.
        target: what is lost, in place of the loss.
        memory: bytes that activations may take, about.

    >>> import shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> data = [(torch.ones(5, 3), torch.zeros(5, dtype=torch.long))]
    >>> sl.attribute(model, sl.trace(model, torch.zeros(1, 3)), data, LeaveOneOut()).evaluations
    {'0': 5}
    """

    removal: Removal = field(default_factory=Zero)
    target: Target = field(default_factory=Loss)
    memory: int = field(default=MEMORY, repr=False)
    needs: ClassVar[Needs] = Needs.GAME

    def __post_init__(self) -> None:
        check_target(self)

    def score(self, probe: Probe) -> Estimate:
        """Rises of the loss ``(examples, units)``, signed; nothing is sampled."""
        game = probe.game
        return _counted(game, _rises(game, torch.eye(game.players)).T)


@dataclass(frozen=True)
class Occlusion:
    """The rise of the loss when neighbouring units are removed together (Zeiler & Fergus 2014).

    Runs of ``window`` units, each one unit further, are removed one run at a time. A unit's score is the
    mean rise over the runs that it was in, divided by the window. With a window of one unit this is
    :class:`LeaveOneOut`. Units side by side must belong together for it to mean anything.

    Args:
        window: units in a run.
        removal: what absent units leave behind.
        target: what is lost, in place of the loss.
        memory: bytes that activations may take, about.

    Raises:
        CriterionError: the window is less than one unit; or, when it scores, wider than the group.

    >>> import shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> data = [(torch.ones(5, 3), torch.zeros(5, dtype=torch.long))]
    >>> sl.attribute(model, sl.trace(model, torch.zeros(1, 3)), data, Occlusion(2)).evaluations
    {'0': 4}
    """

    window: int = 1
    removal: Removal = field(default_factory=Zero)
    target: Target = field(default_factory=Loss)
    memory: int = field(default=MEMORY, repr=False)
    needs: ClassVar[Needs] = Needs.GAME

    def __post_init__(self) -> None:
        check_target(self)
        if self.window < 1:
            raise CriterionError(f"Occlusion(window=...) must be at least 1 unit, received {self.window}.")

    def score(self, probe: Probe) -> Estimate:
        """Shares of rises ``(examples, units)``, signed; nothing is sampled."""
        game = probe.game
        runs = game.players - self.window + 1
        if runs < 1:
            raise CriterionError(
                f"Occlusion(window={self.window}) is wider than group {game.name} of {game.players} units."
            )
        gone = torch.ones(game.players, game.players).tril(self.window - 1).triu()[:runs]
        rises = _rises(game, gone)
        gone = gone.to(rises)
        return _counted(game, rises.T @ gone / gone.sum(0) / self.window)


@dataclass(frozen=True)
class IntegratedGradients:
    """Gradients integrated along the line from absent units to present ones (Sundararajan et al. 2017).

    ``-sum_positions (z - z0) * integral of dL/dz`` at ``z0 + t (z - z0)``, t from 0 to 1, all units of the
    group together and all others whole, by a Gauss-Legendre sum. This is ``Shapley(Path(points, "line"))``,
    the cheapest estimate of Shapley values; scores of an example sum to what it loses with all units
    of the group, but for ``gap``: that is all of it where ``normalize`` reads the group alone, as on the line
    only the units' length changes. See :class:`Conductance` for a path of the network's input.

    Args:
        points: values of t.
        removal: what absent units leave behind, the baseline z0.
        target: what is lost, in place of the loss.
        memory: bytes that activations may take, about.

    >>> import shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> data = [(torch.ones(5, 3), torch.zeros(5, dtype=torch.long))]
    >>> sl.attribute(model, sl.trace(model, torch.zeros(1, 3)), data, IntegratedGradients(8)).evaluations
    {'0': 26}
    """

    points: int = 16
    removal: Removal = field(default_factory=Zero)
    target: Target = field(default_factory=Loss)
    memory: int = field(default=MEMORY, repr=False)
    needs: ClassVar[Needs] = Needs.GAME

    def __post_init__(self) -> None:
        check_target(self)
        if self.points < 1:
            raise CriterionError(
                f"IntegratedGradients(points=...) must be at least 1, received {self.points}."
            )

    def score(self, probe: Probe) -> Estimate:
        """Integrals ``(examples, units)``, signed; nothing is sampled."""
        return Path(self.points, "line").estimate(probe.game)


@dataclass(frozen=True)
class Shapley:
    """Shapley values of the units of a group, for the loss of each example or another target.

    The rise of the loss when the unit is removed, averaged over all orders of removal (Ancona et al.
    2020, equation 5).

    Args:
        estimator: how they are estimated; ``Path()`` costs the same for any number of units.
        removal: what the absent unit leaves behind.
        target: what is lost, in place of the loss.
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
    target: Target = field(default_factory=Loss)
    memory: int = field(default=MEMORY, repr=False)
    needs: ClassVar[Needs] = Needs.GAME

    def __post_init__(self) -> None:
        check_target(self)

    def score(self, probe: Probe) -> Estimate:
        """Shapley values ``(examples, units)`` with the estimator's standard errors."""
        return self.estimator.estimate(probe.game, probe.seed)


def _rises(game: LayerGame, gone: Tensor) -> Tensor:
    """What is lost with each of some sets, ``(sets, examples)``."""
    losses = without(game, gone)
    return losses[1:] - losses[0]


def _counted(game: LayerGame, values: Tensor) -> Estimate:
    """Values of which nothing was sampled."""
    return Estimate(values=values, stderr=None, evaluations=game.evaluations, shared=False, gap=None)

"""Criteria that compare an example with a baseline: what of the difference each unit accounts for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ..errors import CriterionError
from ..masking import Reference, Removal, Zero
from .probe import Needs, Probe
from .targets import Loss, Target, check_target


@dataclass(frozen=True)
class DeepLIFT:
    """Gradient x difference from a baseline, with every gradient a mean slope (Shrikumar et al. 2017).

    The Rescale rule: each nonlinearity's slope is ``(f(u) - f(u0)) / (u - u0)``, with u0 what it is given
    in a reference run; see :class:`~shapleaf.backward.Rescaled` for what is no function of single numbers.
    The target counts as one more function of the outputs, so that the scores of a group sum to what the
    target loses without it, as Shapley values do, for a logit and for the loss.

    With absent units as the baseline, each group has a reference run of its own, all other units being as
    they are. With :class:`~shapleaf.Reference` the whole network runs on the reference input, once for all
    groups, and one backward serves all: scores then sum to the whole difference where all that the network
    reads goes through the group once. It does not where one read of the group lies behind another, as in a
    residual stream, or where units gate what is read of them later, or normalise it in code of the model's
    own: what passes through both counts twice. ``RMSNorm`` and ``normalize`` count once.

    Args:
        removal: what absent units leave behind, or the input to compare with: the baseline.
        target: what is lost, in place of the loss.

    Raises:
        CriterionError: when it scores, a function that has no rule lies behind the units.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> data = [(torch.ones(5, 3), torch.zeros(5, dtype=torch.long))]
    >>> sl.attribute(model, sl.trace(model, torch.zeros(1, 3)), data, DeepLIFT()).values["0"].shape
    torch.Size([4])
    """

    removal: Removal = field(default_factory=Zero)
    target: Target = field(default_factory=Loss)
    needs: ClassVar[Needs] = Needs.RESCALED

    def __post_init__(self) -> None:
        check_target(self)

    def score(self, probe: Probe) -> Tensor:
        """What is lost ``(examples, units)``, signed."""
        return -probe.rescaled


@dataclass(frozen=True)
class Conductance:
    """What of the target passes through each unit as the input goes from a baseline to the example.

    The integral of ``-dL/dz * dz`` along the straight path of the input (Dhamdhere et al. 2019), by the
    midpoint rule: ``points`` forwards and backwards, and two forwards, that serve all groups. What several
    consumers read counts once for each tensor. Scores sum to the whole difference where all that the network
    reads goes through the group once, as for :class:`DeepLIFT` from an input. See
    :class:`IntegratedGradients` for a path of the units themselves.

    Args:
        points: parts of the path.
        baseline: where it starts.
        target: what is lost, in place of the loss.

    Raises:
        CriterionError: fewer than one part.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> data = [(torch.ones(5, 3), torch.zeros(5, dtype=torch.long))]
    >>> sl.attribute(model, sl.trace(model, torch.zeros(1, 3)), data, Conductance(8)).values["0"].shape
    torch.Size([4])
    """

    points: int = 32
    baseline: Reference = field(default_factory=Reference)
    target: Target = field(default_factory=Loss)
    needs: ClassVar[Needs] = Needs.CONDUCTANCE

    def __post_init__(self) -> None:
        check_target(self)
        if self.points < 1:
            raise CriterionError(f"Conductance(points=...) must be at least 1, received {self.points}.")

    def score(self, probe: Probe) -> Tensor:
        """What is lost ``(examples, units)``, signed."""
        return -probe.conductance

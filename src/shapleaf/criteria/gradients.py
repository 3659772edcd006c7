"""First-order criteria: one forward and one backward for all groups.

Gradients are those of each example's own target, the loss by default, whatever the batch size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ..masking import Removal, Zero
from .probe import Needs, Probe
from .targets import Loss, Target, check_target


@dataclass(frozen=True)
class Sensitivity:
    """The summed absolute gradient of the target with respect to a unit's activation: Saliency.

    ``sum_positions |dL / dz|`` (Simonyan et al. 2014 for inputs; Mittal et al. 2018; Ancona et al. 2020,
    section 4), taken at what the consumers read, after the activation function. What several consumers
    read is one activation. ``Saliency`` is another name of this class.

    Args:
        target: what the units are needed for.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> data = [(torch.ones(5, 3), torch.zeros(5, dtype=torch.long))]
    >>> scores = sl.attribute(model, sl.trace(model, torch.zeros(1, 3)), data, Sensitivity())
    >>> bool((scores.values["0"] >= 0).all())
    True
    """

    target: Target = field(default_factory=Loss)
    needs: ClassVar[Needs] = Needs.GRADIENT

    def __post_init__(self) -> None:
        check_target(self)

    def score(self, probe: Probe) -> Tensor:
        """Sums ``(examples, units)``, not negative."""
        return probe.gradient.abs().sum(2)


@dataclass(frozen=True)
class Taylor:
    """The first-order estimate of what the target loses when a unit is removed: gradient x activation.

    ``-sum_positions dL/dz * (z - z0)`` (Molchanov et al. 2017; Ancona et al. 2020, equation 3), with z0
    what an absent unit leaves behind, zero by default. Without ``signed`` the absolute value per example,
    as in the paper; with it, positive means that the unit helps. The sum over positions is not divided by
    their number. ``GradientActivation`` is another name of this class.

    Args:
        signed: whether the sign is kept.
        removal: what the absent unit leaves behind, the baseline.
        target: what the units are needed for.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> data = [(torch.ones(5, 3), torch.zeros(5, dtype=torch.long))]
    >>> scores = sl.attribute(model, sl.trace(model, torch.zeros(1, 3)), data, Taylor(signed=True))
    >>> scores.values["0"].shape
    torch.Size([4])
    """

    signed: bool = False
    removal: Removal = field(default_factory=Zero)
    target: Target = field(default_factory=Loss)
    needs: ClassVar[Needs] = Needs.MASK_GRADIENT

    def __post_init__(self) -> None:
        check_target(self)

    def score(self, probe: Probe) -> Tensor:
        """Estimates ``(examples, units)``; the mask's gradient is exactly the sum over positions."""
        rise = -probe.mask_gradient
        return rise if self.signed else rise.abs()


Saliency = Sensitivity
GradientActivation = Taylor

"""First-order criteria: one forward and one backward for all groups.

Gradients are those of each example's own loss, whatever the batch size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .probe import Needs, Probe


@dataclass(frozen=True)
class Sensitivity:
    """The summed absolute gradient of the loss with respect to a unit's activation.

    ``sum_positions |dL / dz|`` (Mittal et al. 2018; Ancona et al. 2020, section 4), taken at what the
    consumers read, after the activation function. What several consumers read is one activation.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> data = [(torch.ones(5, 3), torch.zeros(5, dtype=torch.long))]
    >>> scores = sl.attribute(model, sl.trace(model, torch.zeros(1, 3)), data, Sensitivity())
    >>> bool((scores.values["0"] >= 0).all())
    True
    """

    needs: ClassVar[Needs] = Needs.GRADIENT

    def score(self, probe: Probe) -> Tensor:
        """Sums ``(examples, units)``, not negative."""
        return probe.gradient.abs().sum(2)


@dataclass(frozen=True)
class Taylor:
    """The first-order estimate of the rise of the loss when a unit is removed.

    ``-sum_positions dL/dz * z`` (Molchanov et al. 2017; Ancona et al. 2020, equation 3). Without
    ``signed`` the absolute value per example, as in the paper; with it, positive means that the unit
    helps. The sum over positions is not divided by their number.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> data = [(torch.ones(5, 3), torch.zeros(5, dtype=torch.long))]
    >>> scores = sl.attribute(model, sl.trace(model, torch.zeros(1, 3)), data, Taylor(signed=True))
    >>> scores.values["0"].shape
    torch.Size([4])
    """

    signed: bool = False
    needs: ClassVar[Needs] = Needs.MASK_GRADIENT

    def score(self, probe: Probe) -> Tensor:
        """Estimates ``(examples, units)``; the mask's gradient is exactly the sum over positions."""
        rise = -probe.mask_gradient
        return rise if self.signed else rise.abs()

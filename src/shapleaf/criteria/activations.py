"""Criteria that look at activations only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .probe import Needs, Probe


@dataclass(frozen=True)
class APoZ:
    """The share of positions at which a unit is active, above zero.

    One minus APoZ, the average percentage of zeros (Hu et al. 2016; Ancona et al. 2020, section 4), so
    that higher means needed more. Measured on what the consumers read, after any pooling.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False), torch.nn.ReLU(), torch.nn.Linear(2, 2))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[1.0], [-1.0]]))
    >>> data = [(torch.tensor([[1.0], [2.0], [-1.0], [3.0]]), torch.zeros(4, dtype=torch.long))]
    >>> graph = sl.trace(model, torch.zeros(1, 1))
    >>> sl.attribute(model, graph, data, APoZ(), aggregate=sl.Mean()).values["0"].tolist()
    [0.75, 0.25]
    """

    needs: ClassVar[Needs] = Needs.ACTIVATION

    def score(self, probe: Probe) -> Tensor:
        """Shares in [0, 1], ``(examples, units)``."""
        activation = probe.activation
        return (activation > 0).to(activation.dtype).mean(2)

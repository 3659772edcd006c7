"""Criteria for single weights."""

from __future__ import annotations

from dataclasses import dataclass

from .choosing import Choice, Study, top


@dataclass(frozen=True)
class Magnitude:
    """The absolute value of each weight, over all layers together (weight thresholding, "WT").

    No layer is normalised, no data are needed (Han et al. 2015; Liebenwein et al. 2021).

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Linear(3, 1, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, -3, 2]]))
    >>> sl.sparsify(model, sl.Nonzeros(keep=2), Magnitude())["weight"].keep()
    tensor([[False,  True,  True]])
    """

    def choose(self, study: Study) -> Choice:
        """The largest absolute weights."""
        return top(study, {name: weight.abs() for name, weight in study.weights.items()})

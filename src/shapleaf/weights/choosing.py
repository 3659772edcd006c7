"""What a criterion for single weights is, and the choice of the highest scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..errors import CriterionError, DataError


@dataclass(frozen=True, slots=True, eq=False)
class WeightProbe:
    """What a criterion may look at.

    Attributes:
        model: the model, to be left as it is.
        weights: the parameters that can be pruned, by name.
        data: batches, which can be gone through as often as needed; None where there are none.
        seed: names every random draw.
    """

    model: nn.Module
    weights: Mapping[str, Tensor]
    data: Any = None
    seed: int = 0

    def needed(self, criterion: object) -> Any:
        """The data.

        Raises:
            DataError: there are none.
        """
        if self.data is None:
            raise DataError(f"{criterion} needs data: sparsify(model, budget, criterion, data).")
        return self.data


class Kept(NamedTuple):
    """Which scalars of one parameter stay, boolean of its shape, and what they are multiplied by."""

    keep: Tensor
    factors: Tensor | None = None


Choice = Callable[[int], dict[str, Kept]]
"""From a number of weights to those that stay, of every parameter probed."""


@runtime_checkable
class WeightCriterion(Protocol):
    """How single weights are chosen: a class with configuration and this one method.

    >>> class Smallest:
    ...     def choose(self, probe):
    ...         return top(probe, {name: -weight.abs() for name, weight in probe.weights.items()})
    >>> import shapleaf as sl
    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, -2.0]]))
    >>> sl.sparsify(model, sl.Nonzeros(keep=1), Smallest())["weight"].keep()
    tensor([[False,  True]])
    """

    def choose(self, probe: WeightProbe) -> Choice:
        """Look at the model once; the choice returned is asked for several numbers of weights.

        Only non-zero weights may be chosen, and no more than asked for (sampled ones: about).
        """
        ...


def top(probe: WeightProbe, scores: Mapping[str, Tensor]) -> Choice:
    """The choice of the weights with the highest scores over all parameters together.

    Among equal scores the larger absolute weight goes first, then the earlier one. Weights that are zero
    are never chosen.

    Args:
        probe: what was looked at.
        scores: for each parameter of the probe a tensor of its shape; higher is needed more.

    Raises:
        CriterionError: scores that are missing, of another shape or not finite.

    >>> probe = WeightProbe(nn.Identity(), {"w": torch.tensor([1.0, -3, 2])})
    >>> top(probe, {"w": torch.tensor([5.0, 5, 4])})(1)["w"].keep
    tensor([False,  True, False])
    """
    for name, weight in probe.weights.items():
        found = scores.get(name)
        if found is None or found.shape != weight.shape:
            got = "none" if found is None else tuple(found.shape)
            raise CriterionError(
                f"expected scores of shape {tuple(weight.shape)} for {name}, received {got}."
            )
        if not bool(torch.isfinite(found).all()):
            raise CriterionError(f"the scores of {name} are not all finite; check the data and the weights.")
    size = flat(probe.weights).abs()
    order = size.argsort(descending=True, stable=True)
    order = order[: int(torch.count_nonzero(size))]
    order = order[flat(scores, probe.weights)[order].argsort(descending=True, stable=True)]

    def choose(count: int) -> dict[str, Kept]:
        keep = torch.zeros(len(size), dtype=torch.bool)
        keep[order[:count]] = True
        return {name: Kept(part) for name, part in parts(keep, probe.weights).items()}

    return choose


def flat(tensors: Mapping[str, Tensor], order: Mapping[str, Tensor] | None = None) -> Tensor:
    """All scalars in one tensor on the CPU, in the order of the names; half precision is widened.

    >>> flat({"a": torch.ones(2, 1), "b": torch.zeros(1)})
    tensor([1., 1., 0.])
    """
    found = [tensors[name].detach().reshape(-1).cpu() for name in order or tensors]
    narrow = (torch.float16, torch.bfloat16)
    return torch.cat([one.float() if one.dtype in narrow else one for one in found])


def parts(values: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One flat tensor taken apart into tensors shaped as these.

    >>> parts(torch.arange(3), {"a": torch.ones(2, 1), "b": torch.zeros(1)})["a"].tolist()
    [[0], [1]]
    """
    pieces = values.split([one.numel() for one in like.values()])
    return {name: piece.view(one.shape) for (name, one), piece in zip(like.items(), pieces, strict=True)}

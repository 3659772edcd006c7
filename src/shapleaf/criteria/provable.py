"""PFP: the largest part that a unit has in any output of what reads it, with provable sampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import _context
from .._calls import Calls
from .._draws import CONFIDENCE
from ..errors import CriterionError, DataError
from ..linear import reading
from ..sensitivity import Kernel, channel_contributions
from .probe import Needs, Probe


@dataclass(frozen=True)
class PFP:
    """The sensitivity of "Provable Filter Pruning" (Liebenwein et al. 2020): the largest part in any output.

    What a unit adds to an output of a layer that reads it, relative to all that is added there with the
    same sign of the weight; the largest value over examples, outputs, places and layers. Between 0 and 1,
    0 for a unit that is never active; no labels, no gradients, and the bias takes no part. Meant for
    :class:`~shapleaf.ErrorLevel`, on :func:`~shapleaf.sample_size` examples. More examples never lower it.

    Args:
        kernel: of the weights through which an output reads a unit (a kernel, or what a flattened map left
            of it), the ``"max"`` of their parts, as in the authors' code, or their ``"sum"``.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 1))
    >>> _ = model[0].weight.data.copy_(torch.eye(3))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, -2, 3]]))
    >>> data = torch.tensor([[1.0, 2, 0.5]])  # 1 and 1.5 make the positive sum, -4 the negative one
    >>> scores = sl.attribute(model, sl.trace(model, data), data, PFP())
    >>> [round(value, 4) for value in scores.values["0"].tolist()]
    [0.4, 1.0, 0.6]
    """

    kernel: Kernel = "max"
    needs: ClassVar[Needs] = Needs.LAYERS

    def __post_init__(self) -> None:
        if self.kernel not in ("max", "sum"):
            raise CriterionError(f'PFP(kernel=...) is "max" or "sum", received {self.kernel!r}.')

    def score(self, probe: Probe) -> Tensor:
        """Sensitivities ``(units,)``, from 0 to 1.

        Raises:
            CriterionError: no layer with weights reads the group.
        """
        found: Tensor | None = None
        for layer in probe.layers:
            parts = channel_contributions(layer.linear, self.kernel, layer.owners)
            found = parts.new_zeros(probe.group.size) if found is None else found
            found[: len(parts)] = torch.maximum(found[: len(parts)], parts)
        if found is None:
            raise CriterionError(
                f"group {probe.group.name} is read by no layer with weights, so it has a part in no output; "
                "leave it out (groups=...), or use another criterion, such as Taylor()."
            )
        return found


def sample_size(model: nn.Module, inputs: Any, *, delta: float = 1e-16, available: int | None = None) -> int:
    """How many examples make the sensitivities of all layers right with probability ``1 - delta``.

    ``3 ln(8 max(n) sum(n) / delta)``, rounded up, with n the numbers that each layer returns for an
    example (Liebenwein et al. 2020). Layers are those that multiply by weights and read all their
    inputs for every output: convolutions in one group and linear layers.

    Args:
        model: the model; it runs once and is left as it was found.
        inputs: example inputs, as for :func:`shapleaf.trace`.
        delta: the probability of a failure.
        available: how many examples there are to draw from; at most half of them are asked for.

    Raises:
        CriterionError: delta is no probability.
        DataError: the model runs no such layer, or fails on the inputs.

    >>> layers = nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    >>> model = nn.Sequential(*layers)
    >>> sample_size(model, torch.zeros(1, 784)), sample_size(model, torch.zeros(1, 784), available=100)
    (152, 50)
    """
    if not 0 < delta < 1:
        raise CriterionError(f"sample_size(delta=...) is a probability, received {delta}.")
    given = _context.tensors(inputs)
    examples = len(given[0]) if given and given[0].ndim else 1
    sizes = _Sizes(model)
    with torch.no_grad(), _context.inference(model), sizes:
        _context.forward(model, _context.on_device(inputs, model))
    if not sizes.found:
        raise DataError(
            "the model runs no layer that multiplies by weights, so there is nothing to sample for."
        )
    outputs = [size / examples for size in sizes.found]
    enough = math.ceil(CONFIDENCE * math.log(8 * max(outputs) * sum(outputs) / delta))
    return enough if available is None else min(enough, math.ceil(available / 2))


class _Sizes(Calls):
    """How many numbers each layer returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.found: list[int] = []

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        layer = reading(key, args, kwargs)
        if layer is not None and layer.groups == 1:
            self.found += [out.numel()]
        return out

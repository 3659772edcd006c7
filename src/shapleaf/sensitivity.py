"""How much each weight contributes to its layer's outputs, relative to the others (SiPP and PFP).

An output's positive weights share its positive sum, its negative ones its negative sum. What a weight
makes of its sum, at most over the data, is its sensitivity: between 0 and 1, whatever the scale of the
layer, of its outputs or of what it reads. The bias takes no part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from . import _context
from ._progress import progress
from .data import batches
from .errors import CriterionError
from .linear import Linear
from .watching import multiplied, visit

Places = Literal["mean", "max"]
Kernel = Literal["max", "sum"]
ROWS = 2**23
"""Numbers that the rows of a layer may hold at a time."""
CELLS = 2**17
"""Numbers of the products of which a maximum is taken at a time: they fit a core's cache."""
EXAMPLES = 16
"""Examples that run through the model at a time."""


def contributions(layer: Linear, places: Places = "max") -> Tensor:
    """The relative contribution of every weight of a call: ``(groups, features, outputs)``, from 0 to 1.

    At one place, what feature ``j`` adds to output ``i`` is divided by what all features add with the same
    sign of the weight; where the sum is 0, so is the contribution. An example with negative inputs counts
    as two, ``max(a, 0)`` and ``max(-a, 0)``. The largest value over the examples is returned (Baykal et
    al. 2019; Liebenwein et al. 2021).

    Args:
        layer: the call, with what it reads.
        places: whether the places of one output (of a convolution) are averaged or the largest is taken.

    >>> weight = torch.tensor([[1.0, -2, 3]])
    >>> layer = Linear(torch.tensor([[1.0, 2, 0.5]]), weight)
    >>> [round(value, 4) for value in contributions(layer)[0, :, 0].tolist()]
    [0.4, 1.0, 0.6]
    """
    signs = _signs(layer)
    found = torch.zeros_like(signs[0])
    for rows in _halves(layer):
        for part in signs:
            inverse = _inverse(rows @ part)
            averaged = places == "mean" and rows.shape[2] > 1
            ratio = _mean(rows, inverse) if averaged else _largest(rows, inverse)
            found = torch.maximum(found, part * ratio)
    return found.clamp_(max=1)  # of rounding


def channel_contributions(layer: Linear, kernel: Kernel = "max", owners: Tensor | None = None) -> Tensor:
    """The largest relative contribution of every input channel of a call, ``(channels,)``.

    Over examples, places and outputs.

    Args:
        layer: the call, with what it reads.
        kernel: what a channel contributes through several weights of one output: the largest of their
            contributions, or the sum of those of one sign (the larger of both signs).
        owners: which channel each feature of each group belongs to, ``(groups, features)``, -1 for none;
            by default the channels of the input in their order.

    >>> from shapleaf.linear import reading
    >>> layer = reading(":conv1d#0", (torch.ones(1, 2, 2), torch.tensor([[[1.0, 1], [2, 0]]])), {})
    >>> channel_contributions(layer).tolist(), channel_contributions(layer, "sum").tolist()
    ([0.25, 0.5], [0.5, 0.5])
    """
    groups, features, _ = layer.matrix().shape
    if owners is None:
        channels = layer.input.shape[layer.channel]
        owners = torch.arange(channels).repeat_interleave(groups * features // channels).view(groups, -1)
    owners = owners.to(layer.input.device)
    found = layer.matrix().new_zeros(int(owners.max()) + 1, dtype=_wide(layer.weight.dtype))
    if kernel == "max":
        largest = contributions(layer).amax(2)
        owned = owners >= 0
        return found.scatter_reduce(0, owners[owned], largest[owned], "amax")
    signs = _signs(layer)
    members = [(c, g, index) for c in range(len(found)) for g, index in _members(owners, c)]
    for rows in _halves(layer):
        inverses = [_inverse(rows @ part) for part in signs]
        for channel, group, index in members:
            own = rows[:, group].index_select(2, index)
            for part, inverse in zip(signs, inverses, strict=True):
                share = (own @ part[group, index]) * inverse[:, group]
                found[channel] = torch.maximum(found[channel], share.max())
    return found.clamp_(max=1)


def _members(owners: Tensor, channel: int) -> Iterator[tuple[int, Tensor]]:
    for group, row in enumerate(owners):
        index = (row == channel).nonzero()[:, 0]
        if len(index):
            yield group, index


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _signs(layer: Linear) -> tuple[Tensor, Tensor]:
    """The positive weights, and the negative ones without their sign."""
    matrix = layer.matrix().detach().to(_wide(layer.weight.dtype)).contiguous()
    return matrix.clamp(min=0), (-matrix).clamp_(min=0)


def _halves(layer: Linear) -> Iterator[Tensor]:
    """What the places read, not negative, some examples at a time: (examples, groups, places, features)."""
    read = layer.input.detach().to(_wide(layer.weight.dtype))
    each = layer.rows(read[:1]).numel()
    for part in read.split(max(1, ROWS // max(each, 1))):
        rows = layer.rows(part)
        yield rows.clamp(min=0)
        if bool((part < 0).any()):
            yield (-rows).clamp_(min=0)


def _inverse(sums: Tensor) -> Tensor:
    """One divided by sums of numbers that are not negative (so nothing cancels), 0 for 0."""
    return torch.where(sums > torch.finfo(sums.dtype).tiny, 1 / sums, 0)


def _mean(rows: Tensor, inverse: Tensor) -> Tensor:
    """The largest mean over places of ``rows * inverse`` of any example: (groups, features, outputs)."""
    found = rows.new_zeros(rows.shape[1], rows.shape[3], inverse.shape[3])
    for row, one in zip(rows, inverse, strict=True):
        found = torch.maximum(found, row.mT @ one / row.shape[1])
    return found


def _largest(rows: Tensor, inverse: Tensor) -> Tensor:
    """The largest of ``rows * inverse`` over examples and places: (groups, features, outputs)."""
    a, b = (value.permute(1, 3, 0, 2).flatten(2).contiguous() for value in (rows, inverse))
    groups, features, total = a.shape
    outputs = b.shape[1]
    found = a.new_zeros(groups, outputs, features)
    length = max(1, min(total, CELLS // features))
    height = max(1, CELLS // (features * length))
    for group in range(groups):
        for start in range(0, total, length):
            left = a[group, None, :, start : start + length]
            for first in range(0, outputs, height):
                right = b[group, first : first + height, None, start : start + length]
                best = found[group, first : first + height]
                torch.maximum(best, (left * right).amax(2), out=best)
    return found.mT


@dataclass(frozen=True, slots=True, eq=False)
class Sensed:
    """What is known of the sensitivity of one weight tensor.

    Attributes:
        scores: the largest relative contribution of each weight, in the tensor's layout.
        outputs: which output channel each weight feeds, of the same layout; -1 where no call reads it.
        places: how many places of an example's output it is multiplied for.
        kernel: the weights through which an output reads one channel.
    """

    scores: Tensor
    outputs: Tensor
    places: int
    kernel: int


def sensitivities(
    model: nn.Module, data: Any, weights: Sequence[str] | None = None, *, places: Places = "max"
) -> dict[str, Sensed]:
    """The sensitivity of the weights of a model, by name.

    Data are gone through once, a few examples at a time; no product of outputs, features and places is ever
    held. A tensor that several calls read, or read parts of, gets the largest value of any.

    Args:
        model: the model; it is run in eval mode and left as it is.
        data: batches, labelled or not.
        weights: names of the parameters; all that only linear layers read by default (see
            :func:`shapleaf.watching.multiplied`).
        places: as for :func:`contributions`.

    Raises:
        DataError: the data are not what they must be.
        CriterionError: what a layer reads is not finite.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> found = sensitivities(model, torch.randn(20, 3))
    >>> found["0.weight"].scores.shape, found["0.weight"].outputs[:, 0].tolist()
    (torch.Size([4, 3]), [0, 1, 2, 3])
    """
    store: dict[str, _Store] = {}
    named = dict(model.named_parameters())

    def see(name: str, layer: Linear) -> None:
        store[name].see(layer, places)

    with progress("sensitivity") as step:
        for batch in batches(data, labelled=False, device=_context.device_of(model)):
            for start in range(0, batch.examples, EXAMPLES):
                part = batch[start : start + EXAMPLES]
                if not store:
                    wanted = multiplied(model, part.inputs) if weights is None else weights
                    store.update((name, _Store(named[name])) for name in wanted)
                for one in store.values():
                    one.calls = 0
                visit(model, part.inputs, store, see)
                step(f"{part.first + part.examples} examples")
    found = {name: one.sensed() for name, one in store.items()}
    for name, sensed in found.items():
        if not bool(torch.isfinite(sensed.scores).all()):
            raise CriterionError(
                f"what {name} is multiplied with is not finite; check the inputs' scale and the weights."
            )
    return found


class _Store:
    """The largest contributions of one parameter's weights so far."""

    def __init__(self, parameter: Tensor) -> None:
        self._parameter = parameter
        dtype = _wide(parameter.dtype)
        self._scores = torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
        self._outputs = torch.full_like(self._scores, -1, dtype=torch.int64)
        self._places: dict[int, int] = {}
        self._kernel = 1
        self.calls = 0

    def see(self, layer: Linear, places: Places) -> None:
        """Take one call in."""
        matrix = contributions(layer, places)
        groups, features, outputs = matrix.shape
        scores, owners = (self._like(value, layer.weight) for value in (self._scores, self._outputs))
        scores.copy_(torch.maximum(scores, layer.weights(matrix)))
        channels = torch.arange(groups * outputs, device=matrix.device).view(groups, 1, outputs)
        fresh = layer.weights(channels.expand(groups, features, outputs).contiguous())
        first = int(self._outputs.max()) + 1
        owners.copy_(torch.where(owners < 0, fresh + first, owners))
        self._places[self.calls] = layer.rows(layer.input[:1]).shape[2]
        self._kernel = max(self._kernel, groups * features // layer.input.shape[layer.channel])
        self.calls += 1

    def _like(self, value: Tensor, weight: Tensor) -> Tensor:
        """The part of a tensor, laid out like the parameter, that a call was given as its weight."""
        offset = weight.storage_offset() - self._parameter.storage_offset()
        return value.as_strided(weight.shape, weight.stride(), offset)

    def sensed(self) -> Sensed:
        """What was found."""
        return Sensed(self._scores, self._outputs, sum(self._places.values()), self._kernel)

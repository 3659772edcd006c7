"""Rules for ops on maps: what mixes places leaves channels alone, and what turns places into channels."""

from __future__ import annotations

import re

from torch import Tensor

from .labels import Fields, axes_of, varies
from .opcall import OpCall


def spatial(op: OpCall) -> None:
    """Pooling, unpooling, resizing, reflecting: the last axes are mixed, those before pass."""
    rank = int(re.findall(r"(\d)d", op.name)[0])
    operands = [
        (_before(op, tensor, tensor.ndim - rank), [*tensor.shape[:-rank], *[1] * rank])
        for tensor in op.tensors
    ]
    fields = op.flow.meet(operands, operands[0][1], op.why("meets a tensor without units there"))
    for out in op.outputs:
        op.give(out, list(fields))


def _before(op: OpCall, tensor: Tensor, count: int) -> Fields:
    return op.past(tensor, range(count, tensor.ndim), "mixes places of units")


def patches(op: OpCall) -> None:
    """Places become channels: a unit is a channel with all that it becomes (im2col, pixel unshuffle)."""
    source, out = op.tensors[0], op.outputs[0]
    channel = source.ndim - 3
    times = out.shape[channel] // source.shape[channel]
    fields = _before(op, source, channel + 1)
    pieces = [f.repeat_interleave(times, channel) if varies(f, channel) else f for f in fields]
    op.give(out, [f.squeeze(-1) if out.ndim < source.ndim else f for f in pieces])


def unpatch(op: OpCall) -> None:
    """Channels become places: a unit is an output channel with all that it is made of (pixel shuffle)."""
    source, out = op.tensors[0], op.outputs[0]
    channel = out.ndim - 3
    fields = _before(op, source, channel + 1)
    if source.ndim < out.ndim:
        fields = [f.unsqueeze(-1) for f in fields]
    pieces: Fields = []
    for labels in fields:
        if varies(labels, channel):
            split = labels.unflatten(channel, (out.shape[channel], -1))
            pieces.append(op.flow.close(split, channel + 1).squeeze(channel + 1))
        else:
            pieces.append(labels)
    op.give(out, [f for f in pieces if axes_of(f)])


def sample(op: OpCall) -> None:
    """Grid sampling: channels pass; units along places, and those that say where to look, must stay."""
    source, grid = op.tensors[:2]
    places(op, grid)
    op.give(op.outputs[0], _before(op, source, 2))


def places(op: OpCall, tensor: Tensor | None = None) -> None:
    """Numbers that name places must stay (affine grids)."""
    op.freeze(op.flow.of(op.tensors[0] if tensor is None else tensor), "names places of an image")

"""Rules for picking, placing and ordering: units pass along other axes; along their own they are counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .labels import Fields, narrow
from .opcall import OpCall
from .statistics import spread

PICKS, WRITES = "picks numbered places along units", "writes numbered places along units"
Given = Sequence[Tensor | None]


def along(op: OpCall) -> None:
    """Sorts, scans, transforms, tests: the axes they work along keep all their places, the others pass."""
    rank = op.tensors[0].ndim
    worked = spread((-2, -1) if op.name.startswith("tri") else op.value("dim"), rank)
    fields = _level(op, [(tensor, worked) for tensor in op.tensors], "works along units")
    for out in op.outputs:
        op.give(out, [f if out.ndim == rank else f.squeeze(worked) for f in fields])


def gather(op: OpCall) -> None:
    """Along one axis, places by number; values and numbers agree on the others."""
    source, dim, numbers = op.args[:3]
    op.give(op.outputs[0], _level(op, [(source, [dim % source.ndim]), (numbers, [])], PICKS))


def scatter(op: OpCall) -> None:
    """The reverse: what is written agrees with what stands around it, on all axes but one."""
    source, dim = op.args[0], op.args[1] % op.args[0].ndim
    sides = [tensor for tensor in op.tensors if tensor.ndim == source.ndim]
    op.give(op.outputs[0], _level(op, [(tensor, [dim]) for tensor in sides], WRITES))


def index_write(op: OpCall) -> None:
    """``index_add`` and its like: the same, with one row of numbers."""
    dim, numbers = op.args[1] % op.args[0].ndim, op.args[2]
    op.freeze(op.flow.of(numbers), "used as an index")
    written = [tensor for tensor in op.tensors if tensor is not numbers and tensor.ndim]
    op.give(op.outputs[0], _level(op, [(tensor, [dim]) for tensor in written], WRITES))


def index(op: OpCall) -> None:
    """``x[:, places]``, by numbers or masks, and ``index_select``."""
    source, given = op.args[0], _given(op)
    fields = op.past(source, _indexed(given), PICKS)
    op.give(op.outputs[0], [_taken(f, source, given) for f in fields])


def index_put(op: OpCall) -> None:
    """``x[:, places] = y``: what is written agrees with what stands there."""
    source, given, values = op.args[0], _given(op), op.args[2]
    fields = op.past(source, _indexed(given), WRITES)
    shape = torch.ops.aten.index(source, given).shape
    there = [_taken(f, source, given) for f in fields]
    op.flow.meet(
        [(there, shape), (op.flow.of(values), values.shape)],
        shape,
        op.why("writes a tensor without units there"),
    )
    op.give(op.outputs[0], fields)


def _level(op: OpCall, sides: Sequence[tuple[Tensor, Sequence[int]]], text: str) -> Fields:
    """Operands that agree on all axes but those each is worked along; unequal lengths hold an axis too."""
    ranks = range(sides[0][0].ndim)
    uneven = [axis for axis in ranks if len({t.shape[axis] for t, worked in sides if axis not in worked}) > 1]
    operands = []
    for tensor, worked in sides:
        flat = [*worked, *uneven]
        shape = [1 if axis in flat else size for axis, size in enumerate(tensor.shape)]
        operands.append((op.past(tensor, flat, text), shape))
    shape = [max(sizes) for sizes in zip(*(shape for _, shape in operands), strict=True)]
    return op.flow.meet(operands, shape, op.why("meets a tensor without units there"))


def _given(op: OpCall) -> Given:
    """The numbers or masks at each axis; they have no units themselves, or these must stay."""
    given: list[Any] = [None] * op.args[1] + [op.args[2]] if op.name == "index_select" else list(op.args[1])
    op.freeze([f for i in given if i is not None for f in op.flow.of(i)], "used as an index")
    return given


def _masks(numbers: Tensor) -> bool:
    return numbers.dtype in (torch.bool, torch.uint8)


def _indexed(given: Given) -> list[int]:
    """The axes that are indexed; a mask takes as many as it has."""
    axes: list[int] = []
    axis = 0
    for numbers in given:
        width = numbers.ndim if numbers is not None and _masks(numbers) else 1
        axes += range(axis, axis + width) if numbers is not None else ()
        axis += width
    return axes


def _taken(labels: Tensor, source: Tensor, given: Given) -> Tensor:
    """The labels at the places picked: they are the same everywhere, so any will do if none is picked."""
    some = [None if i is None else _any_places(i) for i in given]
    return narrow(torch.ops.aten.index(labels.expand(source.shape), some))


def _any_places(numbers: Tensor) -> Tensor:
    if not _masks(numbers):
        return torch.zeros([max(size, 1) for size in numbers.shape], dtype=torch.int64)
    mask = numbers.bool().cpu()
    return mask if mask.any() else torch.ones_like(mask)

"""Rules for the ops that multiply and add up: matrix products and convolutions.

Contracted axes are united; what is left of each operand goes on. The reader of an activation is noted,
and the lengths of all axes, from which multiply-accumulates are counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from .labels import Fields, axes_of, varies
from .opcall import Contraction, OpCall


def _contract(
    op: OpCall, a: Tensor, axis_a: int, b: Tensor, axis_b: int
) -> tuple[Fields, Fields, Tensor | None]:
    """Unite the contracted axes; the fields that are left of both, and the labels contracted."""
    mine = [f for f in op.flow.of(a) if varies(f, axis_a)]
    theirs = [f for f in op.flow.of(b) if varies(f, axis_b)]
    rest_a = [f for f in op.flow.of(a) if not varies(f, axis_a)]
    rest_b = [f for f in op.flow.of(b) if not varies(f, axis_b)]
    # Of a view, what is contracted goes as a whole: a head with all its dimensions.
    for side, rest, axis in ((mine, rest_a, axis_a), (theirs, rest_b, axis_b)):
        rest += [op.flow.close(f, axis) for f in side if len(axes_of(f)) > 1]
        side[:] = [f for f in side if len(axes_of(f)) == 1]
    if not (mine and theirs):
        op.freeze(mine + theirs, "contracted with an axis without units")
        return rest_a, rest_b, next(iter(mine + theirs), None)
    for first in mine:
        for second in theirs:
            op.flow.unite(first.reshape(-1), second.reshape(-1))
    if op.active(a):
        for labels in mine:
            op.consume(a, labels, None if op.active(b) else theirs[0].reshape(-1))
    elif op.active(b):
        for labels in theirs:
            op.consume(b, labels, mine[0].reshape(-1))
    else:
        op.freeze(mine, "contracts parameters with each other")
    return rest_a, rest_b, mine[0]


def _count(op: OpCall, lengths: Sequence[tuple[int, Fields | Tensor | None]], scale: float = 1.0) -> None:
    axes = []
    for length, labels in lengths:
        one = labels[0] if isinstance(labels, list) and len(labels) == 1 else labels
        if isinstance(one, Tensor) and one.numel() == length:
            axes.append(one.reshape(-1))
        else:
            scale *= length
    op.contractions.append(Contraction(op.key, scale, axes))


def matmul(op: OpCall) -> None:
    """``mm`` and ``addmm``."""
    a, b = op.tensors[-2:]
    rest_a, rest_b, inner = _contract(op, a, 1, b, 0)
    _count(op, [(a.shape[0], rest_a), (a.shape[1], inner), (b.shape[1], rest_b)])
    _finish_product(op, [f for f in rest_a if varies(f, 0)] + [f for f in rest_b if varies(f, 1)])


def batched_matmul(op: OpCall) -> None:
    """``bmm`` and ``baddbmm``: the batch axes agree."""
    a, b = op.tensors[-2:]
    rest_a, rest_b, inner = _contract(op, a, 2, b, 1)
    out = op.outputs[0]
    sides = [(rest_a, [*a.shape[:2], 1]), (rest_b, [b.shape[0], 1, b.shape[2]])]
    fields = op.flow.meet(sides, out.shape, op.why("batches without units"))
    along = [next((f for f in fields if axes_of(f) == (axis,)), None) for axis in range(3)]
    _count(op, [*zip(out.shape, along, strict=True), (a.shape[2], inner)])
    _finish_product(op, fields)


def _finish_product(op: OpCall, fields: Fields) -> None:
    out = op.outputs[0]
    if len(op.tensors) == 3:
        bias = op.tensors[0]
        operands = [(fields, out.shape), (op.flow.of(bias), bias.shape)]
        fields = op.flow.meet(operands, out.shape, op.why("adds a bias without units"))
    op.give(out, fields)


def convolution(op: OpCall) -> None:
    """All convolutions. The unit of a grouped one is a whole group: its inputs and its outputs."""
    source, weight, bias = op.args[:3]
    transposed, groups = op.args[6], op.args[8]
    out = op.outputs[0]
    space = [f for f in op.flow.of(source) if any(a > 1 for a in axes_of(f))]
    op.freeze(space, "slides over an axis of units")
    kernel = [f for f in op.flow.of(weight) if any(a > 1 for a in axes_of(f))]
    op.freeze(kernel, "a convolution kernel")
    batch = [f for f in op.flow.of(source) if axes_of(f) == (0,)]
    op.freeze(batch, "units along the first axis, where examples are expected")
    dim_in, dim_out = (0, 1) if transposed else (1, 0)
    kernel_size = math.prod(weight.shape[2:])
    places = math.prod((source if transposed else out).shape[2:]) * out.shape[0]
    if groups == 1:
        op_out = [f for f in op.flow.of(weight) if axes_of(f) == (dim_out,)]
        inner = _contract(op, source, 1, weight, dim_in)[2]
        outer = _column(op_out, out)
        _count(op, [(weight.shape[dim_out], outer), (weight.shape[dim_in], inner)], kernel_size * places)
    else:
        rows = [f for f in op.flow.of(weight) if axes_of(f) == (0,)]
        _count(op, [(len(weight), rows)], weight.shape[1] * kernel_size * places)
        outer = _grouped(op, rows, groups, transposed)
    operands: list[tuple[Fields, Sequence[int]]] = [([outer] if outer is not None else [], out.shape)]
    if bias is not None:
        operands += op.per_channel(bias)
    op.give(out, op.flow.meet(operands, out.shape, op.why("adds a bias without units")))


def _column(fields: Fields, out: Tensor) -> Tensor | None:
    """The labels of an output axis of a weight, laid along the channels of the output."""
    return fields[0].reshape([1, -1, *[1] * (out.ndim - 2)]) if fields else None


def _grouped(op: OpCall, rows: Fields, groups: int, transposed: bool) -> Tensor | None:
    source, weight = op.args[:2]
    op.freeze([f for f in op.flow.of(weight) if 1 in axes_of(f)], "each group's own channels are fixed")
    inputs = [f for f in op.flow.of(source) if axes_of(f) == (1,)]
    op.freeze([f for f in op.flow.of(source) if varies(f, 1) and len(axes_of(f)) > 1], "a part of a view")
    if not rows:
        op.freeze(inputs, "grouped by a weight without units")
        return None
    table = rows[0].reshape(groups, -1)
    op.flow.unite(table, table[:, :1])
    for labels in inputs:
        op.flow.unite(labels.reshape(groups, -1), table[:, :1])
    if not inputs and source.shape[1] > 1:
        op.freeze(rows, "grouped over channels without units")
    out = op.outputs[0]
    width = out.shape[1] // groups
    flat = table if not transposed else table[:, :1].expand(groups, width)
    return flat.reshape([1, -1, *[1] * (out.ndim - 2)])

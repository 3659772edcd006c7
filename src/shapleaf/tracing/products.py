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
from .statistics import STATISTICS


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
        for labels in (f for f in side if len(axes_of(f)) > 1):
            _join(op, rest, op.flow.close(labels, axis))
        side[:] = [f for f in side if len(axes_of(f)) == 1]
    if not (mine and theirs):
        op.freeze(mine + theirs, "contracted with an axis without units")
        return rest_a, rest_b, next(iter(mine + theirs), None)
    for first, second in op.flow.agree(mine, theirs, op.why("contracts several kinds of units at once")):
        if op.active(a):
            op.consume(a, first, None if op.active(b) else second)
        elif op.active(b):
            op.consume(b, second, first)
        elif min(a.ndim, b.ndim) > 1:
            op.freeze([first], "contracts parameters with each other")
        else:
            op.flow.blur(first, op.why(STATISTICS[0]))
    return rest_a, rest_b, mine[0]


def _join(op: OpCall, rest: Fields, whole: Tensor) -> None:
    """What is whole along its axes makes the other fields there whole: rows and columns of one head."""
    for i, labels in enumerate(rest):
        others = [axis for axis in axes_of(labels) if axis not in axes_of(whole)]
        if others and len(others) < len(axes_of(labels)):
            rest[i] = op.flow.close(labels, *others)
            op.flow.unite(rest[i], whole)
            return
    rest.append(whole)


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


def vector_product(op: OpCall) -> None:
    """``mv``, ``addmv``, ``dot`` and ``vdot``: the last axes are contracted."""
    a, b = op.tensors[-2:]
    rest = _contract(op, a, a.ndim - 1, b, 0)[0]
    _count(op, [(size, [f for f in rest if varies(f, axis)]) for axis, size in enumerate(a.shape)])
    _finish_product(op, [f.squeeze(-1) for f in rest])


def outer(op: OpCall) -> None:
    """``addr``: a bias and the product of a column and a row."""
    bias, column, row = op.tensors
    operands = [(op.flow.of(bias), [*bias.shape])]
    operands += [([f.unsqueeze(1) for f in op.flow.of(column)], [len(column), 1])]
    operands += [([f.unsqueeze(0) for f in op.flow.of(row)], [1, len(row)])]
    out = op.outputs[0]
    op.give(out, op.flow.meet(operands, out.shape, op.why("adds a bias without units")))


def bilinear(op: OpCall) -> None:
    """Three factors, multiplied and summed along some axes: what is summed goes with all that have it."""
    summed = op.args[6]
    sides: list[tuple[Tensor, Fields, list[int]]] = []
    for tensor, added in zip(op.args[:3], op.args[3:6], strict=True):
        fields, shape = op.flow.of(tensor), list(tensor.shape)
        for axis in sorted(added):
            fields, shape = [f.unsqueeze(axis) for f in fields], [*shape[:axis], 1, *shape[axis:]]
        whole = [f if len(axes_of(f)) == 1 else op.flow.pin(f, summed, "")[0] for f in fields]
        sides.append((tensor, whole, shape))
    full = [max(sizes) for sizes in zip(*(shape for _, _, shape in sides), strict=True)]
    fields = op.flow.meet([side[1:] for side in sides], full, op.why("contracted with an axis without units"))
    lengths = [next((f for f in fields if axes_of(f) == (axis,)), None) for axis in range(len(full))]
    _count(op, [*zip(full, lengths, strict=True)])
    for axis in summed:
        mine = [(tensor, f) for tensor, side, _ in sides for f in side if varies(f, axis)]
        read = [(tensor, f) for tensor, f in mine if op.active(tensor)]
        own = [f.reshape(-1) for tensor, f in mine if not op.active(tensor)]
        for tensor, labels in read[:1]:
            op.consume(tensor, labels, own[0] if own else None)
        op.freeze([] if read else own, "contracts parameters with each other")
    drop = tuple(summed)
    op.give(op.outputs[0], [f.squeeze(drop) for f in fields if not any(varies(f, axis) for axis in drop)])


def distance(op: OpCall) -> None:
    """Distances between rows: exact where both sides are masked; a row of parameters keeps its own part."""
    a, b = op.args[:2]
    sides = [[f for f in op.flow.of(t) if varies(f, t.ndim - 1)] for t in (a, b)]
    rests = [[f for f in op.flow.of(t) if not varies(f, t.ndim - 1)] for t in (a, b)]
    for side, rest in zip(sides, rests, strict=True):
        rest += [op.flow.close(f, f.ndim - 1) for f in side if len(axes_of(f)) > 1]
        side[:] = [f for f in side if len(axes_of(f)) == 1]
    mine, theirs = sides
    if not (mine and theirs):
        op.freeze(mine + theirs, "a distance along an axis without units")
    elif a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr():
        op.freeze(mine, "distances of a tensor from itself, which one mask cannot hide")
    else:
        for first, second in op.flow.agree(mine, theirs, op.why("a distance along several kinds of units")):
            for tensor, labels, other in ((a, first, second), (b, second, first)):
                if op.active(tensor):
                    op.consume(tensor, labels, None if op.active(a) and op.active(b) else other)
                else:
                    op.flow.blur(labels, op.why("a distance from parameters"))
    out = op.outputs[0]
    turned = [f.transpose(-1, -2) for f in rests[1]]
    shapes = [[*a.shape[:-1], 1], [*b.shape[:-2], 1, b.shape[-2]]]
    op.give(
        out,
        op.flow.meet(
            [*zip((rests[0], turned), shapes, strict=True)], out.shape, op.why("compares without units")
        ),
    )

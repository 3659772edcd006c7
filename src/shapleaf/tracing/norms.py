"""Rules for normalisations with their own op, and for embeddings."""

from __future__ import annotations

from .labels import Fields, axes_of, varies
from .opcall import OpCall
from .statistics import STATISTICS


def layer_norm(op: OpCall) -> None:
    """Layer norm and RMS norm: affine parameters lie along the last axes; units there share a statistic."""
    source, shape = op.args[0], op.args[1]
    axes = range(source.ndim - len(shape), source.ndim)
    fields: Fields = []
    for labels in op.flow.of(source):
        if set(axes_of(labels)) <= set(axes):
            op.flow.blur(labels, op.why(STATISTICS[1]))
            fields.append(labels)
        else:  # of a view, units that are whole along the axes
            fields += op.flow.pin(labels, axes, "")
    operands = [(fields, source.shape), *((op.flow.of(tensor), tensor.shape) for tensor in op.tensors[1:])]
    op.give(op.outputs[0], op.flow.meet(operands, source.shape, op.why("normalises without units")))


def batch_norm(op: OpCall) -> None:
    """Batch normalisation: 1-d tensors are aligned with the channels; the other axes are averaged over."""
    source = op.args[0]
    for labels in op.flow.of(source):
        if set(axes_of(labels)) - {1}:
            op.flow.blur(labels, op.why(STATISTICS[0]), {*axes_of(labels)} - {1})
    operands = [(op.flow.of(source), source.shape), *op.per_channel(*op.tensors[1:])]
    fields = op.flow.meet(operands, source.shape, op.why("normalises channels without units"))
    op.give(op.outputs[0], fields)


def group_norm(op: OpCall) -> None:
    """Group norm: a unit is a whole group of channels, normalised by itself; one group is a layer norm."""
    source, groups = op.args[0], op.args[6]
    operands = [(op.flow.of(source), source.shape), *op.per_channel(*op.tensors[1:])]
    fields = op.flow.meet(operands, source.shape, op.why("normalises channels without units"))
    for labels in fields:
        if groups == 1:
            op.flow.blur(labels, op.why(STATISTICS[1]))
        elif axes_of(labels) == (1,):
            table = labels.reshape(groups, -1)
            op.flow.unite(table, table[:, :1])
        elif varies(labels, 1):
            op.freeze([labels], "normalises a part of a view")
    op.give(op.outputs[0], fields)


def weight_norm(op: OpCall) -> None:
    """Length and direction: what lies along the axes that the length is taken over shares a statistic."""
    direction, length, dim = op.args[0], op.args[1], op.value("dim")
    for labels in op.flow.of(direction):
        if axes_of(labels) != (dim,):
            op.flow.blur(labels, op.why(STATISTICS[0]))
    operands = [(op.flow.of(tensor), tensor.shape) for tensor in (direction, length)]
    op.give(op.outputs[0], op.flow.meet(operands, direction.shape, op.why("scales rows without units")))
    op.give(op.outputs[1], list(op.flow.of(length)))


def embedding(op: OpCall) -> None:
    """A table of rows: its vocabulary must stay, its width goes on."""
    weight = op.args[0]
    op.freeze([f for f in op.flow.of(weight) if varies(f, 0)], "an index into a vocabulary")
    width = [f.reshape(-1) for f in op.flow.of(weight) if axes_of(f) == (1,)]
    out = op.outputs[0]
    op.give(out, [f.view([1] * (out.ndim - 1) + [-1]) for f in width])


def embedding_bag(op: OpCall) -> None:
    """Sums, means or maxima of rows: as one row."""
    embedding(op)
    op.freeze([f for tensor in op.tensors[1:] for f in op.flow.of(tensor)], "weights of words")
    for out in op.outputs[1:]:
        op.give(out, [])

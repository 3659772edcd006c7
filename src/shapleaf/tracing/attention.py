"""Rule for scaled dot-product attention in one op: its units are whole heads."""

from __future__ import annotations

import math

from torch import Tensor

from .labels import Fields, axes_of, varies
from .opcall import Contraction, OpCall


def attention(op: OpCall) -> None:
    """Queries and keys are contracted over the dimensions of a head, so a head goes with all of them.

    The scale depends on their number, which therefore stays. Keys and values may have fewer heads
    (grouped queries): then a unit is a key head with all the query heads that read it.
    """
    query, key, value = op.args[:3]
    out = op.outputs[0]
    operands = [(_heads(op, tensor, out), [*_batch(tensor, out), 1, 1]) for tensor in (query, key)]
    values = _repeated(op.flow.of(value), value, out)
    if value.ndim > 2 and value.shape[-3] < out.shape[-3]:
        shared = [f for f in values if axes_of(f) == (value.ndim - 1,)]
        op.freeze(shared, "the dimensions of a head that many read")
        values = [f for f in values if not any(f is other for other in shared)]
    operands += [(values, [*_batch(value, out), 1, out.shape[-1]])]
    mask = op.kwargs.get("attn_mask", op.args[3] if len(op.args) > 3 else None)
    if isinstance(mask, Tensor):
        # A bias per head (relative positions) goes with its head.
        bias = [f for f in op.flow.of(mask) if not varies(f, mask.ndim - 1) and not varies(f, mask.ndim - 2)]
        operands += [(bias, [*mask.shape[:-2], 1, 1])]
    fields = op.flow.meet(operands, out.shape, op.why("attends without units"))
    lengths = out.shape[-2] * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    heads = next((f for f in fields if axes_of(f) and varies(f, out.ndim - 3)), None)
    along = [] if heads is None else [heads.select(-1, 0).reshape(-1)]
    batch = math.prod(out.shape[:-2]) // (along[0].numel() if along else 1)
    op.contractions.append(Contraction(op.key, float(lengths * batch), along))
    op.give(out, fields)


def _batch(tensor: Tensor, out: Tensor) -> list[int]:
    """The axes before a head's own; one head of keys is there for all that read it."""
    return [1 if mine == 1 else size for mine, size in zip(tensor.shape[:-2], out.shape[:-2], strict=True)]


def _heads(op: OpCall, tensor: Tensor, out: Tensor) -> Fields:
    """The labels of the heads, one for all dimensions of each."""
    last = tensor.ndim - 1
    kept: Fields = []
    for labels in _repeated(op.flow.of(tensor), tensor, out):
        if not varies(labels, last):
            kept.append(labels)
        elif len(axes_of(labels)) > 1:
            kept.append(op.flow.close(labels, last))
        else:
            op.freeze([labels], "the dimensions of a head set the scale")
    return kept


def _repeated(fields: Fields, tensor: Tensor, out: Tensor) -> Fields:
    """Key heads laid along the query heads that read them."""
    ratio = out.shape[-3] // tensor.shape[-3] if tensor.ndim > 2 else 1
    axis = tensor.ndim - 3
    return [f.repeat_interleave(ratio, axis) if ratio > 1 and varies(f, axis) else f for f in fields]

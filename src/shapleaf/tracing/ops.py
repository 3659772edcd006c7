"""What each family of ATen ops does to labels.

A rule sees one call and gives the outputs their fields. Ops that only move elements are applied
to the fields by PyTorch itself; ops that combine elements unite labels; an op without a rule
freezes everything it touches, by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .labels import Fields, Labeling, axes_of, narrow, varies


@dataclass(slots=True)
class Contraction:
    """One multiply-accumulate op: ``scale`` times the lengths of its labelled axes, per run."""

    call: str
    scale: float
    axes: list[Tensor]


@dataclass(slots=True)
class OpCall:
    """One ATen call on its way through the rules."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    flow: Labeling
    name: str
    place: Callable[[], str]
    key: str
    consumed: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)
    contractions: list[Contraction] = field(default_factory=list)

    @property
    def tensors(self) -> list[Tensor]:
        return [a for a in tree_leaves((self.args, self.kwargs)) if isinstance(a, Tensor)]

    @property
    def outputs(self) -> list[Tensor]:
        return [o for o in tree_leaves(self.out) if isinstance(o, Tensor)]

    def why(self, text: str) -> str:
        return f"{text} ({self.name} in {self.place()})"

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def give(self, tensor: Tensor, fields: Fields) -> None:
        if fields:
            self.flow.fields[tensor] = fields
        elif tensor in self.flow.fields:
            del self.flow.fields[tensor]

    def consume(self, operand: Tensor, labels: Tensor, reader: Tensor | None = None) -> None:
        """Here a consumer reads these labels of an activation; their identity ends."""
        if operand in self.flow.active:
            self.consumed.append((labels, reader))

    def freeze(self, fields: Sequence[Tensor], text: str) -> None:
        for labels in fields:
            self.flow.freeze(labels, self.why(text))


Rule = Callable[[OpCall], None]


def pointwise(op: OpCall) -> None:
    """Elementwise: labels at the same place become one. Also every in-place elementwise write."""
    for out in op.outputs:
        operands = [(op.flow.of(t), t.shape) for t in op.tensors]
        op.give(out, op.flow.meet(operands, out.shape, op.why("meets a tensor without units there")))


def like(op: OpCall) -> None:
    """A fresh tensor made to the measure of another has its axes."""
    op.give(op.outputs[0], list(op.flow.of(op.tensors[0])))


def fresh(op: OpCall) -> None:
    """A tensor made from nothing carries no labels."""
    for out in op.outputs:
        op.give(out, [])


def move(op: OpCall) -> None:
    """Movement: PyTorch applies the op to the labels as it did to the values."""
    source = op.tensors[0]
    outs = op.outputs
    moved: list[Fields] = [[] for _ in outs]
    for labels in op.flow.of(source):
        full = labels.expand(source.shape)
        if op.name in ("view", "_unsafe_view"):
            pieces = full.reshape(op.args[1])
        else:
            pieces = op.func(*(full if a is source else a for a in op.args), **op.kwargs)
        for fields, piece in zip(moved, tree_leaves(pieces), strict=True):
            result = narrow(piece)
            if axes_of(result):
                fields.append(result)
            if len(axes_of(result)) > len(axes_of(labels)):
                op.flow.products.append(result.numpy().reshape(-1, _last(result)))
    for out, fields in zip(outs, moved, strict=True):
        op.give(out, fields)


def _last(labels: Tensor) -> int:
    return labels.shape[axes_of(labels)[-1]]


def convert(op: OpCall) -> None:
    """The same elements in another dtype, device or memory format."""
    op.give(op.outputs[0], list(op.flow.of(op.tensors[0])))


def split(op: OpCall) -> None:
    """Equal parts of a labelled axis must stay equal; unequal ones cannot shrink."""
    source, dim = op.tensors[0], op.arg(2, "dim", 0) % op.tensors[0].ndim
    lengths = {out.shape[dim] for out in op.outputs}
    for labels in op.flow.of(source):
        if varies(labels, dim) and len(op.outputs) > 1:
            if len(lengths) > 1:
                op.freeze([labels], "the sizes of the parts are fixed in the code")
            else:
                parts = labels.split(op.outputs[0].shape[dim], dim)
                op.flow.splits.append(tuple(part.reshape(-1).numpy() for part in parts))
    move(op)


def cut(op: OpCall) -> None:
    """A slice or a selection with bounds that the code names holds the axis it cuts."""
    source = op.tensors[0]
    dim = op.arg(1, "dim", 0) % source.ndim
    out = op.outputs[0]
    whole = out.ndim == source.ndim and out.shape[dim] == source.shape[dim]
    if not whole:
        op.freeze([f for f in op.flow.of(source) if varies(f, dim)], "takes a part with fixed bounds")
    move(op)


def shuffle(op: OpCall) -> None:
    """``channel_shuffle(x, groups)``: every group must keep the same places."""
    source, groups = op.args[:2]
    for labels in op.flow.of(source):
        if varies(labels, 1):
            op.flow.products.append(labels.transpose(0, 1).reshape(groups, -1).numpy())
    move(op)


def pad(op: OpCall) -> None:
    """Constant padding: what is added along a labelled axis must stay."""
    source, widths = op.args[0], list(op.args[1])
    fields: Fields = []
    for labels in op.flow.of(source):
        mine = [w if varies(labels, labels.ndim - 1 - i // 2) else 0 for i, w in enumerate(widths)]
        fields.append(torch.nn.functional.pad(labels, mine, value=0))
    op.give(op.outputs[0], fields)


def join(op: OpCall) -> None:
    """Concatenation: each operand brings its own labels; what carries none must stay."""
    tensors = [t for t in op.args[0] if t.numel()]
    dim = op.arg(1, "dim", 0) % tensors[0].ndim
    along: list[Tensor] = []
    for tensor in tensors:
        mine = [f for f in op.flow.of(tensor) if varies(f, dim)]
        if len(mine) > 1:
            op.freeze(mine, "joins an axis with several identities")
        base = mine[0] if len(mine) == 1 else torch.zeros([1] * tensor.ndim, dtype=torch.int64)
        shape = list(base.shape)
        shape[dim] = tensor.shape[dim]
        along.append(base.expand(shape))
    full = [max(sizes) for sizes in zip(*(a.shape for a in along), strict=True)]
    joined = narrow(torch.cat([a.expand([*full[:dim], a.shape[dim], *full[dim + 1 :]]) for a in along], dim))
    across = [
        ([f for f in op.flow.of(t) if not varies(f, dim)], [*t.shape[:dim], 1, *t.shape[dim + 1 :]])
        for t in tensors
    ]
    out = op.outputs[0]
    rest = op.flow.meet(across, [*out.shape[:dim], 1, *out.shape[dim + 1 :]], op.why("joins unlabelled tensors"))
    op.give(out, [joined, *rest] if axes_of(joined) else rest)


def stack(op: OpCall) -> None:
    """A new axis: the operands agree along all the old ones."""
    tensors = list(op.args[0])
    dim = op.arg(1, "dim", 0) % op.outputs[0].ndim
    fields = op.flow.meet([(op.flow.of(t), t.shape) for t in tensors], tensors[0].shape, op.why("stacks"))
    op.give(op.outputs[0], [f.unsqueeze(dim) for f in fields])


def reduce(op: OpCall, exact: bool = False) -> None:
    """A sum or a statistic along labelled axes reads them; a statistic is not exact."""
    source = op.tensors[0]
    dims = op.arg(1, "dim")
    dims = range(source.ndim) if dims in (None, []) else [dims] if isinstance(dims, int) else dims
    axes = {d % source.ndim for d in dims}
    kept: Fields = []
    for labels in op.flow.of(source):
        mine = set(axes_of(labels))
        if mine <= axes:
            op.consume(source, labels)
            if not exact:
                op.flow.blur(labels, op.why("a statistic over units"))
        elif mine & axes:
            op.freeze([labels], "reduces a part of a view")
        else:
            kept.append(labels)
    for out in op.outputs:
        keepdim = out.ndim == source.ndim
        drop = tuple(sorted(axes))
        op.give(out, [f if keepdim else f.squeeze(drop) for f in kept])


def total(op: OpCall) -> None:
    """A sum is exact: an absent unit adds nothing."""
    reduce(op, exact=True)


def normalise(op: OpCall) -> None:
    """Softmax and the like along a labelled axis: the units stay coupled through a statistic."""
    source = op.tensors[0]
    dim = op.args[1] % source.ndim
    for labels in op.flow.of(source):
        if varies(labels, dim):
            op.flow.blur(labels, op.why("normalises over units"))
    op.give(op.outputs[0], list(op.flow.of(source)))


def spatial(op: OpCall) -> None:
    """Pooling, resizing, reflecting: the last axes are mixed, those before pass."""
    source = op.tensors[0]
    rank = int(re.findall(r"(\d)d", op.name)[0])
    kept = [f for f in op.flow.of(source) if all(a < source.ndim - rank for a in axes_of(f))]
    op.freeze([f for f in op.flow.of(source) if not any(f is k for k in kept)], "mixes places of units")
    for out in op.outputs:
        op.give(out, list(kept))


def batch_norm(op: OpCall) -> None:
    """Batch normalisation: every 1-d tensor is aligned with the channels."""
    source = op.args[0]
    shape = [1, source.shape[1], *[1] * (source.ndim - 2)]
    operands = [(op.flow.of(source), source.shape)]
    for tensor in op.tensors[1:]:
        operands.append(([f.view(shape) for f in op.flow.of(tensor)], shape))
    fields = op.flow.meet(operands, source.shape, op.why("normalises channels without units"))
    op.give(op.outputs[0], fields)


def _contract(op: OpCall, a: Tensor, axis_a: int, b: Tensor, axis_b: int) -> tuple[Fields, Fields, Tensor | None]:
    """Unite the contracted axes; the fields that are left of both, and the labels contracted."""
    mine = [f for f in op.flow.of(a) if varies(f, axis_a)]
    theirs = [f for f in op.flow.of(b) if varies(f, axis_b)]
    rest_a = [f for f in op.flow.of(a) if not varies(f, axis_a)]
    rest_b = [f for f in op.flow.of(b) if not varies(f, axis_b)]
    for side, other in ((mine, theirs), (theirs, mine)):
        tangled = [f for f in side if len(axes_of(f)) > 1]
        op.freeze(tangled if tangled else side if not other else [], "contracted with an axis without units")
        if tangled:
            op.freeze(other, "contracted with a part of a view")
            return rest_a, rest_b, None
    for first in mine:
        for second in theirs:
            op.flow.unite(first.reshape(-1), second.reshape(-1))
    if mine and theirs:
        reader = theirs[0].reshape(-1)
        if a in op.flow.active:
            for labels in mine:
                op.consume(a, labels, None if b in op.flow.active else reader)
        else:
            for labels in theirs:
                op.consume(b, labels, mine[0].reshape(-1))
    return rest_a, rest_b, (mine or theirs or [None])[0]


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
    for side in (rest_a, rest_b):
        op.freeze([f for f in side if len(axes_of(f)) > 1], "multiplies a part of a view")
    batch = op.flow.meet(
        [([f for f in side if varies(f, 0)], [t.shape[0], 1, 1]) for side, t in ((rest_a, a), (rest_b, b))],
        [a.shape[0], 1, 1],
        op.why("batches without units"),
    )
    left, right = [f for f in rest_a if varies(f, 1)], [f for f in rest_b if varies(f, 2)]
    _count(op, [(a.shape[0], batch), (a.shape[1], left), (a.shape[2], inner), (b.shape[2], right)])
    _finish_product(op, [*batch, *left, *right])


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
        outer = _grouped(op, source, weight, groups, transposed)
        per_group = weight.shape[1]
        length = source.shape[1] if transposed else out.shape[1]
        _count(op, [(length, outer if length == out.shape[1] else None)], per_group * kernel_size * places)
    operands = [([outer] if outer is not None else [], out.shape)]
    if bias is not None:
        shape = [1, bias.shape[0], *[1] * (out.ndim - 2)]
        operands.append(([f.view(shape) for f in op.flow.of(bias)], shape))
    op.give(out, op.flow.meet(operands, out.shape, op.why("adds a bias without units")))


def _column(fields: Fields, out: Tensor) -> Tensor | None:
    """The labels of an output axis of a weight, laid along the channels of the output."""
    return fields[0].reshape([1, -1, *[1] * (out.ndim - 2)]) if fields else None


def _grouped(op: OpCall, source: Tensor, weight: Tensor, groups: int, transposed: bool) -> Tensor | None:
    rows = [f for f in op.flow.of(weight) if axes_of(f) == (0,)]
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


def unknown(op: OpCall) -> None:
    """No rule: everything that goes in must stay as it is, and nothing comes out."""
    for tensor in op.tensors:
        op.freeze(op.flow.of(tensor), "this op has no rule")
    for out in op.outputs:
        if not any(out is tensor for tensor in op.tensors):
            op.give(out, [])


def _table(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_table(
        move,
        "view _unsafe_view reshape t transpose permute expand squeeze unsqueeze flip roll repeat alias "
        "detach unfold tile movedim swapaxes unflatten flatten rot90",
    ),
    **_table(convert, "clone _to_copy contiguous lift_fresh lift_fresh_copy to type_as"),
    **_table(split, "split split_with_sizes chunk tensor_split unsafe_split"),
    **_table(cut, "slice select narrow unbind"),
    **_table(
        like, "empty_like zeros_like ones_like full_like rand_like randn_like bernoulli bernoulli_ zero_ fill_"
    ),
    **_table(
        fresh,
        "empty zeros ones full arange rand randn randint scalar_tensor new_empty new_zeros new_ones new_full "
        "linspace eye",
    ),
    **_table(join, "cat concat"),
    **_table(stack, "stack"),
    **_table(reduce, "mean amax amin max min var std var_mean std_mean prod logsumexp"),
    **_table(total, "sum"),
    **_table(normalise, "_softmax _log_softmax softmax log_softmax"),
    **_table(
        spatial,
        "max_pool1d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices avg_pool1d "
        "avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d "
        "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d upsample_nearest2d "
        "upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d "
        "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d "
        "_upsample_bilinear2d_aa _upsample_bicubic2d_aa reflection_pad1d reflection_pad2d reflection_pad3d "
        "replication_pad1d replication_pad2d replication_pad3d",
    ),
    **_table(
        batch_norm,
        "native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit "
        "_native_batch_norm_legit_no_training _batch_norm_with_update _batch_norm_no_update",
    ),
    **_table(matmul, "mm addmm"),
    **_table(batched_matmul, "bmm baddbmm"),
    **_table(convolution, "convolution _convolution"),
    **_table(pad, "constant_pad_nd"),
    **_table(shuffle, "channel_shuffle native_channel_shuffle"),
    **_table(pointwise, "copy_ native_dropout masked_fill masked_fill_ _prelu_kernel lerp addcmul glu_jvp"),
}
"""ATen op name to rule; an op tagged pointwise by PyTorch needs no entry."""


def rule_for(func: Any, rules: Mapping[str, Rule]) -> Rule:
    """The rule of an ATen op: by name, by PyTorch's own pointwise tag, or :func:`unknown`."""
    name = func.overloadpacket.__name__
    if name in rules and (name, func._overloadname) != ("view", "dtype"):
        return rules[name]
    return pointwise if _is_pointwise(func, name) else unknown


def _is_pointwise(func: Any, name: str) -> bool:
    if torch.Tag.pointwise in func.tags:
        return True
    # Some in-place variants lack the tag that their functional twin has.
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    return any(torch.Tag.pointwise in getattr(packet, o).tags for o in (packet.overloads() if packet else ()))

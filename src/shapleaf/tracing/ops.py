"""What each family of ATen ops does to labels.

A rule sees one call and gives the outputs their fields. Ops that only move elements are applied
to the fields by PyTorch itself; ops that combine elements unite labels; an op without a rule
freezes everything it touches, by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .attention import attention
from .labels import Fields, axes_of, narrow, varies
from .norms import embedding, group_norm, layer_norm
from .opcall import OpCall, Rule
from .products import batched_matmul, convolution, matmul


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
    """Movement: PyTorch applies the op to the labels as it did to the values; a split axis is a grid."""
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
            else:
                op.freeze([piece], "a part of one unit only")
            if len(axes_of(result)) > len(axes_of(labels)):
                op.flow.grid(result)
    for out, fields in zip(outs, moved, strict=True):
        op.give(out, fields)


def convert(op: OpCall) -> None:
    """The same elements in another dtype, device or memory format."""
    op.give(op.outputs[0], list(op.flow.of(op.tensors[0])))


def rotate(op: OpCall) -> None:
    """What wraps around a labelled axis, or slides along it, counts its places: it cannot shrink."""
    moved = op.arg(2, "dims") if op.name == "roll" else op.arg(1, "dimension")
    axes = range(op.tensors[0].ndim) if moved in (None, []) else [moved] if isinstance(moved, int) else moved
    for labels in op.flow.of(op.tensors[0]):
        if any(varies(labels, axis % labels.ndim) for axis in axes):
            op.freeze([labels], "moves places along units")
    move(op)


def split(op: OpCall) -> None:
    """Equal parts of a labelled axis must stay equal; unequal ones cannot shrink, if the code fixes them."""
    source, dim = op.tensors[0], op.arg(2, "dim", 0) % op.tensors[0].ndim
    lengths = {out.shape[dim] for out in op.outputs}
    for labels in op.flow.of(source):
        if varies(labels, dim) and len(op.outputs) > 1:
            if len(axes_of(labels)) > 1:
                op.flow.grid(labels, pinned=(dim,))
            elif len(lengths) > 1:
                op.freeze([] if op.loose else [labels], "the sizes of the parts are fixed in the code")
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
    for labels in op.flow.of(source) if not whole else ():
        if varies(labels, dim) and len(axes_of(labels)) > 1:
            op.flow.grid(labels, pinned=(dim,))
        elif varies(labels, dim) and not op.loose:
            op.freeze([labels], "takes a part with fixed bounds")
    move(op)


def shuffle(op: OpCall) -> None:
    """``channel_shuffle(x, groups)``: every group must keep the same places."""
    source, groups = op.args[:2]
    for labels in op.flow.of(source):
        if varies(labels, 1):
            grid = labels.transpose(0, 1).reshape(groups, -1)
            op.flow.unite(grid, grid[:1])
    move(op)


def halve(op: OpCall) -> None:
    """``glu``: the first half times the sigmoid of the second, label by label."""
    source = op.args[0]
    dim = op.arg(1, "dim", -1) % source.ndim
    fields: Fields = []
    for labels in op.flow.of(source):
        value, gate = labels.chunk(2, dim) if varies(labels, dim) else (labels, labels)
        op.flow.unite(value, gate)
        if axes_of(narrow(value)):
            fields.append(narrow(value))
        else:
            op.freeze([value], "a part of one unit only")
    op.give(op.outputs[0], fields)


def pad(op: OpCall) -> None:
    """Constant padding: what is added along a labelled axis must stay; what is cropped holds it."""
    source, widths = op.args[0], list(op.args[1])
    fields: Fields = []
    for labels in op.flow.of(source):
        mine = [w if varies(labels, labels.ndim - 1 - i // 2) else 0 for i, w in enumerate(widths)]
        op.freeze([labels] if min(mine) < 0 else [], "takes a part with fixed bounds")
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
    rest = op.flow.meet(
        across, [*out.shape[:dim], 1, *out.shape[dim + 1 :]], op.why("joins unlabelled tensors")
    )
    op.give(out, [joined, *rest] if axes_of(joined) else rest)


def stack(op: OpCall) -> None:
    """A new axis: the operands agree along all the old ones."""
    tensors = list(op.args[0])
    dim = op.arg(1, "dim", 0) % op.outputs[0].ndim
    fields = op.flow.meet([(op.flow.of(t), t.shape) for t in tensors], tensors[0].shape, op.why("stacks"))
    op.give(op.outputs[0], [f.unsqueeze(dim) for f in fields])


STATISTICS = ("a statistic over units", "normalises over units")
"""How the reasons begin for which groups are not exact."""


def reduced_axes(args: Sequence[Any], kwargs: Mapping[str, Any], rank: int) -> tuple[int, ...]:
    """The axes over which a reduction goes."""
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    dims = range(rank) if dims in (None, []) else [dims] if isinstance(dims, int) else dims
    return tuple(sorted({dim % max(rank, 1) for dim in dims}))


def reduce(op: OpCall, exact: bool = False) -> None:
    """A sum or a statistic along labelled axes reads them; a statistic, or a sum of weights, is not exact."""
    source = op.tensors[0]
    axes = set(reduced_axes(op.args, op.kwargs, source.ndim))
    kept: Fields = []
    for labels in op.flow.of(source):
        mine = set(axes_of(labels))
        if mine <= axes:
            if op.active(source):
                op.consume(source, labels)
            if not (exact and op.active(source)):
                for out in op.outputs:
                    op.flow.statistics.setdefault(out, []).append((labels, op.why(STATISTICS[0]), axes))
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
            op.flow.blur(labels, op.why(STATISTICS[1]), [dim])
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
    """Batch normalisation: 1-d tensors are aligned with the channels; the other axes are averaged over."""
    source = op.args[0]
    for labels in op.flow.of(source):
        if set(axes_of(labels)) - {1}:
            op.flow.blur(labels, op.why(STATISTICS[0]), {*axes_of(labels)} - {1})
    operands = [(op.flow.of(source), source.shape), *op.per_channel(*op.tensors[1:])]
    fields = op.flow.meet(operands, source.shape, op.why("normalises channels without units"))
    op.give(op.outputs[0], fields)


def unknown(op: OpCall) -> None:
    """No rule: everything that goes in must stay as it is, and nothing comes out."""
    for tensor in op.tensors:
        op.freeze(op.flow.of(tensor), "this op has no rule")
    for out in op.outputs:
        op.give(out, [])


def _table(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_table(
        move,
        "view _unsafe_view reshape t transpose permute expand squeeze unsqueeze flip repeat alias detach",
    ),
    **_table(rotate, "roll unfold"),
    **_table(convert, "clone _to_copy lift_fresh lift_fresh_copy detach_"),
    **_table(split, "split split_with_sizes unsafe_split"),
    **_table(cut, "slice select unbind"),
    **_table(
        like,
        "empty_like zeros_like ones_like full_like rand_like randn_like bernoulli bernoulli_ zero_ fill_",
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
    **_table(normalise, "_softmax _safe_softmax _log_softmax softmax log_softmax"),
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
    **_table(layer_norm, "native_layer_norm _fused_rms_norm"),
    **_table(group_norm, "native_group_norm"),
    **_table(embedding, "embedding"),
    **_table(
        attention,
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
        "_scaled_dot_product_attention_math",
    ),
    **_table(matmul, "mm addmm"),
    **_table(batched_matmul, "bmm baddbmm"),
    **_table(convolution, "convolution _convolution"),
    **_table(pad, "constant_pad_nd"),
    **_table(shuffle, "channel_shuffle native_channel_shuffle"),
    **_table(halve, "glu"),
    **_table(
        pointwise,
        "copy_ native_dropout masked_fill masked_fill_ _prelu_kernel hardswish hardswish_ "
        "log_sigmoid_forward",
    ),
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


MOVEMENTS: tuple[Rule, ...] = (move, rotate, convert, split, cut, shuffle, pad)
"""Rules of ops whose result holds the elements of their first operand, or zeros."""

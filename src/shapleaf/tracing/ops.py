"""What each family of ATen ops does to labels.

A rule sees one call and gives the outputs their fields. Ops that only move elements are applied
to the fields by PyTorch itself; ops that combine elements unite labels; an op without a rule
freezes everything it touches, by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .._calls import function_of
from .attention import attention
from .images import patches, places, sample, spatial, unpatch
from .indexing import along, gather, index, index_put, index_write, scatter
from .labels import Fields, axes_of, narrow, varies
from .norms import batch_norm, embedding, embedding_bag, group_norm, layer_norm, weight_norm
from .opcall import OpCall, Rule
from .products import batched_matmul, bilinear, convolution, distance, matmul, outer, vector_product
from .statistics import normalise, reduce, total, vector_norm


def pointwise(op: OpCall) -> None:
    """Elementwise: labels at the same place become one. Also every in-place elementwise write."""
    for out in op.outputs:
        operands = [(op.flow.of(t), t.shape) for t in op.tensors]
        op.give(out, op.flow.meet(operands, out.shape, op.why("meets a tensor without units there")))
        twice = op.name == "mul" and op.args[0] is op.args[1]
        if twice or (op.name == "pow" and not isinstance(op.args[1], Tensor) and op.args[1] == 2):
            op.flow.squares[out] = True


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


def expand(op: OpCall) -> None:
    """Movement; an axis that a product repeats to the measure of its other operand is as long as that one.

    So one head of keys is there for however many heads of queries read it.
    """
    move(op)
    out, source = op.outputs[0], op.tensors[0]
    if function_of(op.key) in PRODUCTS:
        before = [1] * (out.ndim - source.ndim) + list(source.shape)
        fields = list(op.flow.of(out))
        for axis, size in enumerate(out.shape):
            if before[axis] == 1 < size:
                fields.append(op.flow.fresh(size).view([-1 if a == axis else 1 for a in range(out.ndim)]))
        op.give(out, fields)


def move_in_place(op: OpCall) -> None:
    """``unsqueeze_`` and its like: the labels move as in the op's twin."""
    out = op.outputs[0]
    moved = []
    for labels in op.flow.of(out):
        dropped = labels.ndim - out.ndim
        given = op.args[1] if len(op.args) > 1 else ()
        if op.name != "squeeze_":
            moved.append(getattr(torch.ops.aten, op.name[:-1])(labels, *op.args[1:]))
        elif dropped in (0, 1 if isinstance(given, int) else len(given)):
            moved.append(labels.squeeze(given) if dropped else labels)
        else:
            op.freeze([labels], "drops axes that it does not name")
    op.give(out, moved)


def restride(op: OpCall) -> None:
    """Global pooling lays its result out anew, element by element; otherwise anything may be read."""
    (convert if ":adaptive_avg_pool" in op.key else unknown)(op)


def as_complex(op: OpCall) -> None:
    """Pairs of numbers become complex ones: the axis of the pairs has no units."""
    source = op.tensors[0]
    pairs = source.ndim - 1
    op.give(
        op.outputs[0], [f.squeeze(pairs) for f in op.past(source, [pairs], "makes one number of two units")]
    )


def as_real(op: OpCall) -> None:
    """Complex numbers become pairs, along an axis without units."""
    op.give(op.outputs[0], [f.unsqueeze(-1) for f in op.flow.of(op.tensors[0])])


def convert(op: OpCall) -> None:
    """The same elements in another dtype, device or memory format."""
    op.give(op.outputs[0], list(op.flow.of(op.tensors[0])))


def rotate(op: OpCall) -> None:
    """What wraps around a labelled axis, or slides along it, counts its places: it cannot shrink."""
    moved = op.arg(1, "dimension") if op.name == "unfold" else op.arg(2, "dims")
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
        wide = {labels.ndim - 1 - i // 2 for i, width in enumerate(widths) if width}
        if set(axes_of(labels)) - wide:  # of a view, units that are whole along what is padded
            labels = op.flow.close(labels, *wide)  # noqa: PLW2901 - what is left of it
        mine = [w if varies(labels, labels.ndim - 1 - i // 2) else 0 for i, w in enumerate(widths)]
        op.freeze([labels] if min(mine) < 0 else [], "takes a part with fixed bounds")
        fields.append(torch.nn.functional.pad(labels, mine, value=0))
    op.give(op.outputs[0], fields)


def join(op: OpCall) -> None:
    """Concatenation: each operand brings its own labels; what carries none must stay."""
    tensors = [t for t in op.args[0] if t.numel()]
    dim = op.arg(1, "dim", 0) % tensors[0].ndim
    sides = [op.flow.of(tensor) for tensor in tensors]
    if any(side and not any(varies(f, dim) for f in side) for side in sides):
        # Beside one whose units are whole along the axis, as rotated heads are, so are those of a view.
        sides = [
            [op.flow.close(f, dim) if varies(f, dim) and len(axes_of(f)) > 1 else f for f in side]
            for side in sides
        ]
    along: list[Tensor] = []
    for tensor, side in zip(tensors, sides, strict=True):
        mine = [f for f in side if varies(f, dim)]
        if len(mine) > 1:
            op.freeze(mine, "joins an axis with several identities")
        base = mine[0] if len(mine) == 1 else torch.zeros([1] * tensor.ndim, dtype=torch.int64)
        shape = list(base.shape)
        shape[dim] = tensor.shape[dim]
        along.append(base.expand(shape))
    full = [max(sizes) for sizes in zip(*(a.shape for a in along), strict=True)]
    joined = narrow(torch.cat([a.expand([*full[:dim], a.shape[dim], *full[dim + 1 :]]) for a in along], dim))
    across = [
        ([f for f in side if not varies(f, dim)], [*t.shape[:dim], 1, *t.shape[dim + 1 :]])
        for t, side in zip(tensors, sides, strict=True)
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


def unknown(op: OpCall) -> None:
    """No rule: everything that goes in must stay as it is, and nothing comes out."""
    for tensor in op.tensors:
        op.freeze(op.flow.of(tensor), "this op has no rule")
    for out in op.outputs:
        op.give(out, [])


def _table(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


PRODUCTS = frozenset("matmul __matmul__ __rmatmul__ scaled_dot_product_attention einsum".split())
"""Functions that repeat one operand to the measure of another."""


RULES: dict[str, Rule] = {
    **_table(
        move,
        "view _unsafe_view reshape t transpose permute squeeze unsqueeze flip repeat alias detach",
    ),
    **_table(move_in_place, "unsqueeze_ squeeze_ transpose_ t_ swapaxes_ swapdims_"),
    **_table(restride, "as_strided_"),
    **_table(expand, "expand"),
    **_table(rotate, "roll unfold rot90"),
    **_table(as_complex, "view_as_complex"),
    **_table(as_real, "view_as_real"),
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
    **_table(
        reduce, "mean amax amin aminmax max min median nanmedian var std var_mean std_mean prod logsumexp"
    ),
    **_table(total, "sum nansum"),
    **_table(vector_norm, "linalg_vector_norm norm"),
    **_table(normalise, "_softmax _safe_softmax _log_softmax softmax log_softmax"),
    **_table(
        along,
        "sort msort argsort topk kthvalue mode argmax argmin any all count_nonzero cumsum cumsum_ cumprod "
        "cumprod_ cummax cummin logcumsumexp tril triu tril_ triu_ linalg_cross _fft_r2c _fft_c2c _fft_c2r",
    ),
    **_table(index, "index index_select"),
    **_table(index_put, "index_put index_put_ _index_put_impl_"),
    **_table(gather, "gather"),
    **_table(scatter, "scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_"),
    **_table(index_write, "index_add index_add_ index_copy index_copy_ index_fill index_fill_"),
    **_table(
        spatial,
        "max_pool1d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices avg_pool1d "
        "avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d "
        "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d upsample_nearest2d "
        "upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d "
        "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d "
        "_upsample_bilinear2d_aa _upsample_bicubic2d_aa reflection_pad1d reflection_pad2d reflection_pad3d "
        "replication_pad1d replication_pad2d replication_pad3d max_unpool2d max_unpool3d",
    ),
    **_table(patches, "im2col pixel_unshuffle"),
    **_table(unpatch, "col2im pixel_shuffle"),
    **_table(sample, "grid_sampler_2d grid_sampler_3d"),
    **_table(places, "affine_grid_generator"),
    **_table(
        batch_norm,
        "native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit "
        "_native_batch_norm_legit_no_training _batch_norm_with_update _batch_norm_no_update",
    ),
    **_table(layer_norm, "native_layer_norm _fused_rms_norm"),
    **_table(group_norm, "native_group_norm"),
    **_table(weight_norm, "_weight_norm_interface"),
    **_table(embedding, "embedding"),
    **_table(embedding_bag, "_embedding_bag _embedding_bag_forward_only"),
    **_table(
        attention,
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
        "_scaled_dot_product_attention_math",
    ),
    **_table(matmul, "mm addmm"),
    **_table(batched_matmul, "bmm baddbmm"),
    **_table(vector_product, "mv addmv dot vdot"),
    **_table(outer, "addr"),
    **_table(bilinear, "_trilinear"),
    **_table(distance, "_cdist_forward _euclidean_dist"),
    **_table(convolution, "convolution _convolution"),
    **_table(pad, "constant_pad_nd"),
    **_table(shuffle, "channel_shuffle native_channel_shuffle"),
    **_table(halve, "glu"),
    **_table(
        pointwise,
        "copy_ native_dropout masked_fill masked_fill_ _prelu_kernel hardswish hardswish_ "
        "log_sigmoid_forward rrelu_with_noise complex polar real imag _conj _neg_view resolve_conj",
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


MOVEMENTS: tuple[Rule, ...] = (move, expand, rotate, convert, split, cut, shuffle, pad)
"""Rules of ops whose result holds the elements of their first operand, or zeros."""

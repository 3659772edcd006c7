"""What a function does to gradients, by its name."""

from __future__ import annotations

from .._calls import CONVOLUTIONS
from .affine import PRODUCTS


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


LINEAR = _names(
    """
    view reshape flatten unflatten permute transpose t T mT H mH movedim moveaxis swapaxes swapdims
    squeeze unsqueeze expand expand_as broadcast_to broadcast_tensors repeat tile repeat_interleave
    chunk split split_with_sizes unbind tensor_split select narrow index_select gather take_along_dim
    __getitem__ cat concat concatenate stack hstack vstack roll flip rot90 pad unfold fold pixel_shuffle
    pixel_unshuffle channel_shuffle contiguous clone to float double half bfloat16 type type_as cpu cuda
    masked_fill masked_fill_ where tril triu diagonal view_as reshape_as alias dropout dropout1d
    dropout2d dropout3d feature_dropout alpha_dropout feature_alpha_dropout sum mean nanmean cumsum add
    __add__ __radd__ __iadd__ add_ sub __sub__ __rsub__ __isub__ sub_ subtract rsub neg __neg__ negative
    __pos__ positive avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d interpolate upsample index_add index_add_ index_copy
    index_copy_ scatter scatter_ scatter_add scatter_add_ index_put index_put_ __setitem__ detach
    masked_select masked_scatter masked_scatter_ atleast_2d atleast_3d ravel nan_to_num _to_copy
    lift_fresh copy_ squeeze_ unsqueeze_ transpose_ t_ diff sum_to_size slice index im2col col2im
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d
    upsample_bicubic2d upsample_trilinear3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    """
)
"""Functions that are linear, or affine, in what they read: a gradient times what is read keeps its sum."""

PIECEWISE = _names(
    """
    relu relu_ leaky_relu leaky_relu_ prelu rrelu abs __abs__ max min amax amin maximum minimum topk
    sort max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    max_pool1d_with_indices max_pool2d_with_indices adaptive_max_pool2d_with_indices median msort std
    norm linalg_norm linalg_vector_norm
    """
)
"""Functions that are linear along the ray from the origin through what they read, piece by piece."""

SCALAR = _names(
    """
    gelu silu swish mish elu selu celu softplus sigmoid tanh hardswish hardsigmoid hardtanh relu6
    logsigmoid softsign tanhshrink softshrink hardshrink erf clamp clip clamp_min clamp_max square
    threshold _threshold atan arctan sin cos exp expm1 log1p
    """
)
"""Functions of every number by itself."""

WEIGHTED = CONVOLUTIONS | {"linear"}
"""Functions of layers that are given weights and a bias."""

_FACTORS = _names("mul multiply __mul__ __rmul__")
_QUOTIENTS = _names("div divide true_divide __truediv__ __rtruediv__ __rdiv__")
KINDS: dict[str, str] = {
    **dict.fromkeys(LINEAR, "plain"),
    **dict.fromkeys(PIECEWISE, "piecewise"),
    **dict.fromkeys(SCALAR, "scalar"),
    **dict.fromkeys(sorted(WEIGHTED), "layer"),
    **dict.fromkeys(PRODUCTS, "layer"),
    **dict.fromkeys(_FACTORS, "product"),
    **dict.fromkeys(_QUOTIENTS, "quotient"),
    **dict.fromkeys(("pow", "__pow__", "float_power"), "power"),
    **dict.fromkeys(("layer_norm", "rms_norm", "group_norm", "instance_norm", "normalize"), "norm"),
    **dict.fromkeys(("rsqrt", "sqrt", "reciprocal"), "root"),
    **dict.fromkeys(("var", "var_mean"), "variance"),
    "batch_norm": "batch_norm",
    "softmax": "softmax",
    "glu": "glu",
    "scaled_dot_product_attention": "attention",
}
"""The name of a function to the method of :class:`Backward` that runs it."""

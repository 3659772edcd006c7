"""Mean and variance of what a call returns, from the means and variances of what it reads.

Every rule treats the elements that it reads as independent and Gaussian. Rules are kept by the name of the
function; :func:`rule_of` finds one, :class:`NoRule` says why there is none. Formulas: Clark (1961) for the
larger of two, Frey and Hinton (1999) for the rectifier, Gauss-Hermite sums for other activations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from .gaussian import activation, clipped, larger, leaky_relu, relu

Pair = tuple[Any, Any]
Function = Callable[..., Any]
Variances = Callable[[Any], Tensor | None]
Rule = Callable[[Function, tuple[Any, ...], dict[str, Any], Variances], Pair]


class NoRule(Exception):  # noqa: N818 - becomes a CriterionError that names the call
    """Why the moments of a call are not known."""


def rule_of(name: str) -> Rule | None:
    """The rule for a function of this name, if there is one.

    >>> rule_of("linear") is not None, rule_of("softmax") is None
    (True, True)
    """
    return RULES.get(name)


def _name(func: Function) -> str:
    return str(func.__name__).partition(".")[0]


def argument(args: Sequence[Any], kwargs: dict[str, Any], place: int, name: str, default: Any = None) -> Any:
    """An argument given by its place or its name."""
    return args[place] if place < len(args) else kwargs.get(name, default)


def _only_first(args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances, name: str = "input") -> Pair:
    """The random tensor that is read first; nothing else may be random."""
    first = argument(args, kwargs, 0, name, kwargs.get("self"))
    rest = [leaf for leaf in (*args[1:], *kwargs.values()) if leaf is not first and var(leaf) is not None]
    variance = var(first)
    if rest or variance is None:
        raise NoRule("an argument other than the first one is random")
    return first, variance


def contraction(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, Any, Any, Any]:
    """Input, weight, bias and what else was given to ``linear`` or a convolution."""
    read, weight, bias = (argument(args, kwargs, i, n) for i, n in enumerate(("input", "weight", "bias")))
    rest = {name: value for name, value in kwargs.items() if name not in ("input", "weight", "bias")}
    return read, weight, bias, args[3:], rest


def _contracted(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    _, variance = _only_first(args, kwargs, var)
    _, weight, _, more, rest = contraction(args, kwargs)
    return func(*args, **kwargs), func(variance, weight.square(), None, *more, **rest)


def _multiplied(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    """``a @ b`` with one of both random."""
    sides = [argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "other", kwargs.get("mat2"))]
    variances = [var(side) for side in sides]
    if all(variance is not None for variance in variances):
        raise NoRule("both factors are random")
    squared = [s.square() if v is None else v for s, v in zip(sides, variances, strict=True)]
    return func(*args, **kwargs), func(*squared)


def _rectified(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    return relu(*_only_first(args, kwargs, var))


def _leaking(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    return leaky_relu(*_only_first(args, kwargs, var), argument(args, kwargs, 1, "negative_slope", 0.01))


def _parametric(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    mean, variance = _only_first(args, kwargs, var)
    slope = argument(args, kwargs, 1, "weight")
    return leaky_relu(mean, variance, slope.reshape(-1, *[1] * (mean.ndim - 2)))


def _clipped(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    low, high = (0, 6) if _name(func) == "relu6" else (-1, 1)
    low, high = argument(args, kwargs, 1, "min_val", low), argument(args, kwargs, 2, "max_val", high)
    return clipped(*_only_first(args, kwargs, var), low, high)


def _activated(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    mean, variance = _only_first(args, kwargs, var)
    kept = {name: value for name, value in kwargs.items() if name not in ("input", "self")}
    return activation(lambda x: func(x, *args[1:], **kept), mean, variance)


def _normalised(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    mean, variance = _only_first(args, kwargs, var)
    names = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    if not isinstance(func, FunctionType):  # torch.batch_norm, which the functional one calls
        names = ("weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
    given = {name: argument(args, kwargs, 1 + i, name) for i, name in enumerate(names)}
    if given["training"] or given["running_var"] is None:
        raise NoRule("it normalises by the batch's own statistics")
    scale = (given["running_var"] + (1e-5 if given["eps"] is None else given["eps"])).reciprocal()
    if given["weight"] is not None:
        scale = scale * given["weight"].square()
    return func(*args, **kwargs), variance * scale.to(variance).view(-1, *[1] * (mean.ndim - 2))


def _carried(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    """Functions that only move elements: what moves the means moves the variances."""
    first, variance = _only_first(args, kwargs, var)

    def moved(leaf: Any) -> Any:
        return variance if leaf is first else leaf

    return func(*args, **kwargs), func(*map(moved, args), **{name: moved(x) for name, x in kwargs.items()})


def _dropped(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    if argument(args, kwargs, 2, "training", True):
        raise NoRule("it drops elements at random, as in training")
    return _carried(func, args, kwargs, var)


def _padded(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    _, variance = _only_first(args, kwargs, var)
    width, mode = argument(args, kwargs, 1, "pad"), argument(args, kwargs, 2, "mode", "constant")
    if mode != "constant":
        return _carried(func, args, kwargs, var)
    return func(*args, **kwargs), F.pad(variance, width)


def _joined(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    def moved(leaf: Any) -> Any:
        known = var(leaf)
        return torch.zeros_like(leaf) if known is None and isinstance(leaf, Tensor) else known

    tensors = argument(args, kwargs, 0, "tensors")
    rest = {name: value for name, value in kwargs.items() if name != "tensors"}
    return func(*args, **kwargs), func([moved(tensor) for tensor in tensors], *args[1:], **rest)


def _summed(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    """``a + alpha * b`` and ``a - alpha * b``, of which either may be random; of both, as if independent."""
    name = _name(func).strip("_")
    left, right = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "other")
    alpha = kwargs.get("alpha", 1) * (-1 if "sub" in name else 1)
    out = func(*args, **kwargs)
    scales = (alpha, 1) if name == "rsub" else (1, alpha)
    if left is right:
        variance = var(left)
        assert variance is not None
        return out, variance * sum(scales) ** 2
    parts = zip((left, right), scales, strict=True)
    found = [known * scale**2 for side, scale in parts if (known := var(side)) is not None]
    return out, sum(found[1:], found[0]).expand(out.shape)


def _scaled(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    """``a * b``, of which either may be random; of both, as if independent."""
    left, right = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "other")
    if left is right:
        return _activated(torch.square, (left,), {}, var)
    out, first, second = func(*args, **kwargs), var(left), var(right)
    parts = []
    if first is not None:
        parts.append(first * right**2)
    if second is not None:
        parts.append(second * left**2)
    if first is not None and second is not None:
        parts.append(first * second)
    return out, sum(parts[1:], parts[0]).expand(out.shape)


def _divided(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    _, variance = _only_first(args, kwargs, var)
    if kwargs.get("rounding_mode"):
        raise NoRule("it rounds")
    out = func(*args, **kwargs)
    return out, (variance / argument(args, kwargs, 1, "other") ** 2).expand(out.shape)


def _negated(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    mean, variance = _only_first(args, kwargs, var)
    return -mean, variance


def _reduced(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    """Sums and means along axes, of elements taken as independent."""
    mean, _ = _only_first(args, kwargs, var)
    dims = argument(args, kwargs, 1, "dim", kwargs.get("axis"))
    axes = {d % mean.ndim for d in ((dims,) if isinstance(dims, int) else dims or range(mean.ndim))}
    if 0 in axes:
        raise NoRule("it mixes the examples of a batch")
    out, reduced = _carried(func, args, kwargs, var)
    return out, reduced / math.prod(mean.shape[d] for d in axes) if _name(func) == "mean" else reduced


def _averaged(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    kernel, _, padding = _window(args, kwargs, int(_name(func).removeprefix("avg_pool")[0]))[:3]
    partial = any(padding) and not argument(args, kwargs, 5, "count_include_pad", True)
    ragged = argument(args, kwargs, 4, "ceil_mode", False)
    if partial or ragged or argument(args, kwargs, 6, "divisor_override"):
        raise NoRule("its windows are not all of one size")
    out, variance = _carried(func, args, kwargs, var)
    return out, variance / math.prod(kernel)


def _shared_out(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    mean, _ = _only_first(args, kwargs, var)
    out, variance = _carried(func, args, kwargs, var)
    for axis in range(-int(_name(func)[-2]), 0):
        size, to = mean.shape[axis], out.shape[axis]
        window = [-(-(i + 1) * size // to) - i * size // to for i in range(to)]
        variance = variance / torch.tensor(window).to(variance).view(-1, *[1] * (-1 - axis))
    return out, variance


def _window(args: tuple[Any, ...], kwargs: dict[str, Any], axes: int) -> list[tuple[int, ...]]:
    """Kernel, stride, padding and dilation along every axis."""
    names = (("kernel_size", None), ("stride", None), ("padding", 0), ("dilation", 1))
    given = [argument(args, kwargs, 1 + place, *name) for place, name in enumerate(names)]
    given[1] = given[0] if given[1] is None or given[1] == [] else given[1]
    return [(x,) * axes if isinstance(x, int) else tuple(x) * (axes // len(tuple(x))) for x in given]


def _pooled(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    """The largest of each window, by folding :func:`larger` over its elements."""
    mean, variance = _only_first(args, kwargs, var)
    if argument(args, kwargs, 6, "return_indices", False):
        raise NoRule("it returns the places of the largest elements")
    axes = int(_name(func).removeprefix("max_pool")[0])
    rest = {name: value for name, value in kwargs.items() if name != "input"}
    with torch.no_grad():
        sizes = zip(mean.shape[-axes:], func(mean.detach(), *args[1:], **rest).shape[-axes:], strict=True)
    # Pad as far as the last window reaches; what is padded never wins.
    width: list[int] = []
    cuts: list[list[slice]] = []
    for kernel, stride, before, dilation, (size, to) in zip(*_window(args, kwargs, axes), sizes, strict=True):
        steps = [slice(o * dilation, o * dilation + (to - 1) * stride + 1, stride) for o in range(kernel)]
        width = [before, max(0, steps[-1].stop - before - size), *width]
        cuts.append(steps)
    inside = F.pad(torch.ones_like(mean[:1], dtype=torch.bool), width)
    mean, variance = F.pad(mean, width), F.pad(variance, width)
    places: list[Any] = [(..., *cut) for cut in itertools.product(*cuts)]
    valid, best = inside[places[0]], (mean[places[0]], variance[places[0]])
    for place in places[1:]:
        here, one = inside[place], (mean[place], variance[place])
        folded = zip(best, one, larger(best, one), strict=True)
        first, second = (torch.where(valid & here, b, torch.where(here, o, a)) for a, o, b in folded)
        best, valid = (first, second), valid | here
    return best


def _globally_pooled(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    mean, _ = _only_first(args, kwargs, var)
    axes = int(_name(func)[-2])
    wanted = argument(args, kwargs, 1, "output_size")
    sizes = (wanted,) * axes if isinstance(wanted, int) else tuple(wanted)
    if any(to is None or size % to for size, to in zip(mean.shape[-axes:], sizes, strict=True)):
        raise NoRule("its windows are not all of one size")
    kernel = tuple(size // to for size, to in zip(mean.shape[-axes:], sizes, strict=True))
    return _pooled((F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1], (mean, kernel), {}, var)


def _interpolated(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any], var: Variances) -> Pair:
    if argument(args, kwargs, 3, "mode", "nearest") not in ("nearest", "nearest-exact"):
        raise NoRule("it interpolates between elements")
    return _carried(func, args, kwargs, var)


def _table(rows: Iterable[tuple[Rule, str]]) -> dict[str, Rule]:
    return {name: rule for rule, names in rows for name in names.split()}


RULES: dict[str, Rule] = _table(
    (
        (_contracted, "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
        (_multiplied, "matmul mm bmm __matmul__ __rmatmul__"),
        (_normalised, "batch_norm"),
        (_rectified, "relu"),
        (_leaking, "leaky_relu"),
        (_parametric, "prelu"),
        (_clipped, "relu6 hardtanh"),
        (
            _activated,
            "gelu silu sigmoid tanh hardswish hardsigmoid softplus elu selu celu",
        ),
        (
            _activated,
            "mish logsigmoid softsign tanhshrink abs square exp",
        ),
        (_pooled, "max_pool1d max_pool2d max_pool3d"),
        (_globally_pooled, "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d"),
        (_averaged, "avg_pool1d avg_pool2d avg_pool3d"),
        (_shared_out, "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"),
        (_reduced, "mean sum"),
        (_summed, "add sub subtract rsub __add__ __radd__ __sub__ __rsub__"),
        (_scaled, "mul multiply __mul__ __rmul__"),
        (_divided, "div divide true_divide __truediv__"),
        (_negated, "neg negative __neg__"),
        (_joined, "cat concat concatenate stack"),
        (
            _dropped,
            "dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout",
        ),
        (_padded, "pad"),
        (_interpolated, "interpolate"),
        (_carried, "reshape flatten view permute transpose swapaxes movedim moveaxis t unsqueeze squeeze"),
        (_carried, "unflatten __getitem__ contiguous clone expand repeat narrow select chunk split unbind"),
        (_carried, "tensor_split pixel_shuffle pixel_unshuffle channel_shuffle roll flip to float double"),
        (_carried, "T mT identity type_as repeat_interleave ravel view_as reshape_as expand_as"),
    )
)
"""The rules by the name of the function, be it of torch, of its functional module or of tensors."""

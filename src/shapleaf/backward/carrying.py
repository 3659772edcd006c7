"""Values that carry a gradient of another kind than their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .._calls import Call, function_of


def carried(value: Tensor, carrier: Tensor) -> Tensor:
    """This value, with the gradient of that one.

    >>> x = torch.ones(2, requires_grad=True)
    >>> out = carried(torch.zeros(2), 3 * x)
    >>> out.tolist(), *torch.autograd.grad(out.sum(), x)
    ([0.0, 0.0], tensor([3., 3.]))
    """
    return _Carried.apply(value.detach(), carrier)  # type: ignore[no-any-return, no-untyped-call]


def scaled(value: Tensor, factor: Tensor | float) -> Tensor:
    """This value, with its gradient multiplied by a factor.

    >>> x = torch.ones(2, requires_grad=True)
    >>> torch.autograd.grad(scaled(x, 0.5).sum(), x)[0]
    tensor([0.5000, 0.5000])
    """
    return _Scaled.apply(value, factor)  # type: ignore[no-any-return, no-untyped-call]


class _Carried(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, carrier: Tensor) -> Tensor:
        return value.clone()  # a call behind may write into it

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: Any) -> Tensor:
        ctx.factor = factor
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def averaged(
    value: Tensor,
    run: Callable[..., Tensor],
    reference: Sequence[Tensor],
    actual: Sequence[Tensor],
    points: int,
) -> Tensor:
    """This value, with the gradient of ``run`` averaged along the line from reference to actual tensors.

    By Gauss-Legendre, exact for functions of degree ``2 * points`` along the line: then what the gradient
    says of the way from the reference is all that the value changes on it.

    >>> x, zero = torch.tensor([2.0], requires_grad=True), torch.zeros(1)
    >>> out = averaged(x.detach() ** 3, lambda x: x**3, [zero], [x], points=2)
    >>> round(torch.autograd.grad(out, x)[0].item(), 4)  # 8 on a way of 2
    4.0
    """
    given = (value.detach(), run, reference, points, *actual)
    return _Averaged.apply(*given)  # type: ignore[no-any-return, no-untyped-call]


class _Averaged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, run: Any, reference: Any, points: int, *actual: Tensor) -> Tensor:
        ctx.run, ctx.reference, ctx.points = run, reference, points
        ctx.save_for_backward(*actual)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        actual = ctx.saved_tensors
        nodes, weights = (array / 2 for array in np.polynomial.legendre.leggauss(ctx.points))
        totals = [torch.zeros_like(tensor) for tensor in actual]
        for node, weight in zip((nodes + 0.5).tolist(), weights.tolist(), strict=True):
            with torch.enable_grad():
                between = [
                    _between(start, end.detach(), node).requires_grad_()
                    for start, end in zip(ctx.reference, actual, strict=True)
                ]
                out = ctx.run(*between)
            slopes = torch.autograd.grad(out, between, gradients[0], allow_unused=True)
            for total, slope in zip(totals, slopes, strict=True):
                if slope is not None:
                    total.add_(slope, alpha=weight)
        return None, None, None, None, *totals


def _between(start: Tensor, end: Tensor, t: float) -> Tensor:
    return torch.where(start == end, end, torch.lerp(start, end, t))  # also where masks are infinite


OWN = (_Carried._backward_cls, _Scaled._backward_cls, _Averaged._backward_cls)
"""How autograd names the functions of this module."""


def sloped(
    function: Callable[[Tensor], Tensor], x: Tensor, slope: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """What a function returns, with ``slope(x, f(x))`` for its derivative.

    >>> x = torch.tensor([2.0], requires_grad=True)
    >>> out = sloped(torch.square, x, lambda x, y: y / x)
    >>> out.item(), torch.autograd.grad(out, x)[0].item()
    (4.0, 2.0)
    """
    with torch.no_grad():
        value = function(x)
        factor = slope(x, value)
    return carried(value, x * factor)


def standardised(call: Call) -> Tensor:
    """What a norm returns, with a gradient that takes the length it divides by for a constant.

    Layer, RMS, group and instance norms, and ``normalize``. By running statistics, which are constant as they
    are, an instance norm has its ordinary gradient.
    """
    name, value = function_of(call.key), call.func(*call.args, **call.kwargs)
    statistics, weights = "running_mean running_var", "weight bias"
    if call.func is not functional.instance_norm:  # of an exported program: in another order
        statistics, weights = weights, statistics
    names = {
        "layer_norm": "input normalized_shape weight bias eps",
        "rms_norm": "input normalized_shape weight eps",
        "group_norm": "input num_groups weight bias eps",
        "instance_norm": f"input {statistics} {weights} use_input_stats momentum eps",
        "normalize": "input p dim eps",
    }[name].split()
    given = {**dict(zip(names, call.args, strict=False)), **call.kwargs}
    if not given.get("use_input_stats", True):
        return value  # type: ignore[no-any-return]
    x: Tensor = given["input"]
    parts, axes = x, _norm_axes(name, x, given)
    if name == "group_norm":
        parts = x.unflatten(1, (given["num_groups"], -1))
    elif name == "instance_norm":
        parts = x.unsqueeze(2)
    if name == "normalize":
        length = x.norm(given.get("p", 2.0), axes, keepdim=True).clamp_min(given.get("eps", 1e-12))
        return carried(value, x / length.detach())
    centred = parts if name == "rms_norm" else parts - parts.mean(axes, keepdim=True)
    eps = given.get("eps", None if name == "rms_norm" else 1e-5)
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    length = (centred.detach().square().mean(axes, keepdim=True) + eps).sqrt()
    out = (centred / length).reshape(x.shape)
    weight = given.get("weight")
    if weight is not None:
        by_channel = name in ("group_norm", "instance_norm")
        out = out * (weight.reshape(-1, *[1] * (x.ndim - 2)) if by_channel else weight)
    return carried(value, out)


def _norm_axes(name: str, x: Tensor, given: dict[str, Any]) -> tuple[int, ...]:
    if name == "normalize":
        dim = given.get("dim", 1)
        return (dim,) if isinstance(dim, int) else tuple(dim)
    if name in ("layer_norm", "rms_norm"):
        return tuple(range(-len(given["normalized_shape"]), 0))
    return tuple(range(2, x.ndim + 1))


def stabilised(value: Tensor, eps: float) -> Tensor:
    """A denominator, pushed away from zero by ``eps``: to the positive side where it is zero.

    >>> stabilised(torch.tensor([0.0, -1.0]), 0.5)
    tensor([ 0.5000, -1.5000])
    """
    return value + torch.where(value < 0, -eps, eps).to(value)

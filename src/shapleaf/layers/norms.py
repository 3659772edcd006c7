"""Norms without a mean in plain functions: the length that they divide by is read apart from the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function


def normalize(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``torch.nn.functional.normalize`` computes from its arguments; one that writes is left to it."""
    given = {"p": 2.0, "dim": 1, "eps": 1e-12, "out": None, **_named("input p dim eps out", args), **kwargs}
    if given.pop("out") is not None:
        return NotImplemented
    return _normalize(measured=given["input"], **given)


def rms_norm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``torch.rms_norm`` computes from its arguments; a shape that does not fit it is left to refuse."""
    given = {"weight": None, "eps": None, **_named("input normalized_shape weight eps", args), **kwargs}
    x, shape = given["input"], given["normalized_shape"]
    if [*x.shape[-len(shape) :]] != [*shape]:
        return NotImplemented
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return _rms_norm(measured=wide * wide, **given)


def _named(names: str, args: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(names.split(), args, strict=False))


def _normalize(*, measured: Tensor, input: Tensor, p: float, dim: Any, eps: float) -> Tensor:  # noqa: A002
    """The input over the length of what is measured, which is the input as far as units are present."""
    if has_torch_function((measured,)):
        given = {"measured": measured, "input": input, "p": p, "dim": dim, "eps": eps}
        return handle_torch_function(_normalize, (measured,), **given)
    length = measured.norm(p, dim, keepdim=True)
    divisor: Tensor = length.clamp_min(eps).where(_measured(length, measured, input), 1)
    return input / divisor


def _rms_norm(
    *,
    measured: Tensor,
    input: Tensor,  # noqa: A002
    normalized_shape: Any,
    weight: Tensor | None,
    eps: float | None,
) -> Tensor:
    """The input over the root of the mean of what is measured, its squares as far as units are present."""
    if has_torch_function((measured,)):
        given = {"measured": measured, "input": input, "normalized_shape": normalized_shape}
        given |= {"weight": weight, "eps": eps}
        return handle_torch_function(_rms_norm, (measured,), **given)
    axes = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(measured.dtype).eps if eps is None else eps
    mean = measured.mean(axes, keepdim=True)
    out = input * (mean + eps).rsqrt().where(_measured(mean, measured, input), 1)
    return (out if weight is None else out * weight).to(input.dtype)


def _measured(length: Tensor, measured: Tensor, x: Tensor) -> Tensor:
    """Where there is a length: not of absent units alone, which divided by it would be huge up to a mask."""
    return (length > 0) | (measured != 0) | (x == 0)


_normalize.__name__, _rms_norm.__name__ = LENGTHS = ("normalize", "rms_norm")
"""The names of calls that read what they divide by apart: those of PyTorch's own."""

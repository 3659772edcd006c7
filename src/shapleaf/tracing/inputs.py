"""Example inputs as data: described when traced, imitated when surgery verifies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._rng import stream
from ..errors import TraceError


def plain(inputs: Any) -> Any:
    """The same inputs in dicts, tuples and lists, whatever mappings they came in."""
    if isinstance(inputs, Mapping):
        return {name: plain(value) for name, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return [*map(plain, inputs)] if isinstance(inputs, list) else tuple(map(plain, inputs))
    return inputs


def describe(inputs: Any) -> Any:
    """Shapes, dtypes and ranges of nested inputs, as plain JSON values."""
    if isinstance(inputs, Tensor):
        known = inputs.flatten()[:0] if inputs.is_meta or inputs.is_complex() else inputs[inputs.isfinite()]
        low, high = (known.min().item(), known.max().item()) if known.numel() else (0, 1)
        dtype = str(inputs.dtype).removeprefix("torch.")
        return {"shape": list(inputs.shape), "dtype": dtype, "low": low, "high": high}
    if isinstance(inputs, Mapping):
        return {"dict": {str(name): describe(value) for name, value in inputs.items()}}
    if isinstance(inputs, tuple | list):
        return {"list": [describe(value) for value in inputs]}
    if inputs is None or isinstance(inputs, bool | int | float | str):
        return {"value": inputs}
    raise TraceError(
        f"example inputs hold a {type(inputs).__name__}; give tensors, numbers, strings, "
        "and tuples, lists or dicts of them."
    )


def imitate(spec: Any, *, examples: int | None = None, device: Any = None, seed: int = 0) -> Any:
    """Random inputs as described; ``examples`` replaces a first length that all tensors share.

    Where the example was one number all over, a range of one to both sides of it is used instead.
    """
    lengths = {shape[0] for shape in _shapes(spec) if shape}
    shared = lengths.pop() if len(lengths) == 1 else None
    return _imitate(spec, shared if examples is None else examples, shared, device, (seed,))


def _shapes(spec: Any) -> list[list[int]]:
    if "shape" in spec:
        return [spec["shape"]]
    nested = spec.get("list") or list(spec.get("dict", {}).values())
    return [shape for part in nested for shape in _shapes(part)]


def _imitate(spec: Any, examples: int | None, shared: int | None, device: Any, path: tuple[Any, ...]) -> Any:
    if "shape" in spec:
        shape = list(spec["shape"])
        if shared is not None and shape:
            shape[0] = examples
        dtype = getattr(torch, spec["dtype"])
        unit = torch.from_numpy(stream(0, "inputs", *path).random(shape))
        low, high = spec["low"], spec["high"]
        if dtype.is_floating_point or dtype.is_complex:
            low, high = (low, high) if low < high else (low - 1, high + 1)
            values = low + unit * (high - low)
        else:
            values = (low + unit * (high - low + 1)).floor().clamp(low, high)
        return values.to(device=device, dtype=dtype)
    if "dict" in spec:
        return {n: _imitate(v, examples, shared, device, (*path, n)) for n, v in spec["dict"].items()}
    if "list" in spec:
        return tuple(_imitate(v, examples, shared, device, (*path, i)) for i, v in enumerate(spec["list"]))
    return spec["value"]

"""Which positions of which tensors stay, and taking them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .. import _context
from ..records import Plan

Cuts = dict[str, dict[int, Tensor]]
"""Tensor name to axis to the positions that stay, sorted."""


def cuts(plan: Plan) -> Cuts:
    """What a plan leaves of every tensor that it shortens."""
    shapes = {info.name: info.shape for info in plan.graph.tensors}
    stay: dict[tuple[str, int], Tensor] = {}
    for name in plan.pruned:
        removed = (~plan.mask(name)).nonzero()[:, 0]
        for piece in plan.graph[name].slices:
            axis = (piece.tensor, piece.dim)
            mask = stay.setdefault(axis, torch.ones(shapes[piece.tensor][piece.dim], dtype=torch.bool))
            mask.index_fill_(0, piece.index.index_select(0, removed).reshape(-1), False)
    found: Cuts = {}
    for (tensor, dim), mask in stay.items():
        found.setdefault(tensor, {})[dim] = mask.nonzero()[:, 0]
    return found


def cut(tensor: Tensor, axes: dict[int, Tensor]) -> Tensor:
    """The positions that stay, in a tensor of its own, in the memory format of the old one."""
    out = tensor.detach()
    for dim, positions in axes.items():
        out = out.index_select(dim, positions.to(tensor.device))
    for layout in (torch.channels_last, torch.channels_last_3d):
        if _is(tensor, layout) and not tensor.is_contiguous():
            out = out.contiguous(memory_format=layout)
    return out


def _is(tensor: Tensor, layout: torch.memory_format) -> bool:
    rank = 4 if layout is torch.channels_last else 5
    return tensor.ndim == rank and tensor.is_contiguous(memory_format=layout)


def slice_tensors(model: nn.Module, what: Cuts) -> None:
    """Shorten parameters and buffers, keeping the identity of each object, and its gradient."""
    named = dict(_context.named_tensors(model))
    for name, axes in what.items():
        tensor = named[name]
        gradient = tensor.grad
        _swap(tensor, cut(tensor, axes), None if gradient is None else cut(gradient, axes))


def _swap(tensor: Tensor, data: Tensor, gradient: Tensor | None) -> None:
    """Other contents for the same object."""
    torch.clear_autocast_cache()  # it knows parameters by their objects
    tensor.grad = None
    # Autograd may remember the old shape for as long as an old graph lives; it forgets with the dtype.
    tensor.data = data.new_empty(0, dtype=torch.float32 if data.dtype == torch.float64 else torch.float64)
    tensor.data = data
    tensor.grad = gradient


@contextmanager
def restored_on_failure(model: nn.Module) -> Iterator[None]:
    """Every tensor, gradient, bias, size and class of the model is put back if the block raises."""
    modules = [(m, type(m), dict(vars(m)), dict(m._parameters)) for m in model.modules()]
    # Surgery never writes into old storage, so keeping a reference to it is enough.
    before = [(t, t.data, t.grad) for t in [*model.parameters(), *model.buffers()]]
    try:
        yield
    except BaseException:
        for module, kind, own, parameters in modules:
            module.__class__ = kind
            for held, old in ((vars(module), own), (module._parameters, parameters)):
                held.clear()
                held.update(old)
        for tensor, data, gradient in before:
            _swap(tensor, data, gradient)
        raise

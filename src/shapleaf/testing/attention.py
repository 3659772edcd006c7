"""Where a model attends, and whether that becomes narrower, whatever its layers are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

from .. import _context
from .._calls import Calls
from ..records import Graph

Products = dict[str, dict[str, list[torch.Size]]]
"""Module to call to the shapes of the activations that are multiplied there."""


class _Products(Calls):
    """Notes the shapes that meet where activations are multiplied with activations and added up."""

    def __init__(self, model: nn.Module, inputs: Any, contractions: set[str]) -> None:
        super().__init__(model)
        self._contractions = contractions
        self._active: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.found: Products = {}
        for tensor in _context.tensors(inputs):
            self._active[tensor] = True

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with torch._C.DisableTorchFunction():
            active = [t for t in _context.tensors((args, kwargs)) if t in self._active]
        out = func(*args, **kwargs)
        module, _, name = key.partition(":")
        if key in self._contractions and len(active) > 1 and not name.startswith("conv"):
            self.found.setdefault(module, {})[key] = [tensor.shape for tensor in active]
        for tensor in _context.tensors(out) if active else ():
            self._active[tensor] = True
        return out


def products_in(model: nn.Module, inputs: Any, graph: Graph) -> Products:
    """The modules that multiply activations with activations: their calls, and the shapes that meet there.

    That is what attention of every kind does, and no layer with weights of its own.

    >>> from shapleaf import trace
    >>> class Attend(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.q, self.o = nn.Linear(4, 6), nn.Linear(4, 2)
    ...     def forward(self, x):
    ...         return self.o((self.q(x) @ self.q(x).mT).softmax(-1) @ x)
    >>> model, inputs = Attend(), torch.randn(1, 3, 4)
    >>> products_in(model, inputs, trace(model, inputs))[""][":matmul#0"]
    [torch.Size([1, 3, 6]), torch.Size([1, 6, 3])]
    """
    products = _Products(model, inputs, {op.call for op in graph.ops})
    with torch.no_grad(), _context.inference(model), products:
        _context.forward(model, inputs)
    return products.found


def full_width(whole: Products, left: Products) -> set[str]:
    """The modules in which some call meets the shapes that it met before.

    >>> full_width({"a": {"a:matmul#0": [torch.Size([1, 8])]}}, {"a": {"a:matmul#0": [torch.Size([1, 4])]}})
    set()
    """
    return {
        module
        for module, calls in whole.items()
        if any(left.get(module, {}).get(call) == shapes for call, shapes in calls.items())
    }


def why_held(graph: Graph, module: str) -> str:
    """What the graph says of a module's weights, first of those that produce units."""
    prefix = f"{module}." if module else ""
    inside = [axis for axis in graph.blocked if axis.tensor.startswith(prefix)]
    return min(inside, key=lambda axis: axis.dim).reason if inside else "no weights of its own are held"

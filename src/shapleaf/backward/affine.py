"""Layers with weights as functions of what they read, their weights and their bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _context
from .._calls import Call, function_of


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """A call that multiplies what it reads by weights, and adds a bias.

    Attributes:
        call: the call.
        input: what it reads.
        weight: what it multiplies by.
        bias: what it adds, or None.
        run: the function of these three.

    >>> call = Call(":linear#0", torch.nn.functional.linear, (torch.ones(1, 2), torch.ones(3, 2)), {})
    >>> affine(call).run(torch.ones(1, 2), torch.ones(3, 2), None)
    tensor([[2., 2., 2.]])
    """

    call: Call
    input: Tensor
    weight: Tensor
    bias: Tensor | None
    run: Callable[[Tensor, Tensor, Tensor | None], Tensor]

    def __call__(self) -> Tensor:
        """What the call itself returns."""
        return self.run(self.input, self.weight, self.bias)


def affine(call: Call) -> Affine | None:
    """A call as one of a layer with weights, None if it has none.

    The weights are what does not depend on the units.

    >>> affine(Call(":relu#0", torch.relu, (torch.ones(1),), {})) is None
    True
    """
    name = function_of(call.key)
    if name == "linear" or name.startswith("conv"):
        given = dict(zip(("input", "weight", "bias"), call.args, strict=False))
        rest, named = call.args[3:], dict(call.kwargs)
        given |= {key: named.pop(key) for key in ("input", "weight", "bias") if key in named}

        def run(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
            return call.func(x, w, b, *rest, **named)  # type: ignore[no-any-return]

        return Affine(call, given["input"], given["weight"], given.get("bias"), run)
    if name not in PRODUCTS:
        return None
    operands = _operands(call)
    if len(operands) != 2 or sum(operand.requires_grad for operand in operands) != 1:
        return None
    first, second = operands
    bias = _added(call)
    if first.requires_grad:
        return Affine(call, first, second, bias, lambda x, w, b: _multiplied(call, x, w, b))
    return Affine(call, second, first, bias, lambda x, w, b: _multiplied(call, w, x, b))


PRODUCTS = {"matmul", "__matmul__", "mm", "bmm", "mv", "addmm", "baddbmm", "einsum", "__rmatmul__"}


def _operands(call: Call) -> list[Tensor]:
    """The tensors that a product multiplies, in their order."""
    found = _context.tensors((call.args, call.kwargs))
    return found[1:] if function_of(call.key) in ("addmm", "baddbmm") else found


def _added(call: Call) -> Tensor | None:
    if function_of(call.key) not in ("addmm", "baddbmm"):
        return None
    bias: Tensor = call.args[0] if call.args else call.kwargs["input"]
    beta: float = call.kwargs.get("beta", 1)
    return bias if beta == 1 else bias * beta


def _multiplied(call: Call, first: Tensor, second: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product of a call, of other operands."""
    name = function_of(call.key)
    if name in ("addmm", "baddbmm"):
        out: Tensor = call.kwargs.get("alpha", 1) * (first @ second)
        return out if bias is None else out + bias
    if name == "einsum":
        return torch.einsum(call.args[0], first, second)
    return second @ first if name == "__rmatmul__" else first @ second

"""Backward: the model's own forward, call by call, with gradients of another kind."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .. import _context
from .._calls import Call, function_of, out_of_place
from ..errors import CriterionError
from ..masking import Gates, Reader, Replace
from ..watching import batch_norm
from .affine import Affine, affine
from .carrying import OWN
from .kinds import KINDS, LINEAR, PIECEWISE

_OPERATORS: dict[str, Callable[..., Any]] = {
    "__imul__": torch.mul,
    "__itruediv__": torch.div,
    "__idiv__": torch.div,
}


class Backward(Reader):
    """Runs a forward in which the gradient of every call behind the units is taken as its kind says.

    As it stands, every gradient is the ordinary one; subclasses override a kind. Parameters are given to
    calls without their gradient: so what requires one lies behind the units, and all else runs as it is.

    Args:
        model: the model.
        gates: where the units are read.
        replace: what becomes of what is read there, which is where gradients start.

    Raises:
        CriterionError: a call behind the units is of no known kind; the message names it.
    """

    method: str = "Backward"
    """What messages call it."""

    def __init__(self, model: nn.Module, gates: Gates, replace: Replace) -> None:
        super().__init__(model, gates, replace)
        self._own = {_storage(tensor) for _, tensor in _context.named_tensors(model)}

    def fixed(self, tensor: Tensor) -> bool:
        """Whether a tensor is the model's own, which no input changes."""
        return _storage(tensor) in self._own

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return super().call(key, partial(self._run, key, func), args, kwargs)

    def _run(self, key: str, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        name = function_of(key)
        if name == "__get__":
            if not (args and isinstance(args[0], Tensor) and args[0].requires_grad):
                return func(*args, **kwargs)
            name = getattr(getattr(func, "__self__", None), "__name__", name)  # .T, .shape
        else:
            args, kwargs = tree_map(_constant, (args, kwargs))
        if not any(tensor.requires_grad for tensor in _context.tensors((args, kwargs))):
            return func(*args, **kwargs)
        call = Call(f"{key.rpartition(':')[0]}:{name}#{key.rpartition('#')[2]}", func, args, kwargs)
        untouched = type(self).piecewise is Backward.piecewise
        if name in LINEAR or (untouched and name in PIECEWISE):  # in place where it says so
            return self.plain(call)
        return self._inside(call)

    def _inside(self, call: Call) -> Any:
        """A call that writes in place is one that does not, and a copy."""
        name, written = function_of(call.key), None
        fresh = (
            call._replace(key=name.replace("__i", "__"), func=_OPERATORS[name])
            if name in _OPERATORS
            else out_of_place(call)
        )
        if fresh is not None:
            written, name = call.args[0] if call.args else call.kwargs["input"], fresh.key
            before = written.clone()
            args, kwargs = tree_map(lambda leaf: before if leaf is written else leaf, fresh[2:])
            module, number = call.key.rpartition(":")[0], call.key.rpartition("#")[2]
            call = Call(f"{module}:{name}#{number}", fresh.func, args, kwargs)
        kind = KINDS.get(name)
        out = self.unknown(call) if kind is None else getattr(self, kind)(call)
        return out if written is None else written.copy_(out)

    # The kinds: each runs one call, of which at least one tensor depends on the units.

    def plain(self, call: Call) -> Any:
        """A linear function: its ordinary gradient."""
        return call.func(*call.args, **call.kwargs)

    def piecewise(self, call: Call) -> Any:
        """A function that is linear piece by piece, along the ray from the origin."""
        return self.plain(call)

    def unknown(self, call: Call) -> Any:
        """Any other function: only if no gradient goes through it, as through a question about shapes."""
        out = call.func(*call.args, **call.kwargs)
        if any(tensor.requires_grad for tensor in _context.tensors(out)):
            raise self.refusal(call, f"there is no rule for {function_of(call.key)!r}")
        return out

    def layer(self, call: Call) -> Any:
        """A layer with weights, or a product of two activations, which is told apart here."""
        found = affine(call)
        if found is None:
            return self.contraction(call)
        if any(tensor is not None and tensor.requires_grad for tensor in (found.weight, found.bias)):
            raise self.refusal(call, "its weights or its bias depend on the units")
        return self.weighted(found)

    def weighted(self, layer: Affine) -> Tensor:
        """A layer with weights."""
        return layer()

    def contraction(self, call: Call) -> Any:
        """A matrix product of two activations."""
        return self.plain(call)

    def scalar(self, call: Call) -> Any:
        """A function of every number by itself."""
        return self.plain(call)

    def power(self, call: Call) -> Any:
        """A power of every number; the exponent does not depend on the units."""
        if not isinstance(call.args[0], Tensor) or not call.args[0].requires_grad:
            raise self.refusal(call, "the exponent depends on the units")
        return self.scalar(call)

    def product(self, call: Call) -> Any:
        """A product, number by number."""
        return self.plain(call)

    def quotient(self, call: Call) -> Any:
        """A quotient, number by number."""
        return self.plain(call)

    def batch_norm(self, call: Call) -> Any:
        """A BatchNorm, by its running statistics."""
        given = batch_norm(*call[1:])
        if given["running_mean"] is None or given["training"]:
            raise self.refusal(call, "it normalises by the statistics of the batch")
        return self.plain(call)

    def norm(self, call: Call) -> Any:
        """A normalisation by statistics of its own."""
        return self.plain(call)

    def root(self, call: Call) -> Any:
        """What a norm written by hand divides or multiplies by."""
        return self.plain(call)

    def variance(self, call: Call) -> Any:
        """A variance, or one with its mean."""
        return self.plain(call)

    def softmax(self, call: Call) -> Any:
        """A softmax inside the model."""
        return self.plain(call)

    def glu(self, call: Call) -> Any:
        """A gated linear unit in one call."""
        return self.plain(call)

    def attention(self, call: Call) -> Any:
        """Scaled dot-product attention in one call."""
        return self.plain(call)

    def refusal(self, call: Call, why: str) -> CriterionError:
        """The error for a call that there is no rule for: what, in which module, and on which line."""
        frames = traceback.extract_stack()
        mine = next((f for f in reversed(frames) if not f.filename.startswith(_context.LIBRARIES)), None)
        line = f", {_context.place(mine.filename, mine.lineno or 0)}" if mine else ""
        module = call.key.rpartition(":")[0] or "the model itself"
        return CriterionError(
            f"{self.method} cannot pass through call {call.key} (in {module}{line}): {why}. Use a criterion "
            "that needs no rule, such as Taylor(), LeaveOneOut() or Shapley()."
        )

    def check(self, output: Tensor) -> None:
        """Refuse an output behind functions that no call was seen of, such as a custom autograd function.

        Raises:
            CriterionError: there is one; the message names it.
        """
        seen: set[Any] = set()
        left = [output.grad_fn]
        while left:
            node = left.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            custom = isinstance(node, torch.autograd.function.BackwardCFunction)
            if custom and not isinstance(node, OWN):
                raise CriterionError(
                    f"{self.method} cannot pass through {node.name().removesuffix('Backward')}, an autograd "
                    "function of its own, as what it computes is not seen. Use a criterion that needs no "
                    "rule, such as Taylor(), LeaveOneOut() or Shapley()."
                )
            left += [following for following, _ in node.next_functions]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _constant(leaf: Any) -> Any:
    """A parameter, or an input that the user wants a gradient of, as a constant."""
    return leaf.detach() if isinstance(leaf, Tensor) and leaf.is_leaf and leaf.requires_grad else leaf

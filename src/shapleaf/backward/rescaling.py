"""Rescale: every gradient is the mean slope between a reference run and this one (DeepLIFT)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name
from torch.utils._pytree import tree_flatten, tree_unflatten

from .._calls import Call, function_of
from ..errors import CriterionError
from ..masking import Gates, Replace
from .affine import Affine
from .backward import Backward
from .carrying import averaged, carried
from .kinds import SCALAR

NEAR = 1e-5
"""Below this difference the slope in the middle stands for a quotient of differences."""
POINTS = 16
"""Of the mean along the line, where it has no closed form."""

_ELEMENTWISE = SCALAR | {
    *("relu", "leaky_relu", "prelu", "rrelu", "abs", "__abs__", "pow", "__pow__", "float_power"),
    *("sqrt", "rsqrt", "reciprocal"),
}
_POOLS = {f"{kind}max_pool{rank}d" for kind in ("", "adaptive_") for rank in "123"}

_ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")

Kept = dict[str, deque[list[Tensor]]]


class _Curved(Backward, ABC):
    """Every call that is not linear in what depends on the input goes to :meth:`curved`."""

    method = "DeepLIFT()"

    def __init__(self, model: nn.Module, gates: Gates, replace: Replace, kept: Kept) -> None:
        super().__init__(model, gates, replace)
        self.kept = kept

    @abstractmethod
    def curved(self, call: Call) -> Any: ...

    def piecewise(self, call: Call) -> Any:
        return self.curved(call)

    def contraction(self, call: Call) -> Any:
        return self.curved(call)

    def scalar(self, call: Call) -> Any:
        return self.curved(call)

    def product(self, call: Call) -> Any:
        return self.curved(call) if len(_floating(call)) > 1 else self.plain(call)

    def quotient(self, call: Call) -> Any:
        return self.curved(call)

    def norm(self, call: Call) -> Any:
        return self.curved(call)

    def root(self, call: Call) -> Any:
        return self.curved(call)

    def variance(self, call: Call) -> Any:
        return self.curved(call)

    def softmax(self, call: Call) -> Any:
        return self.curved(call)

    def glu(self, call: Call) -> Any:
        return self.curved(call)

    def attention(self, call: Call) -> Any:
        """As two products and a softmax, so that models which call these themselves have the same slopes."""
        with torch.no_grad():
            value = Backward.plain(self, call)
        given = {**dict(zip(_ATTENTION, call.args, strict=False)), **call.kwargs}
        query, key, weighed = (given[name] for name in _ATTENTION[:3])
        if given.get("dropout_p"):
            raise self.refusal(call, "it drops at random")
        if given.get("enable_gqa"):
            shared = query.shape[-3] // key.shape[-3]
            key, weighed = (part.repeat_interleave(shared, -3) for part in (key, weighed))
        scale = given.get("scale")
        query = query * (query.shape[-1] ** -0.5 if scale is None else scale)
        match = self._part(call, torch.matmul, query, key.transpose(-2, -1))
        mask = given.get("attn_mask")
        if given.get("is_causal"):
            mask = torch.ones(match.shape[-2:], dtype=torch.bool, device=match.device).tril()
        if mask is not None:
            match = match.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else match + mask
        weights = self._part(call, torch.softmax, match, -1)
        return carried(value, self._part(call, torch.matmul, weights, weighed))

    def _part(self, call: Call, func: Callable[..., Any], *args: Any) -> Any:
        module, number = call.key.rpartition(":")[0], call.key.rpartition("#")[2]
        return self.curved(Call(f"{module}:{func.__name__}#attention{number}", func, args, {}))


class Remembered(_Curved):
    """A run that remembers what calls behind the units read: the reference of :class:`Rescaled`.

    Attributes:
        kept: name of a call to the tensors that it read, each time.
    """

    def __init__(self, model: nn.Module, gates: Gates, replace: Replace) -> None:
        super().__init__(model, gates, replace, defaultdict(deque))

    def curved(self, call: Call) -> Any:
        """Any call but a linear one."""
        self._keep(call, (tensor.detach().clone() for tensor in _floating(call)))
        return Backward.plain(self, call)

    def weighted(self, layer: Affine) -> Tensor:
        """A layer with weights: they too may depend on the input."""
        if not self.fixed(layer.weight):
            self._keep(layer.call, (tensor.detach().clone() for tensor in (layer.input, layer.weight)))
        return layer()

    def plain(self, call: Call) -> Any:
        """A linear call: which elements it takes may depend on the input."""
        chosen = _choices(call)
        if chosen:
            self._keep(call, (tensor.clone() for tensor in chosen))
        return super().plain(call)

    def _keep(self, call: Call, tensors: Iterable[Tensor]) -> None:
        self.kept[call.key].append([*tensors])


class Rescaled(_Curved):
    """A run whose gradients are mean slopes from a reference run: the multipliers of DeepLIFT's Rescale rule.

    For a function of every number, ``(f(u) - f(u0)) / (u - u0)``, or its slope in the middle where the two
    are closer than ``1e-5`` (Shrikumar et al. 2017, section 3.5; Ancona et al. 2018, table 1). This is its
    gradient averaged along the line from u0 to u, which is what is taken of any other function: of a
    product, softmax or norm, in closed form or by 16 points; attention is two products and a softmax. A
    max-pool gives to the winner of the run in which it returns more (as SHAP's does), which is complete.
    Linear functions have their own gradient. So the gradient times the difference of what was read adds up
    to that of what is returned.

    Args:
        model: the model.
        gates: where the units are read.
        replace: what becomes of what is read there.
        kept: what calls read in the reference run, by :class:`Remembered`; it is used up.

    Raises:
        CriterionError: a call has no rule, or the reference run took another way.
    """

    def curved(self, call: Call) -> Any:
        """Any call but a linear one, by its rule."""
        name, actual = function_of(call.key), _floating(call)
        start = self._reference(call, actual)
        if name in _POOLS and not call.kwargs.get("return_indices"):
            return _pooled(call, start[0], actual[0])
        with torch.no_grad():
            value = Backward.plain(self, call)
        if not isinstance(value, Tensor) or name in _UNRULED:
            raise self.refusal(call, f"there is no rule for {name!r}")
        run = _function(call)
        alone = len(actual) == 1 and name in _BY_ITSELF
        if actual[0].requires_grad and (alone or name in _ELEMENTWISE):
            return carried(
                value, actual[0] * _slope(lambda x: run(x, *actual[1:]), start[0], actual[0], value)
            )
        points = 1 if name in _BILINEAR and len(actual) == 2 else POINTS
        return averaged(value, run, start, actual, points)

    def weighted(self, layer: Affine) -> Tensor:
        """A layer with weights, which is a product if these depend on the input."""
        if self.fixed(layer.weight):
            return layer()
        actual = [layer.input, layer.weight]
        start = self._reference(layer.call, actual)
        with torch.no_grad():
            value = layer()
        return averaged(value, lambda x, w: layer.run(x, w, layer.bias), start, actual, 1)

    def plain(self, call: Call) -> Any:
        """A linear call that takes the elements that it took in the reference run."""
        chosen = _choices(call)
        if chosen and not all(map(torch.equal, chosen, self._reference(call, chosen))):
            raise self.refusal(call, "it takes other elements than in the reference run")
        return super().plain(call)

    def _reference(self, call: Call, found: list[Tensor]) -> list[Tensor]:
        """What the call read in the reference run, in the place of what was found."""
        known = self.kept.get(call.key)
        start = known.popleft() if known else []
        if [tensor.shape for tensor in start] != [tensor.shape for tensor in found]:
            raise self.refusal(call, "the reference run took another way")
        return start


_BY_ITSELF = {"div", "divide", "true_divide", "__truediv__", "__rtruediv__", "__rdiv__"}
_BILINEAR = {
    *("mul", "multiply", "__mul__", "__rmul__"),
    *("matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "einsum"),
}
_UNRULED = {"max", "min", "amax", "amin", "maximum", "minimum", "topk", "sort", "median", "msort"}


def _floating(call: Call) -> list[Tensor]:
    leaves, _ = tree_flatten((call.args, call.kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _choices(call: Call) -> list[Tensor]:
    """Tensors that say which elements a linear call takes."""
    leaves, _ = tree_flatten((call.args, call.kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and not leaf.is_floating_point()]


def _function(call: Call) -> Callable[..., Tensor]:
    """A call as a function of the floating-point tensors that it is given."""
    leaves, spec = tree_flatten((call.args, call.kwargs))
    leaves = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]

    def run(*tensors: Tensor) -> Tensor:
        given = [*leaves]
        for place, tensor in zip(places, tensors, strict=True):
            given[place] = tensor
        args, kwargs = tree_unflatten(given, spec)
        return call.func(*args, **kwargs)  # type: ignore[no-any-return]

    return run


def _slope(run: Callable[[Tensor], Tensor], start: Tensor, actual: Tensor, value: Tensor) -> Tensor:
    """(f(u) - f(u0)) / (u - u0), and the derivative in the middle where these are close."""
    with torch.no_grad():
        change = actual - start
        near = change.abs() <= NEAR
        slope = (value - run(start)) / torch.where(near, 1, change)
    if not bool(near.any()):
        return slope
    with torch.enable_grad():
        middle = ((actual + start) / 2).detach().requires_grad_()
        (derivative,) = torch.autograd.grad(run(middle).sum(), middle)
    return torch.where(near, derivative, slope)


def _pooled(call: Call, start: Tensor, actual: Tensor) -> Any:
    """A max-pool: what it changes by is due to the winner of the run in which it returns more."""
    name = function_of(call.key)
    kept = {key: value for key, value in call.kwargs.items() if key not in ("return_indices", "input")}
    pool, rank = getattr(F, f"{name}_with_indices"), int(name[-2])
    with torch.no_grad():
        value, winners = pool(actual, *call.args[1:], **kept)
        before, earlier = pool(start, *call.args[1:], **kept)
        index = torch.where(value >= before, winners, earlier).flatten(-rank)
        change = (actual - start).flatten(-rank).gather(-1, index)
        near = change.abs() <= NEAR
        share = torch.where(near, 1, (value - before).flatten(-rank) / torch.where(near, 1, change))
    carrier = actual.flatten(-rank).gather(-1, index) * share
    out = carried(value, carrier.view(value.shape))
    # An exported program is given both, and takes the first.
    both = isinstance(call.func, torch._ops.OpOverload) and len(call.func._schema.returns) > 1
    return (out, winners) if both else out


def finished(kept: Kept) -> None:
    """Refuse a reference run that had more to it.

    Raises:
        CriterionError: a call was made in the reference run only.
    """
    left = [key for key, queue in kept.items() if queue]
    if left:
        raise CriterionError(
            f"DeepLIFT(): the model called {left[0]} in the reference run only; use a criterion without a "
            "reference run, such as Taylor()."
        )

"""Backward: the model's own forward, call by call, with a backward of another kind.

Gradient times activation becomes an attribution once the slopes of some functions are replaced by others
(Ancona et al. 2018). The forward is the model's own, and so is what it returns: a call is recognised by what
its function does, and a subclass of :class:`Backward` says how its gradient is to be taken.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from . import _context
from ._calls import Call, function_of, out_of_place
from .errors import CriterionError
from .masking import Gates, Reader, Replace
from .watching import batch_norm


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
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: Any) -> Tensor:
        ctx.factor = factor
        return value.clone()  # a call behind may write into it

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """A call that multiplies what it reads by weights, and adds a bias.

    Attributes:
        call: the call.
        input: what it reads.
        weight: what it multiplies by.
        bias: what it adds, or None.
        run: the function of these three.

    >>> call = Call(":linear#0", nn.functional.linear, (torch.ones(1, 2), torch.ones(3, 2)), {})
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
    if name not in _PRODUCTS:
        return None
    operands = _operands(call)
    if len(operands) != 2 or sum(operand.requires_grad for operand in operands) != 1:
        return None
    first, second = operands
    bias = _added(call)
    if first.requires_grad:
        return Affine(call, first, second, bias, lambda x, w, b: _multiplied(call, x, w, b))
    return Affine(call, second, first, bias, lambda x, w, b: _multiplied(call, w, x, b))


_PRODUCTS = {"matmul", "__matmul__", "mm", "bmm", "mv", "addmm", "baddbmm", "einsum", "__rmatmul__"}


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
    adaptive_avg_pool3d interpolate upsample grid_sample lerp index_add index_add_ index_copy
    index_copy_ scatter scatter_ scatter_add scatter_add_ index_put index_put_ __setitem__ detach
    masked_select masked_scatter masked_scatter_ atleast_2d atleast_3d ravel nan_to_num _to_copy
    lift_fresh copy_ squeeze_ unsqueeze_ transpose_ t_
    """
)
"""Functions that are linear, or affine, in what they read: a gradient times what is read keeps its sum."""

PIECEWISE = _names(
    """
    relu relu_ leaky_relu leaky_relu_ prelu rrelu abs __abs__ max min amax amin maximum minimum topk
    sort max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    max_pool1d_with_indices max_pool2d_with_indices adaptive_max_pool2d_with_indices median msort
    """
)
"""Functions that are linear along the ray from the origin through what they read, piece by piece."""

SCALAR = _names(
    """
    gelu silu swish mish elu selu celu softplus sigmoid tanh hardswish hardsigmoid hardtanh relu6
    logsigmoid softsign tanhshrink softshrink hardshrink erf clamp clip clamp_min clamp_max square
    threshold atan arctan sin cos exp expm1 log1p
    """
)
"""Functions of every number by itself."""

_FACTORS = _names("mul multiply __mul__ __rmul__")
_QUOTIENTS = _names("div divide true_divide __truediv__ __rtruediv__ __rdiv__")
_OPERATORS: dict[str, Callable[..., Any]] = {
    "__imul__": torch.mul,
    "__itruediv__": torch.div,
    "__idiv__": torch.div,
}

KINDS: dict[str, str] = {
    **dict.fromkeys(LINEAR | PIECEWISE, "plain"),
    **dict.fromkeys(SCALAR, "scalar"),
    **dict.fromkeys(("linear", *(f"conv{t}{n}d" for t in ("", "_transpose") for n in "123")), "layer"),
    **dict.fromkeys(_PRODUCTS, "layer"),
    **dict.fromkeys(_FACTORS, "product"),
    **dict.fromkeys(_QUOTIENTS, "quotient"),
    **dict.fromkeys(("pow", "__pow__", "float_power"), "power"),
    **dict.fromkeys(("layer_norm", "rms_norm", "group_norm", "instance_norm", "normalize"), "norm"),
    **dict.fromkeys(("rsqrt", "sqrt", "reciprocal", "var", "std", "norm", "vector_norm"), "statistic"),
    **dict.fromkeys(("linalg_norm", "linalg_vector_norm"), "statistic"),
    "batch_norm": "batch_norm",
    "softmax": "softmax",
    "glu": "glu",
    "scaled_dot_product_attention": "attention",
}
"""The name of a function to the method of :class:`Backward` that runs it."""


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

    def __init__(self, model: nn.Module, gates: Gates, replace: Replace) -> None:
        super().__init__(model, gates, replace)
        self.method = type(self).__name__

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return super().call(key, partial(self._run, key, func), args, kwargs)

    def _run(self, key: str, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
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
        if name in LINEAR or name in PIECEWISE:
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
        """A linear or piecewise linear function: its ordinary gradient."""
        return call.func(*call.args, **call.kwargs)

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

    def statistic(self, call: Call) -> Any:
        """What a norm written by hand divides by."""
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
            if custom and not isinstance(node, _OWN):
                raise CriterionError(
                    f"{self.method} cannot pass through {node.name().removesuffix('Backward')}, an autograd "
                    "function of its own, as what it computes is not seen. Use a criterion that needs no "
                    "rule, such as Taylor(), LeaveOneOut() or Shapley()."
                )
            left += [following for following, _ in node.next_functions]


_OWN = (_Carried._backward_cls, _Scaled._backward_cls)


def _constant(leaf: Any) -> Any:
    """A parameter, or an input that the user wants a gradient of, as a constant."""
    return leaf.detach() if isinstance(leaf, Tensor) and leaf.is_leaf and leaf.requires_grad else leaf


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

    Layer, RMS, group and instance norms, and ``normalize``.
    """
    name, value = function_of(call.key), call.func(*call.args, **call.kwargs)
    names = {
        "layer_norm": "input normalized_shape weight bias eps",
        "rms_norm": "input normalized_shape weight eps",
        "group_norm": "input num_groups weight bias eps",
        "instance_norm": "input running_mean running_var weight bias use_input_stats momentum eps",
        "normalize": "input p dim eps",
    }[name].split()
    given = {**dict(zip(names, call.args, strict=False)), **call.kwargs}
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

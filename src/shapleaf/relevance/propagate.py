"""Relevance: the model's own forward, whose gradient times activation is layer-wise relevance."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .. import _context
from .._calls import Call, function_of
from ..backward import WEIGHTED, Affine, Backward, carried, scaled, sloped, standardised
from ..errors import CriterionError
from ..masking import Gates, Replace
from ..watching import batch_norm
from .composite import RULES, Attention
from .rules import Rule, ratio

GATES = {"softmax": 2, "sigmoid": 2, "hardsigmoid": 2, "tanh": 1, "erf": 1}
"""What switches rather than signals: of two factors the one with the higher number."""

SLOPE = 1e-9
"""Pushes the denominator of ``f(x) / x`` away from zero."""


class Relevance(Backward):
    """Runs a forward in which gradient times activation is relevance, at every activation at once.

    - Layers with weights: by the rule of their call. A BatchNorm that alone reads its channels is part of it.
    - Functions of a number, such as GELU and SiLU: ``x * [f(x) / x]``.
    - Norms: the length that they divide by is constant.
    - Products of two activations: half each, or all to the signal where the other factor is a gate, which is
      constant (Arras et al. 2017; Achtibat et al. 2024).
    - Attention: AttnLRP halves the gradient at either product, CP-LRP takes its weights for constants.
    - Everything linear or piecewise linear, residual sums and modules that run twice among them: as it is.

    Inputs are constants, as weights are; what layers and embeddings make of them are activations, whether
    units lie before them or not.

    Args:
        model: the model.
        gates: where units are read.
        replace: what becomes of what is read.
        rules: the rule of every layer's call.
        norms: calls behind which a BatchNorm is the only one to read.
        attention: ``"attnlrp"`` or ``"cp"``.
        outputs: if given, what every layer returns is put here, behind its BatchNorm, by the layer's call.

    Raises:
        CriterionError: a call has no rule.
    """

    method = "LRP()"

    def __init__(
        self,
        model: nn.Module,
        gates: Gates,
        replace: Replace,
        rules: Mapping[str, Rule],
        norms: Collection[str],
        attention: Attention,
        outputs: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__(model, gates, replace)
        self.rules, self.norms, self.outputs = rules, norms, outputs
        self.constant = attention == "cp"
        self._unnormed: dict[int, tuple[Tensor, Affine]] = {}
        self._levels: dict[int, tuple[Tensor, int]] = {}
        self._fixed: dict[int, Tensor] = {}

    def _run(self, key: str, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """What a layer returns is an activation, also where no unit lies before it."""
        out = super()._run(key, func, *args, **kwargs)
        if any(tensor.requires_grad for tensor in _context.tensors(out)):
            return out
        name = function_of(key)
        if all(map(self.fixed, _context.tensors((args, kwargs)))):
            self._fixed |= {id(tensor): tensor for tensor in _context.tensors(out)}
            begins = name in WEIGHTED  # such as a query that is learned; a product of weights is one of them
        else:
            begins = key in self.rules or name == "embedding"
        return scaled(out.requires_grad_(), 1.0) if begins else out

    def fixed(self, tensor: Tensor) -> bool:
        """Whether no input changes it: it is the model's own, or made of such tensors alone."""
        return id(tensor) in self._fixed or super().fixed(tensor)

    def weighted(self, layer: Affine) -> Tensor:
        z = layer()
        if layer.call.key in self.norms and function_of(layer.call.key) in WEIGHTED:
            self._unnormed[id(z)] = (z, layer)
            return z
        return self._ruled(layer, z)

    def batch_norm(self, call: Call) -> Any:
        out = super().batch_norm(call)
        given = batch_norm(*call[1:])
        read, layer = self._unnormed.pop(id(given["input"]), (None, None))
        return out if layer is None or read is not given["input"] else self._ruled(_fused(layer, given), out)

    def _ruled(self, layer: Affine, z: Tensor) -> Tensor:
        key = layer.call.key
        if key not in self.rules:
            raise self.refusal(layer.call, "the graph knows no layer there; trace the model again")
        out = self._applied(self.rules[key], layer, z)
        if self.outputs is None:
            return out
        self.outputs[key] = out
        return out.clone()  # a call behind may write into it

    def _applied(self, rule: Rule, layer: Affine, z: Tensor) -> Tensor:
        """What a rule, which may be the user's, returns; the forward is not changed by it."""
        try:
            out = rule.apply(layer, z)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise CriterionError(f"{rule!r} failed in layer {layer.call.key}: {why}") from error
        given, found = _context.described(z), _context.described(out)
        if found != given or not (type(rule) in RULES or _alike(out, z)):  # ours need no second look
            other = "other values" if found == given else found
            raise CriterionError(
                f"{rule!r} changed what layer {layer.call.key} returns: {other} in the place of {given}. "
                "A rule returns z, the values that it is given, with another gradient."
            )
        return out

    def plain(self, call: Call) -> Any:
        out = super().plain(call)
        return self._marked(call, out)

    def scalar(self, call: Call) -> Any:
        x = self._alone(call)

        def function(value: Tensor) -> Tensor:
            return call.func(*_with(call, {id(x): value})[0], **call.kwargs)  # type: ignore[no-any-return]

        out = sloped(function, x, _slope)
        return self._mark(out, GATES.get(function_of(call.key), 0))

    def power(self, call: Call) -> Any:
        out = super().power(call)
        return self._mark(out, 2 if _negative(call) else 0)

    def root(self, call: Call) -> Any:
        return self._mark(self.scalar(call), 2)

    def variance(self, call: Call) -> Any:
        out = self.plain(call)
        if isinstance(out, Tensor):
            return scaled(out, 0.5)  # of second degree
        return type(out)((scaled(out[0], 0.5), out[1]))

    def norm(self, call: Call) -> Any:
        return standardised(call)

    def product(self, call: Call) -> Any:
        factors = [leaf for leaf in _context.tensors((call.args, call.kwargs)) if leaf.requires_grad]
        if len(factors) == 1:
            return self.plain(call)
        first, second = factors
        levels = [self._level(first), self._level(second)]
        if levels[0] == levels[1]:  # also of a number with itself
            return self._again(call, {id(leaf): scaled(leaf, 0.5) for leaf in factors})
        gate = first if levels[0] > levels[1] else second
        return self._again(call, {id(gate): gate.detach()})

    def quotient(self, call: Call) -> Any:
        turned = function_of(call.key) in ("__rtruediv__", "__rdiv__")
        above, below = reversed(call.args[:2]) if turned else _pair(call)
        if not (isinstance(below, Tensor) and below.requires_grad):
            return self.plain(call)
        if isinstance(above, Tensor) and above.requires_grad:
            return self._again(call, {id(below): below.detach()})
        return self._mark(self.scalar(call), 2)

    def contraction(self, call: Call) -> Any:
        factors = [leaf for leaf in _context.tensors((call.args, call.kwargs)) if leaf.requires_grad]
        if len(factors) != 2:
            raise self.refusal(call, "it multiplies other than two activations")
        weights = [leaf for leaf in factors if self._level(leaf) > 1]
        if self.constant and len(weights) == 1:
            return self._again(call, {id(weights[0]): weights[0].detach()})
        return self._again(call, {id(leaf): scaled(leaf, 0.5) for leaf in factors})

    def softmax(self, call: Call) -> Any:
        return self._mark(super().softmax(call), GATES["softmax"])

    def glu(self, call: Call) -> Any:
        x = self._alone(call)
        signal, gate = x.chunk(2, call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", -1))
        return carried(super().glu(call), signal * gate.detach().sigmoid())

    def attention(self, call: Call) -> Any:
        named = dict(zip(("query", "key", "value"), call.args, strict=False))
        query, key, value = ({**named, **call.kwargs}[name] for name in ("query", "key", "value"))
        if self.constant:
            parts = (query.detach(), key.detach(), value)
        else:
            each = 0.25 if query.requires_grad and key.requires_grad else 0.5
            parts = (scaled(query, each), scaled(key, each), scaled(value, 0.5))
        kwargs = {name: given for name, given in call.kwargs.items() if name not in ("query", "key", "value")}
        return call.func(*parts, *call.args[3:], **kwargs)

    def _alone(self, call: Call) -> Tensor:
        """The one tensor that a function of a number reads."""
        found = {id(t): t for t in _context.tensors((call.args, call.kwargs)) if t.requires_grad}
        if len(found) != 1:
            raise self.refusal(call, "more than one of its arguments depends on the units")
        return next(iter(found.values()))

    def _again(self, call: Call, instead: Mapping[int, Tensor]) -> Any:
        args, kwargs = _with(call, instead)
        return call.func(*args, **kwargs)

    def _mark(self, out: Tensor, level: int) -> Tensor:
        if level:
            self._levels[id(out)] = (out, level)
        return out

    def _level(self, tensor: Tensor) -> int:
        return self._levels.get(id(tensor), (None, 0))[1]

    def _marked(self, call: Call, out: Any) -> Any:
        """What is done to a gate alone leaves it one."""
        read = (
            [t for t in _context.tensors((call.args, call.kwargs)) if t.requires_grad] if self._levels else []
        )
        if len(read) == 1 and (level := self._level(read[0])):
            for tensor in _context.tensors(out):
                self._mark(tensor, level)
        return out


def _fused(layer: Affine, given: Mapping[str, Any]) -> Affine:
    """A layer and the BatchNorm behind it as one layer, in the layer's precision."""
    mean, variance, weight, shift = (given[k] for k in ("running_mean", "running_var", "weight", "bias"))
    scale = (variance + given["eps"]).rsqrt()
    scale = scale if weight is None else scale * weight
    bias = (0 if layer.bias is None else layer.bias) - mean
    bias = bias * scale if shift is None else bias * scale + shift
    rest = [1] * (layer.weight.ndim - 2)
    if not function_of(layer.call.key).startswith("conv_transpose"):
        weights = layer.weight * scale.view(-1, 1, *rest)
    else:
        each = layer.weight.shape[1]  # output channels of a group, of which there may be several
        apart = layer.weight.unflatten(0, (len(scale) // each, -1)) * scale.view(-1, 1, each, *rest)
        weights = apart.flatten(0, 1)
    own = layer.weight.dtype
    return Affine(layer.call, layer.input, weights.to(own), bias.to(own), layer.run)


def _alike(out: Tensor, z: Tensor) -> bool:
    """Whether two results are the same, but for rounding."""
    if torch.equal(out, z):
        return True
    near = max(1e-3, 4 * torch.finfo(z.dtype).eps)
    return torch.allclose(out, z, near, near * float(z.detach().abs().max()), equal_nan=True)


def _slope(x: Tensor, y: Tensor) -> Tensor:
    return ratio(y, x, SLOPE)


def _pair(call: Call) -> tuple[Any, Any]:
    given = {**dict(zip(("input", "other"), call.args, strict=False)), **call.kwargs}
    return given["input"], given["other"]


def _negative(call: Call) -> bool:
    exponent = call.args[1] if len(call.args) > 1 else call.kwargs.get("exponent", 1)
    return not isinstance(exponent, Tensor) and exponent < 0


def _with(call: Call, instead: Mapping[int, Tensor]) -> tuple[Any, Any]:
    """A call's arguments with other tensors in the place of some."""
    return tree_map(lambda leaf: instead.get(id(leaf), leaf), (call.args, call.kwargs))  # type: ignore[no-any-return]

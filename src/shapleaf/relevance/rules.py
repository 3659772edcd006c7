"""The rules of layer-wise relevance propagation: how a layer's relevance goes to what it reads.

Each is one expression: a carrier ``s``, whose gradient times what was read is the relevance (Montavon et al.
2019; Bach et al. 2015). ``z`` is what the layer returns, ``z+`` the sum of its positive contributions and
``z-`` of its negative ones, inputs of either sign included; brackets hold what counts as constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..backward import Affine, carried, scaled, stabilised
from ..errors import CriterionError


@runtime_checkable
class Rule(Protocol):
    """How the relevance of one layer with weights goes to what it reads.

    >>> isinstance(Epsilon(), Rule)
    True
    """

    def apply(self, layer: Affine, z: Tensor) -> Tensor:
        """What the layer returns, with the rule's gradient.

        Args:
            layer: the layer.
            z: what it returns, with its ordinary gradient.
        """
        ...


def check_rule(found: object, where: str) -> None:
    """Refuse what is no rule.

    Raises:
        CriterionError: it is something else; the message says where.

    >>> check_rule(Gamma, "this")
    Traceback (most recent call last):
    shapleaf.errors.CriterionError: this is a rule, such as Epsilon(); received a class: write Gamma().
    """
    if isinstance(found, Rule) and not isinstance(found, type):
        return
    fix = repr(found)
    if isinstance(found, type):
        fix = f"a class: write {found.__name__}()"
    elif isinstance(found, str):
        fix = f"{found!r}: write LRP.preset({found!r}) for rules by their name"
    raise CriterionError(f"{where} is a rule, such as Epsilon(); received {fix}.")


def ratio(z: Tensor, part: Tensor, eps: float) -> Tensor:
    """``z / part``, stabilised; nothing is carried where there is nothing to carry it.

    >>> ratio(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.0]), 0.0)
    tensor([0.5000, 0.0000])
    """
    z, part = z.detach(), part.detach()
    return torch.where(part == 0, 0, z / torch.where(part == 0, 1, stabilised(part, eps)))


def positive(layer: Affine) -> Tensor:
    """``z+ = op(x+, W+, b+) + op(x-, W-, 0)``: the sum of a layer's positive contributions.

    >>> from shapleaf._calls import Call
    >>> call = Call(":linear#0", torch.nn.functional.linear, (), {})
    >>> x, w = torch.tensor([[1.0, -1.0, 2.0]]), torch.tensor([[1.0, -3.0, -5.0]])
    >>> positive(Affine(call, x, w, None, torch.nn.functional.linear))
    tensor([[4.]])
    """
    return _signed(layer, {"min": 0}, {"max": 0})


def negative(layer: Affine) -> Tensor:
    """``z- = op(x+, W-, b-) + op(x-, W+, 0)``: the sum of a layer's negative contributions.

    >>> from shapleaf._calls import Call
    >>> call = Call(":linear#0", torch.nn.functional.linear, (), {})
    >>> x, w = torch.tensor([[1.0, -1.0, 2.0]]), torch.tensor([[1.0, -3.0, -5.0]])
    >>> negative(Affine(call, x, w, None, torch.nn.functional.linear))
    tensor([[-10.]])
    """
    return _signed(layer, {"max": 0}, {"min": 0})


def _signed(layer: Affine, of_positive: dict[str, int], of_negative: dict[str, int]) -> Tensor:
    """Positive inputs with weights of one sign and the bias of it, negative ones with those of the other."""
    x, w, b = layer.input, layer.weight, layer.bias
    bias = None if b is None else b.clamp(**of_positive)
    if not bool((x < 0).any()):
        return layer.run(x, w.clamp(**of_positive), bias)
    above = layer.run(x.clamp(min=0), w.clamp(**of_positive), bias)
    return above + layer.run(x.clamp(max=0), w.clamp(**of_negative), None)


def _not_negative(rule: object, **given: float) -> None:
    for name, value in given.items():
        if not value >= 0:
            raise CriterionError(
                f"{type(rule).__name__}({name}=...) must not be negative, received {value!r}."
            )


@dataclass(frozen=True)
class Epsilon:
    """Relevance in proportion to contributions, some of it absorbed where they cancel.

    ``s = z * [z / (z + eps sign(z))]`` (Bach et al. 2015, equation 58). With ``eps=0`` it is LRP-0, whose
    relevance is gradient times activation exactly.

    Args:
        eps: what the denominator is pushed away from zero by.

    >>> Epsilon(0.0) == Epsilon(eps=0)
    True
    """

    eps: float = 1e-6

    def __post_init__(self) -> None:
        _not_negative(self, eps=self.eps)

    def apply(self, layer: Affine, z: Tensor) -> Tensor:
        """The layer itself, less what epsilon absorbs."""
        if not self.eps:
            return z
        size = z.detach().abs()
        share = size / (size + self.eps)
        return scaled(z, torch.where(size == 0, 0, share))  # eps may be zero in z's precision


@dataclass(frozen=True)
class ZPlus:
    """Relevance to what contributes positively alone: the rule z+ (Montavon et al. 2017).

    ``s = z+ * [z / z+]``.

    Args:
        eps: as of :class:`Epsilon`.

    >>> ZPlus().eps
    1e-06
    """

    eps: float = 1e-6

    def __post_init__(self) -> None:
        _not_negative(self, eps=self.eps)

    def apply(self, layer: Affine, z: Tensor) -> Tensor:
        """The positive contributions, scaled to all of them."""
        plus = positive(layer)
        return carried(z, plus * ratio(z, plus, self.eps))


@dataclass(frozen=True)
class Gamma:
    """Positive contributions count ``1 + gamma`` times where the layer is positive, negative ones elsewhere.

    ``s = (z + gamma z+) * [z / (z + gamma z+)]`` where ``z >= 0``, the same with ``z-`` elsewhere (Montavon
    et al. 2019, generalised to inputs and outputs of either sign). ``gamma=0`` is :class:`Epsilon`; as gamma
    grows the rule becomes :class:`ZPlus` where ``z > 0``.

    Args:
        gamma: how much more.
        eps: as of :class:`Epsilon`.

    >>> Gamma(0.1)
    Gamma(gamma=0.1, eps=1e-06)
    """

    gamma: float = 0.25
    eps: float = 1e-6

    def __post_init__(self) -> None:
        _not_negative(self, gamma=self.gamma, eps=self.eps)

    def apply(self, layer: Affine, z: Tensor) -> Tensor:
        """All contributions, those of the output's sign enlarged."""
        if not self.gamma:
            return Epsilon(self.eps).apply(layer, z)
        plus = positive(layer)
        up, down = z + self.gamma * plus, z + self.gamma * (z - plus)
        s = torch.where(z < 0, down * ratio(z, down, self.eps), up * ratio(z, up, self.eps))
        return carried(z, s)


@dataclass(frozen=True)
class AlphaBeta:
    """Positive contributions get alpha times the relevance, negative ones minus beta times.

    ``s = alpha z+ * [z / z+] - beta z- * [z / z-]`` with ``alpha - beta = 1`` (Bach et al. 2015, equation
    60).
    ``AlphaBeta(1, 0)`` is :class:`ZPlus`.

    Args:
        alpha: the share of what contributes positively.
        beta: that of what contributes negatively.
        eps: as of :class:`Epsilon`.

    Raises:
        CriterionError: ``alpha - beta`` is not 1, so that relevance would grow or shrink.

    >>> AlphaBeta(2, 1) == AlphaBeta()
    True
    """

    alpha: float = 2.0
    beta: float = 1.0
    eps: float = 1e-6

    def __post_init__(self) -> None:
        _not_negative(self, alpha=self.alpha, beta=self.beta, eps=self.eps)
        if abs(self.alpha - self.beta - 1) > 1e-9:
            raise CriterionError(
                f"AlphaBeta keeps relevance if alpha - beta is 1, received {self.alpha:g} and {self.beta:g}."
            )

    def apply(self, layer: Affine, z: Tensor) -> Tensor:
        """The two parts, each scaled to the whole."""
        plus = positive(layer)
        s = plus * (self.alpha * ratio(z, plus, self.eps))
        if self.beta:
            minus = negative(layer)
            s = s - minus * (self.beta * ratio(z, minus, self.eps))
        return carried(z, s)

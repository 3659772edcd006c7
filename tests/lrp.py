"""Relevance of everything at once, and rules written out contribution by contribution."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import shapleaf as sl
from shapleaf import _context
from shapleaf.criteria.relevance import relevance
from shapleaf.masking import Gates
from shapleaf.relevance import Composite, Rule


class Found(NamedTuple):
    """What a model returned, the relevance of its inputs, and that of what every layer returns."""

    output: Tensor
    inputs: Tensor
    layers: dict[str, Tensor]


def passed(model: nn.Module, x: Tensor, rules: Rule | Composite, of: Any = 0, one: bool = False) -> Found:
    """Relevance for each example's logit of class ``of``, or that starts from one."""
    graph = sl.trace(model, x[:1])
    start = x.detach().clone().requires_grad_() * 1
    with relevance(rules, graph, model, Gates(()), lambda place, gate, read: read) as reader:
        reader.outputs = {}
        output = _context.logits(_context.forward(model, start))
    logit = output[torch.arange(len(output)), of]
    reader.check(logit)
    tensors = [start, *reader.outputs.values()]
    whole = (logit / logit.detach() if one else logit).sum()
    gradients = torch.autograd.grad(whole, tensors, allow_unused=True)  # of a gate's layers
    parts = [(t * (0 if g is None else g)).detach() for t, g in zip(tensors, gradients, strict=True)]
    return Found(output.detach(), parts[0], dict(zip(reader.outputs, parts[1:], strict=True)))


def written_out(rule: Rule, x: Tensor, weight: Tensor, bias: Tensor | None, relevance: Tensor) -> Tensor:
    """Relevance of the inputs of a linear layer, from all contributions ``x_i w_ji`` one by one."""
    c = torch.einsum("ei,ji->eji", x, weight)  # contributions
    b = torch.zeros(len(weight), dtype=x.dtype) if bias is None else bias
    z = c.sum(2) + b
    plus, minus = c.clamp(min=0), c.clamp(max=0)
    zp, zm = plus.sum(2) + b.clamp(min=0), minus.sum(2) + b.clamp(max=0)
    if isinstance(rule, sl.Epsilon):
        shares = c / _away(z, rule.eps)
    elif isinstance(rule, sl.ZPlus):
        shares = plus / _away(zp, rule.eps)
    elif isinstance(rule, sl.Gamma):
        own = torch.where((z < 0)[:, :, None], c + rule.gamma * minus, c + rule.gamma * plus)
        whole = torch.where(z < 0, z + rule.gamma * zm, z + rule.gamma * zp)
        shares = own / _away(whole, rule.eps)
    else:
        shares = rule.alpha * plus / _away(zp, rule.eps) - rule.beta * minus / _away(zm, rule.eps)
    return torch.einsum("eji,ej->ei", shares, relevance)


def _away(value: Tensor, eps: float) -> Tensor:
    return (value + torch.where(value < 0, -eps, eps))[:, :, None]

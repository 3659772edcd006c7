"""Dead parameters: what neither the outputs nor their gradients notice."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .. import _context
from ..data import batches


def dead(model: nn.Module, data: Any, names: Collection[str]) -> dict[str, Tensor]:
    """Which scalars of the parameters named are dead on the data: boolean, of each one's shape.

    A scalar is dead if the gradient of the outputs with respect to it is exactly zero for every example,
    and the outputs stay the same when all such scalars are zero. The second half matters: what feeds a
    saturated activation has no gradient either, but cannot be dropped. If the outputs change, tensor after
    tensor is tried alone. What eval mode does not use at all is not dead. (The sweep of Liebenwein et al.
    2021, which looks at gradients only.)

    Args:
        model: the model, with its weights masked already; it is left as it is.
        data: batches, labelled or not.
        names: the parameters that are looked at.

    Raises:
        CriterionError: the model cannot be differentiated.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> _ = model[2].weight.data.copy_(torch.tensor([[1.0, 0.0]]))  # nothing reads the second unit
    >>> _ = model[0].bias.data.fill_(9)
    >>> dead(model, torch.ones(4, 2), ["0.weight", "0.bias"])["0.weight"].tolist()
    [[False, False], [True, True]]
    """
    found = _without_gradient(model, data, names)
    if not found or _unchanged(model, data, found):
        return found
    accepted: dict[str, Tensor] = {}
    for name, scalars in found.items():
        more = {**accepted, name: scalars}
        accepted = more if _unchanged(model, data, more) else accepted
    return accepted


def _without_gradient(model: nn.Module, data: Any, names: Collection[str]) -> dict[str, Tensor]:
    copy = _context.copied(model)
    wanted = {n: p for n, p in copy.named_parameters() if n in names and p.is_floating_point()}
    for parameter in wanted.values():
        parameter.requires_grad_()
    alive: dict[str, Tensor] = {}
    for batch in batches(data, labelled=False, device=_context.device_of(copy)):
        with torch.enable_grad(), _context.inference(copy):
            outputs = _context.tensors(_context.forward(copy, batch.inputs))
            total = torch.stack(
                [_projected(out) for out in outputs if out.requires_grad] or [torch.zeros(())]
            )
        grads = _context.gradients(total, [*wanted.values()], instead="sparsify(sweep=False)")
        for name, gradient in zip(wanted, grads, strict=True):
            if gradient is not None:
                felt = gradient != 0
                alive[name] = alive[name] | felt if name in alive else felt
    return {name: ~felt for name, felt in alive.items() if not bool(felt.all())}


def _projected(out: Tensor) -> Tensor:
    """A weighted sum of an output; no symmetry, such as probabilities that add up to one, cancels it."""
    steps = torch.arange(out.numel(), device=out.device, dtype=torch.float64)
    return (out * (1.5 + steps.sin()).view(out.shape).to(out.dtype)).sum().double().cpu()


def _unchanged(model: nn.Module, data: Any, found: Mapping[str, Tensor]) -> bool:
    """Whether the outputs are the same without these scalars, to rounding."""
    copy = _context.copied(model)
    with torch.no_grad():
        for name, scalars in found.items():
            copy.get_parameter(name).masked_fill_(scalars, 0)
        for batch in batches(data, labelled=False, device=_context.device_of(copy)):
            outs = []
            for one in (model, copy):
                with _context.inference(one):
                    outs.append(_context.tensors(_context.forward(one, batch.inputs)))
            if not all(_close(a, b) for a, b in zip(*outs, strict=True)):
                return False
    return True


def _close(a: Tensor, b: Tensor) -> bool:
    if not a.is_floating_point() or not a.numel():
        return torch.equal(a, b)
    scale = 16 * torch.finfo(a.dtype).eps * float(a.detach().abs().max())
    return torch.allclose(a, b, rtol=0, atol=scale, equal_nan=True)

"""Dead parameters: what neither the outputs nor their gradients notice."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import _context
from ..data import batches, repeatable


def dead(model: nn.Module, data: Any, names: Collection[str]) -> dict[str, Tensor]:
    """Which scalars of the parameters named are dead on the data: boolean, of each one's shape.

    Looked at are norms, biases, and the weights of one output or of one input together. They are dead if the
    gradient of the outputs with respect to them is exactly zero for every example, and the outputs stay the
    same when all of them are zero. The second half matters: what feeds a saturated activation has no gradient
    either, but cannot be dropped. If the outputs change, tensors are tried by halves. What eval mode does not
    use at all is not dead. (Liebenwein et al. 2021 look at the gradients of single scalars only.)

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
    found = _without_gradient(model, repeatable(data), names)
    rows = {name: _whole(gone, 0) for name, gone in found.items()}
    columns = {name: _whole(gone | rows[name], 1) for name, gone in found.items() if gone.ndim > 1}
    known: dict[str, Tensor] = {}
    for kind in (rows, columns):
        left = [name for name, gone in kind.items() if bool(gone.any())]
        before = -1
        while left and len(left) != before:  # a norm may go first, and then what it reads
            before = len(left)
            known, left = _accepted(model, data, kind, left, known)
    return known


def _whole(gone: Tensor, axis: int) -> Tensor:
    """Those that are dead with all others of the same output channel (0), or that read the same (1)."""
    if gone.ndim < 2:
        return gone
    if axis == 1:
        return gone.all(0, keepdim=True).expand(gone.shape)
    return gone.flatten(1).all(1).view(-1, *[1] * (gone.ndim - 1)).expand(gone.shape)


def _accepted(
    model: nn.Module, data: Any, found: Mapping[str, Tensor], names: Sequence[str], known: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """What is known to be dead with those without which the outputs are the same; and the other names."""
    more = {**known, **{name: known.get(name, found[name]) | found[name] for name in names}}
    if _unchanged(model, data, more):
        return more, []
    if len(names) == 1:
        return known, [*names]
    half = len(names) // 2
    known, left = _accepted(model, data, found, names[:half], known)
    known, right = _accepted(model, data, found, names[half:], known)
    return known, left + right


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

"""Passes that serve all groups: one forward, and one backward if gradients are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from . import _context
from .backward import Backward
from .criteria import Needs
from .data import Batch
from .errors import CriterionError
from .masking import Fill, Gates, Masks, Reader, Replace
from .records import Group

Key = tuple[int, bytes]
"""What tells apart the tensors that are read; see :class:`~shapleaf.masking.Gate`."""


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """What a pass left.

    Attributes:
        masks: the masks, and all that was read through them.
        costs: of each example, if anything was differentiated.
        by_mask: group name to the gradient of each example's cost with respect to its mask.
        by_read: the same with respect to what was read.
        apart: groups from which no gradient leads to the costs.
    """

    masks: Masks
    costs: Tensor | None = None
    by_mask: Mapping[str, Tensor] = field(default_factory=dict)
    by_read: Mapping[Key, Tensor] = field(default_factory=dict)
    apart: tuple[str, ...] = ()


def ones(model: nn.Module, gates: Gates, examples: int) -> dict[str, Tensor]:
    """A mask of ones for every group, in the model's own precision."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    return gates.ones(examples, like)


def once(
    model: nn.Module,
    gates: Gates,
    batch: Batch,
    cost: _context.Loss,
    needs: Needs,
    fill: Fill | None = None,
    reader: Callable[[nn.Module, Gates, Replace], Reader] = Reader,
) -> Pass:
    """Run the model, and its backward if gradients are needed, on one batch; within ``inference(model)``.

    ``reader`` makes the mode that it runs under, such as one that edits gradients.

    Raises:
        CriterionError: the cost is not per example or not finite, or has no gradient; or gradients are off
            where units are read.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> gates, batch = Gates(sl.trace(model, torch.zeros(1, 3)).groups), Batch(torch.ones(5, 3))
    >>> found = once(model, gates, batch, lambda output, _: output[:, 0], Needs.MASK_GRADIENT)
    >>> found.by_mask["0"].shape
    torch.Size([5, 4])
    """
    differentiate = bool(needs & (Needs.GRADIENT | Needs.MASK_GRADIENT))
    leaves = ones(model, gates, batch.examples)
    for leaf in leaves.values():
        leaf.requires_grad_(differentiate)
    masks = Masks(leaves, fill)
    _context.reseed(0)  # a model that draws random numbers draws the same for every batch
    with torch.set_grad_enabled(differentiate):
        with reader(model, gates, masks) as running:
            output = _context.forward(model, batch.inputs)
        if not differentiate:
            return Pass(masks)
        costs = _context.per_example(cost, output, batch.target, batch.examples)
    edited = isinstance(running, Backward)  # its rules cut off a group that only gates others
    if isinstance(running, Backward):
        running.check(costs)
    _check_followed(gates, masks)
    read = masks.seen if Needs.GRADIENT in needs else {}
    wanted = [*leaves.values(), *read.values()]
    found = _gradients(costs, wanted, some=not edited)
    apart = [name for name, slope in zip(leaves, found, strict=False) if slope is None and not edited]
    slopes = _filled(found, wanted)
    by_read = dict(zip(read, slopes[len(leaves) :], strict=True))
    return Pass(masks, costs.detach(), dict(zip(leaves, slopes, strict=False)), by_read, tuple(apart))


def gradients(costs: Tensor, wanted: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of each example's own cost, zero where it does not depend on a tensor."""
    return _filled(_gradients(costs, wanted), wanted)


def _gradients(costs: Tensor, wanted: Sequence[Tensor], *, some: bool = True) -> list[Tensor | None]:
    """The same, None where it does not depend on a tensor."""
    instead = "a criterion without gradients, such as LeaveOneOut()"
    followed = [tensor for tensor in wanted if tensor.requires_grad]
    found = iter(_context.gradients(costs, followed, instead=instead, some=some))
    return [next(found) if tensor.requires_grad else None for tensor in wanted]


def _filled(found: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(a) if b is None else b for a, b in zip(like, found, strict=True)]


def _check_followed(gates: Gates, masks: Masks) -> None:
    """Refuse a group that no gradient can reach, wherever it is read."""
    for group in gates.groups:
        read = [masks.seen[key] for key in reads(group, gates, masks)]
        if read and not any(tensor.requires_grad for tensor in read):
            raise CriterionError(
                f"group {group.name}: gradients are off where its units are read, in "
                f"{', '.join(dict.fromkeys(site.call for site in group.sites))}: the model runs under "
                "torch.no_grad() there, or in a checkpoint with use_reentrant=True. Use a criterion without "
                "gradients, such as LeaveOneOut()."
            )


def reads(group: Group, gates: Gates, masks: Masks) -> dict[Key, Tensor]:
    """The masked tensors in which a group is read, each once, and which unit each element belongs to."""
    found: dict[Key, Tensor] = {}
    for site in group.sites:
        key = gates.at[site.call][site.arg].key
        if key in masks.seen:
            found.setdefault(key, site.index)
    return found


def check(model: nn.Module, gates: Gates, batch: Batch, cost: _context.Loss, found: Pass) -> None:
    """What a first pass found holds for any examples, and for all that depends on the units.

    What is read of the first example, and its cost, stay the same when all others are replaced by it; and
    groups from which no gradient leads to the costs do not change these when they are gone.

    Raises:
        CriterionError: they do not, or do.
    """
    costs = found.costs
    inputs, target = tree_map(_first_everywhere, (batch.inputs, batch.target))
    alike = Masks({name: mask.detach() for name, mask in found.masks.masks.items()})
    _context.reseed(0)
    with torch.no_grad():
        with Reader(model, gates, alike):
            output = _context.forward(model, inputs)
        if costs is not None:
            again = _context.per_example(cost, output, target, batch.examples)
            if not torch.allclose(again[:1], costs[:1], rtol=1e-3, atol=1e-5):
                raise _context.mixed("the loss of an example changes with the other examples")
    for key, read in found.masks.seen.items():
        mine = read.detach()[: len(read) // batch.examples]
        same = alike.seen[key][: len(mine)]
        if not torch.allclose(mine, same, rtol=0, atol=1e-3 * float(mine.abs().max())):
            raise _context.mixed("what is read of an example changes with the other examples")
    if costs is None:
        return
    for name in found.apart:
        gone = Masks({**alike.masks, name: torch.zeros_like(alike.masks[name])})
        _context.reseed(0)
        with torch.no_grad(), Reader(model, gates, gone):
            output = _context.forward(model, batch.inputs)
        again = _context.per_example(cost, output, batch.target, batch.examples)
        if not torch.allclose(again, costs, rtol=1e-3, atol=1e-5):
            raise CriterionError(
                f"group {name}: the loss depends on its units, but no gradient leads to them, as through "
                "detach(). Use a criterion without gradients, such as LeaveOneOut()."
            )


def _first_everywhere(leaf: Any) -> Any:
    return leaf[:1].expand_as(leaf).clone() if isinstance(leaf, Tensor) else leaf

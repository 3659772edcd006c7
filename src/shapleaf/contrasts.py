"""What of the rise of the cost between a baseline and an example each unit accounts for."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from . import _context
from ._calls import function_of
from .backward import averaged
from .backward.rescaling import Remembered, Rescaled, finished
from .criteria import Needs
from .data import Batch
from .errors import DataError
from .layers import LENGTHS
from .masking import Fill, Gate, Gates, Masks
from .passes import Key, Pass, gradients, once, ones, reads
from .records import Group, Site

POINTS = 32
"""Parts of the way of conductances, unless a criterion says so itself."""
READOUT = 32
"""Points of the mean gradient of the cost along the line between two outputs."""


def conductances(
    model: nn.Module, groups: Sequence[Group], batch: Batch, cost: _context.Loss, start: Any, points: int
) -> dict[str, Tensor]:
    """What passes through each unit as the input goes from a baseline to the example, by the midpoint rule.

    Slopes are those in the middle of every part of the way, which no kink at the baseline disturbs; what is
    read at the end of a part is halfway between those in the middle of it and of the next.

    Args:
        model: the model, in ``inference(model)``.
        groups: whose units.
        batch: the examples.
        cost: ``f(output, target)``, one value per example.
        start: the baseline, one example.
        points: parts of the way.

    Returns:
        Group name to shares, ``(examples, units)``, in units of the cost.

    Raises:
        DataError: inputs that are whole numbers differ from the baseline's.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    >>> groups, batch = sl.trace(model, torch.zeros(1, 3)).groups, Batch(torch.ones(5, 3))
    >>> conductances(model, groups, batch, lambda out, _: out[:, 0], torch.zeros(1, 3), 2)["0"].shape
    torch.Size([5, 4])
    """
    groups = [*map(_unmeasured, groups)]
    gates, base = Gates(groups), _repeated(start, batch)

    def at(t: float, needs: Needs = Needs.GRADIENT) -> Pass:
        inputs = tree_map(lambda a, b: _between(a, b, t), base, batch.inputs)
        return once(model, gates, Batch(inputs, batch.target, batch.first), cost, needs)

    found = {group.name: _none(group, batch) for group in groups}
    before, now = _seen(at(0, Needs.ACTIVATION)), at(0.5 / points)
    for part in range(points):
        last = part == points - 1
        following = at(1, Needs.ACTIVATION) if last else at((part + 1.5) / points)
        after = _seen(following) if last else _middle(now, following)
        _share(found, groups, gates, now.masks, now.by_read, before, after)
        before, now = after, following
    return found


def rescaled_from(
    model: nn.Module, groups: Sequence[Group], batch: Batch, cost: _context.Loss, start: Any
) -> dict[str, Tensor]:
    """The same by DeepLIFT's Rescale rule, from a baseline input: one backward for all groups.

    Args:
        model: the model, in ``inference(model)``.
        groups: whose units.
        batch: the examples.
        cost: ``f(output, target)``, one value per example.
        start: the baseline, one example.

    Raises:
        CriterionError: a call has no rule, or the baseline takes another way through the model.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> groups, batch = sl.trace(model, torch.zeros(1, 3)).groups, Batch(torch.ones(5, 3))
    >>> rescaled_from(model, groups, batch, lambda out, _: out[:, 0], torch.zeros(1, 3))["0"].shape
    torch.Size([5, 4])
    """
    groups = [*map(_unmeasured, groups)]
    gates = Gates(groups)
    before, now = (Masks(_leaves(model, gates, batch)) for _ in range(2))
    reference = Remembered(model, gates, before)
    first = _output(model, reference, _repeated(start, batch))
    reader = Rescaled(model, gates, now, reference.kept)
    costs = _costs(cost, first, _output(model, reader, batch.inputs), batch, reader)
    finished(reference.kept)
    by_read = dict(zip(now.seen, gradients(costs, [*now.seen.values()]), strict=True))
    found = {group.name: _none(group, batch) for group in groups}
    _share(found, groups, gates, now, by_read, before.seen, now.seen)
    return found


def rescaled(
    model: nn.Module, groups: Sequence[Group], batch: Batch, cost: _context.Loss, fill: Fill
) -> dict[str, Tensor]:
    """The same from absent units, group by group, all others as they are.

    Args:
        model: the model, in ``inference(model)``.
        groups: whose units.
        batch: the examples.
        cost: ``f(output, target)``, one value per example.
        fill: what absent units leave behind.

    Raises:
        CriterionError: a call has no rule, or the model takes another way without the units.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> groups, batch = sl.trace(model, torch.zeros(1, 3)).groups, Batch(torch.ones(5, 3))
    >>> rescaled(model, groups, batch, lambda out, _: out[:, 0], {})["0"].shape
    torch.Size([5, 4])
    """
    found: dict[str, Tensor] = {}
    depends, costs = False, torch.zeros(())
    for group in groups:
        gates = Gates((_unmeasured(group, fill),))
        absent = _Absent(_leaves(model, gates, batch), fill)
        reference = Remembered(model, gates, absent)
        first = _output(model, reference, batch.inputs)
        leaves = _leaves(model, gates, batch)
        reader = Rescaled(model, gates, _Present(leaves, fill, absent.reads), reference.kept)
        costs = _costs(cost, first, _output(model, reader, batch.inputs), batch, reader)
        finished(reference.kept)
        leaf = leaves[group.name]
        slope = None
        if costs.requires_grad:
            (slope,) = torch.autograd.grad(costs.sum(), [leaf], allow_unused=True)
        depends = depends or slope is not None
        found[group.name] = torch.zeros_like(leaf).detach() if slope is None else slope
    if not depends:
        gradients(costs.detach(), [])  # says what to do
    return found


def _unmeasured(group: Group, fill: Fill | None = None) -> Group:
    """Without the sites at which norms measure it: what comes of that is in what is read behind them.

    With absent units for a baseline they stay, but where nobody would be left to be measured: then what
    comes out is absent, whatever it is divided by.
    """

    def stays(site: Site) -> bool:
        left = fill is not None and ((site.call, site.arg) in fill or bool((site.index < 0).any()))
        return left or function_of(site.call) not in LENGTHS

    return replace(group, sites=tuple(filter(stays, group.sites)))


class _Absent:
    """Lays zeros on the units, and remembers what was read there."""

    def __init__(self, leaves: dict[str, Tensor], fill: Fill) -> None:
        self._masks = Masks({name: 0 * leaf for name, leaf in leaves.items()}, fill)
        self.reads: dict[tuple[str, int], deque[Tensor]] = defaultdict(deque)

    def __call__(self, place: tuple[str, int], gate: Gate, read: Tensor) -> Tensor:
        self.reads[place].append(read.detach().clone())  # the model may write into it
        return self._masks(place, gate, read)


class _Present:
    """Leaves the units as they are, with the mean slopes from where they are absent.

    What is read is ``mask * read + (1 - mask) * fill``, whose slopes are averaged as those of any product.
    """

    def __init__(self, leaves: dict[str, Tensor], fill: Fill, absent: dict[tuple[str, int], Any]) -> None:
        self._leaves, self._fill, self._absent = leaves, fill, absent

    def __call__(self, place: tuple[str, int], gate: Gate, read: Tensor) -> Tensor:
        start = self._absent[place].popleft()
        left = self._fill[place].to(read) if place in self._fill else torch.zeros_like(read[:1])
        factor = gate.factor(self._leaves, read)

        def run(mask: Tensor, through: Tensor) -> Tensor:
            return mask * through + (1 - mask) * left

        gone = gate.factor({name: torch.zeros_like(leaf) for name, leaf in self._leaves.items()}, read)
        return averaged(read, run, [gone, start], [factor, read], 1)


def _leaves(model: nn.Module, gates: Gates, batch: Batch) -> dict[str, Tensor]:
    return {name: leaf.requires_grad_() for name, leaf in ones(model, gates, batch.examples).items()}


def _output(model: nn.Module, reader: Remembered | Rescaled, inputs: Any) -> Any:
    _context.reseed(0)
    with torch.enable_grad(), reader:
        return _context.forward(model, inputs)


def _costs(cost: _context.Loss, first: Any, output: Any, batch: Batch, reader: Rescaled) -> Tensor:
    """Costs, with the mean gradient along the line from the reference's output to the example's."""
    leaves, spec = tree_flatten(output)
    start = tree_flatten(first)[0]
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    for place in places:
        reader.check(leaves[place])

    def run(*tensors: Tensor) -> Tensor:
        given = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        for place, tensor in zip(places, tensors, strict=True):
            given[place] = tensor
        return _context.per_example(cost, tree_unflatten(given, spec), batch.target, batch.examples)

    actual = [leaves[place] for place in places]
    with torch.no_grad():
        value = run(*actual)
    return averaged(value, run, [start[place].detach() for place in places], actual, READOUT)


def _repeated(start: Any, batch: Batch) -> Any:
    """The baseline for every example."""
    return tree_map(lambda leaf: leaf.detach().expand(batch.examples, *leaf.shape[1:]).clone(), start)


def _between(start: Any, end: Any, t: float) -> Any:
    if not isinstance(end, Tensor) or not end.is_floating_point():
        if isinstance(end, Tensor) and not torch.equal(start, end):
            raise DataError(
                "Conductance() goes from a baseline input to each example, but inputs that are whole "
                "numbers, such as words, have nothing between; use IntegratedGradients()."
            )
        return end
    return torch.lerp(start.to(end.dtype), end, t)


def _seen(found: Pass) -> dict[Key, Tensor]:
    return {key: read.detach() for key, read in found.masks.seen.items()}


def _middle(one: Pass, other: Pass) -> dict[Key, Tensor]:
    """What was read, halfway between two passes."""
    theirs = _seen(other)
    return {key: (read + theirs[key]) / 2 for key, read in _seen(one).items()}


def _share(
    found: dict[str, Tensor],
    groups: Sequence[Group],
    gates: Gates,
    masks: Masks,
    slopes: Mapping[Key, Tensor],
    before: Mapping[Key, Tensor],
    after: Mapping[Key, Tensor],
) -> None:
    """Add what each unit accounts for: the slope where it is read, times how far that moved."""
    for group in groups:
        for key, index in reads(group, gates, masks).items():
            _add(found, group, slopes[key] * (after[key] - before[key]).detach(), index)


def _add(found: dict[str, Tensor], group: Group, values: Tensor, index: Tensor) -> None:
    """Add the sums over all elements of a unit, ``(examples, units)``, to those of its group."""
    before = found[group.name].to(values)
    flat = index.to(values.device).expand(values.shape[1:]).reshape(-1)
    rows = values.reshape(len(before), -1, len(flat)).sum(1)
    sums = rows.new_zeros(len(before), group.size + 1)
    sums.index_add_(1, torch.where(flat < 0, group.size, flat), rows)
    found[group.name] = before + sums[:, : group.size]


def _none(group: Group, batch: Batch) -> Tensor:
    return torch.zeros(batch.examples, group.size)

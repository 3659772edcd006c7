"""From solved labels to a graph: classes become units, classes on the same axes a group."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TraceError
from ..records import Axis, Blocked, Graph, Group, Op, Site, Slice, TensorInfo
from .labels import Labeling, Owner, components, reasons, tied

if TYPE_CHECKING:
    from .trace import Trail

STRUCTURAL = ("a convolution kernel", "each group's own channels")
"""Reasons that hold by construction and are no news to the reader of a graph."""


@dataclass(slots=True)
class _Units:
    """The solved labels: for each one its group and its unit, -1 where it must stay.

    ``axes`` holds for every group the axes that carry it, with each unit's positions, (units, positions).
    """

    flow: Labeling
    root: np.ndarray
    group: np.ndarray
    unit: np.ndarray
    kinds: np.ndarray
    members: list[np.ndarray]
    starts: np.ndarray
    axes: list[list[tuple[Owner, np.ndarray]]]

    def owner(self, labels: Tensor | None) -> Owner | None:
        """The axis of a parameter that labels are taken from."""
        label = 0 if labels is None else int(labels.max())
        return self.flow.owners[int(np.searchsorted(self.starts, label, side="right")) - 1] if label else None

    def groups_of(self, labels: np.ndarray) -> list[int]:
        """The numbers of the groups that some labels belong to."""
        found = np.unique(self.group[labels])
        return [int(number) for number in found if number >= 0]


def build(model: nn.Module, trail: Trail, inputs: Any, examples: int) -> Graph:
    """The graph of a traced model.

    Raises:
        TraceError: nothing can be removed; the message gives the reasons.
    """
    flow = trail.flow
    for a, b in _shared_storage(model):
        for tensor in (a, b):
            for labels in flow.of(tensor):
                flow.freeze(labels, "shares its storage with another tensor")
    units = _solve(flow, [reading.labels for reading in trail.readings])
    names = _names(units, trail)
    blocked = _blocked(units)
    if not names:
        why = "; ".join(dict.fromkeys(b.reason for b in blocked)) or "it has no parameters with units"
        raise TraceError(f"nothing in this model can be removed: {why}.")
    sites, blurs = _sites(units, trail), _blurs(units)
    groups = (
        Group(
            name=name,
            size=len(units.members[number]),
            slices=_slices(units.axes[number]),
            sites=tuple(sites[number]),
            exact=number not in blurs,
            reason=blurs.get(number, ""),
        )
        for number, name in enumerate(names)
    )
    return Graph(
        groups=tuple(groups),
        tensors=_tensors(model),
        ops=tuple(_op(units, names, c, examples) for c in trail.contractions),
        ties=_ties(units, names),
        blocked=blocked,
        dropouts=_dropouts(units, names, trail),
        norms=tuple(dict.fromkeys(trail.norms)),
        inputs=inputs,
        notes=tuple(trail.notes),
    )


def _solve(flow: Labeling, read: list[Tensor]) -> _Units:
    root = flow.solve()
    seen = np.zeros(flow.count, bool)
    for labels in read:
        seen[root[labels.reshape(-1).numpy()]] = True
    unseen = np.flatnonzero(~seen[root])
    if unseen.any():
        flow.freeze(torch.from_numpy(unseen), "nothing reads it in eval mode")
    for owner in flow.owners:
        mine = root[owner.start : owner.start + owner.size]
        if mine[0] and (mine == mine[0]).all():
            whole = torch.arange(owner.start, owner.start + owner.size)
            flow.freeze(whole, f"all of {owner.tensor}[{owner.dim}] is one unit")
    root = flow.solve()
    kinds = flow.signatures(root)
    group, unit = np.full(flow.count, -1), np.full(flow.count, -1)
    members: dict[int, list[int]] = defaultdict(list)
    for representative in np.unique(root[1:]):
        if representative > 0:
            members[int(kinds[representative])].append(int(representative))
    ordered = sorted(members.values(), key=lambda reps: reps[0])
    for number, reps in enumerate(ordered):
        index = np.full(flow.count, -1)
        index[reps] = np.arange(len(reps))
        found = index[root]
        unit = np.where(found >= 0, found, unit)
        group[found >= 0] = number
    starts = np.array([owner.start for owner in flow.owners])
    solved = _Units(flow, root, group, unit, kinds, [*map(np.array, ordered)], starts, [[] for _ in ordered])
    for owner in flow.owners:
        span = np.arange(owner.start, owner.start + owner.size)
        for number in solved.groups_of(span):
            position = np.flatnonzero(group[span] == number)
            order = np.argsort(unit[span][position], kind="stable")
            solved.axes[number].append((owner, position[order].reshape(len(ordered[number]), -1)))
    return solved


def _slices(axes: list[tuple[Owner, np.ndarray]]) -> tuple[Slice, ...]:
    return tuple(
        Slice(tensor=owner.tensor, dim=owner.dim, index=torch.from_numpy(index.astype(np.int64)))
        for owner, index in axes
    )


def _blurs(units: _Units) -> dict[int, str]:
    """Group number to the first reason why it is not exact."""
    found: dict[int, str] = {}
    for labels, why in units.flow.inexact:
        for number in units.groups_of(labels):
            found.setdefault(number, why)
    return found


def _names(units: _Units, trail: Trail) -> list[str]:
    """A group is named after the first layer that produces its units."""
    read = {units.owner(reading.reader) for reading in trail.readings}
    made = {units.owner(labels) for contraction in trail.contractions for labels in contraction.axes} - read
    bases: list[str] = []
    for axes in units.axes:
        owners = [owner for owner, _ in axes]
        rank = [(owner not in made, owner in read) for owner in owners]
        producer = owners[rank.index(min(rank))]
        bases.append(producer.tensor.rpartition(".")[0] or producer.tensor)
    return [f"{base}#{n}" if (n := bases[: i + 1].count(base)) > 1 else base for i, base in enumerate(bases)]


def _sites(units: _Units, trail: Trail) -> list[list[Site]]:
    """Every group's sites."""
    sites: list[list[Site]] = [[] for _ in units.members]
    for reading in trail.readings:
        labels = reading.labels[0].numpy()
        reader = units.owner(reading.reader)
        for number in units.groups_of(labels):
            index = np.where(units.group[labels] == number, units.unit[labels], -1)
            sites[number].append(
                Site(
                    call=reading.call,
                    arg=reading.arg,
                    index=torch.from_numpy(index.astype(np.int64)),
                    weight=reader.tensor if reader else None,
                    dim=reader.dim if reader else 1,
                    source=reading.source,
                )
            )
    return sites


def _op(units: _Units, names: list[str], contraction: Any, examples: int) -> Op:
    axes = []
    for labels in contraction.axes:
        group, present = units.group[labels.numpy()], units.groups_of(labels.numpy())
        axes.append(
            Axis(
                fixed=int((group < 0).sum()),
                groups=tuple(names[g] for g in present),
                per_unit=tuple(float((group == g).sum() / len(units.members[g])) for g in present),
            )
        )
    return Op(call=contraction.call, scale=contraction.scale / examples, axes=tuple(axes))


def _ties(units: _Units, names: list[str]) -> tuple[tuple[str, ...], ...]:
    by_kind = {int(units.kinds[reps[0]]): name for name, reps in zip(names, units.members, strict=True)}
    found = {kinds for parts in units.flow.splits if (kinds := tied(units.root, units.kinds, parts))}
    ties = [[names.index(by_kind[kind]) for kind in kinds] for kinds in found]
    if not ties:
        return ()
    left = np.array([a for tie in ties for a in tie[1:]])
    right = np.array([tie[0] for tie in ties for _ in tie[1:]])
    root = components(len(names), left, right)
    return tuple(
        tuple(names[i] for i in np.flatnonzero(root == r)) for r in np.unique(root) if (root == r).sum() > 1
    )


def _blocked(units: _Units) -> tuple[Blocked, ...]:
    why = reasons(units.flow, units.root)
    found = []
    for owner in units.flow.owners:
        labels = range(owner.start, owner.start + owner.size)
        held = [label for label in labels if units.root[label] == 0]
        reason = why.get(held[0], "") if held else ""
        if held and not reason.startswith(STRUCTURAL):
            reason = reason or "coupled with places that have no units (padding or inputs)"
            found.append(Blocked(tensor=owner.tensor, dim=owner.dim, size=len(held), reason=reason))
    return tuple(found)


def _dropouts(units: _Units, names: list[str], trail: Trail) -> tuple[tuple[str, str], ...]:
    found = []
    for module, labels in trail.dropouts:
        groups = np.unique(units.group[labels.numpy()])
        if len(groups) == 1 and groups[0] >= 0:
            found.append((module, names[groups[0]]))
    return tuple(dict.fromkeys(found))


def _tensors(model: nn.Module) -> tuple[TensorInfo, ...]:
    aliases: dict[int, list[str]] = defaultdict(list)
    every = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in every:
        aliases[id(tensor)].append(name)
    parameters = {id(tensor) for tensor in model.parameters()}
    return tuple(
        TensorInfo(
            name=name,
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            parameter=id(tensor) in parameters,
            aliases=tuple(alias for alias in aliases[id(tensor)] if alias != name),
        )
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
    )


def _shared_storage(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    seen: dict[int, Tensor] = {}
    shared = []
    plain = [value for m in model.modules() for value in vars(m).values() if isinstance(value, Tensor)]
    for tensor in [*model.parameters(), *model.buffers(), *plain]:
        pointer = tensor.untyped_storage().data_ptr()
        if tensor.numel() and pointer and seen.setdefault(pointer, tensor) is not tensor:
            shared.append((seen[pointer], tensor))
    return shared

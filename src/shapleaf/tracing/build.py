"""From solved labels to a graph: classes become units, classes on the same axes a group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import _context
from ..errors import TraceError
from ..records import Axis, Blocked, Graph, Group, Op, Site, Size, Slice, TensorInfo
from .labels import Owner, components, reasons, tied
from .sizes import Attribute, Use
from .solving import Units, solve

if TYPE_CHECKING:
    from .trace import Trail

STRUCTURAL = ("a convolution kernel", "each group's own channels")
"""Reasons that hold by construction and are no news to the reader of a graph."""


Views = dict[str, dict[int, Axis]]
"""Calls to the lengths of some axes of what they return, under any plan."""


def build(model: nn.Module, trail: Trail, inputs: Any, examples: int) -> tuple[Graph, Views]:
    """The graph of a traced model, and the lengths that its code names by plain numbers.

    Raises:
        TraceError: nothing can be removed; the message gives the reasons.
    """
    flow = trail.flow
    for a, b in _shared_storage(model):
        for tensor in (a, b):
            for labels in flow.of(tensor):
                flow.freeze(labels, "shares its storage with another tensor")
    units, pairs = solve(flow, [reading.labels for reading in trail.readings], trail.uses)
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
    graph = Graph(
        groups=tuple(groups),
        tensors=_tensors(model),
        ops=tuple(_op(units, names, c, examples) for c in trail.contractions),
        ties=_ties(units, names, pairs),
        blocked=blocked,
        dropouts=_dropouts(units, names, trail),
        norms=tuple(dict.fromkeys(trail.norms)),
        sizes=_sizes(units, names, trail.uses),
        inputs=inputs,
        notes=tuple(dict.fromkeys(trail.notes)),
    )
    return graph, _views(units, names, trail)


def _views(units: Units, names: list[str], trail: Trail) -> Views:
    found: Views = {}
    for view in trail.views:
        axis = _axis(units, names, view.labels, len(view.labels), Fraction(1))
        if axis.groups:
            found.setdefault(view.call, {})[view.axis] = axis
    return found


def _slices(axes: list[tuple[Owner, np.ndarray]]) -> tuple[Slice, ...]:
    return tuple(
        Slice(tensor=owner.tensor, dim=owner.dim, index=torch.from_numpy(index.astype(np.int64)))
        for owner, index in axes
    )


def _blurs(units: Units) -> dict[int, str]:
    """Group number to the first reason why it is not exact."""
    found: dict[int, str] = {}
    for labels, why in units.flow.inexact:
        classes = units.root[labels]
        for number in units.groups_of(labels[:, (classes != classes[:1]).any(0)]):
            found.setdefault(number, why)
    return found


def _names(units: Units, trail: Trail) -> list[str]:
    """A group is named after the first layer that produces its units."""
    read = {units.owner(reading.reader) for reading in trail.readings}
    made = {units.owner(labels) for contraction in trail.contractions for labels in contraction.axes} - read
    bases: list[str] = []
    for axes in units.axes:
        owners = [owner for owner, _ in axes]
        rank = [(owner not in made, owner in read) for owner in owners]
        producer = owners[rank.index(min(rank))]
        layer = producer.tensor.rpartition("parametrizations.")[0] or producer.tensor
        bases.append(layer.rpartition(".")[0] or producer.tensor)
    return [f"{base}#{n}" if (n := bases[: i + 1].count(base)) > 1 else base for i, base in enumerate(bases)]


def _sites(units: Units, trail: Trail) -> list[list[Site]]:
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
                    squares=reading.squares,
                )
            )
    return sites


def _axis(units: Units, names: list[str], labels: Tensor | None, size: int, factor: Fraction) -> Axis:
    fixed, terms = units.length(labels, size)
    return Axis(
        fixed=int(fixed / factor),
        groups=tuple(names[group] for group in terms),
        per_unit=tuple(float(per_unit / factor) for per_unit in terms.values()),
    )


def _op(units: Units, names: list[str], contraction: Any, examples: int) -> Op:
    axes = (_axis(units, names, labels[:, None], len(labels), Fraction(1)) for labels in contraction.axes)
    return Op(call=contraction.call, scale=contraction.scale / examples, axes=tuple(axes))


def _sizes(units: Units, names: list[str], uses: Sequence[Use]) -> tuple[Size, ...]:
    """The attributes that feed axes which can shrink, each once: all their uses agree."""
    found: dict[Attribute, Axis] = {}
    for use in uses:
        if isinstance(use.origin, Attribute):
            axis = _axis(units, names, use.labels, use.length, use.factor)
            if axis.groups:
                found.setdefault(use.origin, axis)
    return tuple(
        Size(module=a.module, attribute=a.name, index=a.index, axis=axis) for a, axis in found.items()
    )


def _ties(units: Units, names: list[str], pairs: Sequence[tuple[int, int]]) -> tuple[tuple[str, ...], ...]:
    by_kind = {int(units.kinds[reps[0]]): number for number, reps in enumerate(units.members)}
    found = {kinds for kinds in tied(units.root, units.kinds, units.flow.splits) if kinds}
    ties = [*([by_kind[kind] for kind in kinds] for kinds in found), *pairs]
    left = np.array([a for tie in ties for a in tie[1:]], int)
    right = np.array([tie[0] for tie in ties for _ in tie[1:]], int)
    root = components(len(names), left, right)
    return tuple(
        tuple(names[i] for i in np.flatnonzero(root == r)) for r in np.unique(root) if (root == r).sum() > 1
    )


def _blocked(units: Units) -> tuple[Blocked, ...]:
    why = reasons(units.flow, units.root)
    found = []
    for owner in units.flow.owned:
        labels = range(owner.start, owner.start + owner.size)
        held = [label for label in labels if units.root[label] == 0]
        reason = why.get(held[0], "") if held else ""
        if held and not reason.startswith(STRUCTURAL):
            reason = reason or "coupled with places that have no units (padding or inputs)"
            found.append(Blocked(tensor=owner.tensor, dim=owner.dim, size=len(held), reason=reason))
    return tuple(found)


def _dropouts(units: Units, names: list[str], trail: Trail) -> tuple[tuple[str, str], ...]:
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
        for name, tensor in _context.named_tensors(model)
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

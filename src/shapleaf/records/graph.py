"""Graph: which units of a model are coupled, who owns them and who reads them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from .. import _context
from .._store import Tensor
from .._table import count
from ..errors import PlanError, StaleGraphError
from ._base import Part, Record


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slice(Part):
    """The positions that each unit of a group owns along one axis of one tensor.

    Attributes:
        tensor: name of the parameter or buffer, as in ``state_dict``.
        dim: the axis.
        index: integers of shape ``(units, positions)``.
    """

    tensor: str
    dim: int
    index: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Site(Part):
    """A place where a consumer reads the group's activation.

    Attributes:
        call: the reading function call, ``module:function#k`` (its k-th such call in one forward).
        arg: which tensor among the call's flattened arguments is read.
        index: for every element of that argument along its labelled axes the unit it belongs to,
            -1 where it belongs to none; broadcastable to the argument without its batch.
        weight: the consumer's own parameter that is contracted with the activation, if any.
        dim: the axis of ``weight`` that reads the units.
        source: sites with the same number read the same tensor.
        squares: whether a statistic is taken of squares: it is never less than zero.
    """

    call: str
    arg: int
    index: Tensor
    weight: str | None = None
    dim: int = 1
    source: int = 0
    squares: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group(Part):
    """Units that are removed together from every tensor that carries them.

    Attributes:
        name: the module that produces the units.
        size: how many units there are.
        slices: what each unit owns, parameters and buffers.
        sites: where the units are read.
        exact: whether masking at the sites and slicing give the same function.
        reason: why not, if not.
        blocked: why the model's Python code cannot do without these units, if it cannot: they are
            scored and masked, but never removed.
    """

    name: str
    size: int
    slices: tuple[Slice, ...]
    sites: tuple[Site, ...]
    exact: bool = True
    reason: str = ""
    blocked: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blocked(Part):
    """An axis that must not shrink, and what forbids it."""

    tensor: str
    dim: int
    size: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TensorInfo(Part):
    """Name, shape and dtype of a parameter or buffer; aliases of a tied one."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameter: bool
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Axis(Part):
    """The length of an axis under a plan: ``fixed + sum(per_unit * units kept)``."""

    fixed: int
    groups: tuple[str, ...] = ()
    per_unit: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Op(Part):
    """A contraction: its multiply-accumulates for one example are ``scale`` times the axes' lengths."""

    call: str
    scale: float
    axes: tuple[Axis, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Size(Part):
    """An integer that a module holds, ``module.attribute`` or an element of it: the length of an axis."""

    module: str
    attribute: str
    index: int | None
    axis: Axis


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Graph(Record):
    """What :func:`shapleaf.trace` found in a model; holds names and integers, no module.

    Raises:
        PlanError: its parts do not fit each other, as in a file that was tampered with.

    Attributes:
        groups: the groups of units that can be removed, in the order of the model's parameters.
        tensors: every parameter and buffer; their names, shapes and dtypes make the fingerprint.
        ops: the contractions, from which MACs are counted under any plan.
        ties: sets of groups that must keep the same share of their units, such as the heads of all
            blocks and the stream whose width the code takes for theirs.
        blocked: the axes that cannot shrink, with reasons.
        dropouts: (module, group) for every dropout that acts on a group's units alone.
        norms: (consumer's call, BatchNorm) where a BatchNorm alone reads a consumer's output channels; the
            name is empty if it runs elsewhere as well, or has none, as in an exported program.
        sizes: the integers in the model's Python code that must follow a plan.
        inputs: shapes, dtypes and ranges of the example inputs, nested as they were.
        notes: what else the user should know.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> print(sl.trace(model, torch.zeros(1, 3)))
    Graph 4198a6b4878a39a1
    group  units  tensors  sites  exact
    ─────  ─────  ───────  ─────  ─────
    0          8        3      1  yes
    8 units in 1 group, 3 axes blocked...
    """

    groups: tuple[Group, ...]
    tensors: tuple[TensorInfo, ...]
    ops: tuple[Op, ...] = ()
    ties: tuple[tuple[str, ...], ...] = ()
    blocked: tuple[Blocked, ...] = ()
    dropouts: tuple[tuple[str, str], ...] = ()
    norms: tuple[tuple[str, str], ...] = ()
    sizes: tuple[Size, ...] = ()
    inputs: Any = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for wrong in _faults(self):
            raise PlanError(f"the graph is inconsistent: {wrong}. Trace the model again.")

    @property
    def fingerprint(self) -> str:
        """A digest of names, shapes and dtypes: equal for the same architecture, whatever its weights."""
        lines = "\n".join(f"{t.name} {t.shape} {t.dtype}" for t in self.tensors)
        return hashlib.sha256(lines.encode()).hexdigest()[:16]

    def __getitem__(self, name: str) -> Group:
        for group in self.groups:
            if group.name == name:
                return group
        known = ", ".join(group.name for group in self.groups)
        raise PlanError(f"no group is named {name!r}; the groups are: {known}.")

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def select(self, *patterns: str) -> tuple[Group, ...]:
        """The groups whose names match any of the shell patterns, in order.

        Raises:
            PlanError: a pattern matches nothing.
        """
        for pattern in patterns:
            if not any(fnmatchcase(group.name, pattern) for group in self.groups):
                self[pattern]
        return tuple(g for g in self.groups if any(fnmatchcase(g.name, p) for p in patterns))

    def tied(self, name: str) -> tuple[str, ...]:
        """The groups that must keep the same share of their units as this one, itself among them."""
        return next((tie for tie in self.ties if name in tie), (name,))

    def portions(self, name: str) -> int:
        """In how many equal portions a group can go: its units, where no tie makes portions larger."""
        return math.gcd(*(self[member].size for member in self.tied(name)))

    def units(self, name: str, portions: int) -> int:
        """How many units of a group so many of its portions are."""
        return portions * self[name].size // self.portions(name)

    def check(self, model: nn.Module) -> None:
        """Refuse a model that this graph was not traced from.

        Raises:
            StaleGraphError: names, shapes or dtypes differ; the message shows the first difference.
        """
        mine = {t.name: (t.shape, t.dtype) for t in self.tensors}
        seen = {
            name: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in _context.named_tensors(model)
        }
        for name in [*mine, *seen]:
            if mine.get(name) != seen.get(name):
                expected, received = mine.get(name, "absent"), seen.get(name, "absent")
                raise StaleGraphError(
                    f"this record belongs to another model: {name} is {received}, expected {expected}. "
                    "Trace the model again, or load the one that was traced."
                )

    def table(self) -> dict[str, Any]:
        rows = [
            [g.name, g.size, len({s.tensor for s in g.slices}), len(g.sites), "yes" if g.exact else g.reason]
            for g in self.groups
        ]
        units = sum(group.size for group in self.groups)
        groups, axes = count(len(self.groups), "group"), count(len(self.blocked), "axis", "axes")
        footer = [f"{count(units, 'unit')} in {groups}, {axes} blocked"]
        footer += [f"tied: {' = '.join(tie)}" for tie in self.ties]
        footer += [f"  {g.name} is scored but never pruned: {g.blocked}" for g in self.groups if g.blocked]
        reasons: dict[str, list[str]] = {}
        for block in self.blocked:
            reasons.setdefault(block.reason, []).append(f"{block.tensor}[{block.dim}]")
        footer += [
            f"  {reason}: {', '.join(where[:4])}{f' and {len(where) - 4} more' if len(where) > 4 else ''}"
            for reason, where in reasons.items()
        ]
        return {
            "title": f"Graph {self.fingerprint}",
            "header": ["group", "units", "tensors", "sites", "exact"],
            "rows": rows,
            "footer": "\n".join([*footer, *self.notes]),
        }


def _faults(graph: Graph) -> Iterator[str]:
    """What is wrong with a graph, so that no index read from a file reaches a tensor unchecked."""
    shapes = {info.name: info.shape for info in graph.tensors}
    sizes = {group.name: group.size for group in graph.groups}
    if len(sizes) < len(graph.groups) or len(shapes) < len(graph.tensors):
        yield "two groups or two tensors have one name"
    for group in graph.groups:
        yield from _faults_of(group, shapes)
    owned: dict[tuple[str, int], list[torch.Tensor]] = {}
    for piece in (piece for group in graph.groups for piece in group.slices):
        owned.setdefault((piece.tensor, piece.dim), []).append(piece.index.reshape(-1))
    for (tensor, dim), indices in owned.items():
        positions = torch.cat(indices)
        if len(positions.unique()) < len(positions):
            yield f"a position of {tensor}[{dim}] belongs to two units"
    for tie in graph.ties:
        if not {*tie} <= {*sizes}:
            yield f"the tie {' = '.join(tie)} names unknown groups"
    for axis in (axis for op in graph.ops for axis in op.axes):
        if len(axis.groups) != len(axis.per_unit) or not {*axis.groups} <= {*sizes}:
            yield f"the axis {axis} of an op names unknown groups"
    if graph.inputs is not None and not _describes(graph.inputs):
        yield "its inputs are not described as they must be"


def _faults_of(group: Group, shapes: dict[str, tuple[int, ...]]) -> Iterator[str]:
    if group.size < 1:
        yield f"group {group.name} has {group.size} units"
    for piece in group.slices:
        shape, where = shapes.get(piece.tensor, ()), f"{piece.tensor}[{piece.dim}]"
        if not 0 <= piece.dim < len(shape):
            yield f"group {group.name} owns {where}, which does not exist"
        if piece.index.ndim != 2 or len(piece.index) != group.size:
            yield f"the index of {where} is not (units, positions) of {group.name}"
        if not _within(piece.index, 0, shape[piece.dim]):
            yield f"the index of {where} must hold integers from 0 to {shape[piece.dim] - 1}"
    for site in group.sites:
        if site.weight is not None and not 0 <= site.dim < len(shapes.get(site.weight, ())):
            yield f"group {group.name} is read by {site.weight}[{site.dim}], which does not exist"
        if not _within(site.index, -1, group.size):
            yield f"the index of {site.call} must hold integers from -1 to {group.size - 1}"


def _within(index: torch.Tensor, low: int, high: int) -> bool:
    whole = index.dtype == torch.int64 and index.numel() > 0
    return whole and low <= int(index.min()) <= int(index.max()) < high


def _describes(spec: Any, depth: int = 0) -> bool:
    """Whether this is nested as :attr:`Graph.inputs` are: shapes, dtypes, ranges and plain values."""
    if not isinstance(spec, dict) or depth > 50:
        return False
    keys = {*spec}
    if keys == {"shape", "dtype", "low", "high"}:
        shape, dtype, *ends = (spec[key] for key in ("shape", "dtype", "low", "high"))
        return (
            isinstance(shape, list)
            and all(isinstance(size, int) and size >= 0 for size in shape)
            and isinstance(dtype, str)
            and isinstance(getattr(torch, dtype, None), torch.dtype)
            and all(isinstance(end, int | float) for end in ends)
        )
    if keys == {"dict"} and isinstance(spec["dict"], dict):
        return all(_describes(part, depth + 1) for part in spec["dict"].values())
    if keys == {"list"} and isinstance(spec["list"], list):
        return all(_describes(part, depth + 1) for part in spec["list"])
    return keys == {"value"} and isinstance(spec["value"], bool | int | float | str | None)

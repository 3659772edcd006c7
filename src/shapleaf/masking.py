"""Masks on units: the model with some of its units unseen, and nothing sliced.

Removing a unit is the consumer no longer seeing it, so masks are laid on what consumers read,
at the sites of a graph. The model itself is never changed: while it runs, the reading calls are
recognised by name and their argument is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from . import _context
from ._calls import Calls, repeats
from .data import batches
from .errors import DataError, PlanError
from .records import Group, Plan, Site

Fill = Mapping[tuple[str, int], Tensor]


@runtime_checkable
class Removal(Protocol):
    """What an absent unit leaves behind: a fill for every (call, argument), broadcast over examples."""

    def fill(self, model: nn.Module, gates: Gates, data: Any) -> Fill: ...


@dataclass(frozen=True)
class Zero:
    """An absent unit is zero (Ancona et al. 2020): slicing does exactly this.

    >>> Zero().fill(nn.Identity(), Gates(()), None)
    {}
    """

    def fill(self, model: nn.Module, gates: Gates, data: Any) -> Fill:
        """Nothing takes the unit's place."""
        return {}


@dataclass(frozen=True)
class CalibrationMean:
    """An absent unit is its mean over the calibration data: what folding means into biases realises.

    The mean is taken over the examples and, in feature maps, over all places.

    Args:
        data: the calibration batches; by default the data that the criterion is computed on.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
    >>> plan = sl.plan(sl.trace(model, torch.zeros(1, 1)), {"0": (0,)})
    >>> data = torch.randn(20, 1)
    >>> filled = masked(model, plan, removal=CalibrationMean(data))(data)
    >>> bool(torch.allclose(filled.mean(), model(data).mean(), atol=1e-6))
    True
    """

    data: Any = field(default=None, compare=False, repr=False)

    def fill(self, model: nn.Module, gates: Gates, data: Any) -> Fill:
        """The mean of every argument that the gates read, in the shape of its index."""
        sums: dict[tuple[str, int], Tensor] = {}
        seen: dict[tuple[str, int], int] = {}

        def add(place: tuple[str, int], gate: Gate, read: Tensor) -> Tensor:
            axes = [
                0,
                *(1 + a for a, size in enumerate(gate.index.shape) if size == 1 and read.shape[1 + a] > 1),
            ]
            mean = read.double().mean(axes, keepdim=True)[0] * weight
            sums[place] = sums[place] + mean if place in sums else mean
            seen[place] = seen.get(place, 0) + weight
            return read

        source = data if self.data is None else self.data
        with torch.no_grad(), _context.inference(model):
            for batch in batches(source, device=_context.device_of(model), labelled=False):
                weight = batch.examples
                with Reader(model, gates, add):
                    _context.forward(model, batch.inputs)
        return {place: total / seen[place] for place, total in sums.items()}


@dataclass(frozen=True, repr=False, eq=False)
class Reference:
    """An absent unit is what it is on a reference input: the baseline of attribution methods.

    Args:
        inputs: one example, as the model is called with; or a number that every element of the inputs is,
            0 by default; or ``"mean"``, the mean of the data's examples.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
    >>> plan = sl.plan(sl.trace(model, torch.zeros(1, 1)), {"0": (0,)})
    >>> filled = masked(model, plan, removal=Reference(torch.ones(1, 1)))
    >>> bool(torch.allclose(filled(torch.ones(1, 1)), model(torch.ones(1, 1)), atol=1e-6))
    True
    """

    inputs: Any = 0.0

    def __repr__(self) -> str:
        """By its number or its word; what an example holds is data, and data are not compared."""
        return f"Reference({repr(self.inputs) if isinstance(self.inputs, str | int | float) else '...'})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __post_init__(self) -> None:
        if isinstance(self.inputs, str) and self.inputs != "mean":
            raise DataError(f'Reference({self.inputs!r}): the only word is "mean".')

    def example(self, model: nn.Module, data: Any) -> Any:
        """The reference, one example on the model's device, shaped as those of the data.

        Raises:
            DataError: it is not one example, or not of the shape of the data's; or a number or a mean is
                asked of inputs that are whole numbers.
        """
        device = _context.device_of(model)
        if isinstance(self.inputs, str | int | float):
            return self._made(data, device)
        given = _context.on_device(self.inputs, model)
        if data is not None:
            _check_alike(given, next(iter(batches(data, limit=1, labelled=False))).inputs)
        sizes = [len(leaf) for leaf in _context.tensors(given) if leaf.ndim]
        if not sizes or set(sizes) != {1}:
            raise DataError(
                f"Reference(inputs=...) is one example, with a first axis of 1; received {sizes}."
            )
        return given

    def fill(self, model: nn.Module, gates: Gates, data: Any) -> Fill:
        """What every gate reads of the reference; the mean over the steps of a recurrence.

        Raises:
            DataError: as :meth:`example`; or what is read of an example does not lie along the first axis.
        """
        found: dict[tuple[str, int], list[Tensor]] = {}

        def keep(place: tuple[str, int], gate: Gate, read: Tensor) -> Tensor:
            if len(read) != 1:
                raise DataError(
                    f"{place[0]} reads {len(read)} rows of one example, which Reference() cannot lay on "
                    "others; use CalibrationMean()."
                )
            found.setdefault(place, []).append(read[0].clone())
            return read

        with torch.no_grad(), _context.inference(model), Reader(model, gates, keep):
            _context.forward(model, self.example(model, data))
        return {place: torch.stack(reads).mean(0) for place, reads in found.items()}

    def _made(self, data: Any, device: torch.device) -> Any:
        if data is None:
            raise DataError("Reference() of a number or a mean needs data, whose shape it has; pass inputs.")
        total, seen = None, 0
        limit = None if self.inputs == "mean" else 1
        for batch in batches(data, limit=limit, labelled=False, device=device):
            leaves, spec = tree_flatten(batch.inputs)
            if not all(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in leaves):
                raise DataError(
                    f"Reference({self.inputs!r}): the inputs hold whole numbers, such as words; pass an "
                    "example to compare with."
                )
            sums = [leaf.double().sum(0, keepdim=True) for leaf in leaves]
            total = sums if total is None else [a + b for a, b in zip(total, sums, strict=True)]
            seen, like = seen + batch.examples, leaves
        assert total is not None
        made = [leaf / seen if limit is None else torch.full_like(leaf, self.inputs) for leaf in total]
        return tree_unflatten([leaf.to(like_.dtype) for leaf, like_ in zip(made, like, strict=True)], spec)


def _check_alike(given: Any, inputs: Any) -> None:
    (mine, form), (theirs, expected) = tree_flatten(given), tree_flatten(inputs)
    shapes = [
        [(*leaf.shape[1:],) for leaf in leaves if isinstance(leaf, Tensor)] for leaves in (mine, theirs)
    ]
    if form != expected or shapes[0] != shapes[1]:
        raise DataError(
            f"Reference(inputs=...): examples of the data have shapes {shapes[1]}, the reference {shapes[0]}."
        )


@dataclass(slots=True, eq=False)
class Gate:
    """One argument of one reading call: which column of which groups' masks each element obeys.

    ``index`` counts through the masks of ``groups`` laid side by side; the column after the last
    is a constant one, for elements that belong to none. Gates with the same ``key`` see the same tensor
    through the same masks. Where ``squares``, a statistic is taken of squares.
    """

    groups: tuple[str, ...]
    index: Tensor
    key: tuple[int, bytes]
    squares: bool = False
    _on: dict[torch.device, Tensor] = field(default_factory=dict)

    def columns(self, device: torch.device) -> Tensor:
        """The index, flat, on a device."""
        if device not in self._on:
            self._on[device] = self.index.reshape(-1).to(device)
        return self._on[device]

    def factor(self, masks: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """The masks as a factor for the argument ``like``: (examples or 1, *index)."""
        parts = [masks[name] for name in self.groups]
        rows = max(len(part) for part in parts)
        one = torch.ones(rows, 1, device=like.device, dtype=like.dtype)
        table = torch.cat([*(part.to(like).expand(rows, -1) for part in parts), one], 1)
        factor = table.index_select(1, self.columns(like.device)).view(rows, *self.index.shape)
        if rows not in (1, len(like)):
            if len(like) % rows:
                raise PlanError(
                    f"masks for {rows} examples meet an activation of length {len(like)} along the first "
                    "dimension; the examples must lie there."
                )
            factor = factor.repeat_interleave(len(like) // rows, 0)
        return _squared(factor) if self.squares else factor


def _squared(factor: Tensor) -> Tensor:
    """The factor for squares of what random masks lie on: no statistic of them falls below zero.

    Masks with the mean *q* and the variance *q(1 - q)* of presence have squares with the mean *q*. Those that
    all lie between 0 and 1, or at 1, are not random, and stay.
    """
    random = ((factor <= 0) | (factor > 1)).flatten(1).any(1).view(-1, *[1] * (factor.ndim - 1))
    return torch.where(random, factor.square(), factor)


class Gates:
    """The gates of some groups of a graph: call name to argument to gate."""

    def __init__(self, groups: Iterable[Group]) -> None:
        self.groups = tuple(groups)
        self.at: dict[str, dict[int, Gate]] = {}
        found: dict[tuple[str, int], list[tuple[Group, Site]]] = {}
        for group in self.groups:
            for site in group.sites:
                found.setdefault((site.call, site.arg), []).append((group, site))
        for (call, arg), readers in found.items():
            shape = torch.broadcast_shapes(*(site.index.shape for _, site in readers))
            total = sum(group.size for group, _ in readers)
            combined = torch.full(shape, total)
            offset = 0
            for group, site in readers:
                combined = torch.where(site.index >= 0, site.index + offset, combined)
                offset += group.size
            names, one = tuple(group.name for group, _ in readers), readers[0][1]
            key = (one.source, repr((names, tuple(shape), one.squares)).encode() + combined.numpy().tobytes())
            self.at.setdefault(call, {})[arg] = Gate(names, combined, key, one.squares)

    def ones(self, examples: int, like: Tensor) -> dict[str, Tensor]:
        """A mask of ones for every group."""
        return {
            g.name: torch.ones(examples, g.size, device=like.device, dtype=like.dtype) for g in self.groups
        }


Replace = Callable[[tuple[str, int], Gate, Tensor], Tensor]


class Reader(Calls):
    """Runs a forward in which every gated argument passes through ``replace``."""

    def __init__(self, model: nn.Module, gates: Gates, replace: Replace) -> None:
        super().__init__(model)
        self._gates, self._replace = gates, replace

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        gated = self._gates.at.get(key)
        if gated:
            leaves, spec = tree_flatten((args, kwargs))
            places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
            for arg, gate in gated.items():
                leaves[places[arg]] = self._replace((key, arg), gate, leaves[places[arg]])
            args, kwargs = tree_unflatten(leaves, spec)
        return func(*args, **kwargs)


class Masks:
    """Lays masks on what is read; reads of one tensor see one and the same masked tensor.

    Attributes:
        seen: the masked tensors by the key of their gate: what gradients with respect to activations
            are taken of. The steps of a recurrence are not among them; what they add up to is.
    """

    def __init__(self, masks: Mapping[str, Tensor], fill: Fill | None = None) -> None:
        self.masks, self.fill = masks, fill or {}
        self.seen: dict[tuple[int, bytes], Tensor] = {}

    def __call__(self, place: tuple[str, int], gate: Gate, read: Tensor) -> Tensor:
        if repeats(place[0]):
            return self._masked(place, gate, read)
        if gate.key not in self.seen:
            self.seen[gate.key] = self._masked(place, gate, read)
        return self.seen[gate.key]

    def _masked(self, place: tuple[str, int], gate: Gate, read: Tensor) -> Tensor:
        factor = gate.factor(self.masks, read)
        out = read * factor
        return out + self.fill[place].to(read) * (1 - factor) if place in self.fill else out


class Masked(nn.Module):
    """A model seen through a plan: the function of the pruned model, with nothing sliced.

    Calling it runs the model itself, which it holds by reference and never changes.
    """

    def __init__(self, model: nn.Module, plan: Plan, fill: Fill, gates: Gates) -> None:
        super().__init__()
        self.model = model
        self._fill, self._gates = fill, gates
        self._masks = {g.name: plan.mask(g.name)[None].float() for g in gates.groups}
        self.training = model.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output with the plan's removed units unseen."""
        with Reader(self.model, self._gates, Masks(self._masks, self._fill)):
            return self.model(*args, **kwargs)


def masked(model: nn.Module, plan: Plan, *, removal: Removal | None = None) -> Masked:
    """The pruned function without pruning: removed units are not seen by any consumer.

    For exact groups ``masked(model, plan)(x)`` equals ``prune(model, plan)[0](x)`` up to floating-point
    rounding; with ``removal=CalibrationMean(calibration)`` it equals pruning with ``FoldMean(calibration)``.
    Masks lie where units are read in eval mode; what runs in train mode only sees all units.

    Raises:
        StaleGraphError: the plan belongs to another model.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> graph = sl.trace(model, torch.zeros(1, 3))
    >>> plan = sl.plan(graph, {"0": (0, 1, 5)})
    >>> masked(model, plan)(torch.zeros(4, 3)).shape
    torch.Size([4, 2])
    """
    plan.graph.check(model)
    gates = Gates(plan.graph[name] for name in plan.pruned)
    fill = (removal or Zero()).fill(model, gates, None)
    return Masked(model, plan, fill, gates)

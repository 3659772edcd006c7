"""Rules for sums, statistics and norms: what is taken over units ends their identity, what is not passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .labels import Fields, axes_of, varies
from .opcall import OpCall

STATISTICS = ("a statistic over units", "normalises over units")
"""How the reasons begin for which groups are not exact."""


def reduced_axes(args: Sequence[Any], kwargs: Mapping[str, Any], rank: int) -> tuple[int, ...]:
    """The axes over which a reduction goes."""
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    return spread(dims, rank)


def spread(dims: Any, rank: int) -> tuple[int, ...]:
    """One axis, several, or all of them where none is named, counted from the front."""
    dims = range(rank) if dims in (None, []) else [dims] if isinstance(dims, int) else dims
    return tuple(sorted({dim % max(rank, 1) for dim in dims}))


def reduce(op: OpCall) -> None:
    """A statistic along labelled axes reads them, and is not exact: it changes with their number."""
    _reduce(op, reduced_axes(op.args, op.kwargs, op.tensors[0].ndim), exact=False)


def total(op: OpCall) -> None:
    """A sum is exact, as an absent unit adds nothing; one of weights is a statistic."""
    _reduce(op, reduced_axes(op.args, op.kwargs, op.tensors[0].ndim), exact=True)


def vector_norm(op: OpCall) -> None:
    """A norm is exact as a sum is; of a negative order it is the smallest that counts."""
    source = op.tensors[0]
    order = op.value("ord" if "vector" in op.name else "p")
    axes = spread(op.value("dim"), source.ndim)
    if order is not None and order < 0:
        op.freeze([f for f in op.flow.of(source) if any(varies(f, axis) for axis in axes)], "a smallest unit")
    _reduce(op, axes, exact=True)


def _reduce(op: OpCall, axes: Sequence[int], exact: bool) -> None:
    source = op.tensors[0]
    kept: Fields = []
    for labels in op.flow.of(source):
        if not set(axes_of(labels)) <= set(axes):
            kept += op.flow.pin(labels, axes, "")  # of a view, units that are whole along the axes
            continue
        if op.active(source):
            op.consume(source, labels, squares=source in op.flow.squares)
        if not (exact and op.active(source)):
            for out in op.outputs:
                op.flow.statistics.setdefault(out, []).append((labels, op.why(STATISTICS[0]), axes))
        for out in op.outputs:
            if not out.is_floating_point():
                op.flow.places[out] = [*op.flow.places.get(out, []), labels]
    for out in op.outputs:
        op.give(out, [f if out.ndim == source.ndim else f.squeeze(tuple(axes)) for f in kept])


def normalise(op: OpCall) -> None:
    """Softmax and the like along a labelled axis: the units stay coupled through a statistic."""
    source = op.tensors[0]
    dim = op.args[1] % source.ndim
    for labels in op.flow.of(source):
        if varies(labels, dim):
            op.flow.blur(labels, op.why(STATISTICS[1]), [dim])
    op.give(op.outputs[0], list(op.flow.of(source)))

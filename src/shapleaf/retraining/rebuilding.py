"""The networks of a cycle, built again from the original architecture and the cycle's folder."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from torch import nn

from .. import _context
from ..errors import DataError
from ..evaluation import Candidate
from ..records.cycle import Cycle
from . import checkpoints
from .methods import Removed, load_record, redo


def records(cycle: Cycle, place: int, path: str | os.PathLike[str]) -> list[Removed]:
    """What the steps removed that lead from the original network to a point, in order."""
    points = cycle.points[cycle.points[place].first : place + 1]
    return [load_record(Path(path) / point.record) for point in points if point.record]


def shaped(model: nn.Module, cycle: Cycle, place: int, path: str | os.PathLike[str]) -> nn.Module:
    """A copy of a model of the original architecture, pruned as the point was; the weights are its own."""
    pruned = _context.copied(model)
    for record in records(cycle, place, path):
        redo(pruned, record)
    return pruned


def rebuilt(
    model: nn.Module, cycle: Cycle, place: int, path: str | os.PathLike[str], weights: str = ""
) -> nn.Module:
    """The network of a point, in eval mode.

    Args:
        model: of the original architecture; it is left alone.
        cycle: the record.
        place: the number of the point.
        path: the folder.
        weights: another file of weights than the point's own.

    Raises:
        DataError: a file is missing or damaged, or the point has no weights.
        StaleGraphError: the model is of another architecture.
    """
    file = weights or cycle.points[place].weights
    if not file:
        raise DataError(f"point {place} of the cycle was not retrained; its weights were not kept.")
    network = shaped(model, cycle, place, path)
    state = checkpoints.read(Path(path) / file)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(f"{Path(path) / file} holds the weights of another network: {error}") from error
    return network.eval()


def candidates(cycle: Cycle, model: nn.Module, path: str | os.PathLike[str]) -> list[Candidate]:
    """See :meth:`shapleaf.Cycle.candidates`."""
    role = "pruned" if any(point.record for point in cycle.points) else "control"
    return [
        Candidate(
            name=f"{cycle.method} {point.keep:.3g} net {cycle.net}",
            model=partial(rebuilt, model, cycle, place, path),
            method=cycle.method,
            removed=point.removed,
            net=cycle.net,
            role=role,  # type: ignore[arg-type]
        )
        for place, point in enumerate(cycle.points)
        if point.weights
    ]

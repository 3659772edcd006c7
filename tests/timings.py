"""Latency tables with times in closed form: nothing is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

import shapleaf as sl
from shapleaf.records import TimedCall

Time = Callable[..., float]


def made_up(
    graph: sl.Graph, times: Mapping[str, Time], *, runs: int = 60, overhead: float = 0.0, seed: int = 0
) -> sl.LatencyTable:
    """A table of a graph's contractions: milliseconds as functions of the lengths of their axes.

    Every tenth run keeps all units, the others draw them. ``overhead`` is what the whole model takes beside.
    """
    rng = np.random.default_rng(seed)
    sizes = np.array([group.size for group in graph])
    units = np.stack([sizes if run % 10 == 0 else rng.integers(1, sizes + 1) for run in range(runs)])
    at = {group.name: i for i, group in enumerate(graph)}
    calls, columns = [], []
    for kind, op in enumerate(op for op in graph.ops if op.call in times):
        axes = tuple(axis for axis in op.axes if axis.groups)
        calls.append(TimedCall(call=op.call, kind=kind, axes=axes))
        widths = [
            [a.fixed + sum(n * row[at[g]] for g, n in zip(a.groups, a.per_unit, strict=True)) for a in axes]
            for row in units
        ]
        columns.append([times[op.call](*row) for row in widths])
    found = torch.tensor(columns, dtype=torch.float64).T.contiguous()
    return sl.LatencyTable(
        graph=graph,
        calls=tuple(calls),
        units=torch.from_numpy(units),
        times=found,
        whole=found.sum(1) + overhead,
        planned=runs,
        settings={"device": "none"},
    )

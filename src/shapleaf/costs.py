"""What a graph costs under any plan: counted from the graph, the model is never run."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from .records import Cost, Graph


class Costs:
    """Parameters and MACs of a graph as a function of how many units each group keeps.

    Parameters are elements of parameters, tied ones once. MACs are the multiply-accumulates of
    matrix products and convolutions for one example of the traced shape; normalisations,
    activations and pooling are not counted.
    """

    def __init__(self, graph: Graph) -> None:
        self.names = tuple(group.name for group in graph)
        self.sizes = np.array([group.size for group in graph], float)
        at = {name: i for i, name in enumerate(self.names)}
        removed: dict[tuple[str, int], list[tuple[int, float]]] = {}
        for group in graph:
            for piece in group.slices:
                per_unit = piece.index.shape[1]
                removed.setdefault((piece.tensor, piece.dim), []).append((at[group.name], per_unit))
        self._params = [
            (1.0, [self._axis(size, removed.get((t.name, dim), [])) for dim, size in enumerate(t.shape)])
            for t in graph.tensors
            if t.parameter
        ]
        self._macs = [
            (
                op.scale,
                [
                    self._dense(a.fixed, [(at[g], n) for g, n in zip(a.groups, a.per_unit, strict=True)])
                    for a in op.axes
                ],
            )
            for op in graph.ops
        ]

    def _axis(self, size: int, terms: list[tuple[int, float]]) -> tuple[float, np.ndarray]:
        return self._dense(size - sum(n * self.sizes[g] for g, n in terms), terms)

    def _dense(self, fixed: float, terms: list[tuple[int, float]]) -> tuple[float, np.ndarray]:
        row = np.zeros(len(self.names))
        for group, per_unit in terms:
            row[group] += per_unit
        return fixed, row

    def __call__(self, kept: Mapping[str, int] | np.ndarray) -> Cost:
        """The cost when each group keeps so many units (all of them where not named)."""
        if isinstance(kept, Mapping):
            counts = np.array([kept.get(n, s) for n, s in zip(self.names, self.sizes, strict=True)], float)
        else:
            counts = kept
        return Cost(
            units=round(float(counts.sum())),
            params=round(_total(self._params, counts)),
            macs=round(_total(self._macs, counts)),
        )


def _total(terms: list[tuple[float, list[tuple[float, np.ndarray]]]], counts: np.ndarray) -> float:
    return sum(scale * math.prod(fixed + float(row @ counts) for fixed, row in axes) for scale, axes in terms)


def cost(graph: Graph, kept: Mapping[str, int] | None = None) -> Cost:
    """Units, parameters and MACs of a graph when each group keeps so many units; all by default.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> graph = sl.trace(model, torch.zeros(1, 3))
    >>> cost(graph), cost(graph, {"0": 4})
    (Cost(units=8, params=50, macs=40), Cost(units=4, params=26, macs=20))
    """
    return Costs(graph)(kept or {})

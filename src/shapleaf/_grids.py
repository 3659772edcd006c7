"""Positive functions of a few widths, from measurements at scattered widths."""

from __future__ import annotations

import numpy as np

_NODES = 8
_SMOOTH = 0.01
_OUTLIER = 0.1
_ROUNDS = 5
_LANES = 16


class Surface:
    """A function through measurements, straight in logarithms between the nodes of a grid.

    An axis with few distinct widths has a node at each; one with many has eight, evenly among those seen.
    Nodes take the values that fit best, relative deviations beyond a tenth counting less than their square;
    a slight pull to straight lines fills the nodes where nothing was measured. Beyond the grid the function
    stays what it is at the border. A factor for each combination of the powers of two, up to 16, that divide
    the widths lets it be larger at widths that fill no register.

    Args:
        widths: where it was measured, ``(measurements, axes)``, positive.
        values: what was measured, ``(measurements,)``, positive.

    >>> line = Surface(np.array([[8.0], [16.0], [32.0]]), np.array([1.0, 2.0, 4.0]))
    >>> line(np.array([[24.0], [32.0], [64.0]])).round(3).tolist()
    [3.0, 4.0, 4.0]
    """

    def __init__(self, widths: np.ndarray, values: np.ndarray) -> None:
        self._nodes = [np.log(_nodes(column)) for column in widths.T]
        self._classes = sorted({*map(tuple, _alignments(widths).tolist())})
        design, target = self._design(widths), np.log(values)
        pull = _SMOOTH * self._bends()
        weights = np.ones(len(target))
        middle = target.mean()
        for _ in range(_ROUNDS):
            # The smallest of ridges decides what neither a measurement nor a bend says.
            normal = design.T @ (design * weights[:, None]) + pull + 1e-6 * np.eye(len(pull))
            self._values = np.linalg.solve(normal, design.T @ (weights * (target - middle)))
            weights = 1 / np.maximum(1, np.abs(design @ self._values + middle - target) / _OUTLIER)
        self._middle = middle

    def __call__(self, widths: np.ndarray) -> np.ndarray:
        """The function at widths ``(places, axes)``."""
        found: np.ndarray = np.exp(self._design(widths) @ self._values + self._middle)
        return found

    def _design(self, widths: np.ndarray) -> np.ndarray:
        """The share of each node in the value at each place, and its alignment, ``(places, unknowns)``."""
        shares = np.ones((len(widths), 1))
        for column, nodes in zip(widths.T, self._nodes, strict=True):
            place = np.log(column)
            hats = np.stack([np.interp(place, nodes, unit) for unit in np.eye(len(nodes))], 1)
            every = shares[:, :, None] * hats[:, None, :]
            shares = every.reshape(len(widths), shares.shape[1] * len(nodes))
        found = [tuple(row) for row in _alignments(widths).tolist()]
        aligned = [[float(row == one) for one in self._classes] for row in found]
        return np.concatenate([shares, np.reshape(aligned, (len(widths), len(self._classes)))], 1)

    def _bends(self) -> np.ndarray:
        """The quadratic form that is zero where the function is straight along every axis."""
        sizes = [len(nodes) for nodes in self._nodes]
        nodes_in_all = int(np.prod(sizes))
        total = np.zeros((nodes_in_all + len(self._classes),) * 2)
        # Where nodes alone can say it, alignment says nothing.
        total[nodes_in_all:, nodes_in_all:] = np.eye(len(self._classes))
        for axis, nodes in enumerate(self._nodes):
            bend = np.zeros((len(nodes), len(nodes)))
            for i in range(1, len(nodes) - 1):
                before, after = nodes[i] - nodes[i - 1], nodes[i + 1] - nodes[i]
                row = np.array([1 / before, -1 / before - 1 / after, 1 / after]) * min(before, after)
                bend[i, i - 1 : i + 2] = row
            inner, outer = int(np.prod(sizes[axis + 1 :])), int(np.prod(sizes[:axis]))
            total[:nodes_in_all, :nodes_in_all] += np.kron(
                np.kron(np.eye(outer), bend.T @ bend), np.eye(inner)
            )
        return total


def _nodes(widths: np.ndarray) -> np.ndarray:
    seen = np.unique(widths)
    return seen if len(seen) <= _NODES else np.unique(np.quantile(seen, np.linspace(0, 1, _NODES)))


def _alignments(widths: np.ndarray) -> np.ndarray:
    """The largest power of two, up to the lanes of a register, that divides each width."""
    whole = np.maximum(np.round(widths), 1).astype(np.int64)
    found: np.ndarray = np.minimum(whole & -whole, _LANES)
    return found

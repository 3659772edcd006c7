"""The maximum of two numbers as a network (Ancona et al. 2020, section 3): everything about it is known.

``z = relu(W1^T x)`` and ``out = w2 . z``. With the contributions ``a = relu(x2 - x1) / 2``,
``b = relu(x1 - x2) / 2`` and ``c = (x1 + x2) / 2`` of units A, B, C the output is ``max(x1, x2)``; unit D
contributes ``w2_D (x1 + x2)``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import shapleaf as sl

GROUP = "hidden"
POINTS = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
"""TorchPruner's own four."""


class MaxNet(nn.Module):
    """Units A and B read ``-+first``; ``d`` is the weight of unit D in the output."""

    def __init__(self, *, first: float = 0.25, d: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, 4, bias=False)
        self.out = nn.Linear(4, 1, bias=False)
        w1 = [[-first, 1, 1, 1], [first, -1, 1, 1]]
        self.hidden.weight = nn.Parameter(torch.tensor(w1, dtype=torch.float64).T.contiguous())
        self.out.weight = nn.Parameter(torch.tensor([[0.5 / first, 0.5, 0.5, d]], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(torch.relu(self.hidden(x)))[:, 0]
        return y


def squared(output: Tensor, target: Tensor) -> Tensor:
    """Squared error per example."""
    return (output - target) ** 2


def data(points: Tensor = POINTS) -> list[tuple[Tensor, Tensor]]:
    return [(points, points.amax(1))]


def quadrature() -> tuple[Tensor, Tensor]:
    """Points and weights that integrate piecewise polynomials over U[0, 10]^2 exactly.

    Polynomials of degree up to 10 on each of the triangles x1 < x2 and x1 > x2: a Gauss-Legendre product
    rule in the larger number and the ratio of the smaller to it.
    """
    nodes, weights = np.polynomial.legendre.leggauss(6)
    nodes, weights = (nodes + 1) / 2, weights / 2
    large, ratio = (grid.ravel() for grid in np.meshgrid(10 * nodes, nodes))
    weight = np.outer(
        weights, weights * nodes
    ).ravel()  # the strip of a larger number is as long as it is large
    above = np.stack([large * ratio, large], 1)
    points = np.concatenate([above, above[:, ::-1]])
    return torch.from_numpy(points), torch.from_numpy(np.concatenate([weight, weight]))


def per_example(model: nn.Module, criterion: sl.Criterion, points: Tensor = POINTS) -> Tensor:
    """Scores of the four hidden units for each point, through the whole pipeline."""
    graph = sl.trace(model, points[:1])
    return sl.attribute(model, graph, data(points), criterion, aggregate=None, loss=squared).values[GROUP]

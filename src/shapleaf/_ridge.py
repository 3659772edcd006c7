"""Ridge regressions side by side: normal equations gathered row by row, the penalty chosen across halves."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Candidates, in units of each feature's own variance."""
_FINER = 10**0.5
_STILL = 1e-10
"""A feature whose variance is a smaller share of its squared mean is constant but for rounding."""


class Fit(NamedTuple):
    """What a regression found.

    Attributes:
        matrix: (groups, features, outputs).
        intercept: (groups, outputs); zeros where there is none.
        penalty: the one chosen; infinite where nothing but an intercept predicts better than nothing.
    """

    matrix: Tensor
    intercept: Tensor
    penalty: float


class Ridge:
    """Least squares ``targets ~ rows @ matrix + intercept`` with a penalty on the matrix, in float64.

    Rows are taken in as they come and kept only as long as they are fewer than the features; then their
    moments do. Memory is bounded by two (features x features) matrices for each group.

    Args:
        intercept: whether there is one.

    >>> fit = Ridge()
    >>> rows = torch.randn(1, 40, 3)
    >>> fit.add(rows, 2 * rows[..., :1] + 1, torch.arange(40) % 2)
    >>> round(float(fit.solve().matrix[0, 0, 0]), 2), round(float(fit.solve().intercept), 2)
    (2.0, 1.0)
    """

    def __init__(self, *, intercept: bool = True) -> None:
        self.intercept = intercept
        self._halves = (_Half(), _Half())

    def add(self, rows: Tensor, targets: Tensor, half: Tensor) -> None:
        """Take in (groups, n, features) and (groups, n, outputs); ``half`` is 0 or 1 for each of the n."""
        for number, part in enumerate(self._halves):
            mine = (half == number).nonzero()[:, 0]
            if len(mine):
                part.add(rows[:, mine].double(), targets[:, mine].double())

    def solve(self) -> Fit:
        """The fit to all rows, with the penalty that predicts each half best from the other."""
        halves = [half for half in self._halves if half.count]
        whole = halves[0] if len(halves) == 1 else _Half.joined(*halves)
        if len(halves) == 1:  # a single example cannot tell what holds for others
            return Fit(*whole.fit(None, self.intercept), float("inf"))

        def missed(penalty: float | None) -> float:
            first, second = (half.fit(penalty, self.intercept) for half in halves)
            return halves[1].error(*first) + halves[0].error(*second)

        found: dict[float, float] = {float("inf"): missed(None)}
        for penalty in PENALTIES:
            found[penalty] = missed(penalty)
        best = min(found, key=lambda p: found[p])
        if best < float("inf"):
            for penalty in (best / _FINER, best * _FINER):
                found[penalty] = missed(penalty)
            best = min(found, key=lambda p: found[p])
        return Fit(*whole.fit(None if best == float("inf") else best, self.intercept), best)


class _Half:
    """Some rows, or their moments."""

    def __init__(self) -> None:
        self.count = 0
        self.rows: list[tuple[Tensor, Tensor]] = []
        self.moments: tuple[Tensor, ...] | None = None
        self._centred: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    @staticmethod
    def joined(first: _Half, second: _Half) -> _Half:
        """Both together; neither is needed any more."""
        whole = _Half()
        if first.moments is None and second.moments is None:
            for rows, targets in (*first.rows, *second.rows):
                whole.add(rows, targets)
            return whole
        first._condense()
        second._condense()
        assert first.moments is not None
        assert second.moments is not None
        whole.count = first.count + second.count
        whole.moments = tuple(a + b for a, b in zip(first.moments, second.moments, strict=True))
        return whole

    def add(self, rows: Tensor, targets: Tensor) -> None:
        self.count += rows.shape[1]
        self.rows.append((rows, targets))
        if self.moments is not None or self.count > rows.shape[2]:
            self._condense()

    def _condense(self) -> None:
        for rows, targets in self.rows:
            new = (
                rows.sum(1),
                targets.sum(1),
                rows.mT @ rows,
                rows.mT @ targets,
                targets.square().sum((1, 2)),
            )
            old = self.moments
            self.moments = new if old is None else tuple(a.add_(b) for a, b in zip(old, new, strict=True))
        self.rows = []

    def fit(self, penalty: float | None, intercept: bool) -> tuple[Tensor, Tensor]:
        """Matrix and intercept under a penalty; None lets nothing but the intercept in."""
        if self._centred is None:
            self._centred = self._centre(intercept)
        centre, aim, left, right = self._centred
        if penalty is None:
            matrix = centre.new_zeros(*centre.shape, aim.shape[1])
        elif self.moments is None:
            matrix = _dual(left, right, penalty)
        else:
            matrix = _primal(left, right, penalty)
        return matrix, aim - (centre[:, None] @ matrix)[:, 0]

    def _centre(self, intercept: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Means, and rows and targets, or their moments, about them."""
        if self.moments is None:
            rows, targets = (torch.cat(parts, 1) for parts in zip(*self.rows, strict=True))
            centre, aim = rows.mean(1), targets.mean(1)
        else:
            centre, aim = (self.moments[i] / self.count for i in (0, 1))
        if not intercept:
            centre, aim = torch.zeros_like(centre), torch.zeros_like(aim)
        if self.moments is None:
            rows, targets = rows - centre[:, None], targets - aim[:, None]
            still = rows.square().mean(1) <= _STILL * centre.square()
            return centre, aim, rows.masked_fill(still[:, None], 0), targets
        gram = self.moments[2] - self.count * centre[:, :, None] * centre[:, None]
        cross = self.moments[3] - self.count * centre[:, :, None] * aim[:, None]
        gram, still = varying(gram, centre, self.count)
        return centre, aim, gram, cross.masked_fill(still[:, :, None], 0)

    def error(self, matrix: Tensor, intercept: Tensor) -> float:
        """The sum of squares that a fit leaves of these targets."""
        if self.moments is None:
            return sum(
                float((targets - rows @ matrix - intercept[:, None]).square().sum())
                for rows, targets in self.rows
            )
        rows, targets, gram, cross, square = self.moments
        fitted = (gram @ matrix * matrix).sum() - 2 * (matrix * cross).sum()
        shifted = 2 * ((rows[:, None] @ matrix)[:, 0] - targets) + self.count * intercept
        return float(square.sum() + fitted + (shifted * intercept).sum())


def varying(gram: Tensor, mean: Tensor, count: float) -> tuple[Tensor, Tensor]:
    """Moments about the mean, summed over rows, zero for features that are constant; and which are.

    >>> varying(torch.tensor([[4.0, 1e-9], [1e-9, 1e-12]]), torch.tensor([0.0, 1.0]), 10)
    (tensor([[4., 0.],
            [0., 0.]]), tensor([False,  True]))
    """
    still = gram.diagonal(dim1=-2, dim2=-1) <= count * _STILL * mean.square()
    return gram.masked_fill(still[..., :, None] | still[..., None, :], 0), still


def scale(gram: Tensor) -> Tensor:
    """What a penalty of one is for each feature: its variance, or a thousandth of all features' mean."""
    own = gram.diagonal(dim1=-2, dim2=-1)
    return _floored(own)


def _floored(own: Tensor) -> Tensor:
    return own + 1e-3 * own.mean(-1, keepdim=True) + math.sqrt(torch.finfo(own.dtype).tiny)


def _primal(gram: Tensor, cross: Tensor, penalty: float) -> Tensor:
    factor = torch.linalg.cholesky(gram + torch.diag_embed(penalty * scale(gram)))
    solved: Tensor = torch.cholesky_solve(cross, factor)
    return solved


def _dual(rows: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """The same from fewer rows than features."""
    weighted = rows / _floored(rows.square().sum(1))[:, None]
    kernel = weighted @ rows.mT
    kernel.diagonal(dim1=-2, dim2=-1).add_(penalty)
    duals: Tensor = torch.linalg.solve(kernel, targets)
    return weighted.mT @ duals

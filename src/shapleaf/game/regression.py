"""Shapley values by weighted least squares over sampled coalitions."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, comb

import numpy as np
import torch
from torch import Tensor

from .._rng import stream
from ..errors import CriterionError
from .game import Estimate, Game, ends, precise

DEGREES = 4
"""Odd degrees of the effect of size, 1 to 7; 8, 16 and 32 of them did no better (512 units, 100 images)."""


@dataclass(frozen=True, slots=True)
class Regression:
    """The additive game that fits the losses of sampled coalitions best.

    Lundberg & Lee (2017), equation 8: with ``v(S) = loss(nobody) - loss(S)``, the Shapley values minimise
    ``sum_S w(S) (v(S) - sum_{i in S} phi_i)^2`` over all coalitions of 1 to n - 1 units, where
    ``w(S) = (n - 1) / (C(n, |S|) |S| (n - |S|))`` and the values sum to ``v(everybody)``. Coalitions are
    drawn as in Musco & Witter (2024): their size uniform on 1 to n - 1, which is by leverage, each together
    with its complement, weighted by ``1 / (|S| (n - |S|))``; the sum is kept exactly, by fitting what is left
    over an equal share for all. **All examples share the coalitions**, so that one factorisation of an
    n x n matrix serves them all, and a coalition is played by whole batches under one mask.

    A pair determines the difference of its two losses alone, in which interactions of two units are linear:
    squared errors of linear readouts are exact from n - 1 independent pairs on. In other games the values
    are consistent, with a bias that falls like 1 / coalitions, below the sampling error. A unit that never
    changes a loss gets a small value but **not exactly 0**. With fewer pairs than n - 1 the fit is not
    unique: it is the one nearest to the equal share, and shrinks towards it; at about n pairs
    (``per_unit=2``) the error is at its worst, more than with half as many.

    Where all ``2 ** n - 2`` coalitions cost no more, they are played once each: exact values.
    Costs ``per_unit * n + 2`` evaluations, as many orders of :class:`Permutation` do, and a solution in
    O(n^3 + pairs * n * examples).

    Attributes:
        per_unit: coalitions per unit; the number of pairs is rounded up.

    The standard error is the jackknife over pairs, in closed form; it is None for exact values and for too
    few pairs. Draws are shared by the examples, so that it does not fall when averaged over them.

    Raises:
        CriterionError: ``per_unit`` is not positive.

    >>> from shapleaf.game.toys import TableGame  # losses of nobody, unit 0, unit 1, both
    >>> Regression().estimate(TableGame(torch.tensor([[10.0, 4.0, 8.0, 0.0]]))).values.round().tolist()
    [[7.0, 3.0]]
    """

    per_unit: float = 8

    def __post_init__(self) -> None:
        if not 0 < self.per_unit < float("inf"):
            raise CriterionError(f"Regression needs per_unit > 0, received {self.per_unit}.")

    def estimate(self, game: Game, seed: int = 0) -> Estimate:
        """Values and standard errors; draws depend on seed and group name alone."""
        before = game.evaluations
        nobody, everybody = ends(game)
        n, pairs = game.players, ceil(self.per_unit * game.players / 2)
        exact = 2 ** (n - 1) - 1 <= pairs
        present, weights = _all(n) if exact else _drawn(game, pairs, seed)
        worth = nobody - everybody
        # Half of v(S) - v(complement), less the equal share: linear in units that do not interact.
        rises = (_played(game, ~present) - _played(game, present)) / 2
        design = present.double()
        share = design.mean(1, keepdim=True)
        rises -= (share - 0.5) * worth.double().cpu()
        values, error = _fit(design - share, weights, rises, _odd(share))
        values = precise(values.to(game.device)) + worth[:, None] / n
        return Estimate(
            values=values,
            stderr=None if exact or error is None else precise(error.to(game.device)),
            evaluations=game.evaluations - before,
            shared=not exact,
            gap=worth - values.sum(1),
        )


def _all(n: int) -> tuple[Tensor, Tensor]:
    """One coalition of every pair, ``(pairs, players)``, and its weight."""
    numbers = torch.arange(1, 2 ** (n - 1))
    present = (numbers[:, None] >> torch.arange(n) & 1).bool()
    weights = [1 / (comb(n, size) * size * (n - size)) for size in present.sum(1).tolist()]
    return present, torch.tensor(weights, dtype=torch.float64)


def _drawn(game: Game, pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """One coalition of each sampled pair, ``(pairs, players)``, and what its draw leaves of its weight."""
    n, generator = game.players, stream(seed, "regression", game.name)
    present = np.zeros((pairs, n), dtype=bool)
    sizes = generator.integers(1, n, size=pairs)
    for row, size in zip(present, sizes.tolist(), strict=True):
        row[generator.permutation(n)[:size]] = True
    return torch.from_numpy(present), torch.from_numpy(1 / (sizes * (n - sizes)))


def _played(game: Game, present: Tensor) -> Tensor:
    """Losses ``(coalitions, examples)`` in double precision on the CPU."""
    losses = torch.zeros(len(present), game.examples, dtype=torch.float64)
    for first in range(0, len(present), game.width):
        rows = slice(first, first + game.width)
        mask = present[rows, None].to(game.device, game.dtype).expand(-1, game.examples, -1)
        losses[rows] = game.loss(mask).double().cpu()
    return losses


def _odd(share: Tensor) -> Tensor:
    """Polynomials of odd degree in the share of units present, ``(pairs, degrees)``."""
    centred = 2 * share[:, 0].numpy() - 1
    degrees = min(DEGREES, len(np.unique(np.abs(centred))) // 2)
    return torch.from_numpy(np.polynomial.legendre.legvander(centred, 2 * degrees)[:, 1::2])


def _fit(design: Tensor, weights: Tensor, rises: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor | None]:
    """Smallest weighted least-squares solution ``(examples, players)``, and its error if it is the only one.

    What depends on the size of a coalition alone is fitted beside it, and swept out of the design first.
    Leaving out pair *p* moves the solution by ``influence_p * residual_p / (1 - leverage_p)``.
    """
    root = (weights / weights.sum()).sqrt()[:, None]
    basis, _ = torch.linalg.qr(root * sizes)
    design, rises = (root * one - basis @ (basis.T @ (root * one)) for one in (design, rises))
    influence = torch.linalg.pinv(design.T @ design, hermitian=True, rtol=1e-12) @ design.T
    values = influence @ rises
    leverage = (design * influence.T).sum(1) + basis.square().sum(1)
    pairs = len(design)
    if not pairs or bool((leverage > 1 - 1e-6).any()):
        return values.T, None
    residuals = (rises - design @ values) / (1 - leverage)[:, None]
    variance = (pairs - 1) / pairs * influence.square() @ residuals.square()
    return values.T, variance.sqrt().T

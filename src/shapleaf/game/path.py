"""Shapley values from gradients along the path from nobody to everybody."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .._rng import stream
from ..errors import CriterionError
from .game import Estimate, Game, Running, ends, precise

Masks = Literal["line", "bernoulli", "gaussian"]
Noise = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Path:
    """Gradients of the loss with respect to the masks; the cost does not depend on the units.

    Owen (1972): with every unit present with probability *q*, independently, let ``M(q)`` be the
    expected loss; then the Shapley value of unit *i* is the integral of ``-dM/dq_i`` over *q*
    from 0 to 1. The integral is a Gauss-Legendre sum over ``points`` values of *q*, exact for
    interactions of up to ``2 * points`` units. What is left is the expectation:

    ``"line"``
        The mask *q* itself. Integrated gradients (Sundararajan et al. 2017) from absent units
        to present ones. Nothing is sampled. Exact for a loss quadratic in the masks and for a
        multilinear one, otherwise biased where units interact through curvature.
    ``"gaussian"``
        Masks ``q + sqrt(q(1 - q)) * noise``: a linear layer that reads the units sees exactly the
        mean and covariance that random coalitions give it. Little bias, some variance.
    ``"bernoulli"``
        Random coalitions themselves. The marginal contribution of a unit is taken from the slopes
        at both its ends (trapezoid rule): no bias for losses of degree 2 in each mask, but a
        lasting one where a few units bend the loss strongly (relative error .58 at 10 units of a
        trained ReLU network, where gaussian masks reach .16; both .11 at 256 units).
        **Not before a max-pool**: an absent map is all ties, and the gradient of the pool follows
        one of them at random. The same holds where absence puts a ReLU on its kink.

    With ``q`` the mean of a sampled mask *m* and ``q(1 - q)`` its variance, both sampled kinds
    weigh the slope by ``1 + (1 - 2q)(m - q) / (2q(1 - q))``, the derivative of *m* along *q* (for
    coalitions that is 1/2q if present, 1/2(1-q) if absent). Each example has draws of its own.

    Costs ``3 * points * draws + 2`` evaluations; the 2 are for ``gap``, which measures bias and
    noise along the path together. Rank correlation of the mean over 100 images of CIFAR-10 with
    converged Shapley values at 50 evaluations (``benchmarks/results/estimators.md``): last
    convolution of a VGG16 (512 units, then a max-pool) line .988, gaussian with 4 points and 4 draws
    .988, bernoulli .945; its first dense layer .995, .995, .979; ResNet-20 layer3.1 (64 units) .920,
    .966, .942. For comparison, 5 shared permutations at 2,557, 2,557 and 317 evaluations: .554, .778,
    .878.

    Attributes:
        points: values of *q*.
        masks: "line", "gaussian" or "bernoulli".
        draws: masks per example and value of *q*; an even number comes in antithetic pairs, which
            takes most of the noise out of "gaussian" (a good start is ``Path(16, "gaussian", 4)``).

    The standard error adds up the variances at each *q*, where an antithetic pair is one draw; it
    is None for "line" and for fewer than two independent draws (so ``draws`` 1 and 2). It knows of
    the sampling only, not of the bias.

    Raises:
        CriterionError: an argument is out of range, or "line" was asked for several draws.

    >>> from shapleaf.game.toys import TableGame  # losses of nobody, unit 0, unit 1, both
    >>> Path(points=1).estimate(TableGame(torch.tensor([[10.0, 4.0, 8.0, 0.0]]))).values.tolist()
    [[7.0, 3.0]]
    """

    points: int = 16
    masks: Masks = "line"
    draws: int = 1

    def __post_init__(self) -> None:
        if self.masks not in get_args(Masks):
            raise CriterionError(
                f"Path knows masks {', '.join(map(repr, get_args(Masks)))}; received {self.masks!r}."
            )
        if self.points < 1 or self.draws < 1:
            raise CriterionError(
                f"Path needs points >= 1 and draws >= 1, received {self.points} and {self.draws}."
            )
        if self.masks == "line" and self.draws > 1:
            raise CriterionError(
                f"Path(masks='line') samples nothing, so draws={self.draws} would repeat the same work. "
                "Use more points, or masks='gaussian'."
            )

    def estimate(self, game: Game, seed: int = 0) -> Estimate:
        """Values and standard errors; draws depend on seed, group name and example id alone."""
        before = game.evaluations
        nobody, everybody = ends(game)
        values = nobody.new_zeros(game.examples, game.players)
        variance: Tensor | None = torch.zeros_like(values)
        generators = [stream(seed, "path", game.name, example) for example in game.ids]
        nodes, weights = np.polynomial.legendre.leggauss(self.points)
        for q, weight in zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True):
            running = Running()
            for masks in self._draws(game, q, generators):
                running.add(torch.stack([_slope(game, mask, q) for mask in masks]).mean(0))
            values -= weight * running.mean
            spread = running.variance_of_mean()
            variance = None if variance is None or spread is None else variance + weight**2 * spread
        return Estimate(
            values=values,
            stderr=None if variance is None else variance.sqrt(),
            evaluations=game.evaluations - before,
            shared=False,
            gap=nobody - everybody - values.sum(1),
        )

    def _draws(self, game: Game, q: float, generators: list[np.random.Generator]) -> Iterator[list[Tensor]]:
        """Independent draws, each a list of masks ``(examples, players)`` that belong together."""
        if self.masks == "line":
            yield [torch.full((game.examples, game.players), q, dtype=game.dtype, device=game.device)]
            return
        signs = (1,) if self.draws % 2 else (1, -1)
        for _ in range(self.draws // len(signs)):
            noise = np.empty((game.examples, game.players))
            for row, generator in zip(noise, generators, strict=True):
                if self.masks == "gaussian":
                    generator.standard_normal(out=row)
                else:
                    row[:] = generator.uniform(-0.5, 0.5, size=game.players)
            masks = [torch.from_numpy(self._mask(q, sign * noise)) for sign in signs]
            yield [mask.to(game.dtype).to(game.device) for mask in masks]

    def _mask(self, q: float, noise: Noise) -> Noise:
        gaussian = self.masks == "gaussian"
        return q + math.sqrt(q * (1 - q)) * noise if gaussian else (noise < q - 0.5).astype(np.float64)


def _slope(game: Game, mask: Tensor, q: float) -> Tensor:
    """Slope of the loss along q_i through a mask of mean q and variance q(1 - q), ``(examples, players)``."""
    slope = precise(game.gradient(mask)[1])
    return slope * (1 + (0.5 - q) / (q * (1 - q)) * (precise(mask) - q))

"""Shapley values from gradients along the path from nobody to everybody."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .._rng import stream
from ..errors import CriterionError
from .game import Estimate, Game, precise
from .sampling import Ends, Running, sample

Masks = Literal["signs", "gaussian", "bernoulli", "line"]
Noise = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Path:
    """Gradients of the loss with respect to the masks; the cost does not depend on the units.

    Owen (1972): with every unit present with probability *q*, independently, let ``M(q)`` be the
    expected loss; then the Shapley value of unit *i* is the integral of ``-dM/dq_i`` over *q*
    from 0 to 1. The integral is a Gauss-Legendre sum over ``points`` values of *q*, exact for
    interactions of up to ``2 * points`` units. What is left is the expectation:

    ``"signs"``
        Masks ``q + sqrt(q(1 - q)) * noise`` with noise of random signs: a linear layer that reads
        the units sees exactly the mean and covariance that random coalitions give it. Little bias,
        and of all such noise the one with the least variance. Squares of which a norm takes
        the mean see them squared: the same mean, never below zero. A norm written by hand is steep at
        nobody, so where few units are not zero the standard error is large; use ``Permutation()`` there.
    ``"gaussian"``
        The same with normal noise.
    ``"bernoulli"``
        Random coalitions themselves. The marginal contribution of a unit is taken from the slopes
        at both its ends (trapezoid rule): no bias for losses of degree 2 in each mask, but a
        lasting one where a few units bend the loss strongly (relative error .58 at 10 units of a
        trained ReLU network, where gaussian masks reach .16; both .11 at 256 units).
        **Not before a max-pool**: an absent map is all ties, and the gradient of the pool follows
        one of them at random. The same holds where absence puts a ReLU on its kink.
    ``"line"``
        The mask *q* itself. Integrated gradients (Sundararajan et al. 2017) from absent units
        to present ones. Nothing is sampled. Exact for a loss quadratic in the masks and for a
        multilinear one, otherwise biased where units interact through curvature.

    With ``q`` the mean of a sampled mask *m* and ``q(1 - q)`` its variance, the slope is weighed by
    ``1 + (1 - 2q)(m - q) / (2q(1 - q))``, the derivative of *m* along *q* (for coalitions that is
    1/2q if present, 1/2(1-q) if absent). Its second term carries the curvature and most of the noise,
    the more units there are. For signs and normal noise it therefore counts ``n / (n + p)`` with *n* the
    number of slopes averaged and *p* the prior, or a sixth of the units if that is less: a ridge that goes
    as draws come. ``prior=0`` is free of that bias.

    Each example has draws of its own; *q* and ``1 - q`` share theirs, which cancels noise. Costs
    ``3 * points * draws + 2`` evaluations; the 2 are for ``gap``, which measures bias and noise
    along the path together. ``benchmarks/results/estimators.md`` has the measurements.

    Attributes:
        points: values of *q*.
        masks: "signs", "gaussian", "bernoulli" or "line".
        draws: masks per example and value of *q*; an even number comes in antithetic pairs, which
            takes most of the noise out. 4 unless told otherwise; 1 for the line.
        prior: how many slopes the curvature term is worth against; see above.

    The standard error is the spread of independent draws, where an antithetic pair is one, and of the
    estimate with ``prior=0``, which is noisier; it is None for "line" and for fewer than two independent
    draws (so ``draws`` 1 and 2). It knows of the sampling only, not of the bias.

    Raises:
        CriterionError: an argument is out of range, or "line" was asked for several draws.

    >>> from shapleaf.game.toys import TableGame  # losses of nobody, unit 0, unit 1, both
    >>> Path(1, "line").estimate(TableGame(torch.tensor([[10.0, 4.0, 8.0, 0.0]]))).values.tolist()
    [[7.0, 3.0]]
    """

    points: int = 5
    masks: Masks = "signs"
    draws: int = 0
    prior: float = 10.0

    def __post_init__(self) -> None:
        if self.masks not in get_args(Masks):
            kinds = ", ".join(map(repr, get_args(Masks)))
            raise CriterionError(f"Path(masks=...) is one of {kinds}; received {self.masks!r}.")
        if not self.draws:
            object.__setattr__(self, "draws", 1 if self.masks == "line" else 4)
        if self.points < 1 or self.draws < 1 or self.prior < 0:
            raise CriterionError(
                f"Path needs points >= 1, draws >= 1 and prior >= 0, received {self.points}, "
                f"{self.draws} and {self.prior}."
            )
        if self.masks == "line" and self.draws > 1:
            raise CriterionError(
                f'Path(masks="line") draws nothing at random, draws={self.draws} would repeat the same work. '
                'Raise points, or use masks="signs".'
            )

    @property
    def shared(self) -> bool:
        """Never: each example has draws of its own."""
        return False

    @property
    def rounds(self) -> int:
        """Independent draws: masks at every *q*, or antithetic pairs of them."""
        return self.draws if self.draws % 2 else self.draws // 2

    def cost(self, players: int) -> int:
        """Evaluations of one draw, whatever the number of units."""
        return 3 * self.points * self.draws // self.rounds

    def estimate(self, game: Game, seed: int = 0) -> Estimate:
        """Values and standard errors; draws depend on seed, group name and example id alone."""
        return sample(self, game, seed)

    def draw(self, game: Game, seed: int, index: int, known: Ends) -> Tensor:
        """Slopes along the path without their curvature term and with it, ``(2, examples, players)``."""
        nodes, weights = (array / 2 for array in np.polynomial.legendre.leggauss(self.points))
        noise = torch.from_numpy(self._noise(game, seed, index)).to(game.dtype).to(game.device)
        signs = (1, -1) if self.draws % 2 == 0 else (1,)
        places = [(q, -weight / len(signs)) for q, weight in zip(nodes + 0.5, weights, strict=True)]
        masks = torch.stack(
            [self._mask(q, sign * row) for sign in signs for (q, _), row in zip(places, noise, strict=True)]
        )
        plain = precise(torch.zeros(game.examples, game.players, device=game.device))
        curvature = torch.zeros_like(plain)
        slopes = game.gradient(masks)[1]
        for (q, weight), mask, found in zip(places * len(signs), masks, slopes, strict=True):
            slope = precise(found) * weight
            plain += slope
            curvature.addcmul_(slope, precise(mask) - q, value=(0.5 - q) / (q * (1 - q)))
        return torch.stack([plain, plain + curvature])

    def combined(self, running: Running) -> tuple[Tensor, Tensor | None]:
        """The mean of the draws, the curvature term weighed by their number."""
        slopes = self.points * running.count
        prior = min(self.prior, running.mean.shape[-1] / 6) if self.masks in ("signs", "gaussian") else 0
        variance = running.variance_of_mean() if self.masks != "line" else None
        plain, whole = running.mean
        values = torch.lerp(plain, whole, slopes / (slopes + prior))
        return values, None if variance is None else variance[1]

    def _noise(self, game: Game, seed: int, index: int) -> Noise:
        """What masks deviate by, in units of their standard deviation, ``(points, examples, players)``."""
        noise = np.zeros((self.points, game.examples, game.players))
        if self.masks == "line":
            return noise
        half = (self.points + 1) // 2
        for row, example in enumerate(game.ids):
            generator = stream(seed, "path", game.name, index, example)
            if self.masks == "signs":
                noise[:half, row] = generator.integers(0, 2, (half, game.players)) * 2 - 1
            elif self.masks == "gaussian":
                noise[:half, row] = generator.standard_normal((half, game.players))
            else:
                noise[:half, row] = generator.uniform(-0.5, 0.5, (half, game.players))
        noise[half:] = noise[: self.points // 2][::-1]  # q and 1 - q share their draws
        return noise

    def _mask(self, q: float, noise: Tensor) -> Tensor:
        if self.masks == "bernoulli":
            return (noise < q - 0.5).to(noise.dtype)
        return q + math.sqrt(q * (1 - q)) * noise

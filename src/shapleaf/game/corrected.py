"""Shapley values from gradients, freed of their bias by a few marginal contributions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from .._rng import stream
from ..errors import CriterionError
from .game import Estimate, Game, ends, precise
from .path import Path
from .sampling import drawn, summary


@dataclass(frozen=True, slots=True)
class Corrected:
    """What gradients along the path say, plus what sampled marginal contributions say they miss.

    Every example follows an order of its own from a place of its own for ``marginals`` steps: each step is
    an unbiased sample of the Shapley value of the unit that leaves. The mean over examples and steps of
    ``sample - path value``, unit by unit, is what the path is off by in the mean over examples; the spread
    between examples, most of what makes sampling slow, is not in it. With *b* the correction of a unit, *v*
    its sampling variance and *t* how much ``b^2`` exceeds ``v`` on average, in proportion to the unit's
    squared values and beyond a standard error, the value rises by ``b t / (t + v)``: what was measured
    with little certainty changes little, and what is worth little changes little (Efron and Morris 1973).

    Bias: that of the path at few marginals, none in the mean over examples at many; the values of single
    examples keep the path's about it. Costs the path's evaluations and ``marginals + 1`` more.
    The standard error is the path's own of each example and, as ``common``, what the correction leaves:
    the noise that it adds and the bias that it does not take away. It pays where the path's bias decides, at
    some multiple of the units' number; ``benchmarks/results/estimators.md`` has the measurements.

    Attributes:
        path: the gradients.
        marginals: steps of each example.

    Raises:
        CriterionError: ``marginals`` is not positive.

    >>> from shapleaf.game.toys import TableGame  # losses of nobody, unit 0, unit 1, both
    >>> game = TableGame(torch.tensor([[10.0, 4.0, 8.0, 0.0]]).repeat(8, 1))
    >>> Corrected(marginals=4).estimate(game).values[0].round(decimals=6).tolist()
    [7.0, 3.0]
    """

    path: Path = field(default_factory=Path)
    marginals: int = 256

    def __post_init__(self) -> None:
        if self.marginals < 1:
            raise CriterionError(f"Corrected needs marginals >= 1, received {self.marginals}.")

    def estimate(self, game: Game, seed: int = 0) -> Estimate:
        """Values, their standard errors, and what the correction leaves open in all of them."""
        before, known = game.evaluations, ends(game)
        path = summary(self.path, drawn(self.path, game, seed, known), known, 0)
        units, samples = self._samples(game, seed, known[1])
        errors = samples - path.values.gather(1, units)
        correction, common = _correction(units, errors, path.values.square().mean(0))
        values = path.values + correction
        return replace(
            path,
            values=values,
            evaluations=game.evaluations - before,
            gap=known[0] - known[1] - values.sum(1),
            common=common,
        )

    def _samples(self, game: Game, seed: int, everybody: Tensor) -> tuple[Tensor, Tensor]:
        """The units that leave in each example's walk, and what that costs, ``(examples, marginals)``."""
        orders, places = self._walks(game, seed)
        turns, steps = places // game.players, places % game.players
        rows = torch.arange(game.examples, device=game.device)[:, None]
        units = orders[turns, rows, steps]
        ranks = orders.argsort(2)
        losses = []
        # Before the first step, then behind each.
        for at in range(-1, self.marginals, game.width):
            step = torch.arange(at, min(at + game.width, self.marginals), device=game.device)
            gone = places[:, :1] + step  # how far into the concatenated orders, (examples, steps)
            turn = gone.clamp_min(0) // game.players
            last = torch.where(gone < 0, -1, gone % game.players)
            masks = ranks[turn, rows] > last[..., None]
            losses.append(precise(game.loss(masks.movedim(1, 0).to(game.dtype))))
        found = torch.cat(losses).T
        fresh = torch.where(steps == 0, everybody[:, None], found[:, :-1])
        return units, found[:, 1:] - fresh

    def _walks(self, game: Game, seed: int) -> tuple[Tensor, Tensor]:
        """Orders ``(turns, examples, players)``, one after another, and the places passed in them."""
        turns = (self.marginals + game.players - 1) // game.players + 1
        orders = np.empty((turns, game.examples, game.players), dtype=np.int64)
        starts = np.empty((game.examples, 1), dtype=np.int64)
        for row, example in enumerate(game.ids):
            generator = stream(seed, "corrected", game.name, example)
            starts[row] = generator.integers(game.players)
            for turn in range(turns):
                orders[turn, row] = generator.permutation(game.players)
        places = torch.from_numpy(starts + np.arange(self.marginals))
        return torch.from_numpy(orders).to(game.device), places.to(game.device)


def _correction(units: Tensor, errors: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """What to add to every unit's values, and the standard error that this leaves, ``(players,)`` each.

    Bias and variance are taken to be in proportion to ``scale``, as far as the samples do not say otherwise.
    """
    where, tiny = units.flatten(), torch.finfo(errors.dtype).tiny

    def summed(values: Tensor) -> Tensor:
        return torch.zeros_like(scale).index_add(0, where, values.flatten())

    count = summed(torch.ones_like(errors))
    mean = summed(errors) / count.clamp_min(1)
    squares = summed((errors - mean[units]).square())
    degrees = (count - 1).clamp_min(0)
    typical = scale * squares.sum() / (degrees * scale).sum().clamp_min(tiny)
    # Few samples know little of their variance: three more of the typical one.
    variance = (squares + 3 * typical) / (degrees + 3) / count.clamp_min(1)
    excess = (mean.square() - variance) * count
    unit = scale / (count * scale).sum().clamp_min(tiny)
    # Only what stands out from chance is taken away; what is left may be all that there seems to be.
    sure = unit * (excess.sum() - excess.square().sum().sqrt()).clamp_min(0)
    seen = unit * excess.sum().clamp_min(0)
    share = torch.where(count > 0, sure / (sure + variance).clamp_min(tiny), 0)
    return share * mean, ((1 - share).square() * seen + share.square() * variance).sqrt()

"""Shapley values from Owen's integral, of the expected loss by propagating means and variances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from .. import _context
from .._ranks import gather
from ..errors import CriterionError
from ..masking import Gates
from .game import Estimate, Game, ends, precise
from .propagation import Propagation, expected_loss, layer_game, propagated
from .readout import Readout
from .suffix import Prefix, Suffix

Place = tuple[str, bool]
"""A call that reads the units, and whether the covariance of its columns is meant."""


@dataclass(frozen=True, slots=True)
class OwenMoments:
    """x."""

    points: int = 8
    samples: int = 32

    def __post_init__(self) -> None:
        if self.points < 1 or self.samples < 2:
            raise CriterionError(
                f"OwenMoments needs points >= 1 and samples >= 2, received {self.points} and {self.samples}."
            )

    def estimate(self, game: Game, seed: int = 0) -> Estimate:
        """Values of every example; nothing is drawn, so the seed makes no difference."""
        layer, before = layer_game(game, "OwenMoments"), game.evaluations
        nobody, everybody = ends(layer)
        mine = [self._of(part) for part in layer.parts]
        if not mine:  # more ranks than examples
            mine = [nobody.new_zeros(0, layer.players)]
        values = gather(torch.cat(mine), layer.examples)
        layer.evaluations += 6 * self.points
        return Estimate(
            values=values,
            stderr=None,
            evaluations=layer.evaluations - before,
            shared=False,
            gap=nobody - everybody - values.sum(1),
        )

    def _of(self, part: Suffix) -> Tensor:
        """Values ``(examples, units)`` of one piece of the examples."""
        readouts: dict[str, Readout] = {}
        due: dict[Place, Tensor] = {}
        values = precise(torch.zeros(part.examples, part.players, dtype=part.dtype, device=part.device))
        nodes, weights = np.polynomial.legendre.leggauss(self.points)
        for q, weight in zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True):
            mask = torch.full_like(values, q, dtype=part.dtype).requires_grad_()
            with torch.enable_grad():
                reader, output = propagated(part, partial(_Bernoulli, part, mask, readouts, q))
                loss = expected_loss(output, reader, part, self.samples)
            leaves = [mask, *reader.slopes.values()]
            instead = "an estimator without gradients, such as Permutation()"
            first, *rest = _context.gradients(loss, leaves, instead=instead)
            if first is not None:
                values -= weight * precise(first)
            for place, slope in zip(reader.slopes, rest, strict=True):
                if slope is not None:  # d/dq_i of q_i (1 - q_i) c_i^2 is (1 - 2 q_i) c_i^2
                    due[place] = due.get(place, 0) + weight * (1 - 2 * q) * slope
        for (key, products), slope in due.items():
            against = readouts[key].against_products if products else readouts[key].against_squares
            values -= precise(against(slope))
        return values


class _Bernoulli(Propagation):
    """Units are present independently of each other, each with probability q.

    What a unit's own probability does to a variance is linear in the slope with respect to that variance.
    So the variances get leaves of their own, whose slopes at all q are added up before they meet the units.
    """

    def __init__(
        self,
        part: Suffix,
        mask: Tensor,
        readouts: dict[str, Readout],
        q: float,
        model: nn.Module,
        gates: Gates,
        prefix: Prefix,
    ) -> None:
        super().__init__(part, mask, readouts, model, gates, prefix)
        self._scale = q * (1 - q)
        self.slopes: dict[Place, Tensor] = {}

    def scatter(self, readout: Readout) -> tuple[Tensor, Callable[[], Tensor]]:
        def leaf(known: Tensor, *, products: bool) -> Tensor:
            slope = self.slopes[readout.key, products] = torch.zeros_like(known, requires_grad=True)
            return self._scale * known + slope

        def covariance() -> Tensor:
            return leaf(readout.products, products=True)

        return leaf(readout.squares, products=False), covariance

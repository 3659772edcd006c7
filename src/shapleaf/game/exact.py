"""Shapley values by playing every coalition."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import torch

from ..errors import CriterionError
from .game import Estimate, Game, precise

MOST_PLAYERS = 16


@dataclass(frozen=True, slots=True)
class Exact:
    """All ``2 ** players`` coalitions: no error, for groups of at most 16 units.

    Shapley (1953): unit *i* is worth the mean over sizes *k* of the mean of
    ``loss(S) - loss(S + i)`` over the coalitions *S* of *k* other units. Costs
    ``2 ** players`` evaluations and keeps ``2 * players`` sums per example and unit.
    A unit that never changes a loss gets exactly 0.

    Raises:
        CriterionError: the group has more than 16 units.

    >>> from shapleaf.game.toys import TableGame  # losses of nobody, unit 0, unit 1, both
    >>> Exact().estimate(TableGame(torch.tensor([[10.0, 4.0, 8.0, 0.0]]))).values.tolist()
    [[7.0, 3.0]]
    """

    def estimate(self, game: Game, seed: int = 0) -> Estimate:
        """Exact values; the seed is not used."""
        n = game.players
        if n > MOST_PLAYERS:
            raise CriterionError(
                f"Exact() plays every coalition, which is possible for at most {MOST_PLAYERS} units; "
                f"group {game.name!r} has {n}. Use Permutation() or Path()."
            )
        before = game.evaluations
        # Losses are summed by the number of other units present, apart for coalitions without
        # and with the unit. Counting in binary meets S and S + i in the same order, so that a
        # unit that changes nothing has two bitwise equal sums.
        without = precise(torch.zeros(n, game.examples, n, device=game.device))
        joined = torch.zeros_like(without)
        bits = torch.arange(n, device=game.device)
        together = min(2 ** (game.width.bit_length() - 1), 2**n)
        for first in range(0, 2**n, together):
            coalitions = torch.arange(first, first + together, device=game.device)
            present = precise(coalitions[:, None] >> bits & 1)
            masks = present[:, None].to(game.dtype).expand(-1, game.examples, -1)
            losses = precise(game.loss(masks))
            for size, here, loss in zip(present.sum(1).int().tolist(), present, losses, strict=True):
                if size < n:
                    without[size] += loss[:, None] * (1 - here)
                if size > 0:
                    joined[size - 1] += loss[:, None] * here
            if not first:
                nobody = losses[0]
        everybody = losses[-1]
        weights = without.new_tensor([1 / (n * comb(n - 1, size)) for size in range(n)])
        values = torch.einsum("s,sen->en", weights, without - joined)
        return Estimate(
            values=values,
            stderr=None,
            evaluations=game.evaluations - before,
            shared=False,
            gap=nobody - everybody - values.sum(1),
        )

"""Shapley values by sampling the orders in which units leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .._rng import stream
from ..errors import CriterionError
from .game import Estimate, Game, precise
from .sampling import Ends, Running, sample


@dataclass(frozen=True, slots=True)
class Permutation:
    """Units leave one after another in random order; each is worth the rise of the loss it causes.

    Castro, Gómez, Tejada (2009). Unbiased, unless truncated. The values of an example always sum to
    ``loss(nobody) - loss(everybody)``, and a unit that never changes a loss gets exactly 0.
    Costs ``samples * (players - 1) + 2`` evaluations.

    By default every example has orders of its own, so that errors average out over examples,
    and every second order is the reverse of the one before, which cancels what depends on the
    position alone. ``Permutation(5, antithetic=False, shared=True)`` is the sampler of
    Ancona et al. (2020): its error in the mean over examples is 3 to 5 times larger at the
    same cost.

    Attributes:
        samples: orders per example; even if antithetic.
        antithetic: whether orders come in pairs, one the reverse of the other.
        shared: whether all examples use the same orders.
        truncate: a walk ends where the losses have come, in the mean over examples, within this share of
            the way to those with nobody present (Ghorbani and Zou 2019); the units still there then
            share what is left. 0 walks to the end. Biased in favour of none, but it hides what late
            units are worth; it saves where few units already ruin the network.

    The standard error comes from the spread of the draws, where an antithetic pair is one draw;
    it is None for a single draw. Few draws make it a rough one: the default 8 samples are 4 draws.

    Raises:
        CriterionError: ``samples`` is not positive, or odd though antithetic, or ``truncate`` no share.

    >>> from shapleaf.game.toys import TableGame  # losses of nobody, unit 0, unit 1, both
    >>> Permutation(samples=2).estimate(TableGame(torch.tensor([[10.0, 4.0, 8.0, 0.0]]))).values.tolist()
    [[7.0, 3.0]]
    """

    samples: int = 8
    antithetic: bool = True
    shared: bool = False
    truncate: float = 0.0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise CriterionError(f"Permutation needs samples >= 1, received {self.samples}.")
        if self.antithetic and self.samples % 2:
            raise CriterionError(
                f"Permutation(samples={self.samples}) is odd, but antithetic orders come in pairs. "
                f"Use samples={self.samples + 1}, or antithetic=False."
            )
        if not 0 <= self.truncate < 1:
            raise CriterionError(f"Permutation needs 0 <= truncate < 1, received {self.truncate}.")

    @property
    def rounds(self) -> int:
        """Independent draws: orders, or pairs of them."""
        return self.samples // 2 if self.antithetic else self.samples

    def cost(self, players: int) -> int:
        """Evaluations of one draw, not truncated."""
        return (players - 1) * (2 if self.antithetic else 1)

    def estimate(self, game: Game, seed: int = 0) -> Estimate:
        """Values and standard errors; draws depend on seed, group name and example id alone."""
        return sample(self, game, seed)

    def draw(self, game: Game, seed: int, index: int, known: Ends) -> Tensor:
        """Rises of the loss along one order, or the mean along it and its reverse."""
        order = self._order(game, seed, index)
        rises = self._walk(game, order, known)
        return (rises + self._walk(game, order.flip(1), known)) / 2 if self.antithetic else rises

    def combined(self, running: Running) -> tuple[Tensor, Tensor | None]:
        """The mean of the draws."""
        return running.mean, running.variance_of_mean()

    def _order(self, game: Game, seed: int, draw: int) -> Tensor:
        """Orders of leaving, ``(examples, players)``."""
        names: list[tuple[int, ...]] = [()] if self.shared else [(example,) for example in game.ids]
        orders = np.empty((len(names), game.players), dtype=np.int64)
        for row, name in zip(orders, names, strict=True):
            row[:] = stream(seed, "permutation", game.name, draw, *name).permutation(game.players)
        return torch.from_numpy(orders).to(game.device).expand(game.examples, -1)

    def _walk(self, game: Game, order: Tensor, known: Ends) -> Tensor:
        """Rise of the loss as each unit leaves in the given order, ``(examples, players)``."""
        nobody, everybody = known
        near = self.truncate * (nobody - everybody).abs().mean()
        mask = torch.ones(game.examples, game.players, dtype=game.dtype, device=game.device)
        losses = [everybody]
        while len(losses) < game.players:
            leaving = order[:, len(losses) - 1 : game.players - 1][:, : game.width]
            stack = mask.repeat(leaving.shape[1], 1, 1)
            for step, unit in enumerate(leaving.T):
                stack[step:].scatter_(2, unit[None, :, None].expand(len(stack) - step, -1, 1), 0)
            mask = stack[-1]
            losses += precise(game.loss(stack)).unbind()
            ended = self._ended(losses, nobody, near)
            if ended:
                losses = losses[:ended]
                break
        # Units still there share what is left.
        last, rest = losses[-1], game.players + 1 - len(losses)
        losses += [last + (nobody - last) * step / rest for step in range(1, rest)] + [nobody]
        rises = torch.stack(losses, 1).diff(dim=1)
        return torch.zeros_like(rises).scatter_(1, order, rises)

    def _ended(self, losses: list[Tensor], nobody: Tensor, near: Tensor) -> int:
        """How many losses there are up to the one that is near enough; 0 if there is none."""
        if not self.truncate:
            return 0
        return next((k for k, loss in enumerate(losses, 1) if (loss - nobody).abs().mean() <= near), 0)

"""Estimators that average independent draws: how they are added up, and what the spread says of the error."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from .game import Estimate, Estimator, Game, ends, precise

Ends = tuple[Tensor, Tensor]


@runtime_checkable
class Sampler(Estimator, Protocol):
    """An estimator that averages independent draws, so that it may stop earlier or go on.

    A draw is a tensor ``(..., examples, players)``; what leads is the sampler's own affair, which
    ``combined`` turns into values.
    """

    @property
    def rounds(self) -> int:
        """How many draws it makes unless told otherwise."""
        ...

    @property
    def shared(self) -> bool:
        """Whether all examples use the same draws."""
        ...

    def cost(self, players: int) -> int:
        """Evaluations that one draw takes."""
        ...

    def draw(self, game: Game, seed: int, index: int, known: Ends) -> Tensor:
        """The draw of this number; it depends on seed, group name, example id and number alone.

        ``known`` are the losses with nobody and with everybody present, which are there already.
        """
        ...

    def combined(self, running: Running) -> tuple[Tensor, Tensor | None]:
        """Values ``(examples, players)`` from the draws so far, and their squared standard errors."""
        ...


class Running:
    """Mean of independent draws and its standard error, one draw at a time (Welford 1962).

    >>> running = Running()
    >>> for draw in (1.0, 2.0, 6.0):
    ...     running.add(torch.tensor([draw, 0.0]))
    >>> running.mean.tolist(), running.variance_of_mean().tolist()
    ([3.0, 0.0], [2.3333333333333335, 0.0])
    """

    def __init__(self, count: int = 0, mean: Tensor | None = None, squares: Tensor | None = None) -> None:
        self.count = count
        self.mean = torch.zeros(()) if mean is None else mean
        self.squares = torch.zeros(()) if squares is None else squares

    def add(self, draw: Tensor) -> None:
        draw = precise(draw)
        if not self.count:
            self.mean, self.squares = torch.zeros_like(draw), torch.zeros_like(draw)
        self.count += 1
        deviation = draw - self.mean
        self.mean = self.mean + deviation / self.count
        self.squares = self.squares + deviation * (draw - self.mean)

    def variance_of_mean(self) -> Tensor | None:
        """Squared standard error of the mean; None for fewer than two draws."""
        if self.count < 2:
            return None
        return self.squares / (self.count * (self.count - 1))


def sample(sampler: Sampler, game: Game, seed: int) -> Estimate:
    """The sampler's own number of draws."""
    before, known = game.evaluations, ends(game)
    running = drawn(sampler, game, seed, known)
    return summary(sampler, running, known, game.evaluations - before)


def drawn(sampler: Sampler, game: Game, seed: int, known: Ends) -> Running:
    """The sampler's own number of draws, added up."""
    running = Running()
    for index in range(sampler.rounds):
        running.add(sampler.draw(game, seed, index, known))
    return running


def summary(sampler: Sampler, running: Running, known: Ends, evaluations: int, stopped: str = "") -> Estimate:
    """The estimate after some draws."""
    values, variance = sampler.combined(running)
    return Estimate(
        values=values,
        stderr=None if variance is None else variance.sqrt(),
        evaluations=evaluations,
        shared=sampler.shared,
        gap=known[0] - known[1] - values.sum(1),
        stopped=stopped,
    )

"""What a game is, and what an estimator says about it.

The players are the units of one group. A coalition ``S`` is the set of units that
are present, and ``v(S) = -loss(S)`` is what it is worth to one example. The Shapley
value of a unit is its marginal contribution ``v(S + i) - v(S) = loss(S) - loss(S + i)``
averaged over all orders in which the units can leave: the expected **rise of the loss
when the unit is removed**. It is positive for units that help.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..records._base import Part


@runtime_checkable
class Game(Protocol):
    """Losses of some examples when only some units are present.

    A mask is a tensor ``(..., examples, players)`` in the game's dtype and on its device: 0 removes
    the unit, 1 leaves it as it is, and any real number in between or beyond scales it, which is
    what the gradients along a path need. Leading dimensions stack several coalitions, which the game
    plays ``width`` at a time. The caller may overwrite a mask once the call returned.

    Attributes:
        players: number of units.
        examples: number of examples.
        ids: place of each example in the whole calibration data. Random draws are named by it,
            so that they do not depend on how the data were cut into batches.
        name: name of the group; it names random draws too.
        dtype: floating-point type of masks.
        device: device of masks and losses.
        evaluations: passes spent so far, counted in forwards of all examples.
        width: coalitions that it plays in one pass; stacks of a multiple of it waste nothing.

    >>> from shapleaf.game.toys import TableGame
    >>> isinstance(TableGame(torch.tensor([[3.0, 1.0]])), Game)
    True
    """

    @property
    def players(self) -> int: ...
    @property
    def examples(self) -> int: ...
    @property
    def ids(self) -> tuple[int, ...]: ...
    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def evaluations(self) -> int: ...
    @property
    def width(self) -> int: ...

    def loss(self, mask: Tensor) -> Tensor:
        """Loss of each example, ``(..., examples)``, without a gradient; 1 evaluation a coalition."""
        ...

    def gradient(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Loss ``(..., examples)`` and d loss_e / d mask_e in the mask's shape; 3 evaluations a coalition."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimate(Part):
    """Shapley values of some examples, with what is known of their error.

    Attributes:
        values: expected rise of the loss when the unit is removed, ``(examples, players)``,
            in units of the loss and in double precision (single on devices that have no double).
        stderr: standard error of ``values`` due to sampling alone; None if nothing was sampled,
            or if there were fewer than two independent draws to compare.
        evaluations: forward passes of all examples spent; a forward with its backward counts 3.
        shared: whether all examples used the same draws, so that the sampling error does not
            average out over examples.
        common: standard error ``(players,)`` that all examples share, beside their own.
        stopped: what ended the sampling, if anything but the number of draws.
        gap: ``(loss(nobody) - loss(everybody)) - values.sum(1)``, ``(examples,)``: zero for exact
            Shapley values; None if the estimator did not see both ends.

    >>> from shapleaf.game import Exact
    >>> from shapleaf.game.toys import TableGame
    >>> estimate = Exact().estimate(TableGame(torch.tensor([[10.0, 4.0, 8.0, 0.0]])))
    >>> estimate.values.tolist(), estimate.evaluations
    ([[7.0, 3.0]], 4)
    """

    values: Tensor
    stderr: Tensor | None
    evaluations: int
    shared: bool
    gap: Tensor | None
    common: Tensor | None = None
    stopped: str = ""


@runtime_checkable
class Estimator(Protocol):
    """Anything that estimates the Shapley values of a game."""

    def estimate(self, game: Game, seed: int = 0) -> Estimate:
        """Shapley values of every example of the game; the same seed gives the same draws."""
        ...


def precise(values: Tensor) -> Tensor:
    """The values in double precision, so that long sums stay exact, where the device has it."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def ends(game: Game) -> tuple[Tensor, Tensor]:
    """Losses ``(examples,)`` with nobody and with everybody present, for 2 evaluations."""
    mask = torch.zeros(game.examples, game.players, dtype=game.dtype, device=game.device)
    nobody = precise(game.loss(mask))
    return nobody, precise(game.loss(torch.ones_like(mask)))


def without(game: Game, gone: Tensor) -> Tensor:
    """Losses ``(1 + sets, examples)`` with all units, then without each of some sets ``(sets, players)``.

    >>> from shapleaf.game.toys import TableGame  # losses of nobody, unit 0, unit 1, both
    >>> without(TableGame(torch.tensor([[10.0, 4.0, 8.0, 0.0]])), torch.eye(2)).tolist()
    [[0.0], [8.0], [4.0]]
    """
    present = 1 - torch.cat([gone.new_zeros(1, game.players), gone]).to(game.device, game.dtype)
    return precise(game.loss(present[:, None].expand(-1, game.examples, -1)))

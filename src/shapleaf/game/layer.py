"""The game at a group of a network, over all calibration data: cut to fit memory, shared among ranks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from .. import _context
from .._ranks import gather, largest, ranks, shares
from ..data import Batch
from ..errors import CriterionError
from ..masking import Fill
from ..records import Group
from .suffix import Suffix

Play = Callable[[Suffix, Tensor], Sequence[Tensor]]

MEMORY = 2**30
FEW = 8
ROWS = 1024
"""Rows per pass that use a processor fully: more gain nothing (dense layers from 800, maps from 100)."""


class LayerGame:
    """A :class:`~shapleaf.game.Game` of one group, any number of batches and a loss per example.

    Run it inside ``_context.inference(model)``. Batches are cut so that a forward with its backward fits
    into ``memory``, and so much again is kept at most of what the network before the group left; beyond,
    it is run each time. Where there is room, several coalitions are played in one pass. Under
    ``torchrun`` every rank plays its share of the examples, and all ranks get all losses.

    Args:
        model: the model.
        group: whose units play.
        batches: all examples, in their order.
        loss: ``f(output, target)``, one value per example.
        fill: what absent units leave behind; zero by default.
        memory: bytes for activations, about.

    Raises:
        CriterionError: the loss is not per example or not finite, or examples influence each other;
            or not even one example fits into the memory.
    """

    def __init__(
        self,
        model: nn.Module,
        group: Group,
        batches: Sequence[Batch],
        loss: _context.Loss,
        fill: Fill | None = None,
        memory: int = MEMORY,
    ) -> None:
        self.players, self.name = group.size, group.name
        self.ids = tuple(example for batch in batches for example in batch.ids)
        self.examples = len(self.ids)
        self.evaluations, self.memory = 0, memory
        rank, world = ranks()
        self._mine = shares(self.examples, world)[rank]
        # Learn from a few examples what one of them takes.
        few = Suffix(model, group, batches[0][:FEW], loss, fill)
        self.dtype, self.device = few.dtype, few.device
        rows = memory // few.row_bytes
        if not rows:
            raise CriterionError(
                f"one example takes about {few.row_bytes:,} bytes at group {self.name}, more than the "
                f"memory={memory:,} that was allowed."
            )
        mine = _within(batches, self._mine)
        pieces = [batch[start:stop] for batch in mine for start, stop in even(batch.examples, rows)]
        self.parts, kept = [], 0
        for piece in pieces:
            alike = piece.ids == self.ids[: few.examples]
            self.parts.append(few if alike else Suffix(model, group, piece, loss, fill, few))
            kept += self.parts[-1].kept
            if kept > memory:
                self.parts[-1].forget()
        most = largest(max((part.examples for part in self.parts), default=1))
        self.width = max(1, min(rows, ROWS) // int(most))  # the same on all ranks
        self._wide: dict[tuple[int, int], Suffix | None] = {}

    def loss(self, mask: Tensor) -> Tensor:
        """Loss of each example under its own mask; counts 1 evaluation a coalition."""
        self.evaluations += mask.shape[:-2].numel()
        return self._played(mask, lambda part, rows: (part.loss(rows),))[0]

    def gradient(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and its gradient with respect to each example's own mask; 3 evaluations a coalition."""
        self.evaluations += 3 * mask.shape[:-2].numel()
        loss, gradient = self._played(mask, Suffix.gradient)
        return loss, gradient

    def _played(self, mask: Tensor, play: Play) -> list[Tensor]:
        """What ``play`` says of every row, on all ranks' examples."""
        stack = mask.reshape(-1, *mask.shape[-2:])
        done, first = [], self._mine.start
        for index, part in enumerate(self.parts):
            rows = stack[:, first : first + part.examples]
            pieces = [play(one, piece.flatten(0, 1)) for one, piece in self._pieces(index, rows)]
            whole = (torch.cat(column) for column in zip(*pieces, strict=True))
            done.append([column.unflatten(0, (len(stack), -1)) for column in whole])
            first += part.examples
        if not done:  # more ranks than examples
            done = [[stack.new_zeros(len(stack), 0), stack[:, :0]]]
        found = (gather(torch.cat(columns, 1), self.examples, dim=1) for columns in zip(*done, strict=True))
        return [column.reshape(*mask.shape[:-2], *column.shape[1:]) for column in found]

    def _pieces(self, index: int, stack: Tensor) -> Iterator[tuple[Suffix, Tensor]]:
        """Coalitions, ``(coalitions, examples, players)``, as many at a time as one pass takes."""
        times, start = min(self.width, len(stack)), 0
        wide = self._tiled(index, times) if times > 1 else None
        while start < len(stack):
            together = times if wide and start + times <= len(stack) else 1
            yield wide if wide and together > 1 else self.parts[index], stack[start : start + together]
            start += together

    def _tiled(self, index: int, times: int) -> Suffix | None:
        key = (index, times)
        if key not in self._wide:
            self._wide[key] = self.parts[index].tiled(times)
        return self._wide[key]


def _within(batches: Iterable[Batch], mine: range) -> Iterable[Batch]:
    """What of the batches lies in a run of examples."""
    start = 0
    for batch in batches:
        low, high = max(mine.start - start, 0), min(mine.stop - start, batch.examples)
        if low < high:
            yield batch[low:high]
        start += batch.examples


def even(examples: int, rows: int) -> list[tuple[int, int]]:
    """Where even runs of at most so many rows begin and end.

    >>> even(7, 3)
    [(0, 2), (2, 4), (4, 7)]
    """
    pieces = -(-examples // rows)
    return [*itertools.pairwise(examples * k // pieces for k in range(pieces + 1))]

"""Sampling for as long as the ranking needs it: until it is settled, or a limit is met."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, field
from pathlib import Path as File

import torch
from torch import Tensor

from .. import _store
from .._ranks import largest, ranks
from ..errors import CriterionError
from ..records._base import Part
from .game import Estimate, Game, ends
from .path import Path
from .sampling import Ends, Running, Sampler, summary

ENOUGH = 8
"""Degrees of freedom from which a standard error is believed."""

SAVE_EVERY = 1.0
"""Seconds between two writes of the journal."""


@dataclass(frozen=True, slots=True)
class Adaptive:
    """Draws until the ranking that a plan needs is settled, or a limit is met; the record says which.

    After every draw the scores (mean + ``std`` standard deviations over examples) and their sampling
    error, by the delta method, tell how likely each unit is on the wrong side of a cut. The ranking is
    settled when at every cut at most ``1 - confidence`` of the units are expected there. It knows of the
    sampler's noise, not of its bias, and not of the choice of examples. One example, or draws that all
    share, take some draws more before their spread is believed.

    It can be interrupted (Ctrl-C, once there is a draw): :func:`shapleaf.attribute` then returns the groups
    known by then. With a ``journal`` a later call goes on from there, also after the process was killed, and
    with the draws it would have made anyway.

    Attributes:
        sampler: what draws; its own number of draws does not count.
        keep: shares of units that plans will keep: where the cuts are.
        confidence: share of units expected on the right side of each cut; 1 goes on to the limits.
        std: standard deviations that the score adds to the mean, as in ``MeanPlusStd``; 0 for ``Mean``.
        stderr: stop, too, when the root mean square over units of the score's sampling error is as small.
        evaluations: never spend more for a group; a forward with its backward counts 3.
        seconds: do not begin a draw that would end later, judging by the last one.
        journal: folder where the state of every group is kept.

    Raises:
        CriterionError: an argument is out of range, the sampler draws nothing, the evaluations do not allow
            for one draw, or the journal is that of another model, data, loss or removal.

    >>> from shapleaf.game.toys import TableGame  # losses of nobody, unit 0, unit 1, both
    >>> estimate = Adaptive().estimate(TableGame(torch.tensor([[10.0, 4.0, 8.0, 0.0]])))
    >>> [round(value, 6) for value in estimate.values[0].tolist()], estimate.stopped
    ([7.0, 3.0], 'settled')
    """

    sampler: Sampler = field(default_factory=Path)
    keep: tuple[float, ...] = (0.5, 0.75)
    confidence: float = 0.95
    std: float = 2.0
    stderr: float | None = None
    evaluations: int = 2000
    seconds: float = math.inf
    journal: str | None = None

    def __post_init__(self) -> None:
        if not self.keep or not all(0 < share < 1 for share in self.keep):
            raise CriterionError(f"Adaptive(keep=...) are shares between 0 and 1, received {self.keep}.")
        if not 0.5 <= self.confidence <= 1:
            raise CriterionError(f"Adaptive needs 0.5 <= confidence <= 1, received {self.confidence}.")
        if getattr(self.sampler, "masks", "") == "line" or not isinstance(self.sampler, Sampler):
            raise CriterionError(
                f"{self.sampler} draws nothing at random, so more of it would tell nothing new; use "
                "Path() or Permutation()."
            )

    def estimate(self, game: Game, seed: int = 0) -> Estimate:
        """Values, their standard errors, and what stopped the sampling."""
        start, before, cost = time.monotonic(), game.evaluations, self.sampler.cost(game.players)
        known = ends(game)
        journal = _Journal.opened(self, game, seed, known)
        running = journal.running(game.device) if journal else Running()
        if journal:  # the two that recognised the game are no part of the estimate
            before = game.evaluations - journal.evaluations
        saved, last = start, 0.0
        if not running.count and 2 + cost > self.evaluations:
            raise CriterionError(
                f"one draw of {self.sampler} costs {cost:,} evaluations for the {game.players} units of "
                f"{game.name}, and 2 more are needed; evaluations={self.evaluations:,} does not allow for it."
            )
        while not (stopped := self._stopped(running, game.evaluations - before + cost, start, last)):
            begun = time.monotonic()
            try:
                draw = self.sampler.draw(game, seed, running.count, known)
            except KeyboardInterrupt:
                if not running.count:
                    raise
                stopped = "interrupted"
                break
            running.add(draw)
            last = time.monotonic() - begun
            if time.monotonic() - saved >= SAVE_EVERY:
                self._save(game, seed, known, running, game.evaluations - before)
                saved = time.monotonic()
        self._save(game, seed, known, running, game.evaluations - before)
        return summary(self.sampler, running, known, game.evaluations - before, stopped)

    def _stopped(self, running: Running, evaluations: int, start: float, last: float) -> str:
        """Why to stop now; empty to go on."""
        if not running.count:
            return ""
        values, variance = self.sampler.combined(running)
        degrees = (running.count - 1) * (1 if self.sampler.shared else len(values))
        if variance is not None and degrees >= ENOUGH:
            scores, errors = self._score(values, variance)
            if self.stderr is not None and errors.square().mean().sqrt() <= self.stderr:
                return "stderr"
            if self.confidence < 1 and all(self._settled(scores, errors, share) for share in self.keep):
                return "settled"
        if evaluations > self.evaluations:
            return "evaluations"
        return "seconds" if largest(time.monotonic() - start + last) > self.seconds else ""

    def _score(self, values: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """The aggregated score of every unit and its sampling error."""
        mean, std = values.mean(0), values.std(0, correction=0)
        slope = 1 + self.std * (values - mean) / std.clamp_min(torch.finfo(std.dtype).tiny)
        if self.sampler.shared:  # the errors of all examples go the same way
            return mean + self.std * std, (slope.abs() * variance.sqrt()).mean(0)
        return mean + self.std * std, (slope.square() * variance).sum(0).sqrt() / len(values)

    def _settled(self, scores: Tensor, errors: Tensor, keep: float) -> bool:
        """Whether few enough units are expected on the wrong side of the cut."""
        cut = len(scores) - round(keep * len(scores))
        if not 0 < cut < len(scores):
            return True
        ordered = scores.sort().values
        distance = (scores - (ordered[cut - 1] + ordered[cut]) / 2).abs()
        # A unit that is surely where it is may lie at any distance, also none.
        wrong = torch.where(errors > 0, torch.special.ndtr(-distance / errors), 0)
        return bool(wrong.mean() <= 1 - self.confidence)

    def _save(self, game: Game, seed: int, known: Ends, running: Running, evaluations: int) -> None:
        if self.journal is None or ranks()[0]:
            return
        nobody, everybody = known
        state = _Journal(
            ids=list(game.ids),
            count=running.count,
            evaluations=evaluations,
            mean=running.mean,
            squares=running.squares,
            nobody=nobody,
            everybody=everybody,
        )
        _store.save(state, _Journal.place(self, game, seed))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Journal(Part):
    """What the draws of one group have come to, and the losses by which its game is recognised."""

    ids: list[int]
    count: int
    evaluations: int
    mean: _store.Tensor
    squares: _store.Tensor
    nobody: _store.Tensor
    everybody: _store.Tensor

    @staticmethod
    def place(adaptive: Adaptive, game: Game, seed: int) -> File:
        """The file of a group; another sampler or seed has another one."""
        assert adaptive.journal is not None
        digest = hashlib.blake2b(repr((game.name, adaptive.sampler, seed)).encode(), digest_size=8)
        return File(adaptive.journal) / f"{digest.hexdigest()}.safetensors"

    @classmethod
    def opened(cls, adaptive: Adaptive, game: Game, seed: int, known: Ends) -> _Journal | None:
        """The state kept of this game; None if there is none."""
        if adaptive.journal is None or not cls.place(adaptive, game, seed).exists():
            return None
        found = _store.load(cls, cls.place(adaptive, game, seed))
        same = tuple(found.ids) == game.ids and all(
            torch.allclose(old, now.cpu(), rtol=1e-3, atol=1e-5)
            for old, now in zip((found.nobody, found.everybody), known, strict=True)
        )
        if not same:
            raise CriterionError(
                f"the journal {adaptive.journal} knows group {game.name} with other losses: it is that of "
                "another model, other data, another loss or removal. Use another folder, or delete this one."
            )
        return found

    def running(self, device: torch.device) -> Running:
        """The draws as they were."""
        return Running(self.count, self.mean.to(device), self.squares.to(device))

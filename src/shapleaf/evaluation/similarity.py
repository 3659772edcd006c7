"""Noise similarity: do pruned models still do what their reference does when the inputs are noisy?"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from .. import _context, _intervals, _rng
from .._progress import progress
from ..data import Batch, batches
from ..errors import DataError
from ..records.similarity import NoiseSimilarity
from .candidates import Candidate, checked
from .metrics import Accuracy, Z, check_classes, check_finite, predictions

EPSILONS = tuple(round(0.05 * step, 2) for step in range(15))
"""0 to 0.7, as in "Lost in Pruning"."""


def noise_similarity(
    subjects: Sequence[Candidate],
    data: Any,
    *,
    epsilons: Sequence[float] = EPSILONS,
    draws: int = 10,
    seed: int = 0,
) -> NoiseSimilarity:
    """Compare models with their reference under noise ("Lost in Pruning", Liebenwein et al. 2021).

    Every number of the inputs gets noise, uniform on [-epsilon, epsilon]: if they are normalised, epsilon is
    in units of their standard deviation. Nothing is clipped. All models see the same noisy inputs. What is
    drawn for an example depends on the seed, the draw and its place in the data alone, and is the same for
    every epsilon up to its size. The data is gone through once and nothing of it is kept.

    Args:
        subjects: the models, all in memory at a time: one of role ``reference`` for each ``net``. Any other
            is compared with the reference of its net, or, if its net has none, with the only one there is. A
            separate network is the yardstick: what is as far from the reference as it shares nothing with it.
        data: batches of inputs, normalised, with or without labels; see :func:`shapleaf.data.batches`.
        epsilons: sizes of the noise, at least 0.
        draws: how often noise is drawn for every example (100 in the paper).
        seed: names the draws.

    Returns:
        For each model, epsilon and draw the share of matching labels and the distance of the class
        probabilities, with labels also the accuracy, from which ``potential()`` follows.

    Raises:
        DataError: a net has no reference or two, models have different classes, an output is not finite,
            the data are empty or no real numbers, or the epsilons are negative, not finite or repeated.

    >>> dense, other = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> models = [
    ...     Candidate(name="dense", model=dense, role="reference"), Candidate(name="pruned", model=dense),
    ...     Candidate(name="other", model=other, role="separate"),
    ... ]
    >>> found = noise_similarity(models, torch.ones(3, 2), epsilons=(0, 0.5), draws=2)
    >>> found.matching[1].tolist(), found.distance[1].tolist()
    ([[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]])
    """
    candidates, sizes = checked(subjects), _sizes(epsilons, draws)
    against = _against(candidates)
    models = [candidate.load() for candidate in candidates]
    sums = _Sums.zero(len(models), len(sizes), draws)
    with contextlib.ExitStack() as stack:
        for model in models:
            stack.enter_context(_context.inference(model))
        stack.enter_context(torch.no_grad())
        step = stack.enter_context(progress("noise"))
        for batch in batches(data, labelled=False, device="cpu"):  # where scores are compared
            named = list(zip(candidates, models, strict=True))
            _observe(sums, batch, named, against, sizes, seed)
            step(f"{sums.examples} examples")
    matching, distance = sums.intervals()
    return NoiseSimilarity(
        subjects=tuple(candidate.subject for candidate in candidates),
        against=tuple(candidates[i].name for i in against),
        epsilons=sizes,
        examples=sums.examples,
        matching=sums.total[0] / sums.examples,
        matching_interval=matching,
        distance=sums.total[1] / sums.examples,
        distance_interval=distance,
        correct=sums.total[2].round().long() if sums.scored else None,
        scored=sums.scored,
        settings={
            "noise": "uniform",
            "draws": str(draws),
            "seed": str(seed),
            **_context.versions(),
        },
    )


def _sizes(epsilons: Sequence[float], draws: int) -> tuple[float, ...]:
    found = tuple(float(epsilon) for epsilon in epsilons)
    if not found or len(set(found)) < len(found) or not all(0 <= e < math.inf for e in found):
        raise DataError(f"epsilons must be different finite numbers of at least 0, received {found}.")
    if draws < 1:
        raise DataError(f"draws must be at least 1, received {draws}.")
    return found


def _against(candidates: Sequence[Candidate]) -> list[int]:
    """The place of the reference of each candidate."""
    references = dict[str, int]()
    for i, candidate in enumerate(candidates):
        if candidate.role == "reference" and references.setdefault(candidate.net, i) != i:
            raise DataError(
                f"net {candidate.net!r} has two references, {candidates[references[candidate.net]].name!r} "
                f"and {candidate.name!r}; give other nets another name with Candidate(net=)."
            )
    only = next(iter(references.values())) if len(references) == 1 else None
    found = [references.get(candidate.net, only) for candidate in candidates]
    for candidate, at in zip(candidates, found, strict=True):
        if at is None:
            known = ", ".join(map(repr, references)) or "none"
            raise DataError(
                f"{candidate.name!r} of net {candidate.net!r} has no reference to be compared with (nets "
                f"with one: {known}); pass Candidate(role='reference', net={candidate.net!r})."
            )
    return [at for at in found if at is not None]


def noise(inputs: Any, ids: Sequence[int], draw: int, seed: int) -> Any:
    """Uniform noise on [-1, 1) for every floating-point tensor of some inputs; for other tensors, None.

    >>> a, b = (noise(torch.zeros(len(ids), 3), ids, draw=0, seed=0) for ids in ((4, 5), (5,)))
    >>> a.shape, bool((a[1:] == b).all())
    (torch.Size([2, 3]), True)
    """
    leaves, structure = tree_flatten(inputs)
    found = list[Tensor | None]()
    for k, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            found.append(None)
            continue
        shape = tuple(leaf.shape[1:])
        drawn = [_rng.stream(seed, "noise", draw, i, k).random(shape, dtype=np.float32) for i in ids]
        found.append(torch.from_numpy(2 * np.stack(drawn) - 1).to(leaf))
    if all(leaf is None for leaf in found):
        raise DataError(
            "noise needs inputs of real numbers, and there is no floating-point tensor among these."
        )
    return tree_unflatten(found, structure)


def _noisy(inputs: Any, unit: Any, size: float) -> Any:
    leaves, structure = tree_flatten(inputs)
    units, _ = tree_flatten(unit)
    pairs = zip(leaves, units, strict=True)
    return tree_unflatten([leaf if n is None else leaf + size * n for leaf, n in pairs], structure)


@dataclass(slots=True)
class _Sums:
    """All that is kept of the examples seen: sums over them, with and without squares.

    ``total`` holds matches, distances and positions right, ``(3, subjects, epsilons, draws)``; ``squares``
    what matches and distances of an example, averaged over draws, are squared, ``(2, subjects, epsilons)``.
    """

    total: Tensor
    squares: Tensor
    examples: int = 0
    scored: int = 0

    @classmethod
    def zero(cls, subjects: int, epsilons: int, draws: int) -> _Sums:
        kind = torch.float64
        total = torch.zeros(3, subjects, epsilons, draws, dtype=kind)
        return cls(total, torch.zeros(2, subjects, epsilons, dtype=kind))

    def intervals(self) -> tuple[Tensor, Tensor]:
        """Ends of the 95 % intervals of the mean match and distance, ``(subjects, epsilons, 2)``."""
        n = self.examples
        mean = self.total[:2].mean(-1) / n
        variance = (self.squares / n - mean.square()).clamp(min=0) / (n - 1 or math.nan)  # of the mean
        half = Z * variance[1].sqrt()
        return (
            _wilson(mean[0], variance[0], n),
            torch.stack([(mean[1] - half).clamp(min=0), mean[1] + half], -1),
        )


def _wilson(share: Tensor, variance: Tensor, examples: int) -> Tensor:
    """Wilson's intervals with as many examples as would give a share this variance, at least those seen."""
    share = share.clamp(max=1)  # of rounding
    effective = torch.where(variance > 0, share * (1 - share) / variance, 0.0).floor()
    return _intervals.wilson(share, effective.clamp(min=examples))


def _observe(
    sums: _Sums,
    batch: Batch,
    models: Sequence[tuple[Candidate, nn.Module]],
    against: Sequence[int],
    sizes: Sequence[float],
    seed: int,
) -> None:
    draws, labelled = sums.total.shape[-1], batch.target is not None
    if sums.examples and labelled != bool(sums.scored):
        raise DataError(
            f"the batch at example {batch.first} has {'' if labelled else 'no '}labels, unlike those before "
            "it; give labels with all batches or with none."
        )
    own = torch.zeros(2, len(models), len(sizes), batch.examples, dtype=torch.float64)
    positions = 0
    for draw in range(draws):
        unit = noise(batch.inputs, batch.ids, draw, seed)
        for e, size in enumerate(sizes):
            if draw and not size:
                continue  # without noise all draws are the same one
            slot, times = (slice(draw, draw + 1), 1) if size else (slice(None), draws)
            noisy = Batch(_noisy(batch.inputs, unit, size), batch.target, batch.first)
            values, positions = _compared(models, against, noisy, f"with epsilon {size}")
            sums.total[:, :, e, slot] += values.sum(-1)[..., None]
            own[:, :, e] += times * values[:2]
    sums.squares += (own / draws).square().sum(-1)
    sums.examples += batch.examples
    sums.scored += batch.examples * positions * labelled


def _compared(
    models: Sequence[tuple[Candidate, nn.Module]], against: Sequence[int], batch: Batch, where: str
) -> tuple[Tensor, int]:
    """Matches, distances and positions right, ``(3, models, examples)``, and the positions of an example."""
    found, positions = torch.zeros(3, len(models), batch.examples, dtype=torch.float64), 0
    for reference in dict.fromkeys(against):
        theirs = scores(*models[reference], batch, where)
        positions = theirs[0, 0].numel()
        for i in (i for i, at in enumerate(against) if at == reference):
            mine = theirs if i == reference else scores(*models[i], batch, where)
            names = repr(models[i][0].name), f"its reference {models[reference][0].name!r}"
            check_classes(mine.shape[1:], theirs.shape[1:], *names)
            same = (mine.argmax(1) == theirs.argmax(1)).double()
            apart = (mine.softmax(1) - theirs.softmax(1)).norm(dim=1)
            found[:2, i] = torch.stack([same, apart]).reshape(2, batch.examples, -1).mean(-1)
            if batch.target is not None:
                found[2, i] = positions * Accuracy().observe(mine, batch, None)
    return found, positions


def scores(candidate: Candidate, model: nn.Module, batch: Batch, where: str = "") -> Tensor:
    """A model's class scores, finite, float64 on the CPU.

    Raises:
        DataError: they are not finite, not per example, or of fewer than two classes; the message names the
            model and ``where``.
    """
    with _context.located(f"{candidate.name!r} {where}"):
        found = predictions(_context.forward(model, _context.on_device(batch.inputs, model)), batch)
        check_finite(found, batch)
        if found.shape[1] < 2:
            raise DataError("the model has a single class, and nothing can be compared.")
    return found.double().cpu()

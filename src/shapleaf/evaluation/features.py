"""Heat map of informative features: what models see in each other's most informative features."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import _context
from .._progress import progress
from ..data import Batch, batches
from ..errors import DataError
from ..records.features import HeatMap, Ordering, kept
from .candidates import Candidate, checked
from .metrics import Loss, Z, check_classes
from .orderings import Fast, backselect, mask_shape
from .similarity import scores


def heat_map(
    subjects: Sequence[Candidate],
    data: Any,
    *,
    share: float = 0.1,
    mode: Literal["exact", "fast"] | Fast = "fast",
    value: float | Tensor = 0.0,
    features: Sequence[int] | None = None,
    orderings: Sequence[Ordering] | None = None,
) -> HeatMap:
    """Let models see only each other's informative features ("Lost in Pruning", Liebenwein et al. 2021).

    Each model orders the features of every image by :func:`shapleaf.backselect`, for the class that it
    predicts itself. Of an image only the ``share`` masked last is left, and every model says how probable
    the true class is. Models that use other features than the reference see little in the reference's.

    Args:
        subjects: the models, all in memory at a time.
        data: batches ``(images, labels)``, normalised.
        share: of the features that are left; their number is rounded half to even, at least 1: a tenth of
            1,024 pixels is 102.
        mode: how features are ordered, as in :func:`shapleaf.backselect`.
        value: what a masked feature becomes; 0 is the mean colour if images are normalised.
        features: the shape of a mask, as in :func:`shapleaf.backselect`.
        orderings: of each subject, of all images in their order, if they are known already.

    Returns:
        A row for each model whose features are left, a column for each model that sees them.

    Raises:
        DataError: models have different classes, orderings do not fit subjects or images, the data are empty,
            have no labels or other ones, or what :func:`shapleaf.backselect` raises.

    >>> models = [Candidate(name="a", model=nn.Linear(8, 2)), Candidate(name="b", model=nn.Linear(8, 2))]
    >>> found = heat_map(models, (torch.ones(3, 8), torch.tensor([0, 1, 1])), share=0.25, mode="exact")
    >>> found.kept, found.features, found.confidence.shape
    (2, 8, torch.Size([2, 2]))
    """
    candidates = checked(subjects)
    known = _known(orderings, candidates)
    kept(share, 1)  # a wrong share is refused before anything is run
    models = [candidate.load() for candidate in candidates]
    sums, shape = _Sums(len(models)), tuple[int, ...]()
    with contextlib.ExitStack() as stack:
        for model in models:
            stack.enter_context(_context.inference(model))
        step = stack.enter_context(progress("heat map"))
        for batch in batches(data):
            images = _images(batch)
            shape = mask_shape(images, features, value)
            _fit(known, candidates, batch, shape)
            sums.whole(_confidences(candidates, models, batch, "on whole images"))
            for row, (candidate, model) in enumerate(zip(candidates, models, strict=True)):
                if known is None:
                    found = backselect(model, images, mode=mode, value=value, features=features)
                    top = found.top(share)
                else:
                    top = known[row].top(share)[list(batch.ids)]
                blank = torch.as_tensor(value, dtype=images.dtype, device=images.device)
                left = torch.where(top.to(images.device), images, blank)
                part = Batch(left, batch.target, batch.first)
                sums.add(
                    row, _confidences(candidates, models, part, f"on the features of {candidate.name!r}")
                )
                step(f"{candidate.name}, {sums.examples} examples")
    _complete(known, sums.examples)
    n = math.prod(shape)
    confidence, interval = sums.means()
    return HeatMap(
        subjects=tuple(candidate.subject for candidate in candidates),
        confidence=confidence,
        interval=interval,
        whole=sums.of_whole / sums.examples,
        examples=sums.examples,
        kept=kept(share, n),
        features=n,
        settings={
            "orderings": "given" if known is not None else mode if isinstance(mode, str) else repr(mode),
            "masked": f"{value:g}" if isinstance(value, float | int) else "a tensor",
            **_context.versions(),
        },
    )


class _Sums:
    """Over examples: confidences and their squares, ``(rows, columns)``, and confidences in whole images."""

    def __init__(self, models: int) -> None:
        self.examples = 0
        self.first, self.second = torch.zeros(2, models, models, dtype=torch.float64)
        self.of_whole = torch.zeros(models, dtype=torch.float64)

    def whole(self, found: Tensor) -> None:
        self.of_whole += found.sum(1)
        self.examples += found.shape[1]

    def add(self, row: int, found: Tensor) -> None:
        self.first[row] += found.sum(1)
        self.second[row] += found.square().sum(1)

    def means(self) -> tuple[Tensor, Tensor]:
        n = self.examples
        mean = self.first / n
        variance = (self.second / n - mean.square()).clamp(min=0) / (n - 1 or math.nan)  # of the mean
        half = Z * variance.sqrt()
        return mean, torch.stack([(mean - half).clamp(min=0), (mean + half).clamp(max=1)], -1)


def _images(batch: Batch) -> Tensor:
    if not isinstance(batch.inputs, Tensor):
        raise DataError(
            f"the batch at example {batch.first} has inputs of type {type(batch.inputs).__name__}, expected "
            "one tensor of images."
        )
    if not isinstance(batch.target, Tensor) or batch.target.is_floating_point() or batch.target.ndim != 1:
        raise DataError(f"the batch at example {batch.first} has no integer labels of shape (examples,).")
    return batch.inputs


def _confidences(
    candidates: Sequence[Candidate], models: Sequence[nn.Module], batch: Batch, where: str
) -> Tensor:
    """The probability that each model gives to the true class, ``(models, examples)``."""
    found, first = list[Tensor](), tuple[int, ...]()
    with torch.no_grad():
        for candidate, model in zip(candidates, models, strict=True):
            mine = scores(candidate, model, batch, where)
            if mine.ndim != 2:
                raise DataError(
                    f"{candidate.name!r} returns class scores of shape {tuple(mine.shape)}, expected "
                    f"({batch.examples}, classes)."
                )
            first = first or mine.shape[1:]
            check_classes(mine.shape[1:], first, repr(candidate.name), repr(candidates[0].name))
            found.append(Loss().observe(mine, Batch(mine, batch.target.cpu()), None).neg().exp())
    return torch.stack(found)


def _known(orderings: Sequence[Ordering] | None, candidates: Sequence[Candidate]) -> list[Ordering] | None:
    if orderings is None:
        return None
    if len(orderings) != len(candidates):
        raise DataError(f"{len(orderings)} orderings for {len(candidates)} subjects; give one for each.")
    return list(orderings)


def _fit(
    known: Sequence[Ordering] | None, candidates: Sequence[Candidate], batch: Batch, shape: tuple[int, ...]
) -> None:
    for ordering, candidate in zip(known or (), candidates, strict=False):
        if ordering.shape != shape or len(ordering.order) < batch.first + batch.examples:
            raise DataError(
                f"the ordering of {candidate.name!r} is of {len(ordering.order)} examples and masks of shape "
                f"{ordering.shape}, expected at least {batch.first + batch.examples} and {shape}."
            )


def _complete(known: Sequence[Ordering] | None, examples: int) -> None:
    for ordering in known or ():
        if len(ordering.order) != examples:
            raise DataError(
                f"an ordering is of {len(ordering.order)} examples, but the data have {examples}."
            )

"""BackSelect: which features of an input a model needs, by masking the others one after another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .. import _context
from .._progress import progress
from ..errors import CriterionError, DataError
from ..records.features import Ordering
from .maskable import Confidence, Maskable

CHEAPER = 50
"""How many times fewer evaluations than the exact mode the fast one makes by default."""


@dataclass(frozen=True, slots=True)
class Fast:
    """BackSelect by gradients: several features a step, chosen from a shortlist.

    At every step the gradient estimates what masking each feature would cost; the batched gradient form
    (Carter et al. 2021) masks the ``step`` best by it. It errs where the model is not linear. So here the
    ``shortlist`` best are masked in truth, each alone, and by how much the gradient was wrong is added to
    its later estimates of the same feature. Once no more than the shortlist is left, the rest is exact.

    Args:
        step: how many features are masked at a time.
        shortlist: how many are tried at every step; 0 trusts the gradient alone. By default as many as leave
            the whole 50 times fewer evaluations than exact, at least ``step``.

    Raises:
        CriterionError: ``step`` below 1, or a shortlist shorter than ``step`` and not 0.

    >>> Fast().cost(1024), Fast(step=8, shortlist=0).cost(1024)
    (10299, 384)
    """

    step: int = 4
    shortlist: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.step < 1 or not (self.shortlist in (None, 0) or self.shortlist >= self.step):
            raise CriterionError(
                f"Fast(step={self.step}, shortlist={self.shortlist}): step must be at least 1, and the "
                "shortlist at least as long, 0 or None."
            )

    def tried(self, features: int) -> int:
        """The length of the shortlist for so many features."""
        if self.shortlist is not None:
            return self.shortlist
        budget = features * (features + 1) / 2 / CHEAPER
        fitting = [c for c in range(self.step, features + 1) if self._cost(features, c) <= budget]
        return max(fitting, default=self.step)

    def cost(self, features: int) -> int:
        """Evaluations for one example; a gradient counts 3."""
        return self._cost(features, self.tried(features))

    def _cost(self, features: int, shortlist: int) -> int:
        steps = -(-max(0, features - shortlist) // self.step)
        left = features - steps * self.step if shortlist else 0
        return steps * (3 + shortlist) + left * (left + 1) // 2


def backselect(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    mode: Literal["exact", "fast"] | Fast = "exact",
    value: float | Tensor = 0.0,
    features: Sequence[int] | None = None,
    confidence: Confidence | None = None,
) -> Ordering:
    """Order the features of each image by how long a model can do without them (Carter et al. 2019).

    One feature after another is replaced by ``value``: always the one without which the model stays the most
    confident, the first in row-major order among equals. What is masked last is the most informative. For an
    image a feature is a pixel with all its channels; for a vector, an entry.

    The exact mode tries every feature that is left at every step, n(n + 1)/2 evaluations for n features. The
    fast mode looks at the gradient, tries a few and is 50 times cheaper from 200 features on; see
    :class:`shapleaf.evaluation.Fast`. How much of the exact mode's most informative tenth it finds depends on
    the model: 88 % for a small one on MNIST, 71 % for one on the built-in digits, 20 % for a ResNet-20, of
    whose tenth the exact mode itself finds 29 % again when the pixels move by 1 % of their spread
    (``benchmarks/results/backselect.md``).

    Args:
        model: in eval mode, its outputs class scores.
        images: ``(examples, channels, height, width)`` or ``(examples, features)``, normalised.
        labels: the class whose confidence counts, ``(examples,)``; by default what the model predicts for the
            whole image.
        mode: ``"exact"``, ``"fast"`` or a :class:`Fast`.
        value: what a masked feature becomes: a number or a tensor that broadcasts over one image. 0 is the
            mean colour if images are normalised.
        features: the shape of the mask of one example, which broadcasts over it: ``(1, height, width)`` for
            pixels, ``(1, 1, width)`` for columns. Needed where an example is neither an image nor a vector.
        confidence: ``confidence(scores, labels) -> (examples,)``, higher is more confident; by default the
            probability of the class.

    Raises:
        DataError: images, labels, mask or value do not fit each other, or scores are not finite.
        CriterionError: no such mode, or no gradient for the fast one.

    >>> def total(scores, labels):
    ...     return scores.sum(1)
    >>> found = backselect(nn.Identity(), torch.tensor([[0.1, 0.5, 0.8, 0.1]]), confidence=total)
    >>> found.order.tolist(), found.evaluations, found.sufficient(1.0)
    ([[0, 3, 1, 2]], 10, ((2, 1),))
    """
    if mode not in ("exact", "fast") and not isinstance(mode, Fast):
        raise CriterionError(f"mode must be 'exact', 'fast' or evaluation.Fast(), received {mode!r}.")
    fast = Fast() if mode == "fast" else mode if isinstance(mode, Fast) else None
    shape = mask_shape(images, features, value)
    with _context.inference(model):
        game = Maskable(model, images, shape=shape, value=value, confidence=confidence)
        scores = game.whole()
        game.targets = _targets(labels, scores)
        whole = game.confidence(scores, game.targets).double().cpu()
        _check(whole, len(images))
        order, values = _run(game, fast)
    if confidence is None:
        whole, values = whole.sigmoid(), values.sigmoid()  # from log odds
    return Ordering(
        order=order,
        values=values,
        whole=whole,
        targets=game.targets.cpu(),
        shape=shape,
        evaluations=game.evaluations,
        settings={
            "mode": "exact"
            if fast is None
            else f"fast, {fast.step} of {fast.tried(game.features)} tried a step",
            "masked": f"{value:g}" if isinstance(value, float | int) else "a tensor",
            **_context.versions(),
        },
    )


def mask_shape(images: Tensor, features: Sequence[int] | None, value: float | Tensor) -> tuple[int, ...]:
    """The checked shape of the mask of one example.

    Raises:
        DataError: as :func:`backselect`.

    >>> mask_shape(torch.zeros(2, 3, 8, 8), None, 0.0), mask_shape(torch.zeros(2, 3, 8), (1, 8), 0.0)
    ((1, 8, 8), (1, 8))
    """
    if (
        not isinstance(images, Tensor)
        or not images.is_floating_point()
        or images.ndim < 2
        or not images.numel()
    ):
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise DataError(f"expected a floating-point tensor of images, examples along dim 0, received {got}.")
    if not bool(images.isfinite().all()):
        bad = int((~images.isfinite()).nonzero()[0, 0])
        raise DataError(f"image {bad} is not finite (nan or inf); correct or leave it out.")
    example = tuple(images.shape[1:])
    if features is None and len(example) not in (1, 3):
        raise DataError(
            f"an example of shape {example} is neither a vector nor an image (channels, height, width); say "
            "what a feature is: features= the shape of a mask that broadcasts over it."
        )
    shape = tuple(features) if features is not None else example if len(example) == 1 else (1, *example[1:])
    if len(shape) != len(example) or any(m not in (1, size) for m, size in zip(shape, example, strict=False)):
        raise DataError(
            f"a mask of shape {shape} does not broadcast over examples of shape {example}; give as many "
            "dimensions, each 1 or the example's."
        )
    blank = torch.as_tensor(value)
    if not bool(blank.isfinite().all()):
        raise DataError(f"value must be finite, received {value}.")
    try:
        blank.expand(example)
    except RuntimeError as error:
        raise DataError(
            f"value has shape {tuple(blank.shape)}, which does not broadcast over examples of {example}."
        ) from error
    return shape


def _targets(labels: Tensor | None, scores: Tensor) -> Tensor:
    examples, classes = scores.shape
    if labels is None:
        return scores.argmax(1)
    if labels.is_floating_point() or tuple(labels.shape) != (examples,):
        raise DataError(
            f"expected integer labels of shape ({examples},), received {labels.dtype} {tuple(labels.shape)}."
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but the model has {classes} "
            f"classes (0 to {classes - 1})."
        )
    return labels.long().to(scores.device)


def _check(whole: Tensor, examples: int) -> None:
    if tuple(whole.shape) != (examples,) or not bool(whole.isfinite().all()):
        raise DataError(
            f"confidence must be a finite number for each of {examples} examples, received {whole}. The "
            "default needs at least two classes."
        )


def _run(game: Maskable, fast: Fast | None) -> tuple[Tensor, Tensor]:
    examples, n = len(game.images), game.features
    present = torch.ones(examples, n, dtype=torch.bool)
    orders, values = list[Tensor](), list[Tensor]()
    shortlist = n if fast is None else fast.tried(n)
    wrong = torch.zeros(examples, n, dtype=torch.float64)
    with progress("backselect", n) as step:
        while n - sum(order.shape[1] for order in orders) > shortlist:
            assert fast is not None
            before, chosen = _fast_step(game, present, wrong, fast.step, shortlist)
            present.scatter_(1, chosen, False)
            if values:
                values[-1][:, -1] = before
            orders.append(chosen)
            values.append(torch.full(chosen.shape, math.nan, dtype=torch.float64))
            for _ in range(chosen.shape[1]):
                step("")
        for _ in range(int(present[0].sum())):
            best, at = _exact_step(game, present)
            present.scatter_(1, at[:, None], False)
            orders.append(at[:, None])
            values.append(best[:, None])
            step("")
    return torch.cat(orders, 1), torch.cat(values, 1)


def _exact_step(game: Maskable, present: Tensor) -> tuple[Tensor, Tensor]:
    """The highest confidence of each example with one more feature masked, and the first such feature."""
    examples, n = present.shape
    candidates = present.nonzero()[:, 1].view(examples, -1)
    found = _tried(game, present, candidates)
    best = found.amax(1)
    return best, torch.where(found == best[:, None], candidates, n).amin(1)


def _fast_step(
    game: Maskable, present: Tensor, wrong: Tensor, count: int, shortlist: int
) -> tuple[Tensor, Tensor]:
    """The confidence before the step, and the features masked by it; ``wrong`` is brought up to date."""
    slope, before = game.gradient(present)
    loss = (slope + wrong).masked_fill(~present, math.inf)
    if shortlist:
        candidates = loss.argsort(dim=1, stable=True)[:, :shortlist]
        true = before[:, None] - _tried(game, present, candidates)
        wrong.scatter_(1, candidates, true - slope.gather(1, candidates))
        loss = loss.scatter(1, candidates, true)
    return before, loss.argsort(dim=1, stable=True)[:, : min(count, int(present[0].sum()))]


def _tried(game: Maskable, present: Tensor, candidates: Tensor) -> Tensor:
    """The confidence with each of the candidates masked too, ``(examples, candidates)``."""
    examples, count = candidates.shape
    found = []
    rows = max(1, 2**22 // (count * present.shape[1]))  # masks of so many examples at a time
    for part in torch.arange(examples).split(rows):
        masks = present[part][:, None].expand(-1, count, -1).clone()
        masks.scatter_(2, candidates[part][..., None], False)
        found.append(game(part.repeat_interleave(count), masks.flatten(0, 1)).view(-1, count))
    return torch.cat(found)

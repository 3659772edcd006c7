"""A model's confidence in inputs of which some features are masked, and its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .. import _context
from ..errors import DataError

Confidence = Callable[[Tensor, Tensor], Tensor]
_NUMBERS = {"cpu": 2**18}
"""Inputs of about so many numbers run at a time, so that the layers' outputs stay in a CPU's cache."""


def log_odds(scores: Tensor, targets: Tensor) -> Tensor:
    """How much likelier a class is than all others together: log p / (1 - p).

    It orders as the probability does and does not round to 1 where the model is sure.

    >>> log_odds(torch.tensor([[2.0, 0.0], [50.0, 0.0]]), torch.tensor([0, 0])).tolist()
    [2.0, 50.0]
    """
    chosen = targets[:, None]
    rest = scores.scatter(1, chosen, -math.inf).logsumexp(1)
    return scores.gather(1, chosen)[:, 0] - rest


class Maskable:
    """Some inputs, the class whose confidence counts for each, and what masked features are replaced by.

    A mask is True where a feature is there, ``(..., features)``.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        *,
        shape: Sequence[int],
        value: float | Tensor,
        confidence: Confidence | None,
    ) -> None:
        device = _context.device_of(model)
        self.model, self.images, self.shape = model, images.to(device), tuple(shape)
        self.blank = torch.as_tensor(value, dtype=images.dtype, device=device).expand(images.shape[1:])
        self.confidence = log_odds if confidence is None else confidence
        self.targets = torch.zeros(len(images), dtype=torch.long, device=device)
        self.evaluations = 0

    @property
    def features(self) -> int:
        """How many there are in one example."""
        return math.prod(self.shape)

    def scores(self, inputs: Tensor, which: Tensor) -> Tensor:
        """The model's scores for versions of the images ``which``, ``(examples, classes)``, float64.

        Raises:
            DataError: they have another shape or are not finite.
        """
        found = _context.logits(_context.forward(self.model, inputs))
        if found.ndim != 2 or len(found) != len(inputs):
            raise DataError(
                f"expected class scores of shape ({len(inputs)}, classes), received {tuple(found.shape)}."
            )
        broken = ~found.isfinite().all(1)
        if bool(broken.any()):
            raise DataError(
                f"the scores for image {int(which[broken.nonzero()[0, 0]])}, whole or with features masked, "
                "are not finite; check the inputs' scale and the model's weights."
            )
        return found.double()

    def hidden(self, images: Tensor, present: Tensor) -> Tensor:
        """The images with what is absent replaced."""
        return torch.where(present.view(-1, *self.shape), images, self.blank)

    def whole(self) -> Tensor:
        """The scores of the images as they are; not counted among the evaluations."""
        with torch.no_grad():
            return torch.cat([self.scores(self.images[part], part) for part in self._parts()])

    def __call__(self, which: Tensor, present: Tensor) -> Tensor:
        """The confidence in the images ``which`` under as many masks, float64 on the CPU."""
        found = []
        with torch.no_grad():
            for one, masks in zip(which.split(self._chunk), present.split(self._chunk), strict=True):
                index = one.to(self.images.device)
                inputs = self.hidden(self.images[index], masks.to(self.images.device))
                found.append(self.confidence(self.scores(inputs, index), self.targets[index]).double().cpu())
        self.evaluations += len(which)
        return torch.cat(found)

    def gradient(self, present: Tensor) -> tuple[Tensor, Tensor]:
        """What each feature adds to the confidence to first order, and the confidence, one mask per image.

        The derivative by the strength of a feature, whether it is there or not, ``(images, features)``.
        """
        slopes, found = [], []
        for part in self._parts():
            images, masks = self.images[part], present.to(part.device)[part]
            inputs = self.hidden(images, masks).requires_grad_(True)
            with torch.enable_grad():
                value = self.confidence(self.scores(inputs, part), self.targets[part])
                (slope,) = _context.gradients(value, [inputs], instead="mode='exact'")
            by_strength = torch.zeros_like(images) if slope is None else slope * (images - self.blank)
            slopes.append(by_strength.double().sum_to_size(len(images), *self.shape).flatten(1).cpu())
            found.append(value.detach().double().cpu())
        self.evaluations += 3 * len(self.images)
        return torch.cat(slopes), torch.cat(found)

    def _parts(self) -> tuple[Tensor, ...]:
        index = torch.arange(len(self.images), device=self.images.device)
        return tuple(index[first : first + self._chunk] for first in range(0, len(index), self._chunk))

    @property
    def _chunk(self) -> int:
        return max(1, min(1024, _NUMBERS.get(self.images.device.type, 2**24) // self.images[0].numel()))

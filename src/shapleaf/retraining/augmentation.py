"""What changes training images a little, another way in every epoch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .. import _rng
from ..errors import DataError


@runtime_checkable
class Augmentation(Protocol):
    """Changes the inputs of a training batch; configuration only.

    What is drawn for an example depends on its id and the epoch alone, not on the batch it comes in.
    """

    def __call__(self, images: Tensor, ids: tuple[int, ...], epoch: int) -> Tensor: ...


@dataclass(frozen=True)
class Compose:
    """Several augmentations, one after the other.

    Args:
        steps: the first changes the images as they are, the others what those before them made.

    >>> images = torch.ones(1, 1, 2, 2)
    >>> Compose((CropFlip(pad=0), CropFlip(pad=0)))(images, (0,), 0).flatten().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    steps: tuple[Augmentation, ...]

    def __call__(self, images: Tensor, ids: tuple[int, ...], epoch: int) -> Tensor:
        """Changed images."""
        for step in self.steps:
            images = step(images, ids, epoch)
        return images


@dataclass(frozen=True, kw_only=True)
class CropFlip:
    """A random crop of the padded image, flipped left to right half of the time: the standard for CIFAR-10.

    Args:
        pad: pixels added on each side before the crop.
        fill: the padding's value, for each channel or for all, in the units of the images: for black in
            normalised images ``-mean / std``.
        flip: whether images are flipped.
        seed: names the draws.

    Raises:
        DataError: inputs are not images, or the padding has other channels.

    >>> images = torch.arange(4.0).view(1, 1, 2, 2)
    >>> CropFlip(pad=0)(images, (0,), 0).flatten().tolist() in ([0, 1, 2, 3], [1, 0, 3, 2])
    True
    """

    pad: int = 4
    fill: tuple[float, ...] = (0.0,)
    flip: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.pad, bool) or not isinstance(self.pad, int) or self.pad < 0:
            raise DataError(f"CropFlip: pad={self.pad!r} must be a whole number, at least 0.")

    def __call__(self, images: Tensor, ids: tuple[int, ...], epoch: int) -> Tensor:
        """Changed images, of the shape of the given ones, ``(examples, channels, height, width)``."""
        if images.ndim != 4 or len(self.fill) not in (1, images.shape[1]):
            raise DataError(
                f"CropFlip(fill={self.fill}) takes images (examples, channels, height, width) of as many "
                f"channels as fill has; received {tuple(images.shape)}."
            )
        height, width = images.shape[2:]
        down, right, flipped = self._drawn(ids, epoch).to(images.device).unbind(1)
        fill = torch.tensor(self.fill, dtype=images.dtype, device=images.device).view(-1, 1, 1)
        padded = functional.pad(images - fill, (self.pad,) * 4) + fill if self.pad else images
        rows = down[:, None] + torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device).expand(len(ids), -1)
        columns = right[:, None] + torch.where(flipped[:, None] > 0, width - 1 - columns, columns)
        every = torch.arange(len(ids), device=images.device)[:, None, None]
        # The channels, indexed by a slice between index tensors, come last.
        return padded[every, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()

    def _drawn(self, ids: tuple[int, ...], epoch: int) -> Tensor:
        """Offsets down and right, and whether flipped, ``(examples, 3)``; an example's row is its id's."""
        drawn = torch.from_numpy(_table(self.seed, epoch, 1 << max(ids).bit_length())[list(ids)])
        offsets = (drawn[:, :2] * (2 * self.pad + 1)).long()
        return torch.cat([offsets, (drawn[:, 2:] < 0.5 * self.flip).long()], dim=1)


@lru_cache(maxsize=2)
def _table(seed: int, epoch: int, rows: int) -> np.ndarray:
    """The numbers of an epoch, a row for each id; the first rows are the same however many there are."""
    return _rng.stream(seed, "crop and flip", epoch).random((rows, 3))

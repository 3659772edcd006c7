"""What is drawn at random for each image of a batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .. import _rng


class Draws:
    """Random numbers for some images, each from a stream of its own.

    What is drawn for an image depends on the seed, the names, its id and the number of draws before, and
    not on the other images. All tensors are float64, and of the shape ``(images, *shape)``.

    Args:
        seed: of the streams.
        names: what is drawn.
        ids: the number of each image.

    >>> alone, among = Draws(0, "angle", ids=(7,)), Draws(0, "angle", ids=(3, 7))
    >>> bool(alone.uniform()[0] == among.uniform()[1])
    True
    """

    def __init__(self, seed: int, *names: object, ids: tuple[int, ...]) -> None:
        self.ids = ids
        self._base = _rng.stream(seed, *names)
        self._drawn = 0

    def normal(self, *shape: int) -> Tensor:
        """Standard normal."""
        out = self._rows(shape, np.float32)
        for row, generator in zip(out, self._each(), strict=True):
            generator.standard_normal(dtype=np.float32, out=row)
        return self._tensor(out, shape)

    def uniform(self, *shape: int) -> Tensor:
        """At least 0, below 1."""
        out = self._rows(shape, np.float32)
        for row, generator in zip(out, self._each(), strict=True):
            generator.random(dtype=np.float32, out=row)
        return self._tensor(out, shape)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """From ``low`` to ``high`` - 1, int64."""
        out = self._rows(shape, np.int64)
        for row, generator in zip(out, self._each(), strict=True):
            row[:] = generator.integers(low, high, size=row.shape)
        return torch.from_numpy(out).view(len(self.ids), *shape)

    def poisson(self, rates: Tensor) -> Tensor:
        """Counts with these means, of their shape."""
        out = np.empty(tuple(rates.shape))
        for row, rate, generator in zip(out, rates.numpy(), self._each(), strict=True):
            row[:] = generator.poisson(rate)
        return torch.from_numpy(out)

    def _each(self) -> Iterator[np.random.Generator]:
        self._drawn += 1
        return _rng.each(self._base, self.ids, part=self._drawn)

    def _rows(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return np.empty((len(self.ids), int(np.prod(shape))), dtype)

    def _tensor(self, rows: np.ndarray, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(rows).double().view(len(self.ids), *shape)

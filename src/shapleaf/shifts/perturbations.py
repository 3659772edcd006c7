"""Plain noise, in units of the images: 1 is the distance from black to white."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..errors import DataError
from .draws import Draws
from .levels import checked


@dataclass(frozen=True, slots=True)
class GaussianNoise:
    """Independent normal noise on every value, a :class:`Shift`; the result is clipped to [0, 1].

    Unlike ``Corruption("gaussian_noise")`` it is of any strength, and not rounded to levels. Draws are the
    same for every ``std`` but for their size, so that strengths can be compared with little chance in it.

    Args:
        std: its standard deviation; 0.1 is 25.5 levels of 255.
        seed: of the draws.

    Raises:
        DataError: ``std`` is negative or not finite.

    >>> import torch
    >>> noise = GaussianNoise(0.1)
    >>> noise.name, round(float(noise.apply(torch.full((1, 3, 64, 64), 0.5), ids=(0,)).std()), 2)
    ('Gaussian noise 0.1', 0.1)
    """

    std: float
    seed: int = 0

    def __post_init__(self) -> None:
        _positive("std", self.std)

    @property
    def name(self) -> str:
        """With its std."""
        return f"Gaussian noise {self.std:g}"

    @property
    def family(self) -> str:
        """Noise."""
        return "noise"

    def apply(self, images: Tensor, ids: tuple[int, ...]) -> Tensor:
        """The noisy images; see :class:`Shift`."""
        values = checked(images, ids)
        noise = Draws(self.seed, "noise", "gaussian", ids=ids).normal(*values.shape[1:])
        return (values + self.std * noise).clamp(0, 1).to(images)


@dataclass(frozen=True, slots=True)
class UniformNoise:
    """Independent noise on every value, uniform from ``-eps`` to ``eps``, a :class:`Shift`.

    The result is clipped to [0, 1]. Draws are the same for every ``eps`` but for their size.

    Args:
        eps: the farthest that a value is moved.
        seed: of the draws.

    Raises:
        DataError: ``eps`` is negative or not finite.

    >>> import torch
    >>> gray = torch.full((1, 3, 64, 64), 0.5)
    >>> moved = UniformNoise(0.1).apply(gray, ids=(0,)) - gray
    >>> round(float(moved.min()), 2), round(float(moved.max()), 2)
    (-0.1, 0.1)
    """

    eps: float
    seed: int = 0

    def __post_init__(self) -> None:
        _positive("eps", self.eps)

    @property
    def name(self) -> str:
        """With its eps."""
        return f"uniform noise {self.eps:g}"

    @property
    def family(self) -> str:
        """Noise."""
        return "noise"

    def apply(self, images: Tensor, ids: tuple[int, ...]) -> Tensor:
        """The noisy images; see :class:`Shift`."""
        values = checked(images, ids)
        noise = Draws(self.seed, "noise", "uniform", ids=ids).uniform(*values.shape[1:])
        return (values + self.eps * (2 * noise - 1)).clamp(0, 1).to(images)


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise DataError(f"{name} must be a finite number of at least 0, received {value}.")

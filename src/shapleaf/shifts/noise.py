"""Noise of single values: Gaussian, photons, dead pixels, speckle."""

from __future__ import annotations

import torch
from torch import Tensor

from .draws import Draws


def gaussian_noise(images: Tensor, deviation: float, draws: Draws) -> Tensor:
    """The same everywhere."""
    return images + deviation * draws.normal(*images.shape[1:])


def speckle_noise(images: Tensor, deviation: float, draws: Draws) -> Tensor:
    """In proportion to the brightness."""
    return images + images * deviation * draws.normal(*images.shape[1:])


def shot_noise(images: Tensor, photons: float, draws: Draws) -> Tensor:
    """Counted photons, ``photons`` of them at full brightness: the variance is ``images / photons``."""
    return draws.poisson(images * photons) / photons


def impulse_noise(images: Tensor, amount: float, draws: Draws) -> Tensor:
    """The share ``amount`` of the values becomes 0 or 1, half of it each."""
    luck = draws.uniform(*images.shape[1:])
    changed = torch.where(luck < amount, 1.0, images)
    return torch.where(luck < amount / 2, 0.0, changed)

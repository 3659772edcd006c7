"""Blurs: Gaussian, defocus, frosted glass, motion, zoom."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .draws import Draws
from .filters import blurred, convolved, enlarged, swept
from .levels import lowered


def gaussian_blur(images: Tensor, sigma: float, draws: Draws) -> Tensor:
    """By a bell of deviation ``sigma``, in pixels."""
    return blurred(images, sigma)


def defocus_blur(images: Tensor, disk: tuple[float, float], draws: Draws) -> Tensor:
    """By a disk, as of a lens that is out of focus.

    As in the published files, the disks of severities 4 and 5 of ``imagenet`` sum to 1.013 and 1.011: their
    smoothing mirrors them at the border of the kernel. These brighten an image by about 1 %.
    """
    return convolved(images, disk_of(*disk))


@lru_cache(maxsize=32)
def disk_of(radius: float, smooth: float) -> Tensor:
    """The kernel of a disk whose edge is smoothed by a Gaussian of 3 pixels, of 5 for large disks.

    >>> disk_of(1, 0.1).mul(5).round().tolist()
    [[0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]
    """
    large = radius > 8
    reach = torch.arange(-int(radius), int(radius) + 1) if large else torch.arange(-8, 9)
    disk = (reach[:, None] ** 2 + reach**2 <= radius**2).double()
    near = torch.arange(-2, 3) if large else torch.arange(-1, 2)
    weights = torch.exp(-0.5 * (near / smooth).double() ** 2)
    weights /= weights.sum()
    kernel = convolved((disk / disk.sum())[None, None], weights[:, None] * weights)[0, 0]
    used = int((kernel > 1e-9).any(0).sum()) // 2
    middle = len(kernel) // 2
    part = slice(middle - used, middle + used + 1)
    return kernel[part, part]


def glass_blur(images: Tensor, glass: tuple[float, int, int], draws: Draws) -> Tensor:
    """Blurred, pixels moved about, blurred again.

    As in the published files, a pixel is not swapped with the one that is drawn for it but becomes a copy
    of it. Pixels are gone through from the last to the first; one whose source has already changed takes
    what the source became, and these chains are followed for all pixels at once.
    """
    sigma, farthest, rounds = glass
    height, width = images.shape[-2:]
    rows, cols = (torch.arange(farthest + 1, min(side - farthest + 1, side)) for side in (height, width))
    place = rows[:, None] * width + cols
    start = torch.arange(height * width).expand(len(images), -1)
    source = start
    for _ in range(rounds):
        moves = draws.integers(-farthest, farthest, 2, *place.shape)
        target = place + moves[:, 0] * width + moves[:, 1]
        # The second half of the nodes stands for what a pixel was before this round.
        unchanged = start + height * width
        known = torch.zeros(height * width, dtype=torch.bool)
        known[place.flatten()] = True
        before = (target > place) & known[target]
        chain = torch.cat([unchanged, unchanged], 1)
        where = place.flatten().expand(len(images), -1)
        chain = chain.scatter(1, where, torch.where(before, target, target + height * width).flatten(1))
        while not torch.equal(chain, further := chain.gather(1, chain)):
            chain = further
        source = source.gather(1, chain[:, : height * width] - height * width)
    flat = lowered(blurred(images, sigma)).flatten(2)
    moved = flat.gather(2, source[:, None].expand_as(flat)).view_as(images)
    return blurred(moved, sigma)


def motion_blur(images: Tensor, motion: tuple[int, float], draws: Draws) -> Tensor:
    """Along a line of random direction, at most 45 degrees from the horizontal."""
    radius, sigma = motion
    return swept(images, radius, sigma, 90 * draws.uniform() - 45)


def zoom_blur(images: Tensor, zoom: tuple[float, float], draws: Draws) -> Tensor:
    """The mean over the image and how it looks while the camera moves in."""
    factors = np.arange(1, *zoom)
    out = images.clone()
    for factor in factors:
        out += enlarged(images, float(factor))
    return out / (len(factors) + 1)

"""Contrast, brightness and saturation; bending, coarse pixels and JPEG."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .draws import Draws
from .filters import along, blurred, sampled


def contrast(images: Tensor, factor: float, draws: Draws) -> Tensor:
    """The distance to each channel's mean, times ``factor``."""
    mean = images.mean((2, 3), keepdim=True)
    return (images - mean) * factor + mean


def brightness(images: Tensor, added: float, draws: Draws) -> Tensor:
    """More value, the same hue and saturation: all channels are scaled by the same factor.

    The value of a pixel is its largest channel; black, which has no hue, becomes gray.
    """
    value = images.amax(1, keepdim=True)
    more = (value + added).clamp(max=1)
    return torch.where(value > 0, images * (more / value.clamp(min=1e-9)), more)


def saturate(images: Tensor, change: tuple[float, float], draws: Draws) -> Tensor:
    """Another saturation ``factor * s + added``, the same hue and value.

    The saturation is the distance of the smallest channel from the largest, as a share of that. Gray has
    none, and by convention the hue of red: what is added tints it.
    """
    factor, added = change
    value = images.amax(1, keepdim=True)
    saturation = (value - images.amin(1, keepdim=True)) / value.clamp(min=1e-9)
    wanted = (factor * saturation + added).clamp(0, 1)
    coloured = value - (value - images) * (wanted / saturation.clamp(min=1e-9))
    red = torch.cat([value, value * (1 - wanted), value * (1 - wanted)], 1)
    return torch.where(saturation > 0, coloured, red)


def elastic_transform(images: Tensor, bend: tuple[float, float, float], draws: Draws) -> Tensor:
    """A random affine map of the corners of the middle third, then each pixel is moved, smoothly.

    In ``imagenet`` scale there is no affine map.
    """
    strength, smooth, corner = bend
    height, width = images.shape[2:]
    side = min(height, width)
    y, x = (
        grid.double() for grid in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    )
    if corner:
        images = _leaned(images, y, x, corner * side * (2 * draws.uniform(3, 2) - 1))
    if strength:
        moves = blurred(2 * draws.uniform(2, height, width) - 1, smooth * side, truncate=3, border="half")
        moves = moves * (strength * side)
        images = sampled(images, y + moves[:, 0], x + moves[:, 1], border="half")
    return images


def _leaned(images: Tensor, y: Tensor, x: Tensor, moves: Tensor) -> Tensor:
    """Images under the affine map that moves three corners, ``(examples, 3, [x, y])``."""
    height, width = images.shape[2:]
    arm = min(height, width) // 3
    signs = torch.tensor([[1, 1], [1, -1], [-1, -1]], dtype=torch.float64)
    before = torch.tensor([width // 2, height // 2], dtype=torch.float64) + arm * signs
    ones = torch.ones(len(images), 3, 1, dtype=torch.float64)
    # Where a pixel of the result comes from: the map that takes the moved corners back.
    back = torch.linalg.solve(torch.cat([before + moves, ones], 2), before.expand_as(moves))
    from_x, from_y = (
        back[:, 0, axis, None, None] * x + back[:, 1, axis, None, None] * y + back[:, 2, axis, None, None]
        for axis in (0, 1)
    )
    return sampled(images, from_y, from_x, border="mirror")


def pixelate(images: Tensor, share: float, draws: Draws) -> Tensor:
    """Shrunk to ``share`` of its size and enlarged again, by means over boxes, as Pillow does it."""
    height, width = images.shape[2:]
    small = max(int(height * share), 1), max(int(width * share), 1)
    for rows, cols in (small, (height, width)):
        # Within rows first, then within columns, each to the nearest level.
        for wanted in ((images.shape[2], cols), (rows, cols)):
            images = along(images, *(boxes(*pair) for pair in zip(images.shape[2:], wanted, strict=True)))
            images = (images * 255 + 0.5 + 1e-9).floor() / 255
    return images


@lru_cache(maxsize=64)
def boxes(size: int, wanted: int) -> Tensor:
    """The matrix that resizes one axis by means over boxes, ``(wanted, size)``.

    >>> boxes(4, 2).tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    scale = size / wanted
    wide = max(scale, 1.0)
    centre = ((torch.arange(wanted, dtype=torch.float64) + 0.5) * scale)[:, None]
    place = torch.arange(size)
    # A pixel on the border of two boxes belongs to the one that Pillow's arithmetic puts it in.
    distance = (place - centre + 0.5) * (1 / wide)
    reach = (place >= (centre - wide / 2 + 0.5).floor()) & (place < (centre + wide / 2 + 0.5).floor())
    weights = (reach & (distance > -0.5) & (distance <= 0.5)).double()
    return weights / weights.sum(1, keepdim=True)


def jpeg_compression(images: Tensor, quality: int, draws: Draws) -> Tensor:
    """Through JPEG and back, by Pillow.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    from ..integrations import require

    pillow = require("PIL.Image", "images")
    levels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    out = np.empty_like(levels)
    for before, after in zip(levels, out, strict=True):
        file = io.BytesIO()
        pillow.fromarray(before.squeeze(-1) if before.shape[-1] == 1 else before).save(
            file, "JPEG", quality=quality
        )
        after[:] = np.asarray(pillow.open(file)).reshape(after.shape)
    return torch.from_numpy(out).permute(0, 3, 1, 2).double() / 255

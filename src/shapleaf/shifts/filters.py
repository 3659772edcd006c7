"""Filters that several corruptions share: float64 images ``(examples, channels, height, width)``."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

Border = Literal["edge", "mirror", "half"]
"""What lies outside, ``|`` being the image's first edge: ``aaa|abc``, ``cb|abc`` and ``cba|abc``."""


def inside(index: Tensor, size: int, border: Border) -> Tensor:
    """Where a pixel outside is taken from.

    >>> [inside(torch.tensor([-2, -1, 0, 3]), 3, border).tolist() for border in ("edge", "mirror", "half")]
    [[0, 0, 0, 2], [2, 1, 0, 1], [1, 0, 0, 2]]
    """
    if border == "edge":
        return index.clamp(0, size - 1)
    period = max(2 * (size - 1), 1) if border == "mirror" else 2 * size
    index = index.remainder(period)
    return torch.minimum(index, period - index if border == "mirror" else period - 1 - index)


def along(images: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Each column is multiplied with the matrix ``rows``, then each row with ``cols``."""
    return torch.matmul(torch.matmul(rows, images), cols.T)


@lru_cache(maxsize=64)
def bell(size: int, sigma: float, truncate: float = 4, border: Border = "edge") -> Tensor:
    """The matrix of a Gaussian blur of one axis, ``(size, size)``; each row sums to 1.

    >>> bell(3, 1.0, truncate=1)[1].mul(1000).round().tolist()
    [274.0, 452.0, 274.0]
    """
    matrix = torch.eye(size, dtype=torch.float64)
    if sigma < 1e-15:
        return matrix
    radius = int(truncate * sigma + 0.5)
    reach = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (reach.double() / sigma) ** 2)
    sources = inside(torch.arange(size)[:, None] + reach, size, border)
    return torch.zeros_like(matrix).scatter_add_(1, sources, (weights / weights.sum()).expand(size, -1))


def blurred(images: Tensor, sigma: float, truncate: float = 4, border: Border = "edge") -> Tensor:
    """Gaussian blur, its deviation in pixels."""
    height, width = images.shape[-2:]
    return along(images, bell(height, sigma, truncate, border), bell(width, sigma, truncate, border))


def convolved(images: Tensor, kernel: Tensor) -> Tensor:
    """Each channel correlated with one kernel of odd sides; the border mirrors the image."""
    height, width = images.shape[-2:]
    above, left = kernel.shape[0] // 2, kernel.shape[1] // 2
    rows = inside(torch.arange(-above, height + above), height, "mirror")
    cols = inside(torch.arange(-left, width + left), width, "mirror")
    padded, out = images[:, :, rows][:, :, :, cols], torch.zeros_like(images)
    # Kernels are small or have many zeros: adding up what they see is faster than PyTorch's own float64.
    for row, col in kernel.nonzero().tolist():
        seen = padded[:, :, row : row + height, col : col + width]
        out.add_(seen, alpha=float(kernel[row, col]))
    return out


def averaged(images: Tensor) -> Tensor:
    """The mean over each pixel and its eight neighbours; the border mirrors the image."""
    return convolved(images, torch.full((3, 3), 1 / 9, dtype=torch.float64))


@lru_cache(maxsize=256)
def _stretched(size: int, factor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Between which two pixels of an axis each of its stretched middle lies, and how near to the second."""
    middle = math.ceil(size / factor)
    whole = round(middle * factor)
    start, trim = (size - middle) // 2, (whole - size) // 2
    at = torch.arange(trim, trim + size, dtype=torch.float64) * ((middle - 1) / max(whole - 1, 1))
    low = at.floor().clamp(max=middle - 1)
    return start + low.long(), start + (low + 1).clamp(max=middle - 1).long(), at - low


def enlarged(images: Tensor, factor: float) -> Tensor:
    """The middle of the images, stretched to their size by linear interpolation."""
    above, below, down = _stretched(images.shape[-2], factor)
    before, after, across = _stretched(images.shape[-1], factor)
    rows = torch.lerp(images.index_select(-2, above), images.index_select(-2, below), down[:, None])
    return torch.lerp(rows.index_select(-1, before), rows.index_select(-1, after), across)


def swept(images: Tensor, radius: int, sigma: float, degrees: Tensor) -> Tensor:
    """Motion blur: the mean over ``2 radius + 1`` pixels in one direction, the near ones weighing most.

    Args:
        images: to blur.
        radius: how far the motion goes, half of it in pixels.
        sigma: deviation of the half bell of weights, in pixels.
        degrees: the direction of each image, 0 being along its rows.
    """
    height, width = images.shape[-2:]
    steps = torch.arange(2 * radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    weights /= weights.sum()
    angles = torch.deg2rad(degrees)[:, None]
    down, right = (torch.ceil(steps * part - 0.5).long() for part in (torch.sin(angles), torch.cos(angles)))
    flat, out = images.flatten(2), torch.zeros_like(images).flatten(2)
    for step, weight in enumerate(weights):
        rows = (torch.arange(height) + down[:, step, None]).clamp(0, height - 1)
        cols = (torch.arange(width) + right[:, step, None]).clamp(0, width - 1)
        index = (rows[:, :, None] * width + cols[:, None, :]).flatten(1)[:, None]
        out.add_(flat.gather(2, index.expand_as(flat)), alpha=float(weight))
    return out.view_as(images)


def sampled(images: Tensor, y: Tensor, x: Tensor, border: Border) -> Tensor:
    """Linear interpolation at the places ``y``, ``x`` of each image, both ``(examples, height, width)``."""
    height, width = images.shape[-2:]
    flat, out = images.flatten(2), torch.zeros_like(images)
    top, left = y.floor(), x.floor()
    for down in (0, 1):
        rows = inside(top.long() + down, height, border) * width
        share = (y - top) if down else (1 - y + top)
        for right in (0, 1):
            index = (rows + inside(left.long() + right, width, border)).flatten(1)[:, None]
            weight = share * ((x - left) if right else (1 - x + left))
            out += flat.gather(2, index.expand_as(flat)).view_as(images) * weight[:, None]
    return out

"""Spatter: drops of water or mud on the lens."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from .draws import Draws
from .filters import averaged, blurred, convolved
from .weather import luminance

WATER = (175 / 255, 238 / 255, 238 / 255)
MUD = (63 / 255, 42 / 255, 20 / 255)


def spatter(images: Tensor, drops: tuple[float, float, float, float, float, bool], draws: Draws) -> Tensor:
    """Liquid covers the image where smooth noise is high: as bright water with lit edges, or as brown mud."""
    mean, deviation, sigma, least, last, mud = drops
    liquid = blurred(mean + deviation * draws.normal(1, *images.shape[2:]), sigma)
    liquid = liquid.where(liquid >= least, 0.0)
    if mud:
        cover = blurred((liquid > least).double(), last)
        cover = cover.where(cover >= 0.8, 0.0)
        return images * (1 - cover) + cover * _colour(MUD, images)
    levels = (liquid.clamp(0, 1) * 255).floor()
    water = levels * _lit(distance(edges(levels)))
    most = water.amax((1, 2, 3), keepdim=True)
    return images + last * (water / most.clamp(min=1e-9)) * _colour(WATER, images)


def _colour(colour: tuple[float, float, float], images: Tensor) -> Tensor:
    """A colour, or how bright it is where images have one channel."""
    whole = torch.tensor(colour, dtype=images.dtype).view(1, 3, 1, 1)
    return whole if images.shape[1] == 3 else luminance(whole)


def _lit(far: Tensor) -> Tensor:
    """How much light the water shows, in levels: edges facing the lower right shine."""
    relief = equalised(averaged(far).floor())
    slope = torch.tensor([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], dtype=torch.float64)
    return averaged(convolved(relief, slope).clamp(0, 255)).round()


def edges(levels: Tensor, low: float = 50, high: float = 150) -> Tensor:
    """Canny's edges of images of one channel, bool (Canny 1986).

    Sobel's gradient is measured as the sum of its two components' sizes. Where it is largest across its
    direction and above ``high`` there is an edge, which goes on where it is above ``low``.
    """
    rise = torch.tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)
    padded = functional.pad(levels, (1, 1, 1, 1), mode="replicate")
    right, down = (functional.conv2d(padded, kernel[None, None]) for kernel in (rise, rise.T))
    size = right.abs() + down.abs()
    around = functional.pad(size, (1, 1, 1, 1))

    def neighbour(rows: int, cols: int) -> Tensor:
        height, width = size.shape[2:]
        return around[:, :, 1 + rows : 1 + rows + height, 1 + cols : 1 + cols + width]

    flat, steep = (
        down.abs() < math.tan(math.pi / 8) * right.abs(),
        down.abs() > math.tan(3 * math.pi / 8) * right.abs(),
    )
    across = (size > neighbour(0, -1)) & (size >= neighbour(0, 1))
    along = (size > neighbour(-1, 0)) & (size >= neighbour(1, 0))
    falling = (size > neighbour(-1, -1)) & (size > neighbour(1, 1))
    rising = (size > neighbour(-1, 1)) & (size > neighbour(1, -1))
    slanted = torch.where((right < 0) == (down < 0), falling, rising)
    weak = (size > low) & torch.where(flat, across, torch.where(steep, along, slanted))
    found = weak & (size > high)
    while True:
        spread = (functional.max_pool2d(found.float(), 3, 1, 1) > 0) & weak
        if torch.equal(spread, found):
            return found
        found = spread


def distance(marked: Tensor, most: int = 20) -> Tensor:
    """How far each pixel is from the next that is marked, in pixels, at most ``most``.

    >>> distance(torch.tensor([[[[True, False, False], [False, False, False]]]]), most=2)[0, 0].tolist()
    [[0.0, 1.0, 2.0], [1.0, 1.4142135623730951, 2.0]]
    """
    height, width = marked.shape[2:]
    place = torch.arange(width, dtype=torch.float64).expand(marked.shape)
    before = place.where(marked, -math.inf).cummax(-1).values
    after = place.where(marked, math.inf).flip(-1).cummin(-1).values.flip(-1)
    sideways = torch.minimum(place - before, after - place).square()
    nearest = sideways
    for rows in range(1, min(most, height - 1) + 1):
        above = functional.pad(sideways[:, :, :-rows], (0, 0, rows, 0), value=math.inf)
        below = functional.pad(sideways[:, :, rows:], (0, 0, 0, rows), value=math.inf)
        nearest = torch.minimum(nearest, torch.minimum(above, below) + rows**2)
    return nearest.sqrt().clamp(max=most)


def equalised(levels: Tensor) -> Tensor:
    """Levels spread so that each is as frequent as any other; an image of one level is left as it is."""
    examples, pixels = len(levels), levels[0].numel()
    value = levels.long().flatten(1)
    counts = torch.zeros(examples, 256, dtype=torch.float64)
    counts.scatter_add_(1, value, torch.ones_like(value, dtype=torch.float64))
    first = (counts > 0).long().argmax(1, keepdim=True)
    lowest = counts.gather(1, first)
    spread = ((counts.cumsum(1) - lowest) * (255 / (pixels - lowest).clamp(min=1))).round()
    table = torch.where(lowest == pixels, first.double(), spread.clamp(min=0))
    return table.gather(1, value).view_as(levels)

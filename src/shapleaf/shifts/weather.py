"""Weather: snow, frost and fog."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from .. import _rng
from .draws import Draws
from .filters import enlarged, swept

SIDE = 512
"""Height and width of the textures of frost."""

TEXTURES = ((130, 16), (203, 20), (203, 20), (158, 26), (113, 35))
"""The mean and deviation of each, in levels: those of the published photographs."""

TINT = (0.92, 1.0, 1.08)
"""Frost is a little blue."""


def luminance(images: Tensor) -> Tensor:
    """How bright colours look, ``(examples, 1, height, width)``; of one channel, itself."""
    if images.shape[1] == 1:
        return images
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=images.dtype)
    return (images * weights[:, None, None]).sum(1, keepdim=True)


def snow(images: Tensor, storm: tuple[float, float, float, float, int, float, float], draws: Draws) -> Tensor:
    """Flakes that fall at a slant, twice, over an image that is whitened."""
    mean, deviation, zoom, least, radius, sigma, kept = storm
    flakes = enlarged(mean + deviation * draws.normal(1, *images.shape[2:]), zoom)
    flakes = flakes.where(flakes >= least, 0.0).clamp(0, 1)
    fallen = swept(flakes, radius, sigma, -135 + 90 * draws.uniform())
    fallen = (fallen * 255).round() / 255
    white = torch.maximum(images, luminance(images) * 1.5 + 0.5)
    return kept * images + (1 - kept) * white + fallen + fallen.flip(2, 3)


def fog(images: Tensor, bank: tuple[float, float], draws: Draws) -> Tensor:
    """A fractal height map is added, and the brightest value kept."""
    thickness, decay = bank
    height, width = images.shape[2:]
    size = 1 << (max(height, width) - 1).bit_length()
    mist = thickness * plasma(draws, size, decay)[:, None, :height, :width]
    brightest = images.amax((1, 2, 3), keepdim=True)
    return (images + mist) * brightest / (brightest + thickness)


def plasma(draws: Draws, size: int, decay: float) -> Tensor:
    """Diamond-square height maps from 0 to 1 that repeat at their borders, ``(examples, size, size)``.

    Args:
        draws: where the random heights come from.
        size: a power of two, at least 2.
        decay: by how much smaller the random heights are when the grid is halved, before they are squared.
    """
    heights = 2 * draws.uniform(size * size - 1) - 1
    field = heights.new_zeros(len(heights), size, size)
    step, used, swing = size, 0, 1.0
    while step >= 2:
        half, cells = step // 2, (size // step) ** 2
        parts = heights[:, used : used + 3 * cells].view(-1, 3, size // step, size // step) * swing**2
        corner = field[:, ::step, ::step]
        right, below = corner.roll(-1, 2), corner.roll(-1, 1)
        middle = (corner + right + below + below.roll(-1, 2)) / 4 + parts[:, 0]
        field[:, half::step, half::step] = middle
        field[:, ::step, half::step] = (corner + right + middle + middle.roll(1, 1)) / 4 + parts[:, 1]
        field[:, half::step, ::step] = (corner + below + middle + middle.roll(1, 2)) / 4 + parts[:, 2]
        step, used, swing = half, used + 3 * cells, swing / decay
    lowest, highest = field.amin((1, 2), keepdim=True), field.amax((1, 2), keepdim=True)
    return (field - lowest) / (highest - lowest)


def frost(images: Tensor, cover: tuple[float, float, int], draws: Draws) -> Tensor:
    """The image behind ice flowers.

    The published files show photographs of frost. Here the ice is drawn by :func:`texture`, of the same
    brightness, contrast and correlation between pixels. As there, one of five textures is chosen for an
    image and a random part of it laid over it, in ``cifar`` scale of a fifth of the resolution. Severities
    can be compared with the published ones, pixels cannot.
    """
    kept, added, stride = cover
    height, width = images.shape[2:]
    number, top, left = (draws.integers(0, most) for most in (len(TEXTURES), SIDE, SIDE))
    rows = (top[:, None] + stride * torch.arange(height)).remainder(SIDE)
    cols = (left[:, None] + stride * torch.arange(width)).remainder(SIDE)
    ice = torch.stack([texture(one) for one in range(len(TEXTURES))])
    ice = ice[number[:, None, None], rows[:, :, None], cols[:, None, :]][:, None]
    if images.shape[1] == 3:
        ice = ice * torch.tensor(TINT, dtype=ice.dtype)[:, None, None]
    return kept * images + added * ice


@cache
def texture(number: int) -> Tensor:
    """Ice flowers: bright needles in three directions over smooth noise, from 0 to 1, ``(SIDE, SIDE)``.

    They repeat at their borders.
    """
    mean, deviation = TEXTURES[number]
    generator = _rng.stream(0, "frost", number)
    across = torch.fft.fftfreq(SIDE, dtype=torch.float64)
    radius = torch.hypot(across[:, None], across).clamp(min=1 / SIDE)
    angle = torch.atan2(across[:, None], across)

    def noise(spectrum: Tensor) -> Tensor:
        white = torch.from_numpy(generator.standard_normal((SIDE, SIDE)))
        field: Tensor = torch.fft.ifft2(torch.fft.fft2(white) * spectrum).real
        return field / field.std()

    ice = 0.45 * noise(radius**-0.9)
    for lean in generator.uniform(0, torch.pi, 3):
        narrow = torch.cos(angle - float(lean)) ** 40 + 0.003
        ice += torch.exp(-3 * noise(radius**-1.3 * narrow).abs())
    ice = (ice - ice.mean()) / ice.std()
    return ((mean + deviation * ice) / 255).clamp(0, 1)

"""Images that look like photographs to a filter: 1/f noise with a few edges."""

from __future__ import annotations

import pytest
import torch


def make(count: int = 4, side: int = 32, channels: int = 3, width: int | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    width = side if width is None else width
    down, across = torch.fft.fftfreq(side), torch.fft.fftfreq(width)
    falling = 1 / torch.hypot(down[:, None], across).clamp(min=1 / side)
    noise = torch.randn(count, channels, side, width, generator=generator)
    shared = torch.randn(count, 1, side, width, generator=generator)
    images = torch.fft.ifft2(torch.fft.fft2(0.4 * noise + shared) * falling).real
    images = 0.45 + 0.16 * images / images.std()
    images[:, :, side // 4 : side // 2, width // 3 : width // 2] += 0.25
    return (images.clamp(0, 1) * 255).round() / 255


@pytest.fixture(scope="session")
def photos():
    return make

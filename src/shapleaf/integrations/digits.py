"""Synthetic handwritten-like digits, drawn with numpy: a data set that is always at hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _rng

SIZES = {"train": 4000, "test": 1000}
MEAN, STD = (0.23,), (0.29,)

# Seven rows of five cells per glyph, two hands for each digit.
_GLYPHS = """
01110 10001 10001 10001 10001 10001 01110   00100 01010 10001 10001 10001 01010 00100
00100 01100 10100 00100 00100 00100 11111   00010 00110 01010 00010 00010 00010 00010
01110 10001 00001 00010 00100 01000 11111   11110 00001 00001 01110 10000 10000 11111
01110 10001 00001 00110 00001 10001 01110   11111 00010 00100 01110 00001 00001 11110
00010 00110 01010 10010 11111 00010 00010   10001 10001 10001 01111 00001 00001 00001
11111 10000 11110 00001 00001 10001 01110   01111 01000 10000 11110 00001 00001 11110
00110 01000 10000 11110 10001 10001 01110   00010 00100 01000 11110 10001 10001 01110
11111 00001 00010 00100 00100 01000 01000   11111 00001 00010 01111 00100 01000 10000
01110 10001 10001 01110 10001 10001 01110   01100 10010 10010 01100 10010 10010 01100
01110 10001 10001 01111 00001 00010 01100   01110 10001 10001 01111 00001 00001 00001
"""


def render(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images ``(examples, 1, 16, 16)`` and labels of a split, always the same.

    Each is one of twenty glyphs, moved by up to 1.8 pixels, turned by up to 17 degrees, scaled, sheared and
    bent, in a stroke of random width and contrast, under noise. All classes are equally frequent.

    >>> images, labels = render("test")
    >>> images.shape, labels[:3].tolist() == render("test")[1][:3].tolist()
    ((1000, 1, 16, 16), True)
    """
    n = SIZES[split]
    random = _rng.stream(0, "digits", split)
    labels, hands = random.permutation(np.arange(n) % 10)[:, None], random.integers(0, 2, (n, 1))

    def uniform(low: float, high: float) -> NDArray[np.float64]:
        return random.uniform(low, high, (n, 1))

    # The place on the glyph that each output pixel is taken from: the motion, backwards.
    grid = (np.arange(16) + 0.5) / 8 - 1
    x, y = np.tile(grid, 16) - uniform(-0.22, 0.22), np.repeat(grid, 16) - uniform(-0.22, 0.22)
    angle = uniform(-0.3, 0.3)
    x, y = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    row, col = 4 + 3 * y / uniform(0.6, 0.85), 3 + 2 * (x + uniform(-0.35, 0.35) * y) / uniform(0.4, 0.7)
    bend = uniform(0, 0.45) * np.sin(1.2 * col + uniform(0, math.tau))
    col = col + uniform(0, 0.45) * np.sin(row + uniform(0, math.tau))

    stroke = uniform(0.5, 1) / (1 + np.exp((uniform(0.3, 0.6) - _ink(labels, hands, row + bend, col)) / 0.08))
    noisy = stroke + uniform(0.05, 0.3) * random.standard_normal((n, 256))
    return (noisy.clip(0, 1) * 255).round().astype(np.uint8).reshape(n, 1, 16, 16), labels[:, 0]


def _ink(labels: Any, hands: Any, row: Any, col: Any) -> NDArray[np.float64]:
    """The glyphs at fractional places, bilinearly, with an empty margin around them."""
    glyphs = np.zeros((10, 2, 9, 7))
    glyphs[:, :, 1:8, 1:6] = np.array([int(cell) for cell in "".join(_GLYPHS.split())]).reshape(10, 2, 7, 5)
    row, col = row.clip(0, 7.999), col.clip(0, 5.999)
    r, c = row.astype(int), col.astype(int)
    down, right = row - r, col - c
    upper = glyphs[labels, hands, r, c] * (1 - right) + glyphs[labels, hands, r, c + 1] * right
    lower = glyphs[labels, hands, r + 1, c] * (1 - right) + glyphs[labels, hands, r + 1, c + 1] * right
    ink: NDArray[np.float64] = upper * (1 - down) + lower * down
    return ink

"""Blurs, and glass against the loop that it stands for."""

import numpy as np
import pytest
import torch

from shapleaf.shifts import Corruption
from shapleaf.shifts.blur import disk_of, glass_blur
from shapleaf.shifts.constants import CONSTANTS
from shapleaf.shifts.draws import Draws
from shapleaf.shifts.filters import blurred
from shapleaf.shifts.levels import lowered

BLURS = ("gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur")


@pytest.mark.parametrize("scale", ["cifar", "imagenet"])
@pytest.mark.parametrize("kind", BLURS)
def test_o23_blurs_preserve_a_constant_image(kind, scale):
    for level in (0, 1, 77, 128, 255):
        image = torch.full((2, 3, 24, 40), level / 255)
        for severity in range(1, 4 if (kind, scale) == ("defocus_blur", "imagenet") else 6):
            found = Corruption(kind, severity, scale).apply(image, (0, 1))
            assert torch.equal((found * 255).round(), torch.full_like(image, level))


@pytest.mark.parametrize("kind", BLURS)
def test_blurs_take_out_fine_detail(kind, photos):
    images = photos(2, 48)
    for scale in ("cifar", "imagenet"):
        found = Corruption(kind, 5, scale).apply(images, (0, 1))
        assert float(found.diff(dim=-1).abs().mean()) < 0.9 * float(images.diff(dim=-1).abs().mean())


def test_disks():
    # Radius 0.5 keeps one pixel, which a bell of deviation 0.6 smooths over its neighbours.
    weights = np.exp(-0.5 * (np.arange(-1, 2) / 0.6) ** 2)
    weights /= weights.sum()
    np.testing.assert_allclose(disk_of(0.5, 0.6), np.outer(weights, weights))
    assert disk_of(10, 0.5).shape == (21, 21)
    for disk in (disk for scale in ("cifar", "imagenet") for disk in CONSTANTS[scale]["defocus_blur"]):
        kernel = disk_of(*disk)
        # The last two are what OpenCV's kernels sum to.
        assert float(kernel.sum()) == pytest.approx({8: 1.012975454, 10: 1.010785818}.get(disk[0], 1))
        assert torch.allclose(kernel, kernel.T, atol=1e-15)
        assert torch.allclose(kernel, kernel.flip(0), atol=1e-15)


@pytest.mark.parametrize("glass", [(0.4, 1, 2), (1.0, 2, 3), (1.5, 4, 2)])
def test_glass_is_a_loop_over_pixels(glass, photos):
    sigma, farthest, rounds = glass
    height, width = 20, 16
    images, ids = photos(3, height, width=width).double(), (4, 0, 9)
    draws = Draws(0, "glass", ids=ids)
    rows = range(height - farthest, farthest, -1)
    cols = range(width - farthest, farthest, -1)
    moves = [
        draws.integers(
            -farthest,
            farthest,
            2,
            min(len(rows), height - farthest - 1),
            min(len(cols), width - farthest - 1),
        )
        for _ in range(rounds)
    ]
    expected = lowered(blurred(images, sigma)).clone()
    for example in range(3):
        for move in moves:
            for row in rows:
                for col in cols:
                    down, right = move[example, :, row - farthest - 1, col - farthest - 1].tolist()
                    expected[example, :, row, col] = expected[example, :, row + down, col + right].clone()
    found = glass_blur(images, glass, Draws(0, "glass", ids=ids))
    np.testing.assert_allclose(found, blurred(expected, sigma), atol=1e-12)


def test_glass_moves_pixels_no_farther_than_it_says():
    images = torch.zeros(1, 1, 32, 32)
    images[..., 16] = 1  # a line; severity 1 moves by at most one pixel to the left or upwards
    found = Corruption("glass_blur", 1).apply(images, (0,))
    assert (found.sum((0, 1, 2)) > 0).nonzero().flatten().tolist() in ([16, 17], [15, 16, 17])


def test_zoom_is_the_mean_over_its_factors():
    from shapleaf.shifts.filters import enlarged

    image = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    image[..., 14:18, 14:18] = 1
    found = Corruption("zoom_blur", 1).apply(image, (0,))
    factors = np.arange(1, 1.06, 0.01)
    expected = (image + sum(enlarged(image, float(factor)) for factor in factors)) / (len(factors) + 1)
    assert torch.equal(found, lowered(expected))

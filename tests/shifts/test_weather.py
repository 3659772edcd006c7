"""Snow, frost and fog."""

import numpy as np
import pytest
import torch

from shapleaf.shifts import Corruption
from shapleaf.shifts.draws import Draws
from shapleaf.shifts.weather import SIDE, TEXTURES, fog, frost, luminance, plasma, snow, texture


def test_luminance():
    assert luminance(torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)).item() == pytest.approx(0.299 + 0.2935)
    gray = torch.rand(2, 1, 3, 3)
    assert luminance(gray) is gray


@pytest.mark.parametrize("decay", [1.4, 2, 3])
def test_plasma_is_diamond_square_with_borders_that_repeat(decay):
    """One map, point by point: means of the four neighbours at each step, plus a random height."""
    size, step, used, swing = 8, 8, 0, 1.0
    heights = 2 * Draws(0, "fog", ids=(3,)).uniform(size * size - 1)[0].numpy() - 1
    field = np.zeros((size, size))
    while step >= 2:
        half, cells = step // 2, size // step
        parts = heights[used : used + 3 * cells**2].reshape(3, cells, cells) * swing**2
        for i in range(cells):
            for j in range(cells):
                y, x = i * step, j * step
                corners = [field[(y + a) % size, (x + b) % size] for a in (0, step) for b in (0, step)]
                field[y + half, x + half] = np.mean(corners) + parts[0, i, j]
        for i in range(cells):
            for j in range(cells):
                y, x = i * step, j * step
                for part, (row, col) in ((1, (y, x + half)), (2, (y + half, x))):
                    around = [(row - half, col), (row + half, col), (row, col - half), (row, col + half)]
                    field[row, col] = (
                        np.mean([field[a % size, b % size] for a, b in around]) + parts[part, i, j]
                    )
        step, used, swing = half, used + 3 * cells**2, swing / decay
    expected = (field - field.min()) / (field.max() - field.min())
    np.testing.assert_allclose(plasma(Draws(0, "fog", ids=(3,)), size, decay)[0], expected, atol=1e-12)


def test_fog_keeps_the_brightest_value_and_fills_black():
    images = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    images[:, 0, 0, 0] = 0.8
    mist = plasma(Draws(0, "fog", ids=(0,)), 32, 2.0)
    found = fog(images, (1.5, 2.0), Draws(0, "fog", ids=(0,)))
    assert float(found[0, 1, 5, 7]) == pytest.approx(1.5 * float(mist[0, 5, 7]) * 0.8 / 2.3)
    assert float(found.max()) <= 0.8 + 1e-12


def test_fog_of_a_black_image_is_black():
    assert float(Corruption("fog", 5).apply(torch.zeros(1, 3, 32, 32), (0,)).max()) == 0


def test_fog_covers_images_that_are_no_square():
    found = Corruption("fog", 3).apply(torch.full((1, 1, 20, 50), 0.5), (0,))
    assert float(found.std()) > 0.01


def test_textures_have_the_mean_and_contrast_of_the_photographs():
    for number, (mean, deviation) in enumerate(TEXTURES):
        ice = 255 * texture(number)
        assert ice.shape == (SIDE, SIDE)
        assert float(ice.mean()) == pytest.approx(mean, abs=1.5)
        assert float(ice.std()) == pytest.approx(deviation, rel=0.1)
        # Those of the photographs: 0.7 to 0.8 with the next pixel, 0.2 to 0.5 with the fifth.
        flat = ice - ice.mean()
        near, far = (float((flat * flat.roll(step, 1)).mean() / flat.var()) for step in (1, 5))
        assert 0.6 < near < 0.85
        assert 0.2 < far < 0.6


def test_frost_adds_a_part_of_a_texture():
    images = torch.full((1, 1, 8, 8), 0.25, dtype=torch.float64)
    draws = Draws(0, "frost", ids=(6,))
    number, top, left = (int(draws.integers(0, most)) for most in (len(TEXTURES), SIDE, SIDE))
    found = frost(images, (0.9, 0.4, 5), Draws(0, "frost", ids=(6,)))
    for row, col in ((0, 0), (3, 7)):
        ice = texture(number)[(top + 5 * row) % SIDE, (left + 5 * col) % SIDE]
        assert float(found[0, 0, row, col]) == pytest.approx(0.9 * 0.25 + 0.4 * float(ice))


def test_frost_is_a_little_blue():
    red, green, blue = frost(
        torch.zeros(20, 3, 32, 32).double(), (1, 0.4, 1), Draws(0, "x", ids=tuple(range(20)))
    ).mean((0, 2, 3))
    assert red < green < blue


def test_snow_is_symmetric_flakes_on_a_whitened_image():
    black = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    storm = (0.1, 0.2, 1, 0.5, 10, 4, 0.9)
    found = snow(black, storm, Draws(0, "snow", ids=(0,)))
    flakes = found - 0.1 * 0.5  # a tenth of white's 0.5
    assert float(flakes.min()) >= -1e-12
    assert float(flakes.max()) > 0.05
    np.testing.assert_allclose(flakes, flakes.flip(2, 3), atol=1e-12)


@pytest.mark.parametrize("kind", ["snow", "frost"])
def test_snow_and_frost_brighten(kind, photos):
    images = photos(4, 32)
    for scale in ("cifar", "imagenet"):
        assert Corruption(kind, 3, scale).apply(images, range(4)).mean() > images.mean() + 0.05

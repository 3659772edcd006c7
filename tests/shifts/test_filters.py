"""Filters against sums written out, and against SciPy's."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from shapleaf.shifts.filters import averaged, bell, blurred, convolved, enlarged, inside, sampled, swept


def test_what_lies_outside():
    places = torch.arange(-4, 8)
    assert inside(places, 4, "edge").tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 3, 3, 3, 3]
    assert inside(places, 4, "mirror").tolist() == [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    assert inside(places, 4, "half").tolist() == [3, 2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0]
    for border in ("edge", "mirror", "half"):
        assert inside(places, 1, border).tolist() == [0] * 12


@pytest.mark.parametrize("sigma", [0.05, 0.4, 1, 3, 6])
@pytest.mark.parametrize(("border", "mode"), [("edge", "nearest"), ("half", "reflect"), ("mirror", "mirror")])
def test_gaussian_blur_is_scipys(sigma, border, mode, photos):
    images = photos(2, 24, width=17).double()
    expected = ndimage.gaussian_filter(images.numpy(), (0, 0, sigma, sigma), mode=mode, truncate=3)
    found = blurred(images, sigma, truncate=3, border=border)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_no_blur_at_all():
    assert torch.equal(bell(5, 0), torch.eye(5, dtype=torch.float64))


def test_convolution_is_scipys(photos):
    images = photos(2, 12, width=9).double()
    kernel = torch.arange(15, dtype=torch.float64).view(3, 5)
    expected = ndimage.correlate(images.numpy(), kernel.numpy()[None, None], mode="mirror")
    np.testing.assert_allclose(convolved(images, kernel).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(
        averaged(images).numpy(),
        ndimage.uniform_filter(images.numpy(), (1, 1, 3, 3), mode="mirror"),
        atol=1e-12,
    )


@pytest.mark.parametrize("factor", [1, 1.01, 1.13, 1.75, 2.5, 4.5])
def test_enlarging_is_scipys_zoom_of_the_middle(factor, photos):
    image = photos(1, 33).double()
    middle = int(np.ceil(33 / factor))
    start = (33 - middle) // 2
    cut = image[0, 0, start : start + middle, start : start + middle].numpy()
    whole = ndimage.zoom(cut, factor, order=1)
    trim = (whole.shape[0] - 33) // 2
    np.testing.assert_allclose(
        enlarged(image, factor)[0, 0], whole[trim : trim + 33, trim : trim + 33], atol=1e-12
    )


def test_motion_weighs_pixels_in_its_direction():
    image = torch.zeros(2, 1, 5, 5, dtype=torch.float64)
    image[:, 0, 2, 2] = 1
    weights = np.exp(-0.5 * np.arange(3) ** 2)
    weights /= weights.sum()
    along, down = swept(image, 1, 1.0, torch.tensor([0.0, 90.0]))[:, 0]
    # At 0 degrees a pixel sees itself and what is right of it.
    assert along[2].tolist() == pytest.approx([weights[2], weights[1], weights[0], 0, 0])
    assert down[:, 2].tolist() == pytest.approx([weights[2], weights[1], weights[0], 0, 0])
    assert float(along.sum()) == float(down.sum()) == pytest.approx(1)


def test_motion_past_the_border_sees_the_border():
    image = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    image[..., -1] = 1
    assert swept(image, 20, 50.0, torch.tensor([0.0]))[0, 0, 0, -1] == pytest.approx(1)


@pytest.mark.parametrize(("border", "mode"), [("half", "reflect"), ("mirror", "mirror"), ("edge", "nearest")])
def test_sampling_is_scipys(border, mode, photos):
    images = photos(2, 16, width=11).double()
    generator = torch.Generator().manual_seed(0)
    y = 24 * torch.rand(2, 16, 11, generator=generator, dtype=torch.float64) - 4
    x = 20 * torch.rand(2, 16, 11, generator=generator, dtype=torch.float64) - 4
    found = sampled(images, y, x, border)
    for example in range(2):
        for channel in range(3):
            plane = images[example, channel].numpy()
            expected = ndimage.map_coordinates(plane, [y[example], x[example]], order=1, mode=mode)
            np.testing.assert_allclose(found[example, channel], expected, atol=1e-12)

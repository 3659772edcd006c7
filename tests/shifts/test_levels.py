"""Levels of stored images, and the check of images."""

import pytest
import torch

from shapleaf.errors import DataError
from shapleaf.shifts.levels import checked, clipped, lowered


def test_levels_stay_what_they_are_in_any_type():
    levels = torch.arange(256).view(1, 1, 16, 16)
    for dtype in (torch.float32, torch.float64):
        values = levels.to(dtype) / 255
        assert (lowered(values.double()) * 255).round().long().equal(levels)


def test_values_are_lowered_and_kept_in_range():
    values = torch.tensor([-3, 0.999, 99.9, 100, 254.99, 300], dtype=torch.float64) / 255
    assert (lowered(values) * 255).round().tolist() == [0, 0, 99, 100, 254, 255]


def test_images_are_checked():
    images = torch.rand(2, 3, 8, 9)
    found = checked(images, (0, 1), least=8)
    assert found.dtype == torch.float64
    assert torch.equal(found.float(), images)
    assert checked(images + 5e-5, (0, 1)).max() <= 1


@pytest.mark.parametrize(
    ("images", "ids", "message"),
    [
        (
            torch.rand(2, 3, 8),
            (0, 1),
            r"must be \(examples, 1 or 3 channels, height, width\), received \(2, 3, 8\)",
        ),
        (torch.rand(2, 2, 8, 8), (0, 1), r"received \(2, 2, 8, 8\)"),
        ([[0.1]], (0,), "received list"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), (0,), r"received torch.uint8: divide by 255"),
        (torch.rand(2, 3, 8, 8), (0,), "received 2 images and 1 ids"),
        (torch.rand(0, 3, 8, 8), (), "received 0 images and 0 ids"),
        (torch.rand(1, 3, 8, 7), (0,), "8 x 8 pixels at least, received 8 x 7"),
        (torch.full((1, 3, 8, 8), 1.01), (0,), r"must lie in \[0, 1\], received 1.01 to 1.01"),
        (torch.full((1, 3, 8, 8), -0.01), (0,), "received -0.01 to -0.01"),
        (torch.full((1, 3, 8, 8), float("nan")), (0,), "received nan to nan"),
    ],
)
def test_what_are_no_images(images, ids, message):
    with pytest.raises(DataError, match=message):
        checked(images, ids, least=8)


def test_only_errors_of_computing_are_clipped():
    values = torch.tensor([-0.5, -5e-5, 0.3, 1.00005, 1.5])
    assert clipped(values).tolist() == pytest.approx([-0.5, 0, 0.3, 1, 1.5])

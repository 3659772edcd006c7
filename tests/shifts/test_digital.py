"""O23: contrast, brightness, saturation, bending, pixels, JPEG."""

import colorsys
import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from shapleaf.errors import DataError, MissingExtraError
from shapleaf.shifts import Corruption
from shapleaf.shifts.constants import CONSTANTS
from shapleaf.shifts.digital import brightness, saturate
from shapleaf.shifts.draws import Draws

DRAWS = Draws(0, "x", ids=(0,))
SCALES = pytest.mark.parametrize("scale", ["cifar", "imagenet"])


def bytes_of(images):
    return (images * 255).round().byte().permute(0, 2, 3, 1).numpy()


def test_o23_contrast_of_two_tones():
    images = torch.zeros(1, 3, 32, 32)
    images[..., 16:] = 1
    assert (Corruption("contrast", 3).apply(images, (0,)) * 255).round().unique().tolist() == [
        76,
        178,
    ]  # 76.5, 178.5


def test_contrast_keeps_the_mean_of_each_channel(photos):
    images = photos(2)
    found = Corruption("contrast", 4).apply(images, (0, 1))
    assert torch.allclose(found.mean((2, 3)), images.mean((2, 3)), atol=1.5 / 255)


@SCALES
def test_o23_brightness_adds_to_the_value(scale):
    colours = torch.rand(1, 3, 10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    colours[0, :, 0, 0] = 0
    colours[0, :, 0, 1] = 0.3
    added = CONSTANTS[scale]["brightness"][2]
    found = brightness(colours, added, DRAWS)
    for before, after in zip(colours[0].flatten(1).T.tolist(), found[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(value + added, 1)))


def test_o23_brightness_at_severity_3_is_0_15_of_value():
    images = torch.full((1, 3, 8, 8), 100 / 255)
    assert (Corruption("brightness", 3).apply(images, (0,)) * 255).round().unique().tolist() == [
        138
    ]  # 138.25
    assert (Corruption("brightness", 3).apply(images[:, :1], (0,)) * 255).round().unique().tolist() == [138]


@SCALES
def test_saturation_is_that_of_hsv(scale):
    colours = torch.rand(1, 3, 10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for factor, added in CONSTANTS[scale]["saturate"]:
        found = saturate(colours, (factor, added), DRAWS)
        for before, after in zip(
            colours[0].flatten(1).T.tolist(), found[0].flatten(1).T.tolist(), strict=True
        ):
            hue, saturation, value = colorsys.rgb_to_hsv(*before)
            wanted = min(max(saturation * factor + added, 0), 1)
            assert after == pytest.approx(colorsys.hsv_to_rgb(hue, wanted, value))


@SCALES
def test_o23_saturation_leaves_gray_alone_up_to_severity_3(scale):
    gray = (torch.arange(64).view(1, 1, 8, 8) * 4 / 255).expand(1, 3, 8, 8)
    for severity in (1, 2, 3):
        np.testing.assert_array_equal(
            bytes_of(Corruption("saturate", severity, scale).apply(gray, (0,))), bytes_of(gray)
        )
    for severity, added in ((4, 0.1), (5, 0.2)):
        red, green, blue = Corruption("saturate", severity, scale).apply(gray, (0,))[0]
        assert torch.allclose(red, gray[0, 0])
        assert torch.allclose(green, gray[0, 0] * (1 - added), atol=1 / 255)
        assert torch.equal(green, blue)


def test_saturation_needs_colours():
    with pytest.raises(DataError, match="saturate changes colours, but these images have 1 channel"):
        Corruption("saturate").apply(torch.rand(1, 1, 8, 8), (0,))


@SCALES
@pytest.mark.parametrize("severity", range(1, 6))
def test_o23_jpeg_is_pillows(scale, severity, photos):
    images = photos(2, 32, width=40)
    quality = CONSTANTS[scale]["jpeg_compression"][severity - 1]
    found = bytes_of(Corruption("jpeg_compression", severity, scale).apply(images, (0, 1)))
    for before, after in zip(bytes_of(images), found, strict=True):
        file = io.BytesIO()
        Image.fromarray(before).save(file, "JPEG", quality=quality)
        np.testing.assert_array_equal(after, np.asarray(Image.open(file)))


def test_o23_jpeg_quality_at_severity_3():
    assert CONSTANTS["cifar"]["jpeg_compression"][2] == 58
    gray = torch.full((1, 1, 16, 16), 100 / 255)
    assert bytes_of(Corruption("jpeg_compression", 3).apply(gray, (0,))).mean() == pytest.approx(100, abs=1)


def test_jpeg_without_pillow_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match="shapleaf.images"):
        Corruption("jpeg_compression").apply(torch.rand(1, 3, 8, 8), (0,))


@SCALES
@pytest.mark.parametrize("severity", range(1, 6))
def test_pixelate_is_pillows(scale, severity, photos):
    images = photos(2, 32, width=41)
    share = CONSTANTS[scale]["pixelate"][severity - 1]
    found = bytes_of(Corruption("pixelate", severity, scale).apply(images, (0, 1)))
    for before, after in zip(bytes_of(images), found, strict=True):
        small = Image.fromarray(before).resize((int(41 * share), int(32 * share)), Image.Resampling.BOX)
        np.testing.assert_array_equal(after, np.asarray(small.resize((41, 32), Image.Resampling.BOX)))


def test_o23_pixelate_at_severity_3_leaves_27_by_27_pixels(photos):
    found = bytes_of(Corruption("pixelate", 3).apply(photos(1), (0,)))[0]
    assert len(np.unique(found, axis=0)) == 27
    assert len(np.unique(found, axis=1)[0]) == 27


def test_bending_moves_pixels_but_keeps_their_values(photos):
    images = photos(4, 64)
    for scale in ("cifar", "imagenet"):
        found = Corruption("elastic_transform", 3, scale).apply(images, range(4))
        assert float((found - images).abs().mean()) > 0.01
        assert torch.allclose(found.mean((2, 3)), images.mean((2, 3)), atol=0.06)
        assert found.min() >= images.min() - 1 / 255
        assert found.max() <= images.max()


def test_affine_bending_is_affine():
    """At severity 1 of ``cifar`` nothing else bends: a ramp stays a plane, away from the border."""
    across = (torch.arange(64) * 3).expand(64, 64)
    ramp = torch.stack([across, across.T, across]).float()[None] / 255
    found = Corruption("elastic_transform", 1).apply(ramp, (2,))[0] * 255
    middle = found[:2, 20:44, 20:44]
    assert float(middle.diff(dim=-1).std((1, 2)).max()) < 0.8  # constant slopes but for the levels
    assert not torch.allclose(middle, ramp[0, :2, 20:44, 20:44] * 255, atol=2)


def test_the_affine_map_takes_the_corners_where_they_were_moved():
    from shapleaf.shifts.digital import _leaned

    y, x = (grid.double() for grid in torch.meshgrid(torch.arange(30), torch.arange(36), indexing="ij"))
    places = torch.stack([x, y])[None]
    moves = torch.tensor([[[2.0, -3.0], [1.0, 2.0], [-2.0, 1.0]]], dtype=torch.float64)
    found = _leaned(places, y, x, moves)[0]
    for corner, (right, down) in zip(((28, 25), (28, 5), (8, 5)), moves[0].long().tolist(), strict=True):
        assert found[:, corner[1] + down, corner[0] + right].tolist() == pytest.approx(corner)

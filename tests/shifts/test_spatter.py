"""Spatter and its parts."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from shapleaf.shifts import Corruption
from shapleaf.shifts.spatter import MUD, distance, edges, equalised


def test_the_edge_of_a_square():
    levels = torch.zeros(1, 1, 12, 12, dtype=torch.float64)
    levels[..., 3:9, 3:9] = 255
    found = edges(levels)[0, 0]
    # One pixel wide; of the two equal pixels at each step, the first in a row or column is kept.
    assert found[6].nonzero().flatten().tolist() == [2, 8]
    assert found[:, 6].nonzero().flatten().tolist() == [2, 8]
    assert not found[4:7, 4:7].any()


def test_weak_edges_count_where_they_lead_to_strong_ones():
    levels = torch.zeros(2, 1, 10, 10, dtype=torch.float64)
    levels[:, :, :, 5:] = 20  # a gradient of 80, between the thresholds
    levels[1, :, :3, 5:] = 60  # 240 at one end
    found = edges(levels)
    assert not found[0].any()
    assert found[1, 0, 4:, 4].all()


def test_flat_images_have_no_edges():
    assert not edges(torch.full((1, 1, 8, 8), 99.0, dtype=torch.float64)).any()


def test_distances_are_scipys():
    generator = torch.Generator().manual_seed(0)
    marked = torch.rand(4, 1, 40, 25, generator=generator) < torch.tensor([0.001, 0.01, 0.1, 0.5]).view(
        4, 1, 1, 1
    )
    marked[0] = False
    marked[0, 0, 39, 24] = True
    expected = np.stack([ndimage.distance_transform_edt(~image[0].numpy()) for image in marked])
    np.testing.assert_allclose(distance(marked)[:, 0], expected.clip(max=20), atol=1e-12)
    assert distance(torch.zeros(1, 1, 4, 4, dtype=torch.bool)).unique().tolist() == [20]


def test_equalising_by_hand():
    # Of 8 pixels: level 10 four times (the lowest), 20 three times, 30 once -> 0, 3/4 and 4/4 of 255.
    levels = torch.tensor([10, 10, 10, 10, 20, 20, 20, 30], dtype=torch.float64).view(1, 1, 2, 4)
    assert equalised(levels).flatten().tolist() == [0, 0, 0, 0, 191, 191, 191, 255]
    assert equalised(torch.full((1, 1, 2, 2), 42.0, dtype=torch.float64)).unique().tolist() == [42]


def test_mud_is_brown_and_water_brightens(photos):
    images = photos(4, 32)
    muddy = Corruption("spatter", 5).apply(images, range(4))
    covered = (muddy * 255).round() == torch.tensor([round(255 * part) for part in MUD]).view(1, 3, 1, 1)
    assert 0 < float(covered.all(1).float().mean()) < 0.6
    wet = Corruption("spatter", 3).apply(images, range(4))
    assert (wet - images).min() >= -1e-6
    assert float((wet - images).amax()) > 0.1


def test_liquid_may_be_absent():
    from shapleaf.shifts.draws import Draws
    from shapleaf.shifts.spatter import spatter

    images = torch.full((1, 3, 8, 8), 0.5, dtype=torch.float64)
    for mud in (False, True):
        assert torch.equal(spatter(images, (0.0, 0.1, 1, 0.9, 0.5, mud), Draws(0, "x", ids=(0,))), images)


@pytest.mark.parametrize("severity", range(1, 6))
def test_gray_images_are_spattered_by_gray(severity):
    images = torch.full((2, 1, 32, 32), 0.5)
    found = Corruption("spatter", severity).apply(images, (0, 1))
    assert found.shape == images.shape
    assert float((found - images).abs().max()) > 0.05

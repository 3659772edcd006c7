"""Plain noise."""

import pytest
import torch

from shapleaf.errors import DataError
from shapleaf.shifts import GaussianNoise, UniformNoise

GRAY = torch.full((4, 3, 100, 100), 0.5)
BOTH = pytest.mark.parametrize("kind", [GaussianNoise, UniformNoise])


def test_h1_gaussian_noise_has_its_deviation():
    """The reference code multiplies it by 2 eps once more and moves it by -eps."""
    noise = (GaussianNoise(0.05).apply(GRAY, range(4)) - GRAY).double()
    assert float(noise.std()) == pytest.approx(0.05, rel=0.02)
    assert abs(float(noise.mean())) < 4 * 0.05 / 120_000**0.5


def test_uniform_noise_is_bounded_and_flat():
    noise = (UniformNoise(0.2).apply(GRAY, range(4)) - GRAY).double()
    assert float(noise.abs().max()) <= 0.2 + 1e-6
    assert float(noise.std()) == pytest.approx(0.2 / 3**0.5, rel=0.01)


@BOTH
def test_noise_belongs_to_the_image_and_scales(kind, photos):
    images = photos(3)
    whole = kind(0.01).apply(images, (5, 1, 8))
    assert torch.equal(kind(0.01).apply(images[1:2], (1,)), whole[1:2])
    assert not torch.equal(kind(0.01, seed=1).apply(images, (5, 1, 8)), whole)
    gray = GRAY[:1].double()
    assert torch.allclose(2 * (kind(0.01).apply(gray, (0,)) - gray), kind(0.02).apply(gray, (0,)) - gray)


@BOTH
def test_noise_stays_in_range_and_may_be_none(kind):
    extremes = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(1, 3, 40, 2)
    found = kind(0.5).apply(extremes, (0,))
    assert (float(found.min()), float(found.max())) == (0, 1)
    assert torch.equal(kind(0).apply(GRAY, range(4)), GRAY)


def test_names():
    assert (GaussianNoise(0.1).name, GaussianNoise(0.1).family) == ("Gaussian noise 0.1", "noise")
    assert (UniformNoise(0.25).name, UniformNoise(0.25).family) == ("uniform noise 0.25", "noise")


@BOTH
def test_bad_input(kind):
    for value in (-0.1, float("inf"), float("nan")):
        with pytest.raises(DataError, match="must be a finite number of at least 0"):
            kind(value)
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        kind(0.1).apply(GRAY + 1, range(4))

"""O23: noise has the size it says."""

import pytest
import torch

from shapleaf.shifts import Corruption

GRAY = torch.full((1, 3, 600, 600), 0.5)


def noisy(kind, image=GRAY, **options):
    return Corruption(kind, 3, **options).apply(image, (0,)).double()


def test_o23_gaussian_noise_of_gray():
    found = noisy("gaussian_noise") * 255
    assert float(found.std()) == pytest.approx(20.4, rel=0.02)
    assert float(found.mean()) == pytest.approx(128 - 0.5, abs=0.1)  # 0.5 is level 127.5; results are lowered


def test_o23_shot_noise_of_gray():
    found = noisy("shot_noise")
    assert float(found.var()) == pytest.approx(0.005, rel=0.02)
    assert float(found.mean()) == pytest.approx(0.5, abs=2e-3)


def test_o23_speckle_noise_of_gray():
    assert float(noisy("speckle_noise").std()) == pytest.approx(0.06, rel=0.02)
    assert torch.equal(noisy("speckle_noise", torch.zeros(1, 3, 32, 32)), torch.zeros(1, 3, 32, 32))


def test_o23_impulse_noise_of_gray():
    found = noisy("impulse_noise")
    dark, bright = float((found == 0).double().mean()), float((found == 1).double().mean())
    assert dark + bright == pytest.approx(0.03, rel=0.02)
    assert dark == pytest.approx(0.015, rel=0.03)
    assert bright == pytest.approx(0.015, rel=0.03)
    assert float(((found * 255).round() == 128).double().mean()) == pytest.approx(1 - dark - bright)


def test_channels_have_noise_of_their_own():
    for kind in ("gaussian_noise", "shot_noise", "speckle_noise", "impulse_noise"):
        red, green = noisy(kind)[0, :2].flatten(1)
        assert abs(float(torch.corrcoef(torch.stack([red, green]))[0, 1])) < 0.01

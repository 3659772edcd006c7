"""The built-in digits: always the same, learnable, and not trivially so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from shapleaf.integrations.digits import MEAN, STD, render


def tensors(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = render(split)
    return (torch.from_numpy(images).float() / 255 - MEAN[0]) / STD[0], torch.from_numpy(labels)


def accuracy(model: nn.Module, epochs: int, rate: float) -> float:
    (x, y), (x_test, y_test) = tensors("train"), tensors("test")
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    model.eval()
    return float((model(x_test).argmax(1) == y_test).float().mean())


def test_they_are_always_the_same():
    images, labels = render("train")
    again, _ = render("train")
    assert np.array_equal(images, again)
    assert images.shape == (4000, 1, 16, 16)
    assert np.bincount(labels).tolist() == [400] * 10
    assert images.mean(dtype=np.float64) / 255 == pytest.approx(0.2285, abs=5e-5)


def test_every_image_is_another():
    images = np.concatenate([render("train")[0], render("test")[0]])
    assert len(np.unique(images.reshape(5000, -1), axis=0)) == 5000


def test_a_straight_line_does_not_separate_them():
    assert 0.7 < accuracy(nn.Sequential(nn.Flatten(), nn.Linear(256, 10)), epochs=5, rate=3e-3) < 0.9


@pytest.mark.parametrize(("widths", "low", "high"), [((8, 16, 32), 0.94, 0.99), ((4, 4, 4), 0.5, 0.9)])
def test_a_network_needs_width_to_learn_them(widths, low, high):
    layers: list[nn.Module] = []
    for inputs, outputs in zip((1, *widths), widths, strict=False):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * widths[-1], 10))
    assert low < accuracy(model, epochs=5, rate=3e-3) < high

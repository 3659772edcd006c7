"""The demo's network learns the digits in seconds."""

from __future__ import annotations

import torch

from shapleaf.demo import train
from shapleaf.integrations.datasets import load_data


def test_it_learns_reproducibly_and_leaves_randomness_alone() -> None:
    data = load_data("digits", split="train").sample(1000, seed=0)
    state = torch.get_rng_state()
    model = train(data, epochs=3)
    assert torch.equal(torch.get_rng_state(), state)
    again = train(data, epochs=3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    images, labels = load_data("digits", split="test").tensors()
    with torch.no_grad():
        accuracy = (model(images).argmax(1) == labels).float().mean().item()
    assert accuracy > 0.7
    assert not model.training

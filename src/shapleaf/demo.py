"""The demo's model: a small convolutional network on the built-in digits, trained in seconds."""

from __future__ import annotations

import torch
from torch import nn

from . import _context
from ._progress import progress
from ._rng import stream
from .integrations.datasets import Images


def network() -> nn.Sequential:
    """An untrained network for 16 x 16 grey images and ten classes, some 40,000 parameters.

    >>> sum(parameter.numel() for parameter in network().parameters())
    38442
    """

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

    return nn.Sequential(
        *block(1, 32),
        *block(32, 32),
        nn.MaxPool2d(2),
        *block(32, 64),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(64 * 16, 10),
    )


def train(data: Images, *, epochs: int = 6, seed: int = 0) -> nn.Sequential:
    """The network, trained with AdamW and a cosine schedule, in eval mode; the same for the same seed.

    Args:
        data: labelled digits.
        epochs: passes over them.
        seed: names the initial weights and the order of the examples.
    """
    images, labels = data.tensors()
    with _context.rng(seed):
        model = network().train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
        steps = epochs * -(-len(images) // 100)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        with progress("train", epochs) as step:
            for epoch in range(epochs):
                order = torch.from_numpy(stream(seed, "demo", epoch).permutation(len(images)))
                for chosen in order.split(100):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
                    optimizer.step()
                    schedule.step()
                step(f"epoch {epoch + 1}")
    return model.eval()

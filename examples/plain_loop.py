"""Pruning while training in a plain PyTorch loop, stopped in the middle and resumed.

    python examples/plain_loop.py

A small network learns the built-in digits and loses half of its MACs on the way.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import shapleaf as sl
from shapleaf.demo import network
from shapleaf.integrations.datasets import load_data

EPOCHS, BATCH = 6, 100


class Training:
    """Everything that a run is made of, as it is before the first step."""

    def __init__(self) -> None:
        data = load_data("digits", split="train")
        self.images, self.labels = data.tensors()
        torch.manual_seed(0)
        self.model = network()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-3)
        steps = EPOCHS * len(self.images) // BATCH
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.pruner = sl.Pruner(
            self.model,
            self.optimizer,
            calibration=data.sample(100, seed=0).tensors(),
            budget=sl.Macs(keep=0.5),
            schedule=sl.Cubic(steps=5, every=20, start=60),
        )

    def epoch(self, number: int) -> None:
        torch.manual_seed(number)
        order = torch.randperm(len(self.images)).split(BATCH)
        for step, chosen in enumerate(order, start=number * len(order)):
            self.optimizer.zero_grad()
            functional.cross_entropy(self.model(self.images[chosen]), self.labels[chosen]).backward()
            self.optimizer.step()
            self.scheduler.step()
            if self.pruner.due(step):
                receipt = self.pruner.step()
                print(f"step {step}: {receipt.plan.after.macs:,} MACs")

    def save(self, path: Path) -> None:
        parts = ("pruner", "model", "optimizer", "scheduler")
        torch.save({part: getattr(self, part).state_dict() for part in parts}, path)

    def load(self, path: Path) -> None:
        for part, state in torch.load(path, weights_only=True).items():  # the pruner first
            getattr(self, part).load_state_dict(state)


def main(folder: Path) -> nn.Module:
    """Train half of the epochs, save; start anew, load, train the others."""
    first = Training()
    for number in range(EPOCHS // 2):
        first.epoch(number)
    first.save(folder / "checkpoint.pt")

    second = Training()
    second.load(folder / "checkpoint.pt")
    print(f"resumed: {second.pruner}")
    for number in range(EPOCHS // 2, EPOCHS):
        second.epoch(number)

    images, labels = load_data("digits", split="test").tensors()
    with torch.no_grad():
        accuracy = (second.model.eval()(images).argmax(1) == labels).double().mean()
    print(
        f"{second.pruner}: {accuracy:.1%} of the test images, {sl.cost(sl.trace(second.model, images[:1]))}"
    )
    return second.model


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))

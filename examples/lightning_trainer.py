"""Pruning while Lightning's Trainer trains, stopped in the middle and resumed.

    pip install 'shapleaf[lightning]'
    python examples/lightning_trainer.py

A small network learns the built-in digits and loses half of its MACs on the way.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

import shapleaf as sl
from shapleaf.demo import network
from shapleaf.integrations.datasets import load_data
from shapleaf.integrations.lightning import pruning_callback

EPOCHS = 6


class Digits(pl.LightningModule):
    """The network and how it is trained; nothing of it knows that it is pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(self(batch[0]), batch[1])

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        accuracy = (self(batch[0]).argmax(1) == batch[1]).float().mean()
        self.log("accuracy", accuracy)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def trainer(folder: Path, epochs: int) -> pl.Trainer:
    calibration = load_data("digits", split="train").sample(100, seed=0).tensors()

    def build(module: torch.nn.Module, optimizer: torch.optim.Optimizer | None) -> sl.Pruner:
        schedule = sl.Cubic(steps=5, every=20, start=60)
        return sl.Pruner(module, optimizer, calibration, sl.Macs(keep=0.5), schedule)

    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        callbacks=[pruning_callback(build)],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
    )


def main(folder: Path) -> Digits:
    """Train half of the epochs, save; start anew with a whole network, load, train the others."""
    pl.seed_everything(0)
    train = DataLoader(load_data("digits", split="train"), 100, shuffle=True)
    first = trainer(folder, EPOCHS // 2)
    first.fit(Digits(), train)
    first.save_checkpoint(folder / "half.ckpt")

    second, module = trainer(folder, EPOCHS), Digits()
    second.fit(module, train, ckpt_path=folder / "half.ckpt")
    print(f"{second.callbacks[0].pruner}: {sl.cost(sl.trace(module, torch.zeros(1, 1, 16, 16)))}")
    second.test(module, DataLoader(load_data("digits", split="test"), 100))
    return module


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))

"""Pruning along a schedule while training, against pruning at once and training as long.

    python benchmarks/schedules.py --images 5000

Takes half of the MACs of a trained ResNet-20 away and fine-tunes it on CIFAR-10 for 1, 5 and 20 epochs:
at once before the first step, or along a cubic schedule over the first part of the run. All else is the same:
images and how they are shifted, learning rates, criterion, calibration images, compensation. With
``--images`` an epoch is so many images, drawn anew each time. A run that was stopped goes on after its last
whole epoch; every finished cell is written at once.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, ROOT, environment, save, table
from torch import Tensor, nn
from torch.nn import functional
from vit import augmented, normalised

import shapleaf as sl
from shapleaf._store import atomic
from shapleaf.integrations.datasets import Images, load_data

sys.path.insert(0, str(ROOT / "papers" / "shapley-pruning"))
from models import load

KEEP, STEPS, PART = 0.5, 5, 0.5
"""Share of the MACs that stays; cubic steps, spread evenly over this part of the run, its start included."""
RATE, MOMENTUM, DECAY, BATCH = 0.02, 0.9, 1e-4, 128
PLANNERS = {
    "Taylor": sl.Planner(criterion=sl.Taylor(), multiple_of=1),
    "Taylor, uniform": sl.Planner(criterion=sl.Taylor(), strategy=sl.Uniform(), multiple_of=1),
    "Shapley": sl.Planner(multiple_of=1),
}
SCHEDULES = ("one shot", "cubic")
CACHE = Path.home() / ".cache" / "shapleaf"


@dataclass(frozen=True, slots=True)
class Cell:
    """One run."""

    schedule: str
    planner: str
    epochs: int
    seed: int

    @property
    def key(self) -> str:
        return f"{self.schedule} | {self.planner} | {self.epochs} | {self.seed}"


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    found = resumed(options)
    study = Study(options)
    if "intact" not in found:
        found["intact"] = study.test(study.network())
    for cell in cells(options):
        if cell.key not in found["cells"]:
            found["cells"][cell.key] = study.run(cell)
            print(f"{cell.key}: {found['cells'][cell.key]}", flush=True)
        save(options.out, "schedules", found, markdown(found))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data", help="images and weights"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "shapleaf", help="unfinished runs"
    )
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--planners", nargs="+", default=["Taylor"], choices=PLANNERS)
    parser.add_argument("--images", type=int, help="training images in an epoch; all by default")
    parser.add_argument("--calibration", type=int, default=100, help="training images to score units on")
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    for planner in options.planners:
        for seed in options.seeds:
            for epochs in options.epochs:
                for schedule in SCHEDULES:
                    yield Cell(schedule, planner, epochs, seed)


def resumed(options: argparse.Namespace) -> dict[str, Any]:
    """What earlier runs with the same settings found."""
    settings = {name: getattr(options, name) for name in ("images", "calibration", "test_images")}
    command = "python benchmarks/schedules.py" + (f" --images {options.images}" if options.images else "")
    command += f" --seeds {' '.join(map(str, options.seeds))}"
    found: dict[str, Any] = {"command": command, "settings": settings, "environment": environment()}
    path = options.out / "schedules.json"
    if path.exists():
        earlier = json.loads(path.read_text())
        if earlier["settings"] != settings:
            raise SystemExit(
                f"{path} was made with {earlier['settings']}, not {settings}; "
                "give another folder with --out, or remove it."
            )
        found |= {key: earlier[key] for key in ("intact", "cells")}
    return {"cells": {}} | found


class Study:
    """A trained ResNet-20 and the images to score, train and test it on."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        network = load("resnet20", options.data)
        self.train, self.test_set = (
            load_data(f"cifar10:{options.data}", split=split, mean=network.mean, std=network.std)
            for split in ("train", "test")
        )
        self.images = min(options.images or len(self.train), len(self.train))
        if options.test_images < len(self.test_set):
            self.test_set = self.test_set.sample(options.test_images, seed=0)

    def network(self) -> nn.Module:
        return load("resnet20", self.options.data).model.to(memory_format=torch.channels_last)

    def run(self, cell: Cell) -> dict[str, Any]:
        """Prune and train; the state of unfinished runs is kept after every epoch."""
        torch.manual_seed(cell.seed)
        model = self.network().train()
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
        per_epoch = -(-self.images // BATCH)
        calibration = self.train.sample(self.options.calibration, seed=cell.seed).tensors()
        schedule: sl.Schedule = sl.OneShot()
        if cell.schedule == "cubic":
            steps = min(STEPS, cell.epochs * per_epoch)
            schedule = sl.Cubic(steps=steps, every=max(1, int(cell.epochs * per_epoch * PART / steps)))
        planner = PLANNERS[cell.planner]
        pruner = sl.Pruner(model, optimizer, calibration, sl.Macs(keep=KEEP), schedule, planner=planner)
        path = self.options.cache / f"schedules-{self.images}-{cell.key.replace(' | ', '-')}.pt"
        spent = {"epochs": 0, "training": 0.0, "pruning": 0.0, "macs": 0.0}
        if path.exists():
            state = torch.load(path, weights_only=True)
            pruner.load_state_dict(state["pruner"])
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            spent = state["spent"]
        for epoch in range(int(spent["epochs"]), cell.epochs):
            self.epoch(pruner, epoch, cell, spent)
            spent["epochs"] = epoch + 1
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "spent": spent}
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as new:
                torch.save(state | {"pruner": pruner.state_dict()}, new)
        assert pruner.finished
        cost = sl.cost(sl.trace(model.eval(), calibration[0][:2]))
        found = {"params": cost.params, "macs": cost.macs, "spent": spent, **self.test(model)}
        found["widths"] = {name: len(units) for name, units in pruner.receipts[-1].plan.keep.items()}
        path.unlink()
        return found

    def epoch(self, pruner: sl.Pruner, epoch: int, cell: Cell, spent: dict[str, float]) -> None:
        """One pass over so many images, which depend on the seed and the epoch alone."""
        draw = 1000 * cell.seed + epoch
        data = self.train.sample(self.images, seed=draw)
        pixels = torch.stack([data.pixels[int(i)] for i in data.ids])
        torch.manual_seed(draw)
        batches = torch.arange(self.images).split(BATCH)
        steps, model, optimizer = cell.epochs * len(batches), pruner.model, pruner.optimizer
        assert optimizer is not None
        macs = dense = pruner.receipts[0].plan.before.macs if pruner.receipts else 1
        start = time.perf_counter()
        for step, chosen in enumerate(batches, start=epoch * len(batches)):
            if pruner.due(step):
                begin = time.perf_counter()
                pruner.step()
                spent["pruning"] += time.perf_counter() - begin
                start += time.perf_counter() - begin
            if pruner.receipts:
                dense, macs = pruner.receipts[0].plan.before.macs, pruner.receipts[-1].plan.after.macs
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / steps)
            images = augmented(normalised(pixels[chosen], data)).contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(model(images), data.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            spent["macs"] += macs / dense / steps
        spent["training"] += time.perf_counter() - start
        print(
            f"{cell.key}, epoch {epoch + 1}: {loss.item():.3f}, {time.perf_counter() - start:.0f} s",
            flush=True,
        )

    def test(self, model: nn.Module) -> dict[str, float]:
        """Accuracy and cross-entropy on the test images."""
        model.eval()
        images, labels = whole(self.test_set)
        with torch.inference_mode():
            logits = torch.cat([model(part) for part in images.split(500)])
        accuracy = (logits.argmax(1) == labels).double().mean()
        loss = functional.cross_entropy(logits.double(), labels)
        return {"accuracy": round(accuracy.item(), 6), "loss": round(loss.item(), 6)}


def whole(data: Images) -> tuple[Tensor, Tensor]:
    images, labels = data.tensors()
    return images.contiguous(memory_format=torch.channels_last), labels


def markdown(found: dict[str, Any]) -> str:
    settings, intact, done = found["settings"], found["intact"], found["cells"]
    epoch = f"{settings['images'] or 50_000:,} images{', drawn anew each time' if settings['images'] else ''}"
    parts = [
        "# Pruning along a schedule against pruning at once",
        f"`{found['command']}`",
        f"ResNet-20 on CIFAR-10, {intact['accuracy']:.2%} intact (loss {intact['loss']:.3f}); half of its "
        f"MACs go, at once before the first step or in {STEPS} cubic steps over the first half of the run. "
        f"SGD, learning rate {RATE} falling linearly to zero, momentum {MOMENTUM}, weight decay {DECAY}, "
        f"batches of {BATCH}, images shifted and flipped. An epoch is {epoch}. Units are scored on "
        f"{settings['calibration']} training images, means folded; accuracy in % on "
        f"{settings['test_images']:,} test images, its standard error 0.4. Mean ± standard deviation over "
        "seeds, which draw calibration and training images; the difference is that of runs with the same "
        "seed. " + ", ".join(f"{name} {value}" for name, value in found["environment"].items()) + ".",
    ]
    header = ["planner, epochs", "seeds", *SCHEDULES, "difference"]
    for what in ("loss", "parameters", "MACs of training"):
        header += [f"{what}, {name}" for name in SCHEDULES]
    parts.append(table(header, rows(done)))
    parts.append(
        "Taylor: units are ranked by it, and groups share the budget by their measured loss curves "
        "(`Tradeoff`); uniform: the same share of every group. Parameters left; MACs of training: of all "
        "forward passes, relative to as many of the intact network."
    )
    return "\n\n".join(parts)


def rows(done: dict[str, dict[str, Any]]) -> list[list[str]]:
    """One for each planner and number of epochs, over the seeds that both schedules were run with."""
    lines = {tuple(key.split(" | ")[1:3]) for key in done}
    found = []
    for planner, epochs in sorted(lines, key=lambda line: (line[0], int(line[1]))):
        keys = [[f"{name} | {planner} | {epochs} | {seed}" for name in SCHEDULES] for seed in range(100)]
        pairs = [[done[key] for key in pair] for pair in keys if all(key in done for key in pair)]
        if pairs:
            accuracy, loss, params = (
                np.array([[cell[what] for cell in pair] for pair in pairs])
                for what in ("accuracy", "loss", "params")
            )
            macs = np.array([[cell["spent"]["macs"] for cell in pair] for pair in pairs])
            columns = [*100 * accuracy.T, 100 * (accuracy[:, 1] - accuracy[:, 0])]
            row = [f"{planner}, {epochs}", str(len(pairs)), *(shown(column, 2) for column in columns)]
            row += [shown(column, 3) for column in loss.T]
            found.append([*row, *(f"{n:,.0f}" for n in params.mean(0)), *(f"{n:.0%}" for n in macs.mean(0))])
    return found


def shown(values: np.ndarray, digits: int) -> str:
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


if __name__ == "__main__":
    main()

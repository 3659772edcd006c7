"""Accuracy without training: section 3.3 of Ancona et al. (2020).

    python papers/shapley-pruning/untrained.py

A random network loses the units whose removal is expected to lower the loss, the outer layer first; no weight
is ever changed. Then again, for as long as such units are found. Every finished cell is written to
``untrained.json`` and ``UNTRAINED.md`` at once; a re-run does what is missing.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import LINE, Method, named
from results import TRAINED, Cell, Results, made_by, spread, table
from torch import Tensor, nn

import shapleaf as sl
from shapleaf.integrations.datasets import Images, load_data

HERE = Path(__file__).resolve().parent
OUTERMOST_FIRST = "3", "1"

# In the order in which the table is filled; all by the mean, which is what the expected loss falls by.
METHODS = (
    Method("Shapley, line path", LINE, sl.Mean()),
    Method("Taylor signed", sl.Taylor(signed=True), sl.Mean()),
    Method("leave one out", sl.LeaveOneOut(), sl.Mean()),
)
ONCE = ("leave one out",)  # 2,048 evaluations a layer: not again
PAPER = {"mnist": "50.01", "cifar10": "23.25"}


def build(inputs: int, width: int, seed: int, classes: int = 10) -> nn.Sequential:
    """A network of two hidden layers, as PyTorch initialises it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hidden = [nn.Linear(inputs, width), nn.LeakyReLU(), nn.Linear(width, width), nn.LeakyReLU()]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, classes)).eval()


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    methods, results = named(METHODS, options.methods), resumed(options)
    studies: dict[str, Study] = {}
    for method, seed, name in itertools.product(methods, options.seeds, options.networks):
        key = f"{name} | {method.name} | {seed}"
        if key not in results.cells:
            if name not in studies:
                studies[name] = prepare(name, options)
            cell = run(method, studies[name], seed, options)
            accuracies = [f"{value:.4f}" for value in cell["accuracy"]]
            said = f"{' '.join(accuracies)} ({cell['attribution_cpu_seconds']} s)"
            results.add(key, {"network": name, "method": method.name, **cell}, said)
    results.write()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=TRAINED, help="folder with the data")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of untrained.json and UNTRAINED.md")
    parser.add_argument("--networks", nargs="+", default=list(PAPER), choices=list(PAPER))
    parser.add_argument("--methods", nargs="+", default=[""], metavar="PART", help="of the rows' names")
    parser.add_argument("--width", type=int, default=2048, help="units of each hidden layer")
    parser.add_argument("--images", type=int, default=1000, help="calibration images, from the training set")
    parser.add_argument("--test-images", type=int, help="evaluate on so many only")
    parser.add_argument("--rounds", type=int, default=10, help="go through both layers at most so often")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="of the weights and the images"
    )
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def resumed(options: argparse.Namespace) -> Results:
    """What earlier runs with the same settings found."""
    settings = {
        "width": options.width,
        "images": options.images,
        "test_images": options.test_images or 10_000,
        "rounds": options.rounds,
    }
    command = "python papers/shapley-pruning/untrained.py"
    json, tables = options.out / "untrained.json", options.out / "UNTRAINED.md"
    return Results(json, tables, command, settings, markdown)


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """Images to find the units on, and others to test on."""

    train: Images
    images: Tensor
    labels: Tensor

    def accuracy(self, model: nn.Module) -> float:
        """The share of test images whose highest output is the label's."""
        with torch.inference_mode():
            found = torch.cat([model(part).argmax(1) for part in self.images.split(500)])
        return float((found == self.labels).double().mean())


def prepare(name: str, options: argparse.Namespace) -> Study:
    train, test = (load_data(f"{name}:{options.data}", split=split) for split in ("train", "test"))
    if options.test_images:
        test = test.sample(options.test_images, seed=0)
    return Study(train, *test.tensors())


def run(method: Method, study: Study, seed: int, options: argparse.Namespace) -> Cell:
    """Prune a random network until no unit is worth less than nothing; measure it after every layer."""
    calibration = study.train.sample(options.images, seed).tensors()
    model = build(calibration[0][0].numel(), options.width, seed)
    accuracies, units, params = [study.accuracy(model)], [2 * options.width], [_parameters(model)]
    seconds: list[float] = []
    for _ in range(1 if method.name in ONCE else options.rounds):
        found = units[-1]
        for layer in OUTERMOST_FIRST:
            start = time.process_time()
            gone = prune(model, layer, method, calibration, seed)
            seconds.append(round(time.process_time() - start, 2))
            accuracies.append(study.accuracy(model))
            units.append(units[-1] - gone)
            params.append(_parameters(model))
        if units[-1] == found:
            break
    return {
        "seed": seed,
        "accuracy": accuracies,
        "units": units,
        "params": params,
        "attribution_cpu_seconds": round(sum(seconds[:2]), 2),
    }


def prune(model: nn.Module, layer: str, method: Method, calibration: tuple[Tensor, Tensor], seed: int) -> int:
    """Remove the units of one layer that score below zero; how many that were. The best one stays."""
    graph = sl.trace(model, calibration[0][:2])
    values = method.scores(model, graph, layer, calibration, seed).values[layer]
    keep = torch.nonzero(values >= values.max().clamp(max=0)).flatten().tolist()
    sl.prune_(model, sl.plan(graph, {layer: keep}))
    return len(values) - len(keep)


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def markdown(found: dict[str, Any]) -> str:
    """The tables, with a dash for what has not been run."""
    settings = found["settings"]
    lead = (
        f"Random networks of 2 x {settings['width']:,} hidden units; {settings['images']:,} training images "
        f"to score on; accuracy in % on {settings['test_images']:,} test images. Units whose score is below "
        "zero go, the outer layer first. Mean ± standard deviation over networks; in brackets the best one, "
        "chosen on the test images themselves, as in the paper. Again: both layers gone through until no "
        f"score is below zero, at most {settings['rounds']} times. Seconds are CPU seconds of both layers' "
        f"scores, gone through once. {made_by(found)}."
    )
    parts = ["# Accuracy without training", f"`{found['command']}`", lead]
    header = "criterion | before | outer layer | both layers | units left | parameters left | again | "
    header += "units left | rounds | seconds"
    for name, paper in PAPER.items():
        rows = [
            [
                method.name,
                *_row(
                    [c for c in found["cells"].values() if (c["network"], c["method"]) == (name, method.name)]
                ),
            ]
            for method in METHODS
        ]
        parts += [f"## {name}: {paper} in the paper, the best of 5", table(header.split(" | "), rows)]
    return "\n\n".join(parts)


def _row(cells: list[Cell]) -> list[str]:
    if not cells:
        return ["-"] * 9
    counts = [f"{np.mean([cell[what][2] for cell in cells]):,.0f}" for what in ("units", "params")]
    again = ["-"] * 3
    if any(len(cell["accuracy"]) > 3 for cell in cells):
        rounds = [(len(cell["accuracy"]) - 1) // 2 for cell in cells]
        low, high = min(rounds), max(rounds)
        again = [
            _accuracy(cells, -1),
            f"{np.mean([cell['units'][-1] for cell in cells]):,.0f}",
            f"{low}" if low == high else f"{low} to {high}",
        ]
    seconds = f"{np.mean([cell['attribution_cpu_seconds'] for cell in cells]):.1f}"
    return [*(_accuracy(cells, step) for step in range(3)), *counts, *again, seconds]


def _accuracy(cells: list[Cell], step: int) -> str:
    values = [100 * cell["accuracy"][step] for cell in cells]
    return f"{spread(values)} ({max(values):.2f})"


if __name__ == "__main__":
    main()

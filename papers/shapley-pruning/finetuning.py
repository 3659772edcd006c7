"""Fine-tuning against the amount of data, as in the supplement of Ancona et al. (2020).

    python papers/shapley-pruning/finetuning.py

A network is pruned as in ``low_data.py`` and then trained for a fixed number of steps on so many images,
cropped and flipped at random. Every finished cell is written to ``finetuning.json`` and ``FINETUNING.md`` at
once, and the curves are drawn at the end; a re-run does what is missing.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from low_data import Study, accuracy, prepare, prune
from methods import METHODS, Method
from models import Network
from panels import draw
from results import TRAINED, Cell, Results, made_by, spread, table
from torch import Tensor, nn
from torch.nn import functional

from shapleaf.integrations import require
from shapleaf.integrations.datasets import load_data

HERE = Path(__file__).resolve().parent
RECIPE = {"steps": 100, "batch": 50, "rate": 0.01, "momentum": 0.9, "decay": 5e-4, "margin": 4}
"""How a pruned network is trained; the rate falls linearly to zero, images are moved by up to the margin."""
CALIBRATION = 100
NOTHING = "nothing removed"
ROWS = ("Shapley, default path, mean + 2 std", "Taylor, mean", "weight norm", "random", NOTHING)


class Wanted(NamedTuple):
    """A cell: what is pruned, how, and on how many images it is trained."""

    network: str
    seed: int
    row: str
    remove: float
    images: int

    @property
    def key(self) -> str:
        return f"{self.network} | {self.row} | {self.remove:g} | {self.images} | {self.seed}"


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    require("matplotlib.pyplot", "plots")
    results = resumed(options)
    bench: Bench | None = None
    for wanted in cells(options):
        if wanted.key not in results.cells:
            if bench is None or bench.name != wanted.network:
                bench = Bench(wanted.network, options)
                results.intact.setdefault(wanted.network, {"accuracy": bench.intact})
            cell = bench.run(wanted)
            said = f"{cell['before']:.4f} to {cell['accuracy']:.4f} ({cell['cpu_seconds']} s)"
            results.add(wanted.key, {**wanted._asdict(), **cell}, said)
    results.write()
    for name in results.intact:
        picture(results, name, options.out / f"finetuning-{name}.svg")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=TRAINED, help="folder with the data and the weights")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    parser.add_argument("--networks", nargs="+", default=["resnet20", "vgg16"])
    parser.add_argument("--rows", nargs="+", default=[""], metavar="PART", help="of the rows' names")
    parser.add_argument("--remove", nargs="+", type=float, default=[0.25, 0.5], help="share of each layer")
    parser.add_argument(
        "--images", nargs="+", type=int, default=[100, 500, 1000, 5000], help="training images to tune on"
    )
    parser.add_argument("--test-images", type=int, default=5000, help="to take the accuracy on")
    parser.add_argument("--steps", type=int, default=RECIPE["steps"], help="of training")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], help="of all images and every draw"
    )
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def resumed(options: argparse.Namespace) -> Results:
    """What earlier runs with the same settings found."""
    command = "python papers/shapley-pruning/finetuning.py"
    settings = {
        **RECIPE,
        "steps": options.steps,
        "calibration": CALIBRATION,
        "test_images": options.test_images,
    }
    paths = options.out / "finetuning.json", options.out / "FINETUNING.md"
    return Results(*paths, command, settings, markdown)


def cells(options: argparse.Namespace) -> Iterator[Wanted]:
    """Every cell that was asked for, in an order that prunes each network once."""
    rows = [row for row in ROWS if any(part in row for part in options.rows)]
    for network in options.networks:
        for seed in options.seeds:
            for row in rows:
                for remove in [0.0] if row == NOTHING else options.remove:
                    for images in options.images:
                        yield Wanted(network, seed, row, remove, images)


class Bench:
    """A trained network with its test images, and the training images of its set."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.steps = name, options.steps
        options = argparse.Namespace(**{**vars(options), "images": CALIBRATION})
        self.study: Study = prepare(name, options)
        self.intact: float = self.study.intact()["accuracy"]
        network: Network = self.study.network
        source = f"{network.source}:{options.data}"
        self.train = load_data(source, split="train", mean=network.mean, std=network.std)
        self._pruned: tuple[tuple[Any, ...], nn.Module, float] | None = None

    def run(self, wanted: Wanted) -> Cell:
        """Prune a copy, train it, and take its accuracy before and after."""
        pruned, before = self.pruned(wanted)
        model = copy.deepcopy(pruned)
        # The first so many of one draw: less data is part of more.
        images, labels = self.train.sample(wanted.images, wanted.seed).tensors()
        start = time.process_time()
        tune(model, images, labels, self.steps, wanted.seed)
        seconds = time.process_time() - start
        return {"before": before, "accuracy": self.test(model, wanted.seed), "cpu_seconds": round(seconds, 2)}

    def pruned(self, wanted: Wanted) -> tuple[nn.Module, float]:
        """The network without its units and its accuracy; kept for the next cell, often the same."""
        key = wanted.row, wanted.remove, wanted.seed
        if self._pruned is None or self._pruned[0] != key:
            model = copy.deepcopy(self.study.network.model)
            chosen = self.study.calibration(CALIBRATION, wanted.seed)
            calibration = self.study.images[chosen], self.study.labels[chosen]
            for layer in self.study.network.layers if wanted.remove else ():
                prune(model, method(wanted.row), layer, calibration, wanted.remove, wanted.seed)
            self._pruned = key, model, self.test(model, wanted.seed)
        return self._pruned[1:]

    def test(self, model: nn.Module, seed: int) -> float:
        """The accuracy on the test images that no unit was scored on, in eval mode.

        Training moves the stem too, so that its features are taken anew.
        """
        rest = torch.ones(len(self.study.labels), dtype=torch.bool)
        rest[self.study.calibration(CALIBRATION, seed)] = False
        with torch.inference_mode():
            features = torch.cat([model.stem(part) for part in self.study.images[rest].split(100)])
        return accuracy(model, features, self.study.labels[rest])


def method(row: str) -> Method:
    return next(method for method in METHODS if method.name == row)


def tune(model: nn.Module, images: Tensor, labels: Tensor, steps: int, seed: int) -> None:
    """Gradient descent with momentum in train mode; each image comes as often as any other, or once more."""
    optimizer = torch.optim.SGD(
        model.parameters(), RECIPE["rate"], momentum=RECIPE["momentum"], weight_decay=RECIPE["decay"]
    )
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(steps):
            while len(order) < RECIPE["batch"]:
                order = torch.cat([order, torch.randperm(len(images))])
            chosen, order = order[: RECIPE["batch"]], order[RECIPE["batch"] :]
            loss = functional.cross_entropy(model(jittered(images[chosen])), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
    model.eval()


def jittered(images: Tensor) -> Tensor:
    """Each image moved by up to the margin, the mean colour behind it, and flipped half of the time."""
    margin, size = int(RECIPE["margin"]), images.shape[-1]
    padded = functional.pad(images, (margin,) * 4)
    corners = torch.randint(2 * margin + 1, (len(images), 2)).tolist()
    moved = [one[:, y : y + size, x : x + size] for one, (y, x) in zip(padded, corners, strict=True)]
    flips = (torch.rand(len(images)) < 0.5).view(-1, 1, 1, 1)
    batch = torch.stack(moved)
    return torch.where(flips, batch.flip(3), batch).contiguous(memory_format=torch.channels_last)


def picture(results: Results, network: str, path: Path) -> None:
    """Accuracy against the number of images, for each share that is removed."""
    found = [cell for cell in results.cells.values() if cell["network"] == network]
    sizes = sorted({cell["images"] for cell in found})
    panels: dict[str, dict[str, list[list[float]]]] = {}
    for remove in sorted({cell["remove"] for cell in found} - {0.0}):
        lines = panels.setdefault(f"{remove:.0%} of each layer removed", {})
        for row in ROWS:
            share = 0.0 if row == NOTHING else remove
            runs = [_run(found, row, share, seed, sizes) for seed in sorted({c["seed"] for c in found})]
            if whole := [run for run in runs if len(run) == len(sizes) + 1]:
                lines[row] = whole
    if panels:
        ticks = ["none", *(f"{size:,}" for size in sizes)]
        draw(path, panels, ROWS, ticks, f"{network}, images to fine-tune on")


def _run(cells: list[Cell], row: str, remove: float, seed: int, sizes: list[int]) -> list[float]:
    """One seed's accuracies: before, then for each number of images that was run."""
    mine = {c["images"]: c for c in cells if (c["row"], c["remove"], c["seed"]) == (row, remove, seed)}
    return [cell["before"] for cell in list(mine.values())[:1]] + [
        mine[size]["accuracy"] for size in sizes if size in mine
    ]


def markdown(found: dict[str, Any]) -> str:
    """The tables, with a dash for what has not been run."""
    settings, cells = found["settings"], list(found["cells"].values())
    lead = (
        f"Pruned layer by layer, outermost first, by {settings['calibration']} test images, then "
        f"{settings['steps']} steps of {settings['batch']} training images, cropped and flipped, out of so "
        f"many as the column says. Accuracy in % on {settings['test_images']:,} other test images, mean ± "
        "standard deviation over seeds; no ± where there is one run. Seconds are CPU seconds of one "
        f"fine-tuning. A dash: not run. {made_by(found)}."
    )
    parts = ["# Fine-tuning against the amount of data", f"`{found['command']}`", lead]
    for name, intact in found["intact"].items():
        mine = [cell for cell in cells if cell["network"] == name]
        parts.append(f"## {name}: {intact['accuracy']:.2%} intact")
        sizes = sorted({cell["images"] for cell in mine})
        header = ["removed by", *("none", *(f"{size:,} images" for size in sizes)), "seconds"]
        for remove in sorted({cell["remove"] for cell in mine} - {0.0}):
            rows = [[row, *_texts(mine, row, 0.0 if row == NOTHING else remove, sizes)] for row in ROWS]
            parts += [f"{remove:.0%} of each layer removed:", table(header, rows)]
        parts.append(f"![{name}](finetuning-{name}.svg)")
    return "\n\n".join(parts)


def _texts(cells: list[Cell], row: str, remove: float, sizes: list[int]) -> list[str]:
    mine = [cell for cell in cells if (cell["row"], cell["remove"]) == (row, remove)]
    if not mine:
        return ["-"] * (len(sizes) + 2)
    before = {cell["seed"]: cell["before"] for cell in mine}
    texts = [spread([100 * value for value in before.values()])]
    for size in sizes:
        reached = [100 * cell["accuracy"] for cell in mine if cell["images"] == size]
        texts.append(spread(reached) if reached else "-")
    seconds = [cell["cpu_seconds"] for cell in mine]
    return [*texts, f"{sum(seconds) / len(seconds):.1f}"]


if __name__ == "__main__":
    main()

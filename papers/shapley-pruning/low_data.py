"""Pruning with 100 images and no fine-tuning: section 4.2 of Ancona et al. (2020), for every criterion.

    python papers/shapley-pruning/low_data.py

Each layer in turn, outermost first, is scored on the network as pruned so far and loses 25 % or 50 % of
its units. Every finished cell is written to ``results.json`` and ``RESULTS.md`` at once; a re-run does
what is missing. At the end the accuracy after each layer, the paper's Figure 3, is drawn in
``low-data-NETWORK.svg``.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import METHODS, Method, named
from models import VGG16, LeNet, Network, ResNet, build, load
from panels import draw
from results import TRAINED, Cell, Results, made_by, spread
from torch import Tensor

import shapleaf as sl
from shapleaf.integrations import require
from shapleaf.integrations.datasets import Images, load_data

HERE = Path(__file__).resolve().parent
CURVE_IMAGES = 2000
"""The accuracy after each layer is taken on so many of the test images, that after the last one on all."""
DRAWN = (
    "Shapley, default path, mean + 2 std",
    "Shapley, paper's sampler, mean + 2 std",
    "Shapley, line path, mean + 2 std",
    "leave one out, mean + 2 std",
    "Taylor signed, mean + 2 std",
    "Taylor, mean",
    "sensitivity, mean",
    "APoZ, mean",
    "weight norm",
    "random",
)
"""The rows whose curves are drawn: the authors' criteria as they aggregate them, and four more."""


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    require("matplotlib.pyplot", "plots")
    methods, results = named(METHODS, options.methods), resumed(options)
    studies: dict[str, Study] = {}
    for seed, method, name, remove in itertools.product(
        options.seeds, methods, options.networks, options.remove
    ):
        key = f"{name} | {method.name} | {remove:g} | {seed}"
        undrawn = options.curves and method.name in DRAWN and "curve" not in results.cells.get(key, {})
        if undrawn or key not in results.cells:
            if name not in studies:
                studies[name] = prepare(name, options)
                results.intact.setdefault(name, studies[name].intact())
            cell = run(method, studies[name], remove, seed, options)
            said = f"{cell['accuracy']:.4f} ({cell['attribution_cpu_seconds']} s)"
            results.add(key, {"network": name, "method": method.name, "remove": remove, **cell}, said)
    results.write()
    for name in results.intact:
        picture(results, name, options.out / f"low-data-{name}{'-fold' if options.fold else ''}.svg")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=TRAINED, help="folder with the data and the weights")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json and RESULTS.md")
    parser.add_argument("--networks", nargs="+", default=["resnet20", "vgg16", "resnet56"])
    parser.add_argument("--methods", nargs="+", default=[""], metavar="PART", help="of the rows' names")
    parser.add_argument("--remove", nargs="+", type=float, default=[0.25, 0.5], help="share of each layer")
    parser.add_argument("--images", type=int, default=100, help="calibration images, from the test set")
    parser.add_argument("--test-images", type=int, help="evaluate on so many of the others only")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the calibration images and every draw"
    )
    parser.add_argument("--fold", action="store_true", help="fold the mean of removed units into biases")
    parser.add_argument("--curves", action="store_true", help="run cells again whose curve is missing")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """A trained network, the test images, and what the network's stem makes of them.

    No pruned layer lies in the stem, so that it is run once, not for every cell.
    """

    network: Network
    data: Images
    images: Tensor
    features: Tensor
    labels: Tensor

    def calibration(self, images: int, seed: int) -> Tensor:
        """Where the calibration images are among all."""
        place = {int(image): index for index, image in enumerate(self.data.ids)}
        return torch.tensor([place[int(image)] for image in self.data.sample(images, seed).ids])

    def intact(self) -> dict[str, float]:
        """The network as it is, on all test images."""
        cost = sl.cost(sl.trace(self.network.model, self.images[:2]))
        correct = accuracy(self.network.model, self.features, self.labels)
        return {"accuracy": correct, "params": cost.params, "macs": cost.macs}


def prepare(name: str, options: argparse.Namespace) -> Study:
    network = load(name, options.data)
    network.model.to(memory_format=torch.channels_last)
    data = load_data(f"{network.source}:{options.data}", split="test", mean=network.mean, std=network.std)
    if options.test_images:
        data = data.sample(options.images + options.test_images, seed=0)
    images, labels = data.tensors()
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        features = torch.cat([network.model.stem(part) for part in images.split(100)])
    return Study(network, data, images, features, labels)


def run(method: Method, study: Study, remove: float, seed: int, options: argparse.Namespace) -> Cell:
    """Prune a copy layer by layer and measure it."""
    model = copy.deepcopy(study.network.model)
    chosen = study.calibration(options.images, seed)
    calibration = study.images[chosen], study.labels[chosen]
    rest = torch.ones(len(study.labels), dtype=torch.bool).index_fill(0, chosen, value=False)
    features, labels = study.features[rest], study.labels[rest]
    first = features[:CURVE_IMAGES], labels[:CURVE_IMAGES]
    wall, cpu, curve = 0.0, 0.0, [accuracy(model, *first)]
    for layer in study.network.layers:
        spent = prune(model, method, layer, calibration, remove, seed, fold=options.fold)
        wall, cpu = wall + spent[0], cpu + spent[1]
        curve.append(accuracy(model, *first))
    cost = sl.cost(sl.trace(model, calibration[0][:2]))
    return {
        "seed": seed,
        "accuracy": accuracy(model, features, labels),
        "curve": [round(value, 4) for value in curve],
        "params": cost.params,
        "macs": cost.macs,
        "attribution_seconds": round(wall, 2),
        "attribution_cpu_seconds": round(cpu, 2),
    }


def prune(
    model: VGG16 | ResNet | LeNet,
    method: Method,
    layer: str,
    calibration: tuple[Tensor, Tensor],
    remove: float,
    seed: int,
    *,
    fold: bool = False,
) -> tuple[float, float]:
    """Remove a share of one layer's units, in place; the wall and CPU seconds that their scores took."""
    graph = sl.trace(model, calibration[0][:2])
    start = time.perf_counter(), time.process_time()
    scores = method.scores(model, graph, layer, calibration, seed)
    spent = time.perf_counter() - start[0], time.process_time() - start[1]
    plan = sl.allocate(scores, sl.Units(remove=remove), multiple_of=1)
    sl.prune_(model, plan, compensate=sl.FoldMean(calibration) if fold else None)
    return spent


def accuracy(model: VGG16 | ResNet | LeNet, features: Tensor, labels: Tensor) -> float:
    """The share of images whose highest output is the label's, from what the stem made of them."""
    with torch.inference_mode():
        found = torch.cat([model.head(part).argmax(1) for part in features.split(100)])
    return float((found == labels).double().mean())


def resumed(options: argparse.Namespace) -> Results:
    """What earlier runs with the same settings found."""
    suffix = "-fold" if options.fold else ""
    # Which cells one run was asked for makes no difference to them, so it is not part of the command.
    command = f"python papers/shapley-pruning/low_data.py --images {options.images}"
    if options.test_images:
        command += f" --test-images {options.test_images}"
    if options.fold:
        command += " --fold"
    settings = {
        "images": options.images,
        "test_images": options.test_images or 10_000 - options.images,
        "fold": options.fold,
    }
    json, tables = options.out / f"results{suffix}.json", options.out / f"RESULTS{suffix}.md"
    return Results(json, tables, command, settings, markdown)


def picture(results: Results, network: str, path: Path) -> None:
    """Figure 3: the accuracy after each layer, for each share that is removed."""
    panels: dict[str, dict[str, list[list[float]]]] = {}
    cells = [cell for cell in results.cells.values() if cell["network"] == network and "curve" in cell]
    for cell in sorted(cells, key=lambda cell: float(cell["remove"])):
        if cell["method"] in DRAWN:
            lines = panels.setdefault(f"{cell['remove']:.0%} of each layer removed", {})
            lines.setdefault(cell["method"], []).append(cell["curve"])
    if panels:
        draw(path, panels, DRAWN, ["intact", *build(network).layers], f"{network}, pruned up to this layer")


def markdown(found: dict[str, Any]) -> str:
    """The tables, with a dash for what has not been run."""
    settings, cells = found["settings"], list(found["cells"].values())
    removes = sorted({cell["remove"] for cell in cells})
    lines = [
        "# Pruning with few images and no fine-tuning",
        "",
        f"`{found['command']}`",
        "",
        f"{settings['images']} calibration images, test accuracy in % on {settings['test_images']:,} others"
        + (", removed units folded into biases by their mean. " if settings["fold"] else ". ")
        + "Mean ± standard deviation over calibration sets and draws; no ± where there is one run. Seconds "
        "are CPU seconds of all attributions for one pruned network. A dash: not run. Curves are accuracies "
        f"on {CURVE_IMAGES:,} of the test images. {made_by(found)}.",
    ]
    for name, intact in found["intact"].items():
        mine = [cell for cell in cells if cell["network"] == name]
        lines += ["", f"## {name}: {intact['accuracy']:.2%} intact", ""]
        header = ["criterion", *(f"{remove:.0%} removed | seconds" for remove in removes)]
        lines += [f"| {' | '.join(header)} |", "|---" + "|---:|---:" * len(removes) + "|"]
        rows = {m.name: [[c for c in mine if _is(c, m.name, r)] for r in removes] for m in METHODS}
        best = [
            max((_mean(row[i]) for row in rows.values() if row[i]), default=0.0) for i in range(len(removes))
        ]
        for method, row in rows.items():
            texts = (_cell(found, top) for found, top in zip(row, best, strict=True))
            lines.append(f"| {method} | {' | '.join(texts)} |")
        lines += ["", *(_left(mine, remove, intact) for remove in removes)]
        if any("curve" in cell and cell["method"] in DRAWN for cell in mine):
            lines += ["", f"![{name}](low-data-{name}{'-fold' if settings['fold'] else ''}.svg)"]
    return "\n".join(lines)


def _is(cell: dict[str, Any], method: str, remove: float) -> bool:
    return bool(cell["method"] == method and cell["remove"] == remove)


def _mean(cells: list[Cell]) -> float:
    return float(np.mean([cell["accuracy"] for cell in cells]))


def _cell(cells: list[Cell], best: float) -> str:
    if not cells:
        return "- | -"
    text = spread([100 * cell["accuracy"] for cell in cells])
    seconds = float(np.mean([cell["attribution_cpu_seconds"] for cell in cells]))
    return f"{f'**{text}**' if _mean(cells) == best else text} | {seconds:.1f}"


def _left(cells: list[Cell], remove: float, intact: dict[str, Any]) -> str:
    found = next((cell for cell in cells if cell["remove"] == remove), None)
    if found is None:
        return f"{remove:.0%}: not run."
    params, macs = found["params"] / intact["params"], found["macs"] / intact["macs"]
    return f"{remove:.0%} removed leaves {params:.1%} of the parameters and {macs:.1%} of the MACs.  "


if __name__ == "__main__":
    main()

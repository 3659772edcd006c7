"""What it costs to prune one layer alone: section 4.1 of Ancona et al. (2020), for every criterion.

    python papers/shapley-pruning/layerwise.py

The units of each layer are masked in the order of their scores, lowest first, all other layers whole and
nothing fine-tuned. Every finished cell is written to ``layerwise-NETWORK.json`` and ``LAYERWISE-NETWORK.md``
at once, and the curves are drawn at the end; a re-run does what is missing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import DEFAULT, LINE, OWN_ORDERS, PAPER, Method
from models import Network, load, weighted
from results import TRAINED, Cell, Cells, Results, made_by, spread, table
from torch import Tensor

import shapleaf as sl
from shapleaf.integrations import require
from shapleaf.integrations.datasets import load_data

HERE = Path(__file__).resolve().parent
SEEDS = (0, 1, 2, 3, 4)
POINTS, TEST_IMAGES = 32, 500


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: its method, whether it draws anything, and the paper's figures for it.

    Attributes:
        method: the criterion and its aggregation.
        drawn: whether another seed gives other scores.
        cifar10: the paper's area for VGG16 on CIFAR-10.
        fashion: the paper's area for the small network on Fashion-MNIST.
    """

    method: Method
    drawn: bool = False
    cifar10: str = "-"
    fashion: str = "-"


def _two(
    name: str, criterion: Any, *, drawn: bool = False, mean: Sequence[str] = (), both: Sequence[str] = ()
) -> tuple[Row, Row]:
    """A criterion aggregated by mean + 2 standard deviations, and by the mean."""
    return (
        Row(Method(f"{name}, mean + 2 std", criterion, sl.MeanPlusStd(2)), drawn, *both),
        Row(Method(f"{name}, mean", criterion, sl.Mean()), drawn, *mean),
    )


# In the order in which the table is filled: cheap ones first. Both rows of a criterion share its scores.
ROWS = (
    Row(Method("weight norm", sl.WeightNorm(), sl.Mean()), False, ".47", ".19"),
    *_two("Shapley, line path", LINE),
    *_two("Taylor", sl.Taylor(), mean=(".47", ".20")),
    *_two("Taylor signed", sl.Taylor(signed=True), mean=(".64",)),
    *_two("sensitivity", sl.Sensitivity(), mean=(".47", ".24")),
    *_two("APoZ", sl.APoZ(), mean=(".56", ".30")),
    Row(Method("random", sl.Random(), sl.Mean()), True, ".48 ± .01", ".29 ± .02"),
    *_two("Shapley, default path", DEFAULT, drawn=True),
    *_two("leave one out", sl.LeaveOneOut()),
    *_two("Shapley, orders per example", OWN_ORDERS, drawn=True),
    *_two(
        "Shapley, paper's sampler", PAPER, drawn=True, mean=(".35 ± .01",), both=(".31 ± .01", ".11 ± .00")
    ),
)
DRAWN = (
    "Shapley, default path, mean + 2 std",
    "Shapley, paper's sampler, mean + 2 std",
    "leave one out, mean + 2 std",
    "Taylor, mean",
    "sensitivity, mean",
    "APoZ, mean",
    "weight norm",
    "random",
)
"""The rows whose curves are drawn: of the authors' criteria as they aggregate them, and two more."""


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    plots = require("matplotlib.pyplot", "plots")
    for name in options.networks:
        results = fill(name, options)
        draw(plots, name, results.cells, options.out / f"layerwise-{name}.svg")


def fill(name: str, options: argparse.Namespace) -> Results:
    """Run the cells of one network that are missing."""
    results = resumed(name, options)
    missing = [cell for cell in cells(name, options) if cell[0] not in results.cells]
    study = Study(name, options) if missing else None
    for done, (key, row, _, seed) in enumerate(missing, start=1):
        assert study
        if name not in results.intact:
            results.intact[name] = study.intact()
        cell = study.run(row.method, seed)
        said = (
            f"{cell['auc']:.4f} ({cell['attribution_cpu_seconds']} s, curves {cell['curves_cpu_seconds']} s)"
        )
        results.add(key, {"network": name, "method": row.method.name, **cell}, said)
        left = remaining(missing[done:], results.cells, results.intact, options)
        print(f"about {left / 3600:.1f} h left for {len(missing) - done} cells", flush=True)
    results.write()
    return results


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=TRAINED, help="folder with the data and the weights")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    parser.add_argument("--networks", nargs="+", default=["mnist", "vgg16"])
    parser.add_argument("--layers", nargs="+", help="of these layers only")
    parser.add_argument("--methods", nargs="+", default=[""], metavar="PART", help="of the rows' names")
    parser.add_argument("--points", type=int, default=POINTS, help="steps from no unit of a layer to all")
    parser.add_argument("--images", type=int, default=100, help="calibration images, from the test set")
    parser.add_argument(
        "--test-images", type=int, default=TEST_IMAGES, help="of the others, to take the loss of"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=SEEDS, help="of every draw of the rows that draw"
    )
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def resumed(network: str, options: argparse.Namespace) -> Results:
    """What earlier runs with the same settings found."""
    names = "points images test_images layers".split()
    settings = {name: getattr(options, name) for name in names}
    command = f"python papers/shapley-pruning/layerwise.py --networks {network}"
    command += "".join(
        f" --{name.replace('_', '-')} {settings[name]}"
        for name, usual in (("points", POINTS), ("test_images", TEST_IMAGES))
        if settings[name] != usual
    )
    paths = options.out / f"layerwise-{network}.json", options.out / f"LAYERWISE-{network}.md"
    return Results(*paths, command, settings, markdown)


Wanted = tuple[str, Row, str, int]


def cells(name: str, options: argparse.Namespace) -> Iterator[Wanted]:
    """Every cell that was asked for: its key, row, network and seed. First one draw of each row."""
    rows = [row for row in ROWS if any(part in row.method.name for part in options.methods)]
    for seed in options.seeds:
        for row in rows:
            if row.drawn or seed == options.seeds[0]:
                yield f"{name} | {row.method.name} | {seed}", row, name, seed


class Study:
    """A trained network, 100 images to score its units on, and others to take the loss of.

    Both sets of images are the same for all rows and seeds.
    """

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.network: Network = load(name, options.data)
        self.model = self.network.model.to(memory_format=torch.channels_last)
        data = load_data(
            f"{self.network.source}:{options.data}",
            split="test",
            mean=self.network.mean,
            std=self.network.std,
        )
        calibration = data.sample(options.images, seed=0)
        self.calibration = calibration.tensors()
        self.test = data.without(calibration.ids).sample(options.test_images, seed=0).tensors()
        self.graph = sl.trace(self.model, self.calibration[0][:2])
        self.layers = options.layers or weighted(self.model)[:-1]
        self.points = options.points
        self._scores: tuple[Any, sl.Scores, float] | None = None

    def intact(self) -> Cell:
        """The whole network on the test images, and its layers' units, outermost last."""
        images, labels = self.test
        with torch.inference_mode():
            output = torch.cat([self.model(part) for part in images.split(100)])
        return {
            "accuracy": float((output.argmax(1) == labels).double().mean()),
            "loss": float(torch.nn.functional.cross_entropy(output, labels)),
            "units": {name: self.graph[name].size for name in self.layers},
        }

    def run(self, method: Method, seed: int) -> Cell:
        """Score every layer of the whole network, then take each layer's curve."""
        scores, seconds = self.scores(method, seed)
        removed, rises, spent = {}, {}, {}
        for name in self.layers:
            start = time.process_time()
            one = replace(scores, values={name: aggregated(scores.values[name], method)}, stderr={})
            curve = sl.scan(self.model, one, self.test, points=self.points, removal=sl.Zero()).curves[name]
            spent[name] = round(time.process_time() - start, 2)
            removed[name] = [int(count) for count in curve[:, 0]]
            rises[name] = [float(f"{rise:.4g}") for rise in curve[:, 1].tolist()]
        return {
            "seed": seed,
            "auc": round(area(removed, rises), 5),
            "attribution_cpu_seconds": round(seconds, 2),
            "curves_cpu_seconds": round(sum(spent.values()), 2),
            "seconds": spent,
            "removed": removed,
            "rises": rises,
        }

    def scores(self, method: Method, seed: int) -> tuple[sl.Scores, float]:
        """Per example, if the criterion sees any; kept for the next row, which has often the same ones."""
        key = method.criterion, seed
        if self._scores is None or self._scores[0] != key:
            start = time.process_time()
            scores = sl.attribute(
                self.model,
                self.graph,
                self.calibration,
                method.criterion,
                aggregate=None,
                groups=self.layers,
                seed=seed,
            )
            self._scores = key, scores, time.process_time() - start
        return self._scores[1:]


def aggregated(values: Tensor, method: Method) -> Tensor:
    """One score per unit; those that saw no image have one already."""
    if values.ndim == 1:
        return values
    state = method.aggregate.start(values.shape[1])
    state.update(values)
    return state.result()[0]


def area(removed: dict[str, list[int]], rises: dict[str, list[float]]) -> float:
    """Equation 6: the rise of the loss, summed over layers and units removed, per unit.

    Between two points a curve is a straight line. With a point for every unit this is the paper's sum.

    >>> area({"a": [0, 1, 2], "b": [0, 2]}, {"a": [0.0, 1.0, 4.0], "b": [0.0, 2.0]})
    2.0
    """
    total = sum(
        float(np.interp(range(1, removed[name][-1] + 1), removed[name], rises[name]).sum())
        for name in removed
    )
    return total / sum(counts[-1] for counts in removed.values())


def remaining(wanted: Sequence[Wanted], done: Cells, intact: Cells, options: argparse.Namespace) -> float:
    """About how many CPU seconds are left, by what the curves of the finished cells took.

    An evaluation costs the same whatever it is for: the network behind the layer, on so many images.
    """
    total, last = 0.0, None
    for _, row, name, seed in wanted:
        finished = next((cell for cell in done.values() if cell["network"] == name), None)
        if finished is None:
            continue
        total += finished["curves_cpu_seconds"]
        if (name, row.method.criterion, seed) != last:
            for layer, units in intact[name]["units"].items():
                each = finished["seconds"][layer] / len(finished["removed"][layer])
                total += each * evaluations(row.method, units) * options.images / options.test_images
        last = name, row.method.criterion, seed
    return total


def evaluations(method: Method, units: int) -> int:
    """Of the network behind a layer, for each image."""
    estimator = getattr(method.criterion, "estimator", None)
    if isinstance(estimator, sl.Path):
        return 3 * estimator.points * estimator.draws + 2
    if isinstance(estimator, sl.Permutation):
        return estimator.samples * (units - 1) + 2
    return units + 1 if isinstance(method.criterion, sl.LeaveOneOut) else 0


def markdown(found: dict[str, Any]) -> str:
    """The table, with a dash for what has not been run."""
    settings, intact = found["settings"], found["intact"]
    networks = {
        name: f"{name}: {sum(cell['units'].values()):,} units of {len(cell['units'])} layers, "
        f"{cell['accuracy']:.1%} and a loss of {cell['loss']:.3f} intact"
        for name, cell in intact.items()
    }
    lead = (
        f"Each layer alone loses its units, lowest score first, in {settings['points']} steps at most, by "
        "masks; nothing is fine-tuned. Area under the curve of the rise of the loss, per unit (equation 6): "
        f"lower is better. {settings['images']} calibration images, the loss on {settings['test_images']} "
        "others; both the same in all rows. ±: standard deviation over draws; no ± where nothing is drawn or "
        "there is one run. Seconds are CPU seconds of the scores of all layers, by one attribution for both "
        f"aggregations. A dash: not run, or not in the paper. {made_by(found)}."
    )
    header = ["criterion"]
    for name in intact:
        header += [name, "seconds"]
    header += ["paper, VGG16 on CIFAR-10", "paper, Fashion-MNIST"]
    best = {
        name: min((np.mean(_areas(found, name, row)) for row in ROWS if _areas(found, name, row)), default=0)
        for name in intact
    }
    rows = []
    for row in ROWS:
        texts = [text for name in intact for text in _texts(found, name, row, float(best[name]))]
        rows.append([row.method.name, *texts, row.cifar10, row.fashion])
    parts = ["# One layer at a time", f"`{found['command']}`", lead, "; ".join(networks.values()) + "."]
    parts += [table(header, rows), *(f"![{name}](layerwise-{name}.svg)" for name in intact)]
    return "\n\n".join(parts)


def _cells(found: dict[str, Any], network: str, row: Row) -> list[Cell]:
    return [c for c in found["cells"].values() if (c["network"], c["method"]) == (network, row.method.name)]


def _areas(found: dict[str, Any], network: str, row: Row) -> list[float]:
    return [cell["auc"] for cell in _cells(found, network, row)]


def _texts(found: dict[str, Any], network: str, row: Row, best: float) -> list[str]:
    areas = _areas(found, network, row)
    if not areas:
        return ["-", "-"]
    text = spread(areas, digits=3)
    seconds = np.mean([cell["attribution_cpu_seconds"] for cell in _cells(found, network, row)])
    return [f"**{text}**" if np.mean(areas) == best else text, f"{seconds:.1f}"]


def draw(plots: Any, network: str, cells: Cells, path: Path) -> None:
    """Figure 2: every layer's loss against the share of its units that is gone, a line for each row."""
    lines = {
        name: found
        for name in DRAWN
        if (found := [c for c in cells.values() if (c["network"], c["method"]) == (network, name)])
    }
    if not lines:
        return
    layers = list(next(iter(lines.values()))[0]["removed"])
    columns = min(len(layers), 5)
    rows = -(-len(layers) // columns)
    with plots.rc_context({"svg.fonttype": "none", "svg.hashsalt": network, "font.size": 8}):
        figure, axes = plots.subplots(
            rows, columns, figsize=(2.4 * columns, 2 * rows + 0.6), squeeze=False, layout="constrained"
        )
        for axis, layer in zip(axes.flat, layers, strict=False):
            for name, found in lines.items():
                counts = found[0]["removed"][layer]
                mean = np.mean([cell["rises"][layer] for cell in found], 0)
                axis.plot(
                    np.array(counts) / counts[-1], mean, f"C{DRAWN.index(name)}", label=name, linewidth=1
                )
            axis.set_title(f"{layer}, {counts[-1]} units", fontsize=8)
        for axis in axes.flat[len(layers) :]:
            axis.remove()
        figure.supxlabel("share of the layer's units removed")
        figure.supylabel("rise of the loss")
        figure.legend(
            *axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=columns - 1 or 1
        )
        figure.savefig(path, metadata={"Date": None})
        plots.close(figure)


if __name__ == "__main__":
    main()

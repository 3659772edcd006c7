"""How close estimators come to converged Shapley values on layers of trained networks, and at what cost.

    python benchmarks/estimators.py

Spearman's rank correlation, over the units of a layer, between an estimate's scores and those of a
reference of 200 orders per example, half of them the reverse of the other half. Its two halves say how
well the reference knows the ranks itself. The reference is kept in ``build/estimators``, so that an
interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, ROOT, environment, save, spearman, table
from torch import Tensor

import shapleaf as sl
from shapleaf._store import atomic
from shapleaf.game import Estimator
from shapleaf.integrations.datasets import load_data

sys.path.insert(0, str(ROOT / "papers" / "shapley-pruning"))
from models import load

LAYERS = (
    "vgg16:features.40",
    "vgg16:classifier.1",
    "resnet20:layer3.1.conv1",
    "resnet20:layer2.1.conv1",
)
PAPER = "5 orders, shared (the paper's)"
ESTIMATORS: dict[str, Estimator] = {
    PAPER: sl.Permutation(5, antithetic=False, shared=True),
    "5 orders per example": sl.Permutation(5, antithetic=False),
    "4 orders per example, antithetic": sl.Permutation(4),
    "6 orders per example, antithetic": sl.Permutation(6),
    "path, line, 4 points": sl.Path(4, "line"),
    "path, line, 16 points": sl.Path(16, "line"),
    "path, line, 64 points": sl.Path(64, "line"),
    "path, gaussian, 4 points x 4": sl.Path(4, "gaussian", 4),
    "path, gaussian, 8 points x 2": sl.Path(8, "gaussian", 2),
    "path, gaussian, 16 points x 1": sl.Path(16, "gaussian", 1),
    "path, gaussian, 16 points x 4": sl.Path(16, "gaussian", 4),
    "path, bernoulli, 4 points x 4": sl.Path(4, "bernoulli", 4),
    "path, bernoulli, 16 points x 1": sl.Path(16, "bernoulli", 1),
    "path, bernoulli, 64 points x 1": sl.Path(64, "bernoulli", 1),
}
AGGREGATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda values: values.mean(0),
    "mean + 2 std": lambda values: values.mean(0) + 2 * values.std(0, correction=0),
}
ORDERS_AT_A_TIME = 10


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a trained network with calibration images: what the game is played on."""

    name: str
    model: torch.nn.Module
    group: str
    data: tuple[Tensor, Tensor]

    def values(self, estimator: Estimator, seed: int) -> tuple[Tensor, int, float]:
        """Values ``(examples, units)``, suffix evaluations and CPU seconds."""
        graph = sl.trace(self.model, self.data[0][:2])
        start = time.process_time()
        scores = sl.attribute(
            self.model,
            graph,
            self.data,
            sl.Shapley(estimator),
            aggregate=None,
            groups=[self.group],
            seed=seed,
        )
        seconds = time.process_time() - start
        return scores.values[self.group], scores.evaluations[self.group], seconds


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "command": "python benchmarks/estimators.py",
        "images": options.images,
        "orders": options.orders,
        "seeds": options.seeds,
        "environment": environment(),
        "layers": {},
    }
    for spec in options.layers:
        layer = prepare(spec, options)
        reference, agreement = converged(layer, options)
        print(f"{spec}: reference halves agree {shown(agreement)}", flush=True)
        rows = {name: measure(layer, name, one, reference, options.seeds) for name, one in ESTIMATORS.items()}
        found["layers"][spec] = {"units": reference.shape[1], "halves agree": agreement, "estimators": rows}
        save(options.out, "estimators", found, markdown(found))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "estimators")
    parser.add_argument("--layers", nargs="+", default=LAYERS, metavar="NETWORK:GROUP")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--orders", type=int, default=200, help="of the reference, a multiple of 4")
    parser.add_argument("--seeds", type=int, default=3, help="runs of what draws at random")
    return parser.parse_args(arguments)


def prepare(spec: str, options: argparse.Namespace) -> Layer:
    name, _, group = spec.partition(":")
    network = load(name, options.data)
    images = load_data(f"cifar10:{options.data}", split="test", mean=network.mean, std=network.std)
    return Layer(spec, network.model, group, images.sample(options.images, seed=0).tensors())


def converged(layer: Layer, options: argparse.Namespace) -> tuple[Tensor, dict[str, float]]:
    """The mean over all orders, and the rank correlation of its two halves."""
    halves = [torch.zeros(()), torch.zeros(())]
    done, part = [0, 0], 0
    while sum(done) < options.orders:
        half = part % 2
        orders = min(ORDERS_AT_A_TIME, options.orders // 2 - done[half])
        halves[half] = halves[half] + orders * cached(layer, orders, part, options.cache)
        done[half] += orders
        part += 1
    means = [total / count for total, count in zip(halves, done, strict=True)]
    return (means[0] + means[1]) / 2, correlations(*means)


def cached(layer: Layer, orders: int, part: int, folder: Path) -> Tensor:
    """Values by a few orders, from disk if they were computed before on the same images and weights."""
    digest = hashlib.sha256()
    for tensor in (*layer.data, *layer.model.state_dict().values()):
        digest.update(tensor.numpy().tobytes())
    path = folder / f"{layer.name.replace(':', '-')}-{digest.hexdigest()[:12]}-{orders}-{part}.pt"
    if not path.exists():
        values, _, seconds = layer.values(sl.Permutation(orders), seed=1000 + part)
        print(f"{layer.name}: {orders} orders of the reference in {seconds:.0f} s", flush=True)
        with atomic(path) as new:
            torch.save(values, new)
    return torch.load(path, weights_only=True)


def measure(layer: Layer, name: str, estimator: Estimator, reference: Tensor, seeds: int) -> dict[str, Any]:
    """Correlations with the reference, averaged over seeds where something is drawn."""
    if isinstance(estimator, sl.Path) and estimator.masks == "line":
        seeds = 1
    runs = [layer.values(estimator, seed) for seed in range(seeds)]
    found = [correlations(values, reference) for values, _, _ in runs]
    row: dict[str, Any] = {
        aggregation: round(sum(one[aggregation] for one in found) / seeds, 4) for aggregation in AGGREGATIONS
    }
    row["lowest"] = {aggregation: min(one[aggregation] for one in found) for aggregation in AGGREGATIONS}
    row |= {"evaluations": runs[0][1], "seconds": round(min(seconds for _, _, seconds in runs), 3)}
    print(
        f"{layer.name}: {name}: {shown(row)}, {row['evaluations']} evaluations, {row['seconds']} s",
        flush=True,
    )
    return row


def correlations(a: Tensor, b: Tensor) -> dict[str, float]:
    return {name: round(spearman(f(a), f(b)), 4) for name, f in AGGREGATIONS.items()}


def shown(correlation: dict[str, Any]) -> str:
    return ", ".join(f"{correlation[name]:.3f}" for name in AGGREGATIONS)


def markdown(found: dict[str, Any]) -> str:
    parts = [
        "# Estimators of Shapley values against converged ones",
        f"`{found['command']}`",
        f"{found['images']} images of CIFAR-10. Spearman's rank correlation over the units of a layer with a "
        f"reference of {found['orders']} orders per example, for two aggregations over examples; the mean "
        f"over {found['seeds']} seeds where something is drawn. Evaluations are forwards of the network "
        "behind the layer; a forward with its backward counts 3. Seconds are CPU seconds. "
        + ", ".join(f"{name} {value}" for name, value in found["environment"].items())
        + ".",
    ]
    for name, layer in found["layers"].items():
        parts.append(f"## {name}, {layer['units']} units")
        rows = [
            [
                key,
                *(f"{row[a]:.3f}" for a in AGGREGATIONS),
                f"{row['evaluations']:,}",
                f"{row['seconds']:.2f}",
            ]
            for key, row in layer["estimators"].items()
        ]
        agree = [f"{layer['halves agree'][a]:.3f}" for a in AGGREGATIONS]
        rows.append(["*the reference's own halves*", *agree, "", ""])
        parts.append(table(["estimator", *AGGREGATIONS, "evaluations", "seconds"], rows))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()

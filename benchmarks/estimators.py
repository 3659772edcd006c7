"""How close estimators come to converged Shapley values on layers of trained networks, and at what cost.

    python benchmarks/estimators.py

Reference: 40 to 200 orders per example, half of them the reverse of the other half; exact values for heads.
Compared are ranks (Spearman's correlation, the overlap of the lowest quarter and half), values (relative
error per example) and how often standard errors cover. Rivals are the paper's own algorithm, Captum's and
shapiq's (``pip install captum shapiq``; rows are left out without them). References are kept in
``build/estimators`` and finished rows in the results, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rivals
import torch
from common import RESULTS, ROOT, environment, save, spearman, table
from torch import Tensor

import layers
import shapleaf as sl
from layers import Layer, Reference
from shapleaf.game import Estimator

LAYERS = {
    "vgg16:features.40": 200,
    "vgg16:classifier.1": 200,
    "vgg16:features.20": 40,
    "resnet20:layer3.1.conv1": 200,
    "resnet20:layer2.1.conv1": 200,
    "resnet56:layer3.4.conv1": 100,
    "mnist:fc1": 40,
    "vit:blocks.1.mlp.0": 40,
    "vit:blocks.1.attention.qkv": 0,
}
"""Layers and the orders of their references."""

PAPER, DEFAULT = "the paper's algorithm", "path, signs 5 x 4 (the default)"
RIVALS: dict[str, tuple[str, Callable[..., tuple[Tensor, int]]]] = {
    PAPER: ("torch", rivals.paper),
    "Captum, ShapleyValueSampling": ("captum", rivals.captum),
    "shapiq, KernelSHAP": ("shapiq", rivals.shapiq("KernelSHAP")),
    "shapiq, PermutationSamplingSV": ("shapiq", rivals.shapiq("PermutationSamplingSV")),
}
ESTIMATORS: dict[str, Callable[[int], Estimator]] = {
    DEFAULT: lambda _: sl.Path(),
    "path, signs 5 x 4, no prior": lambda _: sl.Path(prior=0),
    "path, signs 3 x 4": lambda _: sl.Path(3),
    "path, signs 5 x 16": lambda _: sl.Path(5, draws=16),
    "path, gaussian 5 x 4": lambda _: sl.Path(5, "gaussian"),
    "path, bernoulli 5 x 4": lambda _: sl.Path(5, "bernoulli"),
    "path, line 16": lambda _: sl.Path(16, "line"),
    "moments, 4 points": lambda _: sl.OwenMoments(4),
    "moments, 8 points": lambda _: sl.OwenMoments(8),
    "DASP, 4 sizes": lambda _: sl.DASP(4),
    "corrected, 64 marginals": lambda _: sl.Corrected(marginals=64),
    "corrected, one order": lambda units: sl.Corrected(marginals=units),
    "corrected, four orders": lambda units: sl.Corrected(marginals=4 * units),
    "adaptive path, up to 2,000": lambda _: sl.Adaptive(),
    "regression, 5 per unit": lambda _: sl.Regression(5),
    "regression, 20 per unit": lambda _: sl.Regression(20),
    "5 orders, shared": lambda _: sl.Permutation(5, antithetic=False, shared=True),
    "5 orders per example": lambda _: sl.Permutation(5, antithetic=False),
    "4 orders per example, antithetic": lambda _: sl.Permutation(4),
    "4 orders, truncated at 5 %": lambda _: sl.Permutation(4, truncate=0.05),
}
PATIENCE = 30.0
"""CPU seconds of a row after which no further seed is begun."""
AGGREGATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda values: values.mean(0),
    "mean + 2 std": lambda values: values.mean(0) + 2 * values.std(0, correction=0),
}


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(1)
    found = resumed(options)
    for spec in options.layers:
        layer = layers.prepare(spec, options)
        reference = layers.converged(layer, options.orders or LAYERS.get(spec, 100), options.cache)
        known = found["layers"].setdefault(spec, {"units": reference.values.shape[1], "estimators": {}})
        known["halves agree"] = agreement(*reference.halves)
        print(f"{spec}: reference halves agree {shown(known['halves agree'])}", flush=True)
        for name in names(options, known["units"]):
            if name not in known["estimators"]:
                try:
                    known["estimators"][name] = row(layer, name, reference, options.seeds)
                except sl.CriterionError as error:
                    known["estimators"][name] = {"refused": str(error)}
                print(f"{spec}: {name}: {shown(known['estimators'][name])}", flush=True)
                save(options.out, "estimators", found, markdown(found))
    save(options.out, "estimators", found, markdown(found))
    if importlib.util.find_spec("matplotlib"):
        plot(found, options.out / "estimators.svg")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "estimators")
    parser.add_argument("--layers", nargs="+", default=[*LAYERS], metavar="NETWORK:GROUP")
    parser.add_argument("--estimators", nargs="+", default=[""], metavar="PART", help="of the rows' names")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--orders", type=int, help="of the reference, a multiple of 20")
    parser.add_argument("--seeds", type=int, default=3, help="runs of what draws at random")
    return parser.parse_args(arguments)


def names(options: argparse.Namespace, units: int) -> list[str]:
    """The rows that can be run here."""
    rows = [name for name, (needed, _) in RIVALS.items() if importlib.util.find_spec(needed)]
    found = [name for name in (*ESTIMATORS, *rows) if any(part in name for part in options.estimators)]
    most = {"DASP": 64, "regression, 20": 512, "shapiq": 512}  # beyond, hours or tens of gigabytes
    return [name for name in found if all(units <= n for part, n in most.items() if part in name)]


def resumed(options: argparse.Namespace) -> dict[str, Any]:
    """What earlier runs with the same settings found."""
    found: dict[str, Any] = {
        "command": "python benchmarks/estimators.py",
        "images": options.images,
        "seeds": options.seeds,
        "environment": environment(),
        "layers": {},
    }
    path = options.out / "estimators.json"
    if path.exists():
        earlier = json.loads(path.read_text())
        if all(earlier.get(key) == found[key] for key in ("images", "seeds")):
            found["layers"] = earlier["layers"]
    return found


def row(layer: Layer, name: str, reference: Reference, seeds: int) -> dict[str, Any]:
    """Closeness to the reference and cost: means over seeds, the least CPU seconds."""
    runs: list[dict[str, float]] = []
    while len(runs) < seeds and sum(run["seconds"] for run in runs) < PATIENCE:
        seed = len(runs)
        if name in RIVALS:
            part = layer.part()
            start = time.process_time()
            values, evaluations = RIVALS[name][1](layer, part, seed)
            measured = compared(values, reference)
        else:
            with layer.game() as game:
                start = time.process_time()
                estimate = ESTIMATORS[name](game.players).estimate(game, seed)
                evaluations = estimate.evaluations
            measured = compared(estimate.values, reference) | covered(estimate, reference)
        runs.append(measured | {"evaluations": evaluations, "seconds": time.process_time() - start})
    found = {key: mean([run[key] for run in runs]) for key in runs[0]}
    found["seconds"] = round(min(run["seconds"] for run in runs), 4)
    lowest = {name: min(run[name] for run in runs) for name in AGGREGATIONS if name in runs[0]}
    return found | {"lowest": lowest, "seeds": len(runs)}


def compared(values: Tensor, reference: Reference) -> dict[str, float]:
    """Ranks and values against the reference; a single row is a mean over examples."""
    truth = reference.values
    if len(values) != len(truth):
        return {"mean": spearman(values[0], truth.mean(0))}
    found = agreement(values, truth)
    score, true = (AGGREGATIONS["mean + 2 std"](one) for one in (values, truth))
    for share in (0.25, 0.5):
        count = round(share * len(score))
        lowest = [set(one.argsort(stable=True)[:count].tolist()) for one in (score, true)]
        found[f"lowest {share:.0%}"] = len(lowest[0] & lowest[1]) / count
    found["error"] = ((values - truth).square().mean() / truth.square().mean()).sqrt().item()
    return found


def covered(estimate: sl.Estimate, reference: Reference) -> dict[str, float]:
    """How many reference values, known as well as they are, lie within one and two standard errors."""
    if estimate.stderr is None and estimate.common is None:
        return {}
    own = torch.zeros_like(estimate.values) if estimate.stderr is None else estimate.stderr
    common = torch.zeros_like(own[0]) if estimate.common is None else estimate.common
    known = torch.hypot(own, reference.stderr)
    of_mean = known.square().sum(0).sqrt() / len(own)
    if estimate.shared:  # the error of all examples is one and the same
        of_mean = torch.hypot(own.mean(0), reference.stderr.square().sum(0).sqrt() / len(own))
    errors = {
        "values": ((estimate.values - reference.values).abs(), torch.hypot(known, common)),
        "means": ((estimate.values - reference.values).mean(0).abs(), torch.hypot(of_mean, common)),
    }
    return {
        # Units that are nothing to an example are exactly zero on both sides and say nothing.
        f"{what} within {k}": (error <= k * spread)[spread > 0].double().mean().item()
        for what, (error, spread) in errors.items()
        for k in (1, 2)
    }


def agreement(a: Tensor, b: Tensor) -> dict[str, float]:
    return {name: spearman(f(a), f(b)) for name, f in AGGREGATIONS.items()}


def mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 4)


def shown(row: dict[str, Any]) -> str:
    numbers = {key: value for key, value in row.items() if isinstance(value, float | int) and key != "seeds"}
    return ", ".join(f"{key} {value:.4g}" for key, value in numbers.items()) or str(row)


COLUMNS = {
    "mean": ".3f",
    "mean + 2 std": ".3f",
    "lowest 25%": ".2f",
    "lowest 50%": ".2f",
    "error": ".2f",
    "evaluations": ",.0f",
    "seconds": ".2f",
}
COVERAGE = ("values within 1", "values within 2", "means within 1", "means within 2")


def markdown(found: dict[str, Any]) -> str:
    parts = [
        "# Estimators of Shapley values against converged ones",
        f"`{found['command']}`",
        f"{found['images']} test images, {found['seeds']} seeds, fewer where they take long. "
        "*mean*, *mean + 2 std*: Spearman's rank "
        "correlation of the units' scores with the reference's. *lowest*: the share of its lowest 25 % or "
        "50 % (by mean + 2 std) found. *error*: root mean square error of the values per example, relative. "
        "*evaluations*: forwards of the network behind the layer; a forward with its backward counts 3. "
        "*seconds*: CPU seconds of one thread behind the layer, the least of the seeds. *covered*: shares "
        "of reference values, and of their means over examples, within 1 and 2 standard errors (68 % and "
        "95 % if the error were all noise). shapiq plays for the mean loss only. A dash: no such thing. "
        + ", ".join(f"{name} {value}" for name, value in found["environment"].items())
        + ".",
    ]
    for name, layer in found["layers"].items():
        order = [*ESTIMATORS, *RIVALS]
        rows = dict(sorted(layer["estimators"].items(), key=lambda item: order.index(item[0])))
        if not rows:
            continue
        parts.append(f"## {name}, {layer['units']:,} units")
        cells = [
            [key, *(format(one[c], f) if c in one else "-" for c, f in COLUMNS.items()), *_covered(one)]
            for key, one in rows.items()
        ]
        refused = [f"*{key}* cannot be: {one['refused']}" for key, one in rows.items() if "refused" in one]
        agree = [f"{layer['halves agree'][a]:.3f}" for a in AGGREGATIONS]
        cells.append(["*the reference's own halves*", *agree, *[""] * (len(COLUMNS) - 2), "", ""])
        parts.append(table(["estimator", *COLUMNS, "values covered", "means covered"], cells))
        parts += refused
        parts += [
            f"Against {PAPER}: {rows[PAPER]['seconds'] / rows[DEFAULT]['seconds']:.0f} times faster, "
            f"{rows[PAPER]['evaluations'] / rows[DEFAULT]['evaluations']:.0f} times fewer evaluations."
            for _ in [None]
            if PAPER in rows and DEFAULT in rows
        ]
    return "\n\n".join([*parts, "![what is missing to full rank correlation](estimators.svg)"])


def _covered(row: dict[str, Any]) -> list[str]:
    if COVERAGE[0] not in row:
        return ["-", "-"]
    a, b, c, d = (f"{row[key]:.0%}" for key in COVERAGE)
    return [f"{a} / {b}", f"{c} / {d}"]


def plot(found: dict[str, Any], path: Path) -> None:
    """What is missing to full rank correlation against evaluations, one panel for each layer."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams["svg.hashsalt"] = "shapleaf"
    known = {name: layer for name, layer in found["layers"].items() if layer["estimators"]}
    kinds = {"path": "o", "corrected": "s", "adaptive": "D", "orders": "^", "the paper": "X"}
    figure, axes = pyplot.subplots(
        -(-len(known) // 3), 3, figsize=(12, 3.2 * -(-len(known) // 3)), squeeze=False
    )
    for axis, (name, layer) in zip(axes.flat, known.items(), strict=False):
        for kind, marker in {**kinds, "": "."}.items():
            rows = [
                one
                for key, one in layer["estimators"].items()
                if "mean" in one and next((k for k in kinds if k in key), "") == kind
            ]
            axis.scatter(
                [one["evaluations"] for one in rows],
                [max(1 - one["mean"], 1e-4) for one in rows],
                marker=marker,
                label=kind or "Captum, shapiq, others",
            )
        axis.axhline(0.03, color="grey", linewidth=0.5)
        axis.set(xscale="log", yscale="log", title=f"{name}, {layer['units']:,} units")
    axes[0, 0].set(xlabel="evaluations", ylabel="1 - rank correlation")
    axes[0, 0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()

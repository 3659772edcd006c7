"""Accuracy kept with a hundred images and no training set: shapleaf's slim beside Torch-Pruning's pruners.

    python benchmarks/lowdata.py

Networks trained on CIFAR-10 lose 30, 50 and 70 % of their MACs. All methods get the same 100 calibration
images, five draws of them, and are tested on others. Torch-Pruning removes the same share of every layer,
found by bisection so that its MACs are the most that the budget allows; its BatchNorms are recalibrated
on the calibration images, by the mean of their statistics. On the ResNets it is given the inner layers
of the blocks alone. With ``--ablation`` the parts of ``slim`` are exchanged one at a time. Every
finished cell is written at once; a re-run does what is missing.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, ROOT, environment, save, table
from torch import Tensor, nn
from torch.nn import functional

import shapleaf as sl
from shapleaf.integrations import require
from shapleaf.integrations.datasets import load_data
from shapleaf.slimming import steps

sys.path.insert(0, str(ROOT / "papers" / "shapley-pruning"))
from models import Network, load

DATA = ROOT.parent / "shared" / "data"
NETWORKS, KEEPS, DRAWS = ("resnet20", "vgg16", "resnet56"), (0.7, 0.5, 0.3), 5
IMAGES = 100
OURS = {"slim, balanced": "balanced", "slim, fast": "fast", "slim, best": "best"}
THEIRS = ("L1", "L2", "Taylor", "random")
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Variant:
    """slim with one of its parts exchanged; ``None`` keeps the default."""

    criterion: Any = None
    strategy: Any = None
    compensate: Callable[[Batch], Any] | None = None
    first: Any = None


ABLATION = {
    "ranking: Taylor": Variant(criterion=sl.Taylor()),
    "ranking: weight norm": Variant(criterion=sl.WeightNorm()),
    "ranking: Shapley": Variant(criterion=sl.Shapley()),
    "ranking: Shapley, means": Variant(criterion=sl.Shapley(removal=sl.CalibrationMean())),
    "ranking: random": Variant(criterion=sl.Random()),
    "ranking: surgeon, not felt": Variant(criterion=sl.OptimalBrainSurgeon()),
    "order: output first": Variant(first="output"),
    "order: input first": Variant(first="input"),
    "budget: uniform": Variant(strategy=sl.Uniform()),
    "compensation: none": Variant(compensate=lambda batch: ()),
    "compensation: means": Variant(compensate=sl.FoldMean),
    "compensation: BatchNorms": Variant(compensate=sl.RecalibrateBatchNorm),
    "compensation: distillation": Variant(compensate=sl.Distill),
    "compensation: least squares": Variant(compensate=sl.LeastSquares),
    "compensation: least squares, BatchNorms": Variant(
        compensate=lambda batch: (sl.LeastSquares(batch), sl.RecalibrateBatchNorm(batch))
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """A network, calibration images and test images of one draw."""

    network: Network
    calibration: Batch
    test: Batch

    @property
    def model(self) -> nn.Module:
        return self.network.model


def prepare(name: str, draw: int, test_images: int) -> Study:
    network = load(name, DATA)
    data = load_data(f"{network.source}:{DATA}", split="test", mean=network.mean, std=network.std)
    sample = data.sample(IMAGES, draw)
    rest = data.without(sample.ids).sample(test_images, draw)
    return Study(network, sample.tensors(), rest.tensors())


def accuracy(model: nn.Module, test: Batch) -> float:
    model.eval()
    with torch.inference_mode():
        found = torch.cat([model(part).argmax(1) for part in test[0].split(250)])
    return float((found == test[1]).double().mean())


def slimmed(study: Study, keep: float, variant: Variant, effort: str, kept: dict[str, Any]) -> nn.Module:
    """The steps of ``sl.slim``; scores are shared by the budgets of a draw."""
    criterion = variant.criterion or sl.OptimalBrainSurgeon(felt=True)
    strategy = variant.strategy or sl.Tradeoff()
    name = repr(criterion)
    if name not in kept:
        graph = sl.trace(study.model, study.calibration[0][:2])
        kept[name] = sl.attribute(study.model, graph, study.calibration, criterion)
    if isinstance(strategy, sl.Tradeoff) and not kept[name].curves:
        kept[name] = sl.scan(study.model, kept[name], study.calibration)
    plan = sl.allocate(kept[name], sl.Macs(keep=keep), strategy=strategy)
    if variant.first:
        plan = sl.refine(
            study.model,
            plan,
            study.calibration,
            first=variant.first,
            compensate=sl.LeastSquares(study.calibration),
        )
    data = study.calibration
    compensate = variant.compensate(data) if variant.compensate else steps(effort, data)
    return sl.prune(study.model, plan, compensate=compensate or None).model


def theirs(study: Study, keep: float, importance: str) -> nn.Module:
    """Torch-Pruning at the largest share of units that the budget allows."""
    require("torch_pruning", "dev")
    import torch_pruning as tp

    example = study.calibration[0][:1]
    full = tp.utils.count_ops_and_params(study.model, example)[0]

    def pruned(remove: float) -> nn.Module:
        model = copy.deepcopy(study.model)
        kinds: dict[str, Callable[[], Any]] = {
            "L1": lambda: tp.importance.MagnitudeImportance(p=1),
            "L2": lambda: tp.importance.MagnitudeImportance(p=2),
            "Taylor": tp.importance.TaylorImportance,
            "random": tp.importance.RandomImportance,
        }
        kept_whole = [m for n, m in model.named_modules() if _outside(n, m, study.network)]
        torch.manual_seed(0)
        pruner = tp.pruner.MagnitudePruner(
            model, example, importance=kinds[importance](), pruning_ratio=remove, ignored_layers=kept_whole
        )
        if importance == "Taylor":
            functional.cross_entropy(model(study.calibration[0]), study.calibration[1]).backward()
        pruner.step()
        model.zero_grad()
        return model

    low, high = 0.0, 0.95
    for _ in range(7):
        middle = (low + high) / 2
        macs = tp.utils.count_ops_and_params(pruned(middle), example)[0]
        low, high = (middle, high) if macs > keep * full else (low, middle)
    model = pruned(high)
    recalibrate(model, study.calibration[0])
    return model


def _outside(name: str, module: nn.Module, network: Network) -> bool:
    """Layers that Torch-Pruning leaves alone."""
    if not isinstance(module, nn.Conv2d | nn.Linear):
        return False
    if hasattr(network.model, "layer1"):
        return not name.endswith(".conv1")
    return isinstance(module, nn.Linear) and module.out_features == 10


def recalibrate(model: nn.Module, images: Tensor) -> None:
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        model(images)
    model.eval()


def run(options: argparse.Namespace) -> None:
    path = options.out / "lowdata.json"
    found = json.loads(path.read_text()) if path.exists() else {"cells": {}, "intact": {}}
    found |= {"test_images": options.test_images, "environment": environment()}
    for draw in options.draws:
        for name in options.networks:
            todo = [
                c
                for c in cells(options, draw)
                if "|".join((name, str(draw), *map(str, c))) not in found["cells"]
            ]
            if not todo:
                continue
            study = prepare(name, draw, options.test_images)
            found["intact"].setdefault(name, {})[str(draw)] = accuracy(study.model, study.test)
            full = sl.cost(sl.trace(study.model, study.calibration[0][:2])).macs
            kept: dict[str, Any] = {}
            for method, keep in todo:
                start = time.perf_counter(), time.process_time()
                if method in THEIRS:
                    model = theirs(study, keep, method)
                else:
                    variant = ABLATION.get(method, Variant())
                    model = slimmed(study, keep, variant, OURS.get(method, "balanced"), kept)
                seconds = time.perf_counter() - start[0], time.process_time() - start[1]
                cell = {
                    "accuracy": accuracy(model, study.test),
                    "macs": sl.cost(sl.trace(model, study.calibration[0][:2])).macs / full,
                    "seconds": round(seconds[0], 1),
                    "cpu_seconds": round(seconds[1], 1),
                }
                found["cells"]["|".join((name, str(draw), method, str(keep)))] = cell
                print(name, draw, method, keep, cell, flush=True)
                save(options.out, "lowdata", found, markdown(found))


def cells(options: argparse.Namespace, draw: int) -> list[tuple[str, float]]:
    methods = options.methods or ["slim, balanced", "slim, fast", *THEIRS]
    plain = [(method, keep) for method in methods for keep in options.keeps]
    ablation = [(method, 0.5) for method in ABLATION] if options.ablation and draw == 0 else []
    return plain + ablation


def markdown(found: dict[str, Any]) -> str:
    lines = [
        "# Little data, no fine-tuning",
        "",
        "`python benchmarks/lowdata.py`",
        "",
        (
            f"Accuracy in % on {found['test_images']:,} test images that calibration did not see, median "
            f"over the draws of {IMAGES} calibration images (their number in brackets), by the share of "
            "the MACs removed. Torch-Pruning: the same share of every layer, BatchNorms recalibrated on the "
            "same images. Seconds: without the scores, which the budgets of a draw share. "
            "Below it, slim, balanced, with one of its parts exchanged."
        ),
        "",
        ", ".join(f"{key}: {value}" for key, value in found["environment"].items()) + ".",
    ]
    for name, intact in found["intact"].items():
        median = statistics.median(intact.values())
        lines += ["", f"## {name}: {median:.1%} intact", ""]
        methods = [*OURS, *THEIRS, *ABLATION]
        rows = []
        for method in methods:
            row = [_values(found, name, method, keep) for keep in KEEPS]
            if any(row):
                label = f"Torch-Pruning, {method}" if method in THEIRS else method
                rows.append([label, *(_text(values) for values in row), _seconds(found, name, method)])
        header = ["method", *(f"{1 - keep:.0%} removed" for keep in KEEPS), "CPU seconds at 50 %"]
        lines.append(table(header, rows))
    return "\n".join(lines)


def _values(found: dict[str, Any], name: str, method: str, keep: float) -> list[float]:
    return [
        cell["accuracy"]
        for key, cell in found["cells"].items()
        if key.split("|")[0] == name and key.split("|")[2:] == [method, str(keep)]
    ]


def _text(values: list[float]) -> str:
    return f"{100 * statistics.median(values):.1f} ({len(values)})" if values else "-"


def _seconds(found: dict[str, Any], name: str, method: str) -> str:
    times = [
        cell["cpu_seconds"]
        for key, cell in found["cells"].items()
        if key.split("|")[0] == name and key.split("|")[2:] == [method, "0.5"]
    ]
    return f"{statistics.median(times):.0f}" if times else "-"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--draws", nargs="+", type=int, default=range(DRAWS))
    parser.add_argument("--keeps", nargs="+", type=float, default=KEEPS)
    parser.add_argument("--methods", nargs="+", choices=[*OURS, *THEIRS])
    parser.add_argument(
        "--ablation", action="store_true", help="exchange the parts of slim, on draw 0 at half the MACs"
    )
    parser.add_argument("--test-images", type=int, default=9_900)
    parser.add_argument("--out", type=Path, default=RESULTS)
    run(parser.parse_args(arguments))


if __name__ == "__main__":
    main()

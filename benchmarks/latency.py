"""What MACs removed give in time: eager, compiled and in ONNX Runtime; and whether latency budgets are met.

    python benchmarks/latency.py

Each network is pruned to budgets on MACs and on latency, by Taylor scores. A pruned model and the dense one
run in turn on one thread, each three times in a row; the ratio of their median times counts: of the thread's
own time, which is the clock's on an idle machine, and by the clock. A budget on latency is then solved once
more, with the table corrected by what was measured. torch.compile needs a C++ compiler. Every finished cell
is kept at once; a re-run does what is missing. Latency tables lie in the cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import vit
from common import RESULTS, ROOT, environment, save, table
from torch import Tensor, nn

import shapleaf as sl
from shapleaf import _context
from shapleaf.budgets import Budget
from shapleaf.integrations.datasets import Images, load_data
from shapleaf.profiling import settle
from shapleaf.strategies import Strategy

sys.path.insert(0, str(ROOT / "papers" / "shapley-pruning"))
from models import CIFAR10, load

STRATEGIES: dict[str, Strategy] = {"uniform": sl.Uniform(), "tradeoff": sl.Tradeoff()}
REMOVE = (0.3, 0.5, 0.7)
KEEP = (0.7, 0.5)
RUNTIMES = ("eager", "compiled", "ONNX Runtime")
LEAST_PAIRS = 10
Run = Callable[[], Any]


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(1)
    settle()
    found = resumed(options)
    for name in options.networks:
        study = Study(name, options)
        found["tables"].setdefault(name, {}).update(study.profiled())
        for key, budget, strategy, runtimes in study.cells():
            cell = found["cells"].setdefault(key, {})
            plan = sl.allocate(study.scores, budget, strategy=STRATEGIES[strategy])
            cell |= study.told(plan)
            for runtime in runtimes:
                if runtime not in cell:
                    cell[runtime] = study.measured(plan, runtime)
                    said = " ".join(f"{part}={value:.3f}" for part, value in cell[runtime].items())
                    print(f"{key}: {runtime} {said}", flush=True)
                    save(options.out, "latency", found, markdown(found))
            if isinstance(budget, sl.Latency) and "corrected" not in cell:
                again = budget.corrected(plan, cell["eager"]["thread"])
                plan = sl.allocate(study.scores, again, strategy=STRATEGIES[strategy])
                cell["corrected"] = study.measured(plan, "eager")
                print(f"{key}: corrected {cell['corrected']['thread']:.3f}", flush=True)
                save(options.out, "latency", found, markdown(found))
    save(options.out, "latency", found, markdown(found))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data", help="weights and CIFAR-10"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of latency.json and latency.md")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "shapleaf", help="of the tables"
    )
    parser.add_argument("--networks", nargs="+", default=["resnet20", "vgg16", "vit"])
    parser.add_argument("--runtimes", nargs="+", default=[*RUNTIMES], choices=RUNTIMES)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--images", type=int, default=50, help="calibration images, from the test set")
    parser.add_argument("--runs", type=int, default=120, help="of each latency table")
    parser.add_argument("--seconds", type=float, default=4.0, help="of every measurement")
    return parser.parse_args(arguments)


def resumed(options: argparse.Namespace) -> dict[str, Any]:
    """What earlier runs with the same settings found."""
    settings = {name: getattr(options, name) for name in ("batch", "images", "runs", "seconds")}
    found: dict[str, Any] = {"command": "python benchmarks/latency.py", "settings": settings}
    found |= {"environment": environment(), "tables": {}, "cells": {}}
    path = options.out / "latency.json"
    if path.exists():
        earlier = json.loads(path.read_text())
        if earlier["settings"] != settings:
            raise SystemExit(f"{path} was made with {earlier['settings']}, not {settings}; remove it.")
        found |= {key: earlier[key] for key in ("tables", "cells")}
    return found


class Study:
    """A network with its scores and its latency table."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.options = name, options
        self.model, images = network(name, options)
        sample = images.sample(options.images, seed=0).tensors()
        self.inputs = images.sample(options.batch, seed=1).tensors()[0]
        graph = sl.trace(self.model, self.inputs[:2])
        self.scores = sl.scan(self.model, sl.attribute(self.model, graph, [sample], sl.Taylor()), [sample])
        path = options.cache / f"latency-{name}-{options.batch}.safetensors"
        self.table = sl.profile(self.model, graph, self.inputs, runs=options.runs, path=path)

    def profiled(self) -> dict[str, Any]:
        """What the table says of itself."""
        errors = abs(self.table.errors)
        return {
            "dense ms": self.table.dense,
            "median error": float(statistics.median(errors)),
            "seconds": self.table.seconds,
        }

    def cells(self) -> list[tuple[str, Budget, str, tuple[str, ...]]]:
        """Key, budget, strategy and runtimes, in the order of measuring."""
        latency = [sl.Latency(keep=keep, table=self.table) for keep in KEEP]
        macs = [sl.Macs(remove=remove) for remove in REMOVE]
        return [
            (f"{self.name} | {budget} | {strategy}", budget, strategy, runtimes)
            for runtimes, budgets in ((("eager",), latency), (tuple(self.options.runtimes), macs))
            for budget in budgets
            for strategy in STRATEGIES
        ]

    def told(self, plan: sl.Plan) -> dict[str, float]:
        """What is known of a plan before anything runs: shares of the MACs and of the time."""
        macs, predicted = plan.after.macs / plan.before.macs, self.table.predict(plan) / self.table.dense
        return {"macs": macs, "predicted": predicted}

    def measured(self, plan: sl.Plan, runtime: str) -> dict[str, float]:
        """The time relative to the dense model, of the thread and by the clock."""
        pruned = sl.prune(self.model, plan).model
        with tempfile.TemporaryDirectory() as folder, _context.inference(self.model), torch.no_grad():
            torch.compiler.reset()
            make = {"eager": eager, "compiled": compiled, "ONNX Runtime": onnx}[runtime]
            runs = [make(model, self.inputs, Path(folder)) for model in (pruned.eval(), self.model)]
            thread, wall = ratios(runs, self.options.seconds)
        return {"thread": thread, "wall": wall}


def network(name: str, options: argparse.Namespace) -> tuple[nn.Module, Images]:
    """A trained network of the paper, or the transformer of ``vit.py`` with its weights as they begin."""
    if name == "vit":
        with _context.rng(0):
            sizes = vit.Sizes(channels=3, image=32, classes=10, width=96, depth=4, heads=8, hidden=192)
            model: nn.Module = vit.ViT(sizes).eval()
        mean, std = CIFAR10
    else:
        loaded = load(name, options.data)
        model, mean, std = loaded.model, loaded.mean, loaded.std
    return model, load_data(f"cifar10:{options.data}", split="test", mean=mean, std=std)


def eager(model: nn.Module, inputs: Tensor, _: Path) -> Run:
    return lambda: model(inputs)


def compiled(model: nn.Module, inputs: Tensor, _: Path) -> Run:
    program = torch.compile(model, dynamic=False)
    return lambda: program(inputs)


def onnx(model: nn.Module, inputs: Tensor, folder: Path) -> Run:
    import onnxruntime

    path = folder / f"{len([*folder.iterdir()])}.onnx"
    sl.export(model, inputs, path, dynamic_batch=False)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: inputs.numpy()}
    return lambda: session.run(None, feed)


def ratios(runs: list[Run], seconds: float) -> tuple[float, float]:
    """Time of the first relative to the second, run in turn: of the thread, and by the clock.

    Each runs three times in a row, the first untimed: else each would find the caches full of the other.
    """
    for run in (*runs, *runs):
        run()
    times: list[list[tuple[float, float]]] = [[], []]
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(times[0]) < LEAST_PAIRS:
        for run, own in zip(runs, times, strict=True):
            run()
            for _ in range(2):
                thread, wall = time.thread_time(), time.perf_counter()
                run()
                own.append((time.thread_time() - thread, time.perf_counter() - wall))
    first, second = ([statistics.median(part) for part in zip(*own, strict=True)] for own in times)
    return first[0] / second[0], first[1] / second[1]


def markdown(found: dict[str, Any]) -> str:
    """The results as a page."""
    cells = {tuple(key.split(" | ")): cell for key, cell in found["cells"].items()}
    macs = [
        [
            name,
            strategy,
            f"{cell['macs']:.1%}",
            f"{cell['predicted']:.3f}",
            *(f"{cell[r]['thread']:.3f} ({cell[r]['wall']:.3f})" if r in cell else "-" for r in RUNTIMES),
        ]
        for (name, budget, strategy), cell in cells.items()
        if budget.startswith("Macs")
    ]
    latency = [
        [
            name,
            strategy,
            f"{float(budget[len('Latency(keep=') : -1]):.2f}",
            f"{cell['macs']:.1%}",
            f"{cell['predicted']:.3f}",
            f"{cell['eager']['thread']:.3f} ({cell['eager']['wall']:.3f})",
            f"{cell['eager']['thread'] / float(budget[len('Latency(keep=') : -1]) - 1:+.1%}",
            f"{cell['corrected']['thread'] / float(budget[len('Latency(keep=') : -1]) - 1:+.1%}"
            if "corrected" in cell
            else "-",
        ]
        for (name, budget, strategy), cell in cells.items()
        if budget.startswith("Latency") and "eager" in cell
    ]
    off = [abs(c["predicted"] / c["eager"]["thread"] - 1) for c in cells.values() if "eager" in c]
    tables = [
        [
            name,
            f"{one['dense ms']:.1f}",
            f"{one.get('seconds', float('nan')):.0f}",
            f"{one['median error']:.1%}",
        ]
        for name, one in found["tables"].items()
    ]
    told = (
        f"{len(off)} pruned models that no table has seen: predicted within {statistics.median(off):.1%} in "
        f"the median, {sum(one <= 0.05 for one in off)} of them within 5 %, the worst within {max(off):.1%}."
    )
    where = ", ".join(f"{key} {value}" for key, value in found["environment"].items())
    head = (
        f"`{found['command']}`; {where}; batches of {found['settings']['batch']}. Ratios to the dense model "
        "in the same runtime, run in turn: of the thread's time (by the clock)."
    )
    parts = [
        f"# Time of pruned models\n\n{head}\n\n## Time against MACs\n",
        table(["network", "strategy", "MACs kept", "predicted", *RUNTIMES], macs),
        "\n## Latency budgets\n",
        table(
            ["network", "strategy", "budget", "MACs kept", "predicted", "measured", "miss", "corrected"],
            latency,
        ),
        f"\n{told}\n\n## The tables\n",
        table(["network", "dense, ms", "made in, s", "error of runs left out, median"], tables),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    main()

"""Time to find what can be removed from a network, beside Torch-Pruning's dependency graph.

    python benchmarks/tracing.py

Both see the same model and the same input in turn, several times over. Torch-Pruning finds dependencies
first and the groups they make on request: both times are given.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, environment, save, table
from torch import Tensor, nn

import shapleaf as sl

MODELS = ("resnet18", "resnet50", "vgg16", "mobilenet_v2", "densenet121", "vit_b_16", "swin_t")
ALONE = ("vit_b_16", "swin_t")
"""Models that Torch-Pruning, told nothing, does not prune: one breaks, the other takes minutes."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--image-size", type=int, default=224)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    zoo = torchvision_models()
    inputs = torch.zeros(1, 3, options.image_size, options.image_size)
    found: dict[str, Any] = {
        "command": "python benchmarks/tracing.py",
        "repeats": options.repeats,
        "image_size": options.image_size,
        "environment": environment() | {"torch-pruning": metadata.version("torch-pruning")},
        "models": {},
    }
    for name in options.models:
        model = getattr(zoo, name)(weights=None).eval()
        found["models"][name] = row = measure(model, inputs, options.repeats, alone=name in ALONE)
        print(f"{name}: {row}", flush=True)
    save(options.out, "tracing", found, markdown(found))


def torchvision_models() -> Any:
    """The models of torchvision, also where its wheel was built for another torch than the one installed.

    Its import needs the schemas of two compiled operators, which no model here calls.
    """
    try:
        from torchvision import models
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torchvision_models.library = library  # type: ignore[attr-defined]  # gone with its last reference
        from torchvision import models
    return models


def measure(model: nn.Module, inputs: Tensor, repeats: int, *, alone: bool = False) -> dict[str, float]:
    """Medians of seconds of CPU time, the contestants taking turns."""
    ways: dict[str, Callable[[], Any]] = {
        "shapleaf": lambda: sl.trace(model, inputs),
        "torch-pruning": lambda: dependencies(model, inputs),
        "torch-pruning with groups": lambda: list(dependencies(model, inputs).get_all_groups()),
    }
    ways = {"shapleaf": ways["shapleaf"]} if alone else ways
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            start = time.process_time()
            way()
            seconds[name].append(time.process_time() - start)
    # The first turn warms caches and imports.
    return {name: round(statistics.median(times[1:]), 4) for name, times in seconds.items()}


def dependencies(model: nn.Module, inputs: Tensor) -> Any:
    import torch_pruning

    return torch_pruning.DependencyGraph().build_dependency(model, example_inputs=inputs)


def markdown(found: dict[str, Any]) -> str:
    rows = []
    for name, row in found["models"].items():
        others = [row.get(way) for way in ("torch-pruning", "torch-pruning with groups")]
        times = [f"{other:.3f}" if other else "-" for other in others]
        ratios = [f"{row['shapleaf'] / other:.2f}" if other else "-" for other in others]
        rows.append([name, f"{row['shapleaf']:.3f}", *times, *ratios])
    header = ["model", "shapleaf", "Torch-Pruning", "with its groups", "ratio", "ratio with groups"]
    size = found["image_size"]
    return "\n\n".join(
        [
            "# Time to trace",
            f"`{found['command']}`",
            f"CPU seconds, median of {found['repeats']} turns, one input of 3 x {size} x {size}. A ratio "
            "below 1 means that shapleaf is faster. shapleaf traces twice, in eval and in train mode, and "
            "rehearses on a shortened copy. -: Torch-Pruning, told nothing, does not prune the model. "
            + ", ".join(f"{name} {value}" for name, value in found["environment"].items())
            + ".",
            table(header, rows),
        ]
    )


if __name__ == "__main__":
    main()

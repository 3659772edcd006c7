"""Shapley values of all prunable layers of a network in one go: how long, and how long the paper's way.

    python benchmarks/whole.py

VGG16 with 100 images of CIFAR-10 on all cores, in single precision and under bfloat16 autocast, and whether
the ranks agree. The paper's algorithm, 5 orders of removal for every layer, is timed for a few evaluations
of each layer, through the network cut open by hand, and extrapolated. ``--device cuda`` runs on a GPU;
``--network torchvision:resnet50`` or ``timm:vit_base_patch16_224`` times a network with random weights on
random images. Rates are floating-point operations of all gradients over seconds, beside that of a large
matrix product.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, ROOT, environment, save, spearman, table
from torch.utils.flop_counter import FlopCounterMode

import layers
import shapleaf as sl
from layers import Layer
from shapleaf import _context
from shapleaf.data import batches
from shapleaf.game.layer import LayerGame
from shapleaf.integrations.models import load_model

ORDERS = 5


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    layer = prepare(options)
    graph = sl.trace(layer.model, layer.data[0][:2])
    flops = operations(layer, graph)
    found: dict[str, Any] = {
        "network": options.network,
        "images": options.images,
        "device": options.device,
        "environment": environment(),
        "units": sum(group.size for group in graph.groups),
        "groups": len(graph.groups),
        "runs": {},
    }
    values = {}
    for precision in ("float32", "bfloat16"):
        with autocast(options.device, precision):
            seconds, scores = timed(layer, graph, options.device)
            rate = matrix_rate(options.device)
        values[precision] = scores.values
        found["runs"][precision] = {
            "seconds": round(seconds, 1),
            "teraflops": round(flops / seconds / 1e12, 3),
            "of a matrix product": round(flops / seconds / rate, 3),
        }
        print(precision, found["runs"][precision], flush=True)
    found["ranks agree"] = round(
        min(spearman(values["float32"][name], values["bfloat16"][name]) for name in values["float32"]), 4
    )
    if options.network == "vgg16":
        found["the paper's algorithm, extrapolated"] = round(extrapolated(layer, graph))
    name = "whole-" + "-".join([options.network.rpartition(":")[2], options.device])
    save(options.out, name, found, markdown(found))
    print(markdown(found))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--network", default="vgg16", help="vgg16, or a name of torchvision: or timm:")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="all by default")
    return parser.parse_args(arguments)


def prepare(options: argparse.Namespace) -> Layer:
    """The network and its images on the device; which layer does not matter."""
    if ":" not in options.network:
        layer = layers.prepare(f"{options.network}:", options)
    else:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(options.images, 3, 224, 224, generator=generator)
        labels = torch.randint(1000, (options.images,), generator=generator)
        layer = Layer(options.network, load_model(options.network).eval(), "", (images, labels))
    x, y = (tensor.to(options.device) for tensor in layer.data)
    return Layer(layer.name, layer.model.to(options.device), "", (x, y))


def autocast(device: str, precision: str) -> torch.autocast:
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")


def timed(layer: Layer, graph: sl.Graph, device: str) -> tuple[float, sl.Scores]:
    """Seconds of the clock for all groups, prefixes included."""
    with synchronised(device):
        start = time.perf_counter()
    with synchronised(device):
        scores = sl.attribute(layer.model, graph, layer.data)
    return time.perf_counter() - start, scores


@contextlib.contextmanager
def synchronised(device: str) -> Iterator[None]:
    yield
    if device != "cpu":
        torch.cuda.synchronize()


def operations(layer: Layer, graph: sl.Graph) -> float:
    """Floating-point operations of all gradients that the default estimator takes."""
    total, default = 0, sl.Path()
    few = next(iter(batches(layer.data)))[:2]
    with _context.inference(layer.model):
        for group in graph.groups:
            game = LayerGame(layer.model, group, [few], _context.cross_entropy)
            with FlopCounterMode(display=False) as counter:
                game.gradient(torch.full((2, group.size), 0.5, device=game.device))
            total += counter.get_total_flops()
    return total / 2 * len(layer.data[0]) * default.points * default.draws


def matrix_rate(device: str) -> float:
    """Floating-point operations a second of the best of a few large matrix products."""
    size = 4096 if device == "cpu" else 8192
    a = torch.randn(size, size, device=device)
    seconds = []
    for _ in range(5):
        with synchronised(device):
            start = time.perf_counter()
        with synchronised(device):
            a @ a
        seconds.append(time.perf_counter() - start)
    return float(2 * size**3 / min(seconds))


def extrapolated(layer: Layer, graph: sl.Graph) -> float:
    """Seconds of 5 orders for every layer, from a few evaluations of each."""
    total = 0.0
    with torch.no_grad():
        for group in graph.groups:
            part = Layer(f"vgg16:{group.name}", layer.model, group.name, layer.data).part()
            part.suffix(part.z)
            start = time.perf_counter()
            for _ in range(3):
                torch.nn.functional.cross_entropy(part.suffix(part.z), layer.data[1], reduction="none")
            total += (time.perf_counter() - start) / 3 * (ORDERS * group.size + 1)
    return total


def markdown(found: dict[str, Any]) -> str:
    lines = [
        f"# Shapley values of all layers of {found['network']}",
        f"`python benchmarks/whole.py --network {found['network']} --device {found['device']}`",
        f"{found['groups']} layers, {found['units']:,} units, {found['images']} images, "
        f"on {found['device']}; seconds of the clock with everything but tracing. "
        + ", ".join(f"{name} {value}" for name, value in found["environment"].items())
        + ".",
    ]
    rows = [[name, *(f"{value:g}" for value in run.values())] for name, run in found["runs"].items()]
    lines.append(table(["precision", "seconds", "10¹² operations/s", "of a matrix product's"], rows))
    lines.append(f"Ranks of both agree by {found['ranks agree']:.4f} and more in every layer.")
    if (paper := found.get("the paper's algorithm, extrapolated")) is not None:
        lines.append(f"The paper's algorithm, extrapolated: {paper:,} seconds.")
    return "\n\n".join(lines)


if __name__ == "__main__":
    main()

"""How near BackSelect by gradients comes to exact BackSelect, and how much cheaper it is.

    python benchmarks/backselect.py

Exact and fast order the pixels of the same test images; the share of the exact one's most informative tenth
that the fast one has too is the overlap. How well it could be is what exact shares with itself when pixels
move a little. Networks: the demo's on the built-in digits (256 pixels), a small one on MNIST (784), ResNet-20
on CIFAR-10 at half its size (256; at full size exact takes ten minutes per image).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, ROOT, environment, save, table
from torch import Tensor, nn

import shapleaf as sl
from shapleaf import _context
from shapleaf.demo import train
from shapleaf.evaluation import Fast
from shapleaf.integrations.datasets import Images, load_data

MODES: dict[str, Fast] = {
    "gradient, 1 a step": Fast(1, 0),
    "gradient, 4 a step": Fast(4, 0),
    "gradient, 16 a step": Fast(16, 0),
    "1 of 2 tried": Fast(1, 2),
    "1 of 4 tried": Fast(1, 4),
    "1 of 8 tried": Fast(1, 8),
    "2 of 4 tried": Fast(2, 4),
    "2 of 8 tried": Fast(2, 8),
    "4 of 8 tried": Fast(4, 8),
    "4 of 16 tried": Fast(4, 16),
    "8 of 16 tried": Fast(8, 16),
    "8 of 32 tried": Fast(8, 32),
    "2 a step, a fiftieth": Fast(2),
    "4 a step, a fiftieth (default)": Fast(),
    "8 a step, a fiftieth": Fast(8),
}


def digits(options: argparse.Namespace) -> tuple[nn.Module, Images]:
    return train(load_data("digits"), epochs=options.epochs), load_data("digits", split="test")


def mnist(options: argparse.Namespace) -> tuple[nn.Module, Images]:
    """A small network, trained on 6,000 images."""
    data = f"mnist:{options.data / 'MNIST'}"
    images, labels = load_data(data).sample(6000, seed=0).tensors()
    with _context.rng(0):
        model = nn.Sequential(
            *(nn.Conv2d(1, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 4, 2, 1), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(16 * 49, 32), nn.ReLU(), nn.Linear(32, 10)),
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(options.epochs):
            for chosen in torch.randperm(len(images)).split(100):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
                optimizer.step()
    return model.eval(), load_data(data, split="test")


def resnet20(options: argparse.Namespace) -> tuple[nn.Module, Images]:
    """The trained one of ``papers/shapley-pruning``."""
    sys.path.insert(0, str(ROOT / "papers" / "shapley-pruning"))
    from models import load

    network = load("resnet20", options.data)
    data = f"{network.source}:{options.data}"
    images = load_data(data, split="test", image_size=16, mean=network.mean, std=network.std)
    return network.model.eval(), images


NETWORKS: dict[str, Callable[[argparse.Namespace], tuple[nn.Module, Images]]] = {
    "digits": digits,
    "mnist": mnist,
    "resnet20": resnet20,
}


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(1)
    found = resumed(options)
    for name in options.networks:
        model, data = NETWORKS[name](options)
        images = data.sample(options.images[name], seed=0).tensors()[0]
        exact, seconds = reference(name, model, images, options)
        known = found["networks"].setdefault(name, {"modes": {}})
        known |= {"features": exact.order.shape[1], "images": len(images), "seconds": seconds}
        known["evaluations"] = exact.evaluations
        if "again" not in known:
            known["again"] = again(model, images, exact)
            print(f"{name}: exact again: {known['again']}", flush=True)
        for mode, fast in MODES.items():
            if mode not in known["modes"]:
                known["modes"][mode] = row(model, images, fast, exact, seconds)
                print(f"{name}: {mode}: {known['modes'][mode]}", flush=True)
                save(options.out, "backselect", found, markdown(found))
    save(options.out, "backselect", found, markdown(found))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "backselect", help="of exact orders")
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS], choices=[*NETWORKS])
    parser.add_argument("--count", type=int, help="of images; by default 16, for ResNet-20 4")
    parser.add_argument("--epochs", type=int, default=6, help="of training the small networks")
    options = parser.parse_args(arguments)
    options.images = {name: options.count or (4 if name == "resnet20" else 16) for name in NETWORKS}
    return options


def resumed(options: argparse.Namespace) -> dict[str, Any]:
    """What earlier runs found."""
    found: dict[str, Any] = {
        "command": "python benchmarks/backselect.py",
        "epochs": options.epochs,
        "environment": environment(),
        "networks": {},
    }
    path = options.out / "backselect.json"
    if path.exists():
        earlier = json.loads(path.read_text())
        if earlier["epochs"] == options.epochs:
            same = {
                name: one
                for name, one in earlier["networks"].items()
                if one["images"] == options.images[name]
            }
            found["networks"] = same
    return found


def reference(
    name: str, model: nn.Module, images: Tensor, options: argparse.Namespace
) -> tuple[sl.Ordering, float]:
    """The exact order and its CPU seconds, from disk if it was computed before."""
    path = options.cache / f"{name}-{len(images)}-{options.epochs}"
    if not path.exists():
        start = time.process_time()
        exact = sl.backselect(model, images)
        seconds = time.process_time() - start
        settings = exact.settings | {"seconds": f"{seconds:.3f}"}
        dataclasses.replace(exact, settings=settings).save(path)
    exact = sl.Ordering.load(path)
    return exact, float(exact.settings["seconds"])


def again(model: nn.Module, images: Tensor, exact: sl.Ordering) -> dict[str, float]:
    """What exact shares with itself when every pixel moves by 1 % of the images' spread; up to 4 images."""
    few = images[:4]
    with _context.rng(0):
        moved = few + 0.01 * images.std() * torch.randn(few.shape)
    both = shared(sl.backselect(model, moved), exact)
    return {
        "images": len(few),
        "overlap": round(both.mean().item(), 4),
        "lowest": round(both.min().item(), 4),
    }


def shared(found: sl.Ordering, exact: sl.Ordering) -> Tensor:
    """Of each image, how much of the exact top tenth was found."""
    mine = found.top(0.1).flatten(1)
    true = exact.top(0.1).flatten(1)[: len(mine)]
    return (mine & true).sum(1) / true.sum(1)


def row(model: nn.Module, images: Tensor, fast: Fast, exact: sl.Ordering, seconds: float) -> dict[str, float]:
    """Overlap of the top tenth, what the model still sees in it, and how much cheaper it was."""
    start = time.process_time()
    found = sl.backselect(model, images, mode=fast)
    spent = time.process_time() - start
    both = shared(found, exact)
    return {
        "overlap": round(both.mean().item(), 4),
        "lowest": round(both.min().item(), 4),
        "confidence": round(seen(model, images, found), 4),
        "of exact": round(seen(model, images, exact), 4),
        "evaluations": found.evaluations // len(images),
        "cheaper": round(exact.evaluations / found.evaluations, 1),
        "seconds": round(spent / len(images), 4),
        "faster": round(seconds / spent, 1),
    }


def seen(model: nn.Module, images: Tensor, ordering: sl.Ordering) -> float:
    """Mean probability of the class with only the top tenth left."""
    with torch.no_grad():
        scores = model(torch.where(ordering.top(0.1), images, 0.0)).softmax(1)
    return scores.gather(1, ordering.targets[:, None]).mean().item()


COLUMNS = {
    "overlap": ".0%",
    "lowest": ".0%",
    "confidence": ".2f",
    "evaluations": ",.0f",
    "cheaper": ".0f",
    "seconds": ".3f",
    "faster": ".0f",
}


def markdown(found: dict[str, Any]) -> str:
    parts = [
        "# BackSelect by gradients against exact BackSelect",
        f"`{found['command']}`",
        "*overlap*: share of exact BackSelect's most informative tenth of the pixels that is also among the "
        "fast one's, mean over images; *lowest*: of the worst image. *confidence*: probability of the class "
        "with only that tenth left. *evaluations*: per image; a gradient counts 3. *cheaper*: how many times "
        "fewer than exact. *seconds*: CPU seconds per image on one thread; *faster*: how many times fewer. "
        "*k of c tried*: k pixels masked a step, the best of c tried; *a fiftieth*: as many tried as leave a "
        "fiftieth of the evaluations. "
        + ", ".join(f"{name} {value}" for name, value in found["environment"].items())
        + ".",
    ]
    for name, one in found["networks"].items():
        n, images = one["features"], one["images"]
        exact = f"{one['evaluations'] // images:,} evaluations and {one['seconds'] / images:.2f} s"
        parts.append(f"## {name}: {n:,} pixels, {images} images")
        best = next(iter(one["modes"].values()), {}).get("of exact", float("nan"))
        own = one["again"]
        parts.append(
            f"Exact: {exact} per image, confidence {best:.2f}. With all pixels moved by 1 % of their spread, "
            f"exact shares {own['overlap']:.0%} with itself ({own['images']} images, lowest "
            f"{own['lowest']:.0%})."
        )
        cells = [[mode, *(format(r[c], f) for c, f in COLUMNS.items())] for mode, r in one["modes"].items()]
        parts.append(table(["mode", *COLUMNS], cells))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()

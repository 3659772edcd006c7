"""What heads and MLP neurons of a small vision transformer are worth, and what pruning them costs.

    python benchmarks/vit.py

Trains the transformer on CIFAR-10 first, if its weights are not in the cache: about 40 minutes of one core,
resumed where it was interrupted. Then a quarter or half of the heads, of the neurons, or of both goes from
every block by the scores of each criterion on 100 test images, without fine-tuning; accuracy is that on the
other 9,900. Every finished cell is written at once; a re-run does what is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, ROOT, environment, save, spearman, table
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

import shapleaf as sl
from shapleaf._store import atomic
from shapleaf.aggregation import Aggregation
from shapleaf.criteria import Criterion
from shapleaf.integrations.datasets import Images, load_data

SHIFT = 4

HEADS, NEURONS = "blocks.*.attention.qkv", "blocks.*.mlp.0"
PARTS = {"heads": (HEADS,), "neurons": (NEURONS,), "both": (HEADS, NEURONS)}
REMOVE = (0.25, 0.5)
PATH, EXACT = sl.Shapley(), sl.Shapley(sl.Exact())
SIGNED = sl.Taylor(signed=True)
AGGREGATIONS: dict[str, Aggregation] = {"mean + 2 std": sl.MeanPlusStd(2), "mean": sl.Mean()}


@dataclass(frozen=True, slots=True)
class Method:
    """A row of the table: how heads and how neurons are scored, and how often if at random."""

    name: str
    heads: Criterion
    neurons: Criterion
    aggregate: str = "mean"
    draws: int = 1


# In the order in which the table is filled.
METHODS = (
    Method("Shapley, path, mean + 2 std", PATH, PATH, "mean + 2 std"),
    Method("Shapley, heads exact, mean + 2 std", EXACT, PATH, "mean + 2 std"),
    Method("leave one out, mean + 2 std", sl.LeaveOneOut(), sl.LeaveOneOut(), "mean + 2 std"),
    Method("Taylor, mean + 2 std", sl.Taylor(), sl.Taylor(), "mean + 2 std"),
    Method("Taylor signed, mean + 2 std", SIGNED, SIGNED, "mean + 2 std"),
    Method("weight norm", sl.WeightNorm(), sl.WeightNorm()),
    Method("random", sl.Random(), sl.Random(), draws=3),
    Method("Shapley, path, mean", PATH, PATH),
    Method("Shapley, heads exact, mean", EXACT, PATH),
    Method("leave one out, mean", sl.LeaveOneOut(), sl.LeaveOneOut()),
)
COST = (
    "CPU seconds of one thread, and forwards of the network behind the layer, summed over blocks; a forward "
    "with its backward counts 3, what scores all groups in one pass none."
)
COMPARED = {
    "Shapley, path": PATH,
    "leave one out": sl.LeaveOneOut(),
    "Taylor": sl.Taylor(),
    "Taylor signed": SIGNED,
    "weight norm": sl.WeightNorm(),
}


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then an MLP, each normalised before and added to what it read."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What determines the transformer: its input and its widths."""

    channels: int
    image: int
    classes: int
    width: int
    depth: int
    heads: int
    hidden: int


class ViT(nn.Module):
    """A vision transformer of 4 x 4 patches, embedded by two convolutions (Xiao et al. 2021)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.embed = nn.Sequential(
            nn.Conv2d(sizes.channels, width // 2, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
        )
        self.position = nn.Parameter(0.02 * torch.randn(1, (sizes.image // 4) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, sizes.heads, sizes.hidden) for _ in range(sizes.depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, sizes.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.tokens(x))

    def tokens(self, x: Tensor) -> Tensor:
        """Images as ``(images, tokens, width)``."""
        return self.embed(x).flatten(2).transpose(1, 2) + self.position

    def classify(self, tokens: Tensor) -> Tensor:
        """Logits ``(images, classes)`` from all tokens, or from some of them in any order."""
        return self.head(self.norm(self.blocks(tokens)).mean(1))


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(1)
    found = resumed(options)
    study = Study(options)
    found["intact"] = study.intact
    if "correlations" not in found:
        found["correlations"] = {name: study.agreement(one) for name, one in COMPARED.items()}
    for key, method, part, remove, fold, draw in cells():
        if key not in found["cells"]:
            cell = study.run(method, part, remove, fold=fold, draw=draw)
            found["cells"][key] = cell
            found["attribution"] |= study.spent
            print(f"{key}: {cell['accuracy']:.4f}", flush=True)
            save(options.out, "vit", found, markdown(found))
    save(options.out, "vit", found, markdown(found))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default=f"cifar10:{ROOT.parent / 'shared' / 'data'}", metavar="SPEC")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of vit.json and vit.md")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "shapleaf", help="of weights")
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--train-images", type=int, help="train on so many only")
    parser.add_argument("--epochs", type=int, default=20, help="three quarters of them on half of the tokens")
    parser.add_argument("--images", type=int, default=100, help="calibration images, from the test set")
    parser.add_argument("--test-images", type=int, help="evaluate on so many of the others only")
    return parser.parse_args(arguments)


def resumed(options: argparse.Namespace) -> dict[str, Any]:
    """What earlier runs with the same settings found."""
    names = "width depth heads hidden train_images epochs images test_images".split()
    settings = {name: getattr(options, name) for name in names} | {"data": options.data.partition(":")[0]}
    found: dict[str, Any] = {"command": "python benchmarks/vit.py", "settings": settings, "attribution": {}}
    found |= {"environment": environment(), "cells": {}}
    path = options.out / "vit.json"
    if path.exists():
        earlier = json.loads(path.read_text())
        if earlier["settings"] != settings:
            raise SystemExit(
                f"{path} was made with {earlier['settings']}, not {settings}; "
                "give another folder with --out, or remove it."
            )
        found |= {key: earlier[key] for key in ("attribution", "correlations", "cells")}
    return found


def cells() -> Iterator[tuple[str, Method, str, float, bool, int]]:
    """Every cell of the tables: its name, method, part, share removed, whether folded, draw."""
    for method in METHODS:
        for draw in range(method.draws):
            for part in PARTS:
                if part == "neurons" and method.heads is EXACT:
                    continue  # there it is the path's row
                for remove in REMOVE:
                    for fold in (False, True):
                        key = f"{method.name} | {part} | {remove:g} | {'fold' if fold else 'zero'} | {draw}"
                        yield key, method, part, remove, fold, draw


class Study:
    """A trained transformer, 100 labelled images to score its units on, and the others to test it on.

    The embedding is not pruned, so that it is run once on the test images, not for every cell.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.model, training = trained(options)
        data = load_data(options.data, split="test")
        calibration = data.sample(options.images, seed=0)
        test = data.without(calibration.ids)
        if options.test_images:
            test = test.sample(options.test_images, seed=0)
        self.calibration = calibration.tensors()
        images, self.labels = test.tensors()
        with torch.inference_mode():
            self.tokens = torch.cat([self.model.tokens(part) for part in images.split(100)])
        self.graph = sl.trace(self.model, self.calibration[0][:2])
        cost = sl.cost(self.graph)
        self.intact = {
            "accuracy": self.accuracy(self.model),
            "params": cost.params,
            "macs": cost.macs,
            "training": training,
        }
        self.known: dict[str, dict[str, Tensor]] = {}
        self.spent: dict[str, dict[str, float]] = {}

    def scores(self, criterion: Criterion, groups: str, draw: int = 0) -> dict[str, Tensor]:
        """Of every unit, for each image if the criterion sees any; computed once."""
        name = f"{criterion!r} on {'heads' if groups == HEADS else 'neurons'}"
        if (key := f"{name}, {draw}") not in self.known:
            start = time.process_time()
            scores = sl.attribute(
                self.model,
                self.graph,
                self.calibration,
                criterion,
                aggregate=None,
                groups=[groups],
                seed=draw,
            )
            self.known[key] = scores.values
            evaluations = sum(scores.evaluations.values())
            self.spent[name] = {
                "seconds": round(time.process_time() - start, 2),
                "evaluations": evaluations,
            }
            print(f"{name}: {self.spent[name]}", flush=True)
        return self.known[key]

    def agreement(self, criterion: Criterion) -> dict[str, list[float]]:
        """Rank correlation with the exact Shapley values of the heads, block by block."""
        exact, other = self.scores(EXACT, HEADS), self.scores(criterion, HEADS)
        return {
            name: [
                round(spearman(aggregated(other[group], one), aggregated(exact[group], one)), 4)
                for group in exact
            ]
            for name, one in AGGREGATIONS.items()
        }

    def run(self, method: Method, part: str, remove: float, *, fold: bool, draw: int) -> dict[str, Any]:
        """Prune a copy and measure it."""
        values: dict[str, Tensor] = {}
        for groups in PARTS[part]:
            criterion = method.heads if groups == HEADS else method.neurons
            found = self.scores(criterion, groups, draw)
            values |= {name: aggregated(one, AGGREGATIONS[method.aggregate]) for name, one in found.items()}
        scores = sl.Scores(graph=self.graph, values=values)
        plan = sl.allocate(scores, sl.Units(remove=remove), strategy=sl.Uniform(), multiple_of=1)
        pruned = sl.prune(self.model, plan, compensate=sl.FoldMean(self.calibration) if fold else None).model
        return {
            "accuracy": self.accuracy(pruned),
            "params": plan.after.params,
            "macs": plan.after.macs,
        }

    def accuracy(self, model: nn.Module) -> float:
        """The share of test images whose highest output is the label's."""
        with torch.inference_mode():
            found = torch.cat([model.classify(part).argmax(1) for part in self.tokens.split(100)])
        return float((found == self.labels).double().mean())


def aggregated(values: Tensor, aggregation: Aggregation) -> Tensor:
    """One score per unit; those that saw no image have one already."""
    if values.ndim == 1:
        return values
    state = aggregation.start(values.shape[1])
    state.update(values)
    return state.result()[0]


def trained(options: argparse.Namespace) -> tuple[ViT, dict[str, str]]:
    """The transformer with its weights, trained if they are not in the cache, and how it was trained."""
    data = load_data(options.data, split="train")
    if options.train_images:
        data = data.sample(options.train_images, seed=0)
    channels, image, _ = data.shape
    names = ("width", "depth", "heads", "hidden")
    sizes = Sizes(
        channels=channels,
        image=image,
        classes=len(data.classes),
        **{name: getattr(options, name) for name in names},
    )
    settings = {"sizes": repr(sizes), "images": len(data), "epochs": options.epochs}
    digest = hashlib.sha256(json.dumps([*settings.values(), data.classes]).encode()).hexdigest()[:12]
    path = options.cache / f"vit-{digest}.safetensors"
    torch.manual_seed(0)
    model = ViT(sizes)
    if not path.exists():
        options.cache.mkdir(parents=True, exist_ok=True)
        train(model, data, options.epochs, path)
    model.load_state_dict(load_file(path))
    return model.eval(), {name: str(value) for name, value in settings.items()}


def train(model: ViT, data: Images, epochs: int, path: Path, batch: int = 64) -> None:
    """AdamW on a cosine, labels smoothed, images flipped and shifted; the last quarter on all tokens.

    What is drawn in an epoch depends on its number alone, so that one that was interrupted is repeated.
    """
    pixels = torch.stack([data.pixels[int(i)] for i in data.ids])
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    state, begin = path.with_suffix(".pt"), 0
    if state.exists():
        found = torch.load(state, weights_only=True)
        model.load_state_dict(found["model"])
        optimizer.load_state_dict(found["optimizer"])
        begin = found["epochs"]
    steps = math.ceil(len(data) / batch)
    for epoch in range(begin, epochs):
        start, total = time.perf_counter(), 0.0
        torch.manual_seed(epoch)
        order = torch.randperm(len(data))
        for step, chosen in enumerate(order.split(batch), start=epoch * steps):
            for group in optimizer.param_groups:
                group["lr"] = 1.5e-3 * rate(step, steps, epochs)
            tokens = model.tokens(augmented(normalised(pixels[chosen], data)))
            if epoch < epochs * 3 // 4:
                tokens = half(tokens)
            loss = functional.cross_entropy(model.classify(tokens), data.labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(chosen)
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}: loss {total / len(data):.3f}, {seconds:.0f} s", flush=True)
        with atomic(state) as new:
            torch.save(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "epochs": epoch + 1,
                },
                new,
            )
    with atomic(path) as new:
        save_file(model.state_dict(), new)
    state.unlink(missing_ok=True)


def rate(step: int, steps: int, epochs: int) -> float:
    """From 0 to 1 within an epoch, then down to 0 along half a cosine.

    >>> [round(rate(step, 10, 3), 3) for step in (0, 9, 10, 20, 30)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    if step < steps:
        return (step + 1) / steps
    return (1 + math.cos(math.pi * (step - steps) / max(1, steps * (epochs - 1)))) / 2


def normalised(pixels: Tensor, data: Images) -> Tensor:
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (data.mean, data.std))
    return (pixels.float() / 255 - mean) / std


def augmented(images: Tensor) -> Tensor:
    """Half of them flipped, each shifted by up to 4 pixels."""
    n, channels, height, width = images.shape
    top, left = (torch.randint(2 * SHIFT + 1, (n, 1)) for _ in range(2))
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    columns = torch.where(torch.rand(n, 1) < 0.5, columns, columns.flip(1))
    padded = functional.pad(images, [SHIFT] * 4)
    each, channel = torch.arange(n), torch.arange(channels)
    return padded[
        each[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None]
    ]


def half(tokens: Tensor) -> Tensor:
    """Half of each image's tokens, drawn at random (Liu et al. 2022, PatchDropout)."""
    count = tokens.shape[1]
    chosen = torch.rand(len(tokens), count).argsort(1)[:, : count // 2, None]
    return tokens.gather(1, chosen.expand(-1, -1, tokens.shape[2]))


def markdown(found: dict[str, Any]) -> str:
    intact, settings, done = found["intact"], found["settings"], found["cells"]
    parts = [
        "# Heads and neurons of a small vision transformer",
        f"`{found['command']}`",
        f"{settings['depth']} blocks of {settings['heads']} heads and {settings['hidden']} neurons, width "
        f"{settings['width']}, {intact['params']:,} parameters, trained for {settings['epochs']} epochs by "
        f"the script itself; {intact['accuracy']:.2%} intact. {settings['images']} images of the test set to "
        "score on, accuracy in % on the others, its standard error half a point; nothing is fine-tuned. One "
        "set of images; random: mean ± standard deviation of 3 draws. "
        + ", ".join(f"{name} {value}" for name, value in found["environment"].items())
        + ".",
    ]
    for fold in ("zero", "fold"):
        title = "removed" if fold == "zero" else "removed, their mean folded into the bias behind them"
        parts += [f"## Accuracy with a quarter and half of each block {title}", accuracies(done, fold)]
    parts.append(left(done, intact))
    parts += [
        "## Rank correlation with the exact Shapley values of the heads",
        f"Spearman's, over the {settings['heads']} heads of a block; the mean over blocks (the lowest).",
        table(
            ["criterion", *AGGREGATIONS],
            [
                [name, *(f"{np.mean(row[a]):.3f} ({min(row[a]):.3f})" for a in AGGREGATIONS)]
                for name, row in found["correlations"].items()
            ],
        ),
        "## Cost of the scores",
        COST,
        table(
            ["criterion", "evaluations", "seconds"],
            [
                [f"`{name.replace(' on ', '` on ')}", f"{row['evaluations']:,}", f"{row['seconds']:.1f}"]
                for name, row in found["attribution"].items()
            ],
        ),
    ]
    return "\n\n".join(parts)


def accuracies(done: dict[str, dict[str, Any]], fold: str) -> str:
    columns = [(part, remove) for part in PARTS for remove in REMOVE]
    rows = {
        method.name: [
            [
                100 * done[key]["accuracy"]
                for draw in range(method.draws)
                if (key := f"{method.name} | {part} | {remove:g} | {fold} | {draw}") in done
            ]
            for part, remove in columns
        ]
        for method in METHODS
    }
    best = [
        max((float(np.mean(row[i])) for row in rows.values() if row[i]), default=0.0)
        for i in range(len(columns))
    ]
    texts = [
        [name, *(shown(cell, top) for cell, top in zip(row, best, strict=True))] for name, row in rows.items()
    ]
    return table(["criterion", *(f"{part}, {remove:.0%}" for part, remove in columns)], texts)


def shown(cell: list[float], best: float) -> str:
    if not cell:
        return "-"
    text = f"{np.mean(cell):.2f}"
    if len(cell) > 1:
        text += f" ± {np.std(cell, ddof=1):.2f}"
    return f"**{text}**" if np.mean(cell) == best else text


def left(done: dict[str, dict[str, Any]], intact: dict[str, Any]) -> str:
    texts = []
    for part in PARTS:
        for remove in REMOVE:
            cell = done.get(f"{METHODS[0].name} | {part} | {remove:g} | zero | 0")
            if cell:
                shares = [f"{cell[what] / intact[what]:.1%}" for what in ("params", "macs")]
                texts.append(f"{part}, {remove:.0%}: {' | '.join(shares)}")
    return f"Parameters | MACs left: {'; '.join(texts)}."


if __name__ == "__main__":
    main()

"""Layers of trained networks to measure estimators on, and their converged Shapley values.

A layer is named ``network:group``: ``vgg16``, ``resnet20``, ``resnet56`` and ``mnist`` of
``papers/shapley-pruning`` and the ``vit`` of ``benchmarks/vit.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import vit
from common import ROOT
from torch import Tensor, nn
from torch.nn import functional

import shapleaf as sl
from shapleaf import _context
from shapleaf._store import atomic
from shapleaf.data import batches
from shapleaf.game.layer import LayerGame
from shapleaf.integrations.datasets import load_data

sys.path.insert(0, str(ROOT / "papers" / "shapley-pruning"))
from models import load

ORDERS_AT_A_TIME = 10


@dataclass(frozen=True, slots=True)
class Part:
    """A network cut open behind the units of a layer, written by hand: no shapleaf in it.

    Attributes:
        z: what the units say of every example.
        suffix: the rest of the network, ``z`` to outputs.
        dim: the dimension of ``z`` along which the units lie.
        width: consecutive places of a unit.
    """

    z: Tensor
    suffix: Callable[[Tensor], Tensor]
    dim: int = 1
    width: int = 1

    def index(self) -> Tensor:
        """The unit of every element of an example, with a leading 1."""
        units = torch.arange(self.z.shape[self.dim]) // self.width
        shape = [1] * self.z.ndim
        shape[self.dim] = -1
        return units.view(shape).expand(1, *self.z.shape[1:])


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a trained network with calibration images: what the game is played on."""

    name: str
    model: nn.Module
    group: str
    data: tuple[Tensor, Tensor]

    @contextlib.contextmanager
    def game(self) -> Iterator[LayerGame]:
        """The game at the layer, with the part of the network before it already run."""
        group = sl.trace(self.model, self.data[0][:2])[self.group]
        with _context.inference(self.model):
            yield LayerGame(self.model, group, list(batches(self.data)), _context.cross_entropy)

    def part(self) -> Part:
        """The network cut open behind the layer."""
        network, _, group = self.name.partition(":")
        cut = {"vgg16": _vgg, "mnist": _mnist, "vit": _vit}.get(network, _resnet)
        with torch.no_grad():
            return cut(self.model, group, self.data[0])


def prepare(spec: str, options: argparse.Namespace) -> Layer:
    """The layer with its trained network and images of the test set."""
    name, _, group = spec.partition(":")
    if name == "vit":
        settings = vit.parse(["--data", f"cifar10:{options.data}"])
        images = load_data(settings.data, split="test")
        return Layer(spec, vit.trained(settings)[0], group, images.sample(options.images, seed=0).tensors())
    network = load(name, options.data)
    folder = options.data / "MNIST" if network.source == "mnist" else options.data
    images = load_data(f"{network.source}:{folder}", split="test", mean=network.mean, std=network.std)
    return Layer(spec, network.model, group, images.sample(options.images, seed=0).tensors())


@dataclass(frozen=True, slots=True)
class Reference:
    """Converged Shapley values.

    Attributes:
        values: ``(examples, units)``.
        stderr: of the values; zero if they are exact.
        halves: two independent halves of what was drawn; both the values themselves if they are exact.
    """

    values: Tensor
    stderr: Tensor
    halves: tuple[Tensor, Tensor]


def converged(layer: Layer, orders: int, folder: Path) -> Reference:
    """The mean over orders of removal, drawn ten at a time; exact values of few units."""
    with layer.game() as game:
        if game.players <= 12:
            exact = cached(layer, "exact", folder, lambda: sl.Exact().estimate(game).values)
            return Reference(exact, torch.zeros_like(exact), (exact, exact))
        parts = []
        for part in range(orders // ORDERS_AT_A_TIME):
            sampler = sl.Permutation(ORDERS_AT_A_TIME)
            draw = f"{ORDERS_AT_A_TIME}-{part}"
            parts.append(
                cached(layer, draw, folder, lambda s=sampler, p=part: s.estimate(game, 1000 + p).values)
            )
    stack = torch.stack(parts)
    halves = stack[::2].mean(0), stack[1::2].mean(0)
    return Reference(stack.mean(0), stack.std(0) / len(stack) ** 0.5, halves)


def cached(layer: Layer, draw: str, folder: Path, compute: Callable[[], Tensor]) -> Tensor:
    """Values from disk if they were computed before on the same images and weights."""
    digest = hashlib.sha256()
    for tensor in (*layer.data, *layer.model.state_dict().values()):
        digest.update(tensor.numpy().tobytes())
    path = folder / f"{layer.name.replace(':', '-')}-{digest.hexdigest()[:12]}-{draw}.pt"
    if not path.exists():
        values = compute()
        print(f"{layer.name}: part {draw} of the reference", flush=True)
        with atomic(path) as new:
            torch.save(values, new)
    found: Tensor = torch.load(path, weights_only=True)
    return found


def _vgg(model: Any, group: str, x: Tensor) -> Part:
    stage, _, number = group.partition(".")
    behind = int(number) + (3 if stage == "features" else 2)
    if stage == "features":
        rest = model.features[behind:]
        return Part(model.features[:behind](x), lambda z: model.classifier(rest(z).flatten(1)))
    hidden = model.classifier[:behind](model.features(x).flatten(1))
    return Part(hidden, model.classifier[behind:])


def _resnet(model: Any, group: str, x: Tensor) -> Part:
    stage, number, _ = group.split(".")
    blocks = [*model.layer1, *model.layer2, *model.layer3]
    place = blocks.index(getattr(model, stage)[int(number)])
    x = functional.relu(model.bn1(model.conv1(x)))
    for block in blocks[:place]:
        x = block(x)
    block = blocks[place]
    shortcut = _shortcut(block, x)

    def suffix(z: Tensor) -> Tensor:
        out = functional.relu(block.bn2(block.conv2(z)) + shortcut)
        for later in blocks[place + 1 :]:
            out = later(out)
        logits: Tensor = model.linear(out.mean((2, 3)))
        return logits

    return Part(functional.relu(block.bn1(block.conv1(x))), suffix)


def _shortcut(block: Any, x: Tensor) -> Tensor:
    if not block.missing:
        return x
    x = x[:, :, :: block.stride, :: block.stride]
    return functional.pad(x, (0, 0, 0, 0, block.missing, block.missing))


def _mnist(model: Any, group: str, x: Tensor) -> Part:
    first = functional.relu(model.conv1(x))

    def behind1(z: Tensor) -> Tensor:
        return functional.relu(model.conv2(functional.max_pool2d(z, 2)))

    def behind2(z: Tensor) -> Tensor:
        return functional.relu(model.fc1(functional.max_pool2d(z, 2).flatten(1)))

    if group == "conv1":
        return Part(first, lambda z: model.fc2(behind2(behind1(z))))
    if group == "conv2":
        return Part(behind1(first), lambda z: model.fc2(behind2(z)))
    return Part(behind2(behind1(first)), model.fc2)


def _vit(model: Any, group: str, x: Tensor) -> Part:
    place = int(group.split(".")[1])
    block, later = model.blocks[place], model.blocks[place + 1 :]
    tokens = model.blocks[:place](model.tokens(x))

    def classify(tokens: Tensor) -> Tensor:
        logits: Tensor = model.head(model.norm(later(tokens)).mean(1))
        return logits

    if group.endswith("mlp.0"):
        tokens = tokens + block.attention(block.norm1(tokens))
        hidden = block.mlp[:2](block.norm2(tokens))
        return Part(hidden, lambda z: classify(tokens + block.mlp[2](z)), dim=2)
    attention = block.attention
    q, k, v = (
        attention.qkv(block.norm1(tokens)).unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
    )
    heads = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def suffix(z: Tensor) -> Tensor:
        read = tokens + attention.out(z)
        return classify(read + block.mlp(block.norm2(read)))

    return Part(heads, suffix, dim=2, width=q.shape[-1])

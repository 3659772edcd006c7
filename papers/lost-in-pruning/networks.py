"""The networks of this study, on the images at hand.

Architectures and trained weights are those of ``papers/shapley-pruning``. They were trained on another copy
of the images. A short training gets them used to the one at hand, so that what retraining gains later is
not this.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import shapleaf as sl
from shapleaf import _context
from shapleaf.evaluation import Fast
from shapleaf.integrations.datasets import Images, load_data
from shapleaf.retraining import RECIPES, Cosine, CropFlip, Milestones, Recipe, Retraining, preset

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "shapley-pruning"))
from models import Network, build, load  # noqa: E402 - from the other study's folder

CACHE = Path.home() / ".cache" / "shapleaf" / "lost-in-pruning"
TRAINED = HERE.parents[2] / "shared" / "data"
SEPARATE = "resnet56"
"""Whose predictions are the yardstick: a network that was trained on its own."""
KEEPS = (0.85, 0.69, 0.54, 0.41, 0.31, 0.24, 0.2, 0.15, 0.1, 0.05)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How much is done.

    Attributes:
        images: training images; the sample that decides what is pruned is drawn from the others.
        settle: how a trained network gets used to the images.
        scratch: how a further network is trained.
        retraining: the keep ratios, and how each is retrained.
        test_images: to test on.
        noise_images, draws, epsilons: of the comparison under noise.
        feature_images: of which the informative pixels are looked for.
        ordering: how they are looked for.
    """

    images: int
    settle: Recipe
    scratch: Recipe
    retraining: Retraining
    test_images: int
    noise_images: int
    draws: int
    epsilons: tuple[float, ...] = tuple(round(0.1 * step, 1) for step in range(8))
    feature_images: int = 20
    ordering: Fast = field(default_factory=Fast)


def presets(network: str) -> dict[str, Preset]:
    """``minutes``, ``hour`` (of two cores, for ResNet-20), and ``paper``."""
    made = build(network)
    dark = tuple(-mean / std for mean, std in zip(made.mean, made.std, strict=True))
    vgg = network == "vgg16"
    whole = replace(RECIPES["cifar-vgg16" if vgg else "cifar-resnet"], augment=CropFlip(fill=dark))

    def short(epochs: int, lr: float) -> Recipe:
        return replace(whole, epochs=epochs, batch=128, lr=lr, decay=Cosine(), warmup=0.25)

    full = preset("paper", f"cifar-{network}")
    return {
        "minutes": Preset(
            images=1_000,
            settle=short(2, 0.01),
            scratch=short(4, 0.05),
            retraining=Retraining(keeps=KEEPS[1::3], recipe=short(1, 0.02)),
            test_images=200,
            noise_images=50,
            draws=2,
            feature_images=2,
        ),
        "hour": Preset(
            images=10_000,
            settle=short(6, 0.05),
            scratch=replace(whole, epochs=30, decay=Milestones((15, 25)), warmup=1),
            retraining=Retraining(keeps=KEEPS, recipe=short(1, 0.02)),
            test_images=2_000,
            noise_images=500,
            draws=4,
        ),
        "paper": Preset(
            images=45_000,
            settle=replace(whole, start=whole.epochs - 30),
            scratch=whole,
            retraining=replace(full, recipe=replace(full.recipe, augment=whole.augment)),
            test_images=10_000,
            noise_images=1_000,
            draws=100,
            epsilons=tuple(round(0.05 * step, 2) for step in range(15)),
            feature_images=2_000,
        ),
    }


@dataclass(frozen=True, eq=False)
class Data:
    """Training images, the sample that decides what is pruned, and test images; none is in two of them."""

    train: Images
    sample: Images
    test: Images


def data(network: str, folder: Path, chosen: Preset) -> Data:
    """CIFAR-10, normalised as the network takes it. The sample has the paper's size, for this network."""
    made = build(network)
    train, test = (
        load_data(f"{made.source}:{folder}", split=split, mean=made.mean, std=made.std)
        for split in ("train", "test")
    )
    size = sl.sample_size(made.model, torch.zeros(1, *train.shape))
    sample = train.sample(size, seed=0)
    return Data(
        train.without(sample.ids).sample(chosen.images, seed=0),
        sample,
        test.sample(min(chosen.test_images, len(test)), seed=0),
    )


def network(name: str, net: int, folder: Path, chosen: Preset, cache: Path) -> nn.Module:
    """A trained network that knows the images. The first has the weights at hand, others begin at random.

    It is trained once and read from the cache afterwards.
    """
    with _context.rng(net):
        model = build(name).model if net else load(name, folder).model
    images = data(name, folder, chosen).train.tensors()
    sl.train(model, images, chosen.scratch if net else chosen.settle, seed=net, path=cache / f"{name}-{net}")
    return model.eval()


class Renormalised(nn.Module):
    """A network that is given images normalised for another one."""

    def __init__(self, model: nn.Module, given: Network, wanted: Network) -> None:
        super().__init__()
        self.model = model
        for name, values in (("mean", given.mean), ("std", given.std)):
            self.register_buffer(f"given_{name}", torch.tensor(values).view(-1, 1, 1))
        for name, values in (("mean", wanted.mean), ("std", wanted.std)):
            self.register_buffer(f"wanted_{name}", torch.tensor(values).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x * self.given_std + self.given_mean - self.wanted_mean) / self.wanted_std)


def separate(name: str, folder: Path, chosen: Preset, cache: Path) -> nn.Module:
    """The yardstick, for inputs normalised for the network of that name."""
    few = replace(chosen, settle=replace(chosen.settle, epochs=chosen.settle.start + 2))
    other = network(SEPARATE, 0, folder, few, cache)
    return Renormalised(other, build(name), build(SEPARATE)).eval()


def assessed(
    subjects: Iterable[sl.Candidate], shifts: Iterable[sl.Distribution], folder: Path, **options: Any
) -> sl.Outcomes:
    """:func:`shapleaf.assess`, in a file of the folder that these models and distributions share with none.

    So a study that is extended by a method or a corruption does not meet the file of the one before.
    """
    models, tests = list(subjects), list(shifts)
    names = "\n".join([*(one.name for one in models), "", *(one.name for one in tests)])
    file = folder / f"outcomes-{hashlib.sha256(names.encode()).hexdigest()[:12]}.safetensors"
    return sl.assess(models, tests, path=file, **options)


def positive(text: str) -> int:
    """A whole number above zero, for the options of a command.

    >>> positive("3")
    3
    """
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def command(script: str, options: argparse.Namespace, defaults: argparse.Namespace) -> str:
    """What to type for the same results: options that are not as by default, without folders of outputs.

    >>> command("a.py", argparse.Namespace(nets=2, voc=Path("x"), out=1), argparse.Namespace(nets=1))
    'python papers/lost-in-pruning/a.py --nets 2 --voc VOC'
    """
    words = ["python", f"papers/lost-in-pruning/{script}"]
    for name, value in vars(options).items():
        if name in {"cache", "data", "only", "out", "threads"} or value == getattr(defaults, name, None):
            continue
        values = value if isinstance(value, list | tuple) else [value]
        shown = [name.upper() if isinstance(one, Path) else str(one) for one in values]
        words += [f"--{name.replace('_', '-')}", *shown]
    return " ".join(words)

"""The networks of this study, the images they are for, and the units that go.

Those for CIFAR-10 lie beside the checkout or are trained here; those for ImageNet take the user's weights
and images.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

import shapleaf as sl
from shapleaf.integrations.datasets import Images, Split, load_data
from shapleaf.integrations.models import load_model

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "shapley-pruning"))
import models  # noqa: E402 - the other study's, whose networks are defined there
from transformer import CACHE, TRAINED, trained  # noqa: E402

FILTERS, NEURONS, HEADS = "features.*", "*mlp*", "*att*"
"""Patterns of groups: convolutions of a VGG, and parts of a transformer in torchvision, in timm, and here."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known about a network before it is loaded.

    Attributes:
        groups: shell patterns of the groups that are scored and pruned.
        bands: where the rules of a composite change, as ``sl.banded`` calls it.
    """

    groups: tuple[str, ...]
    bands: str

    @property
    def transformer(self) -> bool:
        return self.bands == "vit"

    @property
    def absolute(self) -> Literal["token", "sample"]:
        """How Pruning by eXplaining takes the absolute value of relevance: by token, or by image."""
        return "token" if self.transformer else "sample"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Subject:
    """A network, its images, and which of its units are candidates for removal.

    Attributes:
        name: ``vgg16``, or ``vit-heads`` for a kind of units of a transformer.
        kind: its candidates and its bands.
        model: in eval mode, single precision.
        source: the images, as ``load_data`` calls them.
        mean, std: of its inputs, per channel.
        size: images are resized to it; None leaves them as the source has them.
    """

    name: str
    kind: Kind
    model: nn.Module
    source: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None

    def images(self, split: Split) -> Images:
        return load_data(self.source, split=split, mean=self.mean, std=self.std, image_size=self.size)

    def trace(self) -> sl.Graph:
        image, _ = self.images("test")[0]
        return sl.trace(self.model, image.expand(2, *image.shape))


CIFAR10 = {
    "vgg16": Kind((FILTERS,), "vgg"),
    "resnet56": Kind(("*",), "resnet50"),
    "vit-neurons": Kind((NEURONS,), "vit"),
    "vit-heads": Kind((HEADS,), "vit"),
}
IMAGENET = {
    "vgg16": Kind((FILTERS,), "vgg"),
    "vgg16_bn": Kind((FILTERS,), "vgg"),
    "resnet18": Kind(("*",), "resnet18"),
    "resnet50": Kind(("*",), "resnet50"),
    "vit_b_16-neurons": Kind((NEURONS,), "vit"),
    "vit_b_16-heads": Kind((HEADS,), "vit"),
}
TIMM = {"vit_b_16": "vit_base_patch16_224"}
"""Names of timm where they are not torchvision's."""


def load(name: str, data: Path = TRAINED, *, cache: Path = CACHE) -> Subject:
    """A network for CIFAR-10 with its trained weights.

    Args:
        name: ``vgg16``, ``resnet56``, ``vit-neurons`` or ``vit-heads``.
        data: folder of the images and of ``cifar10-NAME.safetensors``.
        cache: folder of ``vit.safetensors``, which ``transformer.py`` makes.

    Raises:
        SystemExit: there is no such network, or no such weights.
    """
    one, source = kind(name, CIFAR10), f"cifar10:{data}"
    if one.transformer:
        return Subject(name=name, kind=one, model=trained(cache), source=source)
    network = models.load(name, data)
    return Subject(
        name=name, kind=one, model=network.model, source=source, mean=network.mean, std=network.std
    )


def load_imagenet(
    name: str, folder: Path, weights: Path, *, library: str = "torchvision", size: int = 224
) -> Subject:
    """A network for ImageNet with the user's weights, by the user's images.

    Args:
        name: ``vgg16``, ``vgg16_bn``, ``resnet18``, ``resnet50``, ``vit_b_16-neurons`` or
            ``vit_b_16-heads``.
        folder: ``train/CLASS/*`` and ``val/CLASS/*``, as many classes as the network has.
        weights: folder of the weights: ``resnet18.safetensors``, or as torchvision names its downloads,
            ``resnet18-f37072fd.pth``.
        library: whose network it is: torchvision's or timm's.
        size: of the images.

    Raises:
        SystemExit: there is no such network, or no such weights.
    """
    one, architecture = kind(name, IMAGENET), name.partition("-")[0]
    architecture = TIMM.get(architecture, architecture) if library == "timm" else architecture
    files = sorted(path for end in (".*", "-*") for path in weights.glob(f"{architecture}{end}"))
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "nothing"
        raise SystemExit(
            f"expected one file {architecture}.* or {architecture}-* in {weights}, found {found}."
        )
    source = f"imagefolder:{folder}"
    images = load_data(source, split="train", image_size=size)
    model = load_model(f"{library}:{architecture}", weights=files[0], num_classes=len(images.classes))
    return Subject(name=name, kind=one, model=model, source=source, size=size)


def kind(name: str, known: dict[str, Kind]) -> Kind:
    """What is known about a network of that name.

    Raises:
        SystemExit: there is none.
    """
    if name not in known:
        raise SystemExit(f"{name!r} is no network of this study; expected {', '.join(known)}.")
    return known[name]

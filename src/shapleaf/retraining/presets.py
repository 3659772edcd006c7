"""Presets of whole cycles: minutes, hours, or as in the paper."""

from __future__ import annotations

from typing import Literal

from ..errors import DataError
from .cycles import Retraining
from .recipes import RECIPES, Cosine, Recipe
from .spacings import PAPER, spacing

PRESETS = {
    "minutes": Retraining(
        keeps=spacing("geometric", 0.9, 0.05, 12),
        retrains=6,
        recipe=Recipe(epochs=2, batch=64, lr=0.02, decay=Cosine(), warmup=0.5),
    ),
    "hours": Retraining(
        keeps=spacing("geometric", 0.85, 0.02, 20),
        retrains=10,
        recipe=Recipe(
            epochs=4,
            lr=0.05,
            decay=Cosine(),
            warmup=0.5,
            augment=RECIPES["cifar-resnet"].augment,
        ),
    ),
}
"""Short cycles: fewer ratios, and a short fine-tuning instead of the whole schedule."""

_RECIPES = {
    "cifar-resnet20": "cifar-resnet",
    "cifar-resnet56": "cifar-resnet",
    "cifar-resnet110": "cifar-resnet",
    "cifar-vgg16": "cifar-vgg16-retrain",
    "cifar-densenet22": "cifar-densenet22",
    "cifar-wrn16-8": "cifar-wrn16-8",
    "cifar-robust": "cifar-resnet",
    "imagenet-resnet18": "imagenet-resnet",
    "imagenet-resnet101": "imagenet-resnet",
    "voc-deeplabv3": "voc-deeplabv3",
}


def preset(name: Literal["minutes", "hours", "paper"], network: str = "cifar-resnet20") -> Retraining:
    """The settings of a cycle; change them by ``dataclasses.replace``.

    Args:
        name: ``minutes``: 12 ratios, 6 retrainings of 2 epochs; ``hours``: 20 ratios, 10 retrainings of 4
            epochs with crops and flips; ``paper``: as Liebenwein et al. 2021 did, 69 ratios and 23
            retrainings of 182 epochs for ResNet-20.
        network: for ``paper``, one of ``shapleaf.retraining.PAPER``.

    Raises:
        DataError: no such preset or network.

    >>> settings = preset("minutes")
    >>> len(settings.keeps), len(settings.parts), settings.recipe.epochs
    (12, 6, 2)
    >>> len(preset("paper").parts), preset("paper", "cifar-vgg16").recipe.epochs
    (23, 150)
    """
    if name != "paper":
        if name not in PRESETS:
            raise DataError(f"no preset is named {name!r}; there are: minutes, hours, paper.")
        return PRESETS[name]
    if network not in PAPER:
        raise DataError(f"the paper has no network {network!r}; it has: {', '.join(PAPER)}.")
    keeps, retrains = PAPER[network]
    return Retraining(keeps=keeps, retrains=retrains, recipe=RECIPES[_RECIPES[network]])

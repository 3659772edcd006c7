"""Recipes: how a network is trained, and the learning rate at each of its steps."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, runtime_checkable

from .. import _context
from ..errors import DataError
from .augmentation import Augmentation, CropFlip


@runtime_checkable
class Decay(Protocol):
    """How the learning rate falls: the factor it has after a number of epochs, which may be a fraction."""

    def factor(self, epoch: float, epochs: int) -> float: ...


@dataclass(frozen=True)
class Constant:
    """The same learning rate throughout.

    >>> Constant().factor(5, 10)
    1.0
    """

    def factor(self, epoch: float, epochs: int) -> float:
        """One."""
        return 1.0


@dataclass(frozen=True)
class Milestones:
    """Multiplied by ``gamma`` after each of some epochs.

    >>> Milestones((91, 136)).factor(90.9, 182), round(Milestones((91, 136)).factor(136, 182), 6)
    (1.0, 0.01)
    """

    at: tuple[float, ...]
    gamma: float = 0.1

    def factor(self, epoch: float, epochs: int) -> float:
        """``gamma`` to the power of the milestones passed."""
        return float(self.gamma ** sum(epoch >= milestone for milestone in self.at))


@dataclass(frozen=True)
class Every:
    """Multiplied by ``gamma`` after every so many epochs.

    >>> Every(30, 0.5).factor(60, 300)
    0.25
    """

    epochs: int
    gamma: float

    def factor(self, epoch: float, epochs: int) -> float:
        """``gamma`` to the power of the periods that are over."""
        return float(self.gamma ** int(epoch // self.epochs))


@dataclass(frozen=True)
class Poly:
    """Falls to zero as ``(1 - epoch / epochs)**power``.

    >>> Poly(2.0).factor(5, 10)
    0.25
    """

    power: float = 0.9

    def factor(self, epoch: float, epochs: int) -> float:
        """``(1 - epoch / epochs)**power``."""
        return float(max(1 - epoch / epochs, 0.0) ** self.power)


@dataclass(frozen=True)
class Cosine:
    """Falls to zero along half a cosine.

    >>> Cosine().factor(5, 10)
    0.5
    """

    def factor(self, epoch: float, epochs: int) -> float:
        """``(1 + cos(pi * epoch / epochs)) / 2``."""
        return round((1 + math.cos(math.pi * min(epoch / epochs, 1.0))) / 2, 15)


@dataclass(frozen=True, kw_only=True, repr=False)
class Recipe:
    """How a network is trained: stochastic gradient descent, its schedule and what changes the inputs.

    Args:
        epochs: passes over the data, as the schedule counts them.
        batch: examples per step.
        lr: the highest learning rate.
        momentum, weight_decay, nesterov: as of ``torch.optim.SGD``.
        decay: how the learning rate falls: ``Milestones``, ``Every``, ``Poly``, ``Cosine``, ``Constant``.
        warmup: epochs in which the learning rate rises from zero in a line, whatever the decay says.
        start: the epoch at which training begins; those before are skipped, in the schedule too.
        augment: changes the inputs of each batch; none by default.
        loss: ``f(output, target)``, one value per example.

    Raises:
        DataError: one of them is out of its range.

    >>> recipe = Recipe(epochs=10, lr=0.1, warmup=1, decay=Milestones((5,)))
    >>> [round(learning_rate(recipe, step, 100), 6) for step in (0, 50, 100, 500)]
    [0.0, 0.05, 0.1, 0.01]
    """

    epochs: int
    batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = False
    decay: Decay = field(default_factory=Cosine)
    warmup: float = 0
    start: int = 0
    augment: Augmentation | None = None
    loss: _context.Loss = _context.cross_entropy

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("start", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise DataError(f"Recipe: {name}={value!r} must be a whole number, at least {least}.")
        if self.start >= self.epochs:
            raise DataError(f"Recipe: start={self.start} must be before the end, epochs={self.epochs}.")
        for name in ("lr", "momentum", "weight_decay", "warmup"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise DataError(f"Recipe: {name}={value!r} must be a number, at least 0.")
        if self.nesterov and not self.momentum:
            raise DataError("Recipe: nesterov=True needs a momentum above 0.")

    def __repr__(self) -> str:
        return described(self)


def described(config: Any) -> str:
    """A frozen dataclass as written in Python; it prints alike in every process.

    A function in it is told by its name, and of what else prints with its address, this is left out.

    >>> described(Milestones((3,))), described(Recipe(epochs=2)).split(", ")[-1]
    ('Milestones(at=(3,), gamma=0.1)', 'loss=shapleaf._context.cross_entropy)')
    """
    told = {one.name: getattr(config, one.name) for one in fields(config)}
    named = {
        name: f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else _plain(value)
        for name, value in told.items()
    }
    return f"{type(config).__name__}({', '.join(f'{name}={value}' for name, value in named.items())})"


def _plain(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a training step, counted from 0 at epoch 0.

    In the warmup ``lr * step / warm``, afterwards ``lr`` times the decay's factor.

    >>> recipe = RECIPES["cifar-resnet"]
    >>> [round(learning_rate(recipe, epoch * 391, 391), 6) for epoch in (0, 5, 91, 136)]
    [0.0, 0.1, 0.01, 0.001]
    """
    warm = recipe.warmup * steps_per_epoch
    if step < warm:
        return recipe.lr * step / warm
    return recipe.lr * recipe.decay.factor(step / steps_per_epoch, recipe.epochs)


# Black, in units of the standard deviation, after the normalisation of Liebenwein et al.
_CIFAR = CropFlip(fill=(-0.4914 / 0.2023, -0.4822 / 0.1994, -0.4465 / 0.2010))

RECIPES = {
    "cifar-resnet": Recipe(epochs=182, decay=Milestones((91, 136)), warmup=5, augment=_CIFAR),
    "cifar-vgg16": Recipe(
        epochs=300, batch=256, lr=0.05, weight_decay=5e-4, decay=Every(30, 0.5), warmup=10, augment=_CIFAR
    ),
    "cifar-vgg16-retrain": Recipe(
        epochs=150, batch=256, lr=0.05, weight_decay=5e-4, decay=Every(30, 0.5), warmup=10, augment=_CIFAR
    ),
    "cifar-wrn16-8": Recipe(
        epochs=200,
        weight_decay=5e-4,
        nesterov=True,
        decay=Milestones((60, 120, 160), 0.2),
        warmup=5,
        augment=_CIFAR,
    ),
    "cifar-densenet22": Recipe(
        epochs=300, batch=64, nesterov=True, decay=Milestones((150, 225)), warmup=10, augment=_CIFAR
    ),
    "imagenet-resnet": Recipe(epochs=90, batch=256, decay=Milestones((30, 60, 80)), warmup=5),
    "voc-deeplabv3": Recipe(epochs=45, batch=16, lr=0.02, decay=Poly(0.9)),
}
"""Liebenwein et al. 2021, Lost in Pruning, their configurations: how each network is trained and retrained.

Those for CIFAR-10 expect images normalised by mean (.4914, .4822, .4465), std (.2023, .1994, .2010). What
crops ImageNet's images, and the auxiliary loss of DeepLabV3, are the user's to add.
"""

"""A small network with data for it, and methods and augmentations that fail on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from shapleaf.retraining import Method, Recipe
from shapleaf.retraining.methods import Step


class Killed(Exception):
    """Stands for the end of the process."""


def dies() -> None:
    raise Killed


@dataclass(frozen=True)
class Counting:
    """Adds a little noise by id and epoch; counts its batches, may fail at one, and prints alike anyway."""

    at: int = 10**9
    how: Callable[[], None] = dies
    seen: list[int] = field(default_factory=list)

    def __call__(self, images: torch.Tensor, ids: tuple[int, ...], epoch: int) -> torch.Tensor:
        if len(self.seen) >= self.at:
            self.how()
        self.seen.append(epoch)
        return images + 1e-3 * torch.tensor([hash((one, epoch)) % 7 for one in ids]).view(-1, 1, 1, 1)

    def __repr__(self) -> str:
        return "Counting()"


@dataclass(frozen=True)
class Stumbling:
    """A method that fails at one of its prunings; prints as the method."""

    method: Method
    at: int = 10**9
    seen: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.method.name

    def check(self, model: nn.Module, keep: int, sample: Any) -> None:
        self.method.check(model, keep, sample)

    def prune(self, model: nn.Module, keep: int, sample: Any, seed: int) -> Step:
        if len(self.seen) == self.at:
            dies()
        self.seen.append(keep)
        return self.method.prune(model, keep, sample, seed)

    def __repr__(self) -> str:
        return repr(self.method)


def small(seed: int = 0) -> nn.Sequential:
    """370 parameters, all of them other than zero: a norm, dropout and three layers with weights."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Flatten(),
        nn.Linear(8 * 4, 8),
        nn.ReLU(),
        nn.Linear(8, 2),
    )
    nn.init.uniform_(model[1].bias, 0.1, 0.2)
    return model.eval()


def images(n: int = 24, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of 2 x 2 pixels, and whether its sum is positive."""
    drawn = torch.randn(n, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    return drawn, (drawn.sum((1, 2, 3)) > 0).long()


def same(one: nn.Module, other: nn.Module) -> bool:
    """Equal to the bit."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


RECIPE = Recipe(epochs=2, batch=8, lr=0.05)

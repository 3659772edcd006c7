"""A distribution: labelled data with a name, and what a shift is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from ..data import Batch


@runtime_checkable
class Shift(Protocol):
    """What changes images, the same for every model; configuration only.

    Attributes:
        name: such as "fog 3".
        family: the kind of shift, such as "weather".
    """

    @property
    def name(self) -> str: ...
    @property
    def family(self) -> str: ...

    def apply(self, images: Tensor, ids: tuple[int, ...]) -> Tensor:
        """Changed images.

        ``images`` are ``(examples, channels, height, width)`` in [0, 1], as what is returned. What is drawn
        for an image depends on its id alone, not on the batch it comes in.
        """
        ...


@runtime_checkable
class Attack(Protocol):
    """What changes the inputs of one model against it."""

    @property
    def name(self) -> str: ...

    def perturb(self, model: nn.Module, batch: Batch) -> Batch:
        """The batch with other inputs, as far from the given ones as is allowed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Distribution:
    """Labelled data to test on, under a name.

    Attributes:
        name: what it is called, unlike any other.
        data: batches ``(inputs, labels)`` that can be gone through more than once.
        nominal: whether it is one that the networks were trained on.
        family: the kind of shift, such as "noise".
        attack: changes each batch against each model before it is measured.

    >>> import torch
    >>> Distribution(name="clean", data=(torch.zeros(2, 3), torch.tensor([0, 1])), nominal=True).name
    'clean'
    """

    name: str
    data: Any
    nominal: bool = False
    family: str = ""
    attack: Attack | None = None

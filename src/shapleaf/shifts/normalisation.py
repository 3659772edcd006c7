"""Between the inputs of a model and images in [0, 1]: ``inputs = (images - mean) / std``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.utils._pytree import tree_map

from .._context import tensors
from ..data import Batch
from ..errors import DataError

Numbers = Sequence[float] | None


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How images were normalised, per channel; None where they were not.

    Raises:
        DataError: the numbers are not finite, a std is not above 0, or mean and std differ in length.

    >>> import torch
    >>> half = Normalisation((0.5,), (0.25,))
    >>> half.undo(torch.tensor([[[[2.0]]]])).item(), half.redo(torch.ones(1, 1, 1, 1)).item()
    (1.0, 2.0)
    """

    mean: Numbers = None
    std: Numbers = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise DataError(f"pass both mean and std, or none; received {self.mean} and {self.std}.")
        if self.mean is not None and self.std is not None:
            values = [*self.mean, *self.std]
            fit = len(self.mean) == len(self.std) and all(map(math.isfinite, values))
            if not fit or not self.mean or min(self.std) <= 0:
                raise DataError(
                    "mean and std must be a finite number for each channel, std above 0; "
                    f"received {self.mean} and {self.std}."
                )

    def undo(self, inputs: Tensor) -> Tensor:
        """The images that inputs were made from."""
        mean, std = self.like(inputs)
        return inputs * std + mean

    def redo(self, images: Tensor) -> Tensor:
        """What a model is given for images."""
        mean, std = self.like(images)
        return (images - mean) / std

    def like(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std as tensors that go with ``(examples, channels, height, width)``.

        Raises:
            DataError: the images have another number of channels.
        """
        mean, std = self.mean or (0.0,), self.std or (1.0,)
        if images.ndim != 4 or len(mean) not in (1, images.shape[1]):
            raise DataError(
                f"mean and std are of {len(mean)} channels, but the images have shape {tuple(images.shape)}; "
                "expected (examples, channels, height, width)."
            )
        return tuple(images.new_tensor(value).view(-1, 1, 1) for value in (mean, std))  # type: ignore[return-value]


def changed(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with other images: the only floating-point tensor of four dimensions among its inputs.

    Raises:
        DataError: there is none, or several.

    >>> import torch
    >>> batch = changed(Batch({"pixel_values": torch.zeros(1, 3, 2, 2)}), lambda images: images + 1)
    >>> batch.inputs["pixel_values"].mean().item()
    1.0
    """
    found = [leaf for leaf in tensors(batch.inputs) if leaf.ndim == 4 and leaf.is_floating_point()]
    if len(found) != 1:
        given = ", ".join(f"{tuple(leaf.shape)} {leaf.dtype}" for leaf in tensors(batch.inputs))
        raise DataError(
            "expected one floating-point tensor of images (examples, channels, height, width) in a batch, "
            f"received {given or 'no tensor'}."
        )
    inputs = tree_map(lambda leaf: change(leaf) if leaf is found[0] else leaf, batch.inputs)
    return Batch(inputs, batch.target, batch.first)

"""The 256 levels that images are stored in."""

from __future__ import annotations

from torch import Tensor

from ..errors import DataError

TOLERANCE = 1e-4
"""How far outside [0, 1] a value may be, for errors of computing."""


def lowered(values: Tensor) -> Tensor:
    """Values from 0 to 1, each lowered to the next of the 256 levels, as the published files are.

    A thousandth of a level is allowed for the error of computing, so that what is a level stays it.

    >>> import torch
    >>> lowered(torch.tensor([-1, 0.5, 128 / 255, 2], dtype=torch.float64)).mul(255).round().tolist()
    [0.0, 127.0, 128.0, 255.0]
    """
    return (values.clamp(0, 1) * 255 + 1e-3).floor() / 255


def checked(images: Tensor, ids: tuple[int, ...], *, least: int = 1) -> Tensor:
    """Images as float64 on the CPU, ``(examples, 1 or 3 channels, height, width)`` in [0, 1].

    Raises:
        DataError: they are none.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3):
        received = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise DataError(f"images must be (examples, 1 or 3 channels, height, width), received {received}.")
    if not images.is_floating_point():
        raise DataError(
            f"images must be floating-point numbers in [0, 1], received {images.dtype}: divide by 255."
        )
    if len(ids) != len(images) or not len(images):
        raise DataError(f"each image needs an id: received {len(images)} images and {len(ids)} ids.")
    height, width = images.shape[2:]
    if min(height, width) < least:
        raise DataError(f"images must have {least} x {least} pixels at least, received {height} x {width}.")
    values = images.detach().double().cpu()
    low, high = float(values.min()), float(values.max())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise DataError(
            f"images must lie in [0, 1], received {low:.4g} to {high:.4g}. If they are normalised, pass the "
            "mean and std to shapleaf.shifted, which takes them to [0, 1] and back."
        )
    return values.clamp(0, 1)


def clipped(values: Tensor) -> Tensor:
    """Values that are outside [0, 1] by an error of computing only, in it; others as they are."""
    inside = values.clamp(0, 1)
    return inside.where((values - inside).abs() <= TOLERANCE, values)

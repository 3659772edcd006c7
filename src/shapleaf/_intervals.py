"""Confidence intervals of shares."""

from __future__ import annotations

import torch
from torch import Tensor

Z = 1.959963984540054  # two-sided 95 % of the normal distribution


def wilson(share: Tensor, count: Tensor | int) -> Tensor:
    """The ends of the 95 % Wilson score interval of shares, 0 to 1, ``(..., 2)`` (Wilson 1927, p. 209).

    Unlike the normal interval it stays within 0 and 1 and has a width at both ends. NaN of no examples.

    >>> [round(x, 4) for x in wilson(torch.tensor(0.9, dtype=torch.float64), 100).tolist()]
    [0.8256, 0.9448]
    """
    spread = Z * (share * (1 - share) / count + Z * Z / (4 * count * count)).sqrt()
    centre, scale = share + Z * Z / (2 * count), 1 + Z * Z / count
    return (torch.stack([centre - spread, centre + spread], -1) / _column(scale)).clamp(0, 1)


def _column(scale: Tensor | float) -> Tensor | float:
    return scale[..., None] if isinstance(scale, Tensor) else scale

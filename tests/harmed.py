"""A network that is right once two of its units are gone, which epsilon ranks highest and z+ lowest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import shapleaf as sl

RATES = (0.0, 0.25, 0.5)


def harmed() -> nn.Module:
    """Of class k, unit k says 1 and unit k + 2 says -3, so that the other class, at 0, is ahead."""
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]]))
        model[2].weight.copy_(torch.tensor([[1, 0, -3, 0], [0, 1, 0, -3]]))
    return model


def examples(*sizes: float) -> tuple[Tensor, Tensor]:
    """One of each class of every size."""
    x = torch.cat([size * torch.eye(2, dtype=torch.float64) for size in sizes])
    return x, torch.arange(2).repeat(len(sizes))


PARTS = (examples(1.0), examples(1.5, 2.0), examples(2.5, 3.0, 3.5))


def tuned(settings: sl.Tuning | None = None, folder: Any = None, **options: Any) -> sl.Tuned:
    """What tune finds on it."""
    model = harmed()
    settings = settings or sl.Tuning(rates=RATES, **{"trials": 6, "absolute": ("sample",), **options})
    return sl.tune(model, sl.trace(model, PARTS[0][0][:1]), *PARTS, settings=settings, folder=folder)

"""A network whose units do not interact, so that all that is measured of it can be done by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf.comparison.attributions import Case
from shapleaf.data import Batch
from sides import WORTH, gain


@pytest.fixture
def model() -> nn.Module:
    """Four units, each worth a share of its input: its removal costs ``WORTH * x``."""
    net = nn.Sequential(nn.Linear(1, 4, bias=False), nn.Linear(4, 1, bias=False)).double()
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[1].weight.copy_(torch.tensor([WORTH], dtype=torch.float64))
    return net


@pytest.fixture
def data() -> list[Batch]:
    """Six examples from 1 to 6, in batches of 4 and 2."""
    x = torch.arange(1.0, 7.0).double()[:, None]
    y = torch.zeros(6, dtype=torch.long)
    return [Batch(x[:4], y[:4], 0), Batch(x[4:], y[4:], 4)]


@pytest.fixture
def case(model: nn.Module) -> Any:
    """The case of some settings."""

    def make(**settings: Any) -> Case:
        graph = sl.trace(model, torch.zeros(1, 1).double())
        return Case(model, graph, sl.Comparing(**({"loss": gain, "aggregate": sl.Mean()} | settings)))

    return make

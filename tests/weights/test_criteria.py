"""Magnitude, Snip and SiPP: the numbers of the spec."""

from __future__ import annotations

import torch

import shapleaf as sl
from shapleaf.weights import Magnitude, nonzeros
from zoo import NETS


def test_o5_magnitude_keeps_the_largest_of_all_layers_together() -> None:
    model, _inputs = NETS["plain"]()
    masks = sl.sparsify(model, sl.Nonzeros(keep=0.3), Magnitude())
    weights = torch.cat([p.detach().flatten() for n, p in model.named_parameters() if p.ndim > 1])
    others = nonzeros(model) - len(weights)
    count = masks.after - others
    expected = torch.zeros(len(weights), dtype=torch.bool)
    expected[weights.abs().topk(count).indices] = True
    assert torch.equal(torch.cat([mask.keep().flatten() for mask in masks]), expected)
    assert masks.after == int(0.3 * masks.before)

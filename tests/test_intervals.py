"""Wilson's interval: where it ends, and how often it covers."""

from __future__ import annotations

import pytest
import torch

from shapleaf._intervals import Z, wilson


def test_its_ends_solve_wilsons_equation() -> None:
    # |share - p| = Z sqrt(p (1 - p) / n) at both ends.
    share = torch.tensor([0.1, 0.5, 0.97], dtype=torch.float64)
    for end in wilson(share, 60).unbind(-1):
        assert torch.allclose((share - end).abs(), Z * (end * (1 - end) / 60).sqrt(), atol=1e-12)


def test_it_has_a_width_at_both_ends_and_stays_within() -> None:
    none, every = wilson(torch.tensor([0.0, 1.0], dtype=torch.float64), 10).tolist()
    assert none == pytest.approx([0, Z * Z / (10 + Z * Z)])
    assert none[0] >= 0
    assert every == pytest.approx([10 / (10 + Z * Z), 1])
    assert every[1] <= 1


def test_of_no_examples_there_is_none() -> None:
    share, count = torch.tensor([0.5, torch.nan]), torch.tensor([4, 0])
    found = wilson(share, count)
    assert found.shape == (2, 2)
    assert bool(found[0].isfinite().all() and found[1].isnan().all())


def test_it_covers() -> None:
    draw = torch.Generator().manual_seed(0)
    share = (torch.rand(4000, 30, generator=draw) < 0.2).double().mean(1)
    low, high = wilson(share, 30).unbind(1)
    assert 0.93 < ((low <= 0.2) & (high >= 0.2)).double().mean().item() < 0.98

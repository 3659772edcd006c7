"""Confidence in masked inputs and its gradient by the features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from shapleaf.evaluation.maskable import Maskable, log_odds


def game(model: nn.Module, images: Tensor, shape: tuple[int, ...], value: float = 0.0) -> Maskable:
    return Maskable(model, images, shape=shape, value=value, confidence=lambda scores, _: scores[:, 0])


def test_log_odds_are_those_of_the_probability() -> None:
    scores = torch.randn(6, 5).double()
    p = scores.softmax(1)[:, 2]
    found = log_odds(scores, torch.full((6,), 2))
    torch.testing.assert_close(found, (p / (1 - p)).log())
    torch.testing.assert_close(found.sigmoid(), p)


def test_the_gradient_of_a_linear_model_is_what_masking_costs() -> None:
    """Two channels of 2 x 2: a pixel counts with both, relative to what it becomes."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 1, bias=False)).double()
    images = torch.randn(3, 2, 2, 2).double()
    found = game(model, images, (1, 2, 2), value=0.5)
    present = torch.ones(3, 4, dtype=torch.bool)
    present[:, 1] = False
    slope, before = found.gradient(present)
    for i in (0, 2, 3):
        masked = present.clone()
        masked[:, i] = False
        torch.testing.assert_close(before - found(torch.arange(3), masked), slope[:, i])
    assert found.evaluations == 3 * 3 + 3 * 3


@pytest.mark.parametrize("examples", [1, 2000])
def test_parts_are_put_together(examples: int) -> None:
    images = torch.arange(examples * 2.0).view(examples, 2)
    found = game(nn.Identity(), images, (2,))
    everything = torch.ones(examples, 2, dtype=torch.bool)
    assert found.whole()[:, 0].tolist() == images[:, 0].tolist()
    assert found(torch.arange(examples).flip(0), everything).tolist() == images[:, 0].flip(0).tolist()
    assert found.gradient(everything)[0][:, 0].tolist() == images[:, 0].tolist()

"""Overlaps of regions: counted by hand, the ignored label, and the division at the end."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shapleaf.evaluation.overlaps import mean_iou, overlaps


def test_pixels_are_right_wrongly_there_or_missed() -> None:
    labels = torch.tensor([[[0, 1], [2, 255]], [[1, 1], [1, 1]]])
    predicted = torch.tensor([[[0, 2], [2, 1]], [[1, 0], [1, 1]]])
    assert overlaps(predicted, labels, classes=3).tolist() == [
        [[1, 0, 0], [0, 0, 1], [1, 1, 0]],
        [[0, 1, 0], [3, 0, 1], [0, 0, 0]],
    ]


def test_no_label_is_ignored_unless_asked() -> None:
    labels = torch.tensor([[0, 1]])
    assert overlaps(labels, labels, 2, ignore=None).tolist() == [[[1, 0, 0], [1, 0, 0]]]
    assert overlaps(labels, labels, 2, ignore=1).tolist() == [[[1, 0, 0], [0, 0, 0]]]


def test_o25_the_data_set_is_divided_once() -> None:
    a, b = torch.tensor([[1.0, 0.0, 0.0]]).double(), torch.tensor([[1.0, 1.0, 2.0]]).double()
    assert mean_iou(a + b).item() == 0.4
    assert (mean_iou(a).item() + mean_iou(b).item()) / 2 == 0.625


def test_classes_that_never_occur_do_not_count() -> None:
    counts = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert mean_iou(counts).item() == 0.5
    assert mean_iou(torch.zeros(2, 3)).item() == 0


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_counts_add_up(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    labels, predicted = (torch.randint(4, (3, 5, 2), generator=draw) for _ in range(2))
    labels[0, 0] = 255
    hit, there, missed = overlaps(predicted, labels, 4).unbind(2)
    for k in range(4):
        assert (hit + missed)[:, k].tolist() == (labels == k).flatten(1).sum(1).tolist()
        assert (hit + there)[:, k].tolist() == ((predicted == k) & (labels != 255)).flatten(1).sum(1).tolist()
    perfect = overlaps(labels.clamp(max=3), labels, 4).sum(0).double()
    assert mean_iou(perfect).item() == pytest.approx(1)

"""MeanIoU in evaluate: of the data set, whatever the batches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from shapleaf.data import Batch
from shapleaf.errors import CriterionError, DataError
from shapleaf.evaluation import ExampleMetric, MeanIoU, evaluate


def scores(predicted: Tensor, classes: int = 2) -> Tensor:
    """Class scores ``(examples, classes, ...)`` whose best are the given ones."""
    return torch.eye(classes)[predicted].movedim(-1, 1)


# Class 1: TP 1 in the first example, TP 1, FP 1, FN 2 in the second; all else is ignored, so class 0 has
# only the pixels that class 1 takes from it and gives to it: FP 2, FN 1.
LABELS = torch.tensor([[1, 255, 255, 255], [1, 0, 1, 1]])
PREDICTED = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 0]])


@pytest.mark.parametrize("size", [1, 2])
def test_o25_h1_is_of_the_data_set_and_not_of_its_batches(size: int) -> None:
    data = list(zip(scores(PREDICTED).split(size), LABELS.split(size), strict=True))
    row = evaluate(nn.Identity(), data, [MeanIoU()])["mean IoU"]
    assert row.value == pytest.approx(100 * (2 / 5 + 0) / 2)  # class 0: 0 of 3
    assert (row.unit, row.better) == ("%", "higher")
    assert row.low is not None
    assert row.high is not None
    assert row.low <= row.value <= row.high


def test_o25_of_one_class() -> None:
    counts = torch.tensor([[[1.0, 0, 0]], [[1.0, 1, 2]]], dtype=torch.float64)
    assert MeanIoU().summarise(counts).value == pytest.approx(40)
    each = [MeanIoU().summarise(one[None]).value for one in counts]
    assert sum(each) / 2 == pytest.approx(62.5)


def test_a_model_against_itself() -> None:
    data = scores(PREDICTED), PREDICTED
    row = evaluate(nn.Identity(), data, [MeanIoU(ignore=None)], reference=nn.Identity())["mean IoU"]
    assert (row.value, row.low, row.high, row.reference) == (100, 100, 100, 100)


def test_the_interval_depends_on_the_seed_and_shrinks_with_the_data() -> None:
    draw = torch.Generator().manual_seed(0)
    labels, predicted = (torch.randint(2, (200, 9), generator=draw) for _ in range(2))
    widths = []
    for n in (20, 200):
        seen = MeanIoU().observe(scores(predicted[:n]), Batch(torch.ones(n), labels[:n]), None).double()
        found = MeanIoU().summarise(seen)
        assert found == MeanIoU().summarise(seen)
        assert found != MeanIoU(seed=1).summarise(seen)
        assert found.low is not None
        assert found.high is not None
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


def test_bad_input() -> None:
    with pytest.raises(DataError, match=r"scores of shape \(examples, classes, height, width\), received"):
        MeanIoU().observe(torch.zeros(2, 3), Batch(torch.ones(2), torch.tensor([0, 1])), None)
    labels = torch.tensor([[0, 7, 255, 0]])
    with pytest.raises(DataError, match="labels run from 0 to 7"):
        MeanIoU().observe(scores(PREDICTED[:1]), Batch(torch.ones(1), labels), None)
    with pytest.raises(CriterionError, match="resamples must be at least 1"):
        MeanIoU(resamples=0)
    assert isinstance(MeanIoU(), ExampleMetric)

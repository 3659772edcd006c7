"""The overlap of predicted and true regions of segmentations, as counts of pixels."""

from __future__ import annotations

import torch
from torch import Tensor

IGNORE = 255
"""The label of pixels that do not count, as in PASCAL VOC and Cityscapes."""


def overlaps(predicted: Tensor, labels: Tensor, classes: int, ignore: int | None = IGNORE) -> Tensor:
    """The pixels of every class that are right, wrongly there and missed, int32, ``(examples, classes, 3)``.

    Args:
        predicted: classes, ``(examples, ...)``.
        labels: true classes, of the same shape.
        classes: how many there are.
        ignore: the label of pixels that do not count.

    >>> overlaps(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 255]]), classes=2).tolist()
    [[[1, 0, 1], [0, 1, 0]]]
    """
    examples = len(labels)
    start = (torch.arange(examples, device=labels.device) * classes).view(-1, *[1] * (labels.ndim - 1))
    counted = torch.ones_like(labels, dtype=torch.bool) if ignore is None else labels != ignore
    right = counted & (predicted == labels)

    def counts(of: Tensor, where: Tensor) -> Tensor:
        return torch.bincount((start + of)[where], minlength=examples * classes).view(examples, classes)

    hit = counts(labels, right)
    return torch.stack([hit, counts(predicted, counted) - hit, counts(labels, counted) - hit], 2).int()


def mean_iou(counts: Tensor) -> Tensor:
    """Intersection over union, averaged over the classes that occur; 0 if none does.

    Args:
        counts: of every class right, wrongly there and missed, ``(..., classes, 3)``, float64.

    >>> mean_iou(torch.tensor([[1.0, 0.0, 1.0]])).item()
    0.5
    """
    union = counts.sum(-1)
    share = counts[..., 0] / union.clamp(min=1)
    return share.sum(-1) / (union > 0).sum(-1).clamp(min=1)

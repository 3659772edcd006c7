"""Segmentation: intersection over union of a whole data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from ..data import Batch
from ..errors import CriterionError, DataError
from .metrics import Interval, labels_of, predictions
from .overlaps import IGNORE, mean_iou, overlaps
from .resampling import ends, resample


@dataclass(frozen=True, slots=True)
class MeanIoU:
    """Intersection over union of a segmentation, mean over classes, in percent, higher is better.

    The pixels of all examples are counted first and divided once, so that the figure is that of the data
    set and not of its batches (Everingham et al. 2015, section 4). Classes that neither occur nor are
    predicted do not count. The interval is the percentile bootstrap's over examples.

    Args:
        ignore: the label of pixels that do not count; None for none.
        resamples: how many the interval is made of.
        seed: of the resamples.

    >>> import torch
    >>> scores = torch.eye(2)[torch.tensor([[0, 1, 1]])].movedim(2, 1)  # three pixels of one example
    >>> metric = MeanIoU()
    >>> counts = metric.observe(scores, Batch(torch.ones(1), torch.tensor([[0, 0, 255]])), None)
    >>> metric.summarise(counts.double()).value
    25.0

    Raises:
        DataError: the model does not predict at several positions, or labels do not fit.
        CriterionError: there are no resamples.
    """

    ignore: int | None = IGNORE
    resamples: int = 1000
    seed: int = 0
    name: ClassVar[str] = "mean IoU"
    unit: ClassVar[str] = "%"
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    paired: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise CriterionError(f"MeanIoU: resamples must be at least 1, received {self.resamples}.")

    def observe(self, output: Any, batch: Batch, reference: Any) -> Tensor:
        """The overlaps of each example, ``(examples, classes, 3)``."""
        scores = predictions(output, batch)
        if scores.ndim < 3:
            raise DataError(
                f"MeanIoU needs class scores of shape (examples, classes, height, width), received "
                f"{tuple(scores.shape)}; use Accuracy for classifiers."
            )
        labels = labels_of(batch.target, scores, self.ignore)
        return overlaps(scores.argmax(1), labels, scores.shape[1], self.ignore)

    def summarise(self, values: Tensor) -> Interval:
        """The figure of all examples together, with its bootstrap interval."""
        value = mean_iou(values.sum(0)).item()
        low, high = ends(mean_iou(resample(values, self.resamples, self.seed))).tolist()
        return Interval(100 * value, 100 * low, 100 * high)

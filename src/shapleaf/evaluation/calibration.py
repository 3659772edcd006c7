"""Calibration: whether models are as often right as they are sure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .. import _rng
from ..data import Batch
from ..errors import CriterionError, DataError
from ..records.outcomes import Observed, Outcomes
from ..records.robustness import Measured
from .metrics import Interval, check_finite, labels_of, predictions
from .resampling import ends, resample

BINS = 15
"""How many bins of confidence, as in Guo et al. 2017."""

_CELLS = 2**24  # most numbers at a time: 128 MB


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """Expected calibration error, in percent, lower is better (Guo et al. 2017, equation 3).

    The examples are put in bins of equal width by the probability given to the predicted class; of each
    bin the distance between mean probability and accuracy counts, weighted with its share of the examples.

    On few examples the figure is too high, for what is noise in a bin counts as a distance. The 95 %
    interval allows for that: its upper end is the bootstrap's over examples, its lower end is lower by
    twice the bias that the bootstrap sees, and it is 0 where a model that is calibrated perfectly
    could do as badly by chance (Bröcker & Smith 2007).

    Args:
        bins: how many.
        resamples: how many the interval is made of.
        seed: of the resamples.

    >>> scores = torch.tensor([[0.8, 0.2]] * 4).log()
    >>> metric = CalibrationError()
    >>> seen = metric.observe(scores, Batch(torch.ones(4), torch.tensor([0, 0, 1, 1])), None)
    >>> round(metric.summarise(seen).value, 4)
    30.0

    Raises:
        DataError: labels do not fit, outputs are not finite, or there are several predictions per example.
        CriterionError: there are no bins or resamples.
    """

    bins: int = BINS
    resamples: int = 1000
    seed: int = 0
    name: ClassVar[str] = "calibration error"
    unit: ClassVar[str] = "%"
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    paired: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("bins", "resamples"):
            if getattr(self, name) < 1:
                raise CriterionError(
                    f"CalibrationError: {name} must be at least 1, received {getattr(self, name)}."
                )

    def observe(self, output: Any, batch: Batch, reference: Any) -> Tensor:
        """Of each example the probability of the predicted class, and 1 if it is right, ``(examples, 2)``."""
        scores = predictions(output, batch)
        if scores.ndim != 2:
            raise DataError(
                f"CalibrationError needs class scores of shape (examples, classes), received "
                f"{tuple(scores.shape)}."
            )
        labels = labels_of(batch.target, scores)
        confidence = scores.double().softmax(1).amax(1)
        check_finite(confidence[:, None], batch)
        return torch.stack([confidence, (scores.argmax(1) == labels).double()], 1)

    def summarise(self, values: Tensor) -> Interval:
        """The error of all examples together, with its interval."""
        return _summaries(values[None], self.bins, self.resamples, self.seed)[0]


def calibration(
    outcomes: Outcomes, *, bins: int = BINS, resamples: int = 1000, seed: int = 0
) -> tuple[Measured, ...]:
    """The expected calibration error of every model on every distribution; see :class:`CalibrationError`.

    Raises:
        DataError: these are segmentations.
        CriterionError: there are no bins or resamples.

    >>> from shapleaf.records import Observed, Subject
    >>> seen = Observed(
    ...     distribution="clean", labels=torch.tensor([0, 1]), predicted=torch.tensor([[0, 0]]),
    ...     confidence=torch.tensor([[0.75, 0.75]]),
    ... )
    >>> calibration(Outcomes(subjects=(Subject(name="dense"),), observed=(seen,)))[0].value
    25.0
    """
    metric = CalibrationError(bins, resamples, seed)
    summaries = {
        one.distribution: rows
        for group in _groups(outcomes, bins)
        for one, rows in zip(group, _grouped(group, metric), strict=True)
    }
    return tuple(
        Measured(
            subject=subject.name,
            distribution=one.distribution,
            metric=metric.name,
            value=value,
            low=low or 0.0,
            high=high or 0.0,
            unit=metric.unit,
            better=metric.better,
            nominal=one.nominal,
            family=one.family,
        )
        for one in outcomes.observed
        for subject, (value, low, high) in zip(outcomes.subjects, summaries[one.distribution], strict=True)
    )


def _groups(outcomes: Outcomes, bins: int) -> Iterator[list[Observed]]:
    """Distributions of as many examples, which share their resamples, as many as fit in memory at a time."""
    for examples in dict.fromkeys(one.examples for one in outcomes.observed):
        alike = [one for one in outcomes.observed if one.examples == examples]
        step = max(1, _CELLS // (len(outcomes.subjects) * examples * bins))
        yield from (alike[start : start + step] for start in range(0, len(alike), step))


def _grouped(group: Sequence[Observed], metric: CalibrationError) -> list[list[Interval]]:
    """The summaries of every model, by distribution."""
    values = [torch.stack([one.confidence.double(), (~one.wrong).double()], 2) for one in group]
    models, examples = values[0].shape[:2]
    parts = torch.cat(values).split(max(1, _CELLS // (examples * metric.bins)))
    rows = [row for part in parts for row in _summaries(part, metric.bins, metric.resamples, metric.seed)]
    return [rows[start : start + models] for start in range(0, len(rows), models)]


def _summaries(values: Tensor, bins: int, resamples: int, seed: int) -> list[Interval]:
    """The error of several models on the same examples, from ``(models, examples, 2)``."""
    confidence, right = values.double().clamp(max=1).unbind(2)
    models, examples = confidence.shape
    where = ((confidence * bins).ceil().long().clamp(1, bins) - 1)[..., None]
    empty = torch.zeros(models, examples, bins, dtype=torch.float64)
    gaps = empty.scatter(2, where, (confidence - right)[..., None])
    spread = empty.scatter(2, where, (confidence * (1 - confidence))[..., None]).sum(1).sqrt()
    errors = gaps.sum(1).abs().sum(1) / examples
    drawn = resample(gaps.transpose(0, 1), resamples, seed).abs().sum(2) / examples
    noise = _rng.stream(seed, "calibration", bins).standard_normal((resamples, bins))
    chance = torch.from_numpy(noise).abs() @ spread.T / examples
    low, high = ends(drawn)
    low = (low - 2 * (drawn.mean(0) - errors)).clamp(min=0)
    low = torch.where(errors <= ends(chance)[1], 0.0, low).minimum(errors)
    ends_ = torch.stack([errors, low, high.maximum(errors)], 1) * 100
    return [Interval(*row) for row in ends_.tolist()]

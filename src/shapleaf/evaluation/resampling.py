"""The bootstrap over examples: the same resampled examples for every model and distribution.

Models are compared on the same examples, so these are drawn together: what is common to both models
cancels, and the interval of their difference is as narrow as the data allow (Efron & Tibshirani 1993,
chapter 8). A resample is how often each example was drawn, so that all models are served by one matrix
product.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .. import _rng
from ..errors import CriterionError
from ..records.outcomes import Observed, Outcomes
from .overlaps import mean_iou

_CELLS = 2**24  # most weights at a time: 128 MB


def weights(examples: int, resamples: int, seed: int, first: int = 0) -> Tensor:
    """How often each resample drew each example, float64, ``(resamples, examples)``.

    The draws depend on the seed, the number of examples and the resample's own number alone: distributions
    of as many examples, such as corruptions of the same images, are resampled alike.

    >>> weights(4, 2, seed=0).sum(1).tolist()
    [4.0, 4.0]
    """
    found = np.empty((resamples, examples))
    for k in range(resamples):
        drawn = _rng.stream(seed, "bootstrap", examples, first + k).integers(examples, size=examples)
        found[k] = np.bincount(drawn, minlength=examples)
    return torch.from_numpy(found)


def resample(values: Tensor, resamples: int, seed: int) -> Tensor:
    """Sums over the examples of each resample, float64, ``(resamples, ...)``.

    Args:
        values: what each example contributes, ``(examples, ...)``.
        resamples: how many.
        seed: of :func:`weights`.

    Raises:
        CriterionError: there are no resamples.

    >>> resample(torch.ones(4), 2, seed=0).tolist()
    [4.0, 4.0]
    """
    flat = values.double().flatten(1) if values.ndim > 1 else values.double()[:, None]
    parts = [drawn @ flat for drawn in _chunks(len(values), resamples, seed)]
    return torch.cat(parts).view(resamples, *values.shape[1:])


def ends(values: Tensor, dim: int = 0) -> Tensor:
    """The 2.5 % and 97.5 % quantiles along ``dim``, stacked along a new first axis.

    They are values that occurred, so that of a grid they are on the grid.

    >>> ends(torch.arange(101.0)).tolist()
    [2.0, 98.0]
    """
    low = values.quantile(0.025, dim, interpolation="lower")
    high = values.quantile(0.975, dim, interpolation="higher")
    return torch.stack([low, high])


def resampled_errors(outcomes: Outcomes, resamples: int, seed: int) -> dict[str, Tensor]:
    """The error of every model in every resample, by distribution, float64, ``(resamples, subjects)``.

    Errors are as in :attr:`shapleaf.records.Observed.errors`, 0 to 1.

    Raises:
        CriterionError: there are no resamples.

    >>> seen = Observed(
    ...     distribution="clean", labels=torch.tensor([0]), predicted=torch.tensor([[0], [1]]),
    ...     confidence=torch.ones(2, 1),
    ... )
    >>> from shapleaf.records import Subject
    >>> both = Outcomes(subjects=(Subject(name="a"), Subject(name="b")), observed=(seen,))
    >>> resampled_errors(both, 2, seed=0)["clean"].tolist()
    [[0.0, 1.0], [0.0, 1.0]]
    """
    found: dict[str, list[Tensor]] = {one.distribution: [] for one in outcomes.observed}
    for examples in dict.fromkeys(one.examples for one in outcomes.observed):
        alike = [one for one in outcomes.observed if one.examples == examples]
        for drawn in _chunks(examples, resamples, seed):
            for one in alike:
                found[one.distribution].append(_errors(one, drawn))
    return {name: torch.cat(parts) for name, parts in found.items()}


def _chunks(examples: int, resamples: int, seed: int) -> Iterator[Tensor]:
    if resamples < 1:
        raise CriterionError(f"resamples must be at least 1, received {resamples}.")
    step = max(1, _CELLS // examples)
    for first in range(0, resamples, step):
        yield weights(examples, min(step, resamples - first), seed, first)


def _errors(one: Observed, drawn: Tensor) -> Tensor:
    if one.overlaps is None:
        return drawn @ one.wrong.double().T / one.examples
    return torch.stack(
        [1 - mean_iou(torch.einsum("re,eck->rck", drawn, o.double())) for o in one.overlaps], 1
    )

"""Curves: accuracy of every model on every distribution, and how often models agree."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .._intervals import wilson
from ..records.outcomes import Observed, Outcomes
from ..records.robustness import Measured
from .resampling import ends, resampled_errors


def accuracies(outcomes: Outcomes, *, resamples: int = 1000, seed: int = 0) -> tuple[Measured, ...]:
    """The accuracy of every model on every distribution, in percent, higher is better.

    The interval is Wilson's. Of segmentations it is the mean intersection over union of the whole
    distribution, with the bootstrap's interval over examples.

    Raises:
        CriterionError: there are no resamples.

    >>> from shapleaf.records import Subject
    >>> seen = Observed(
    ...     distribution="clean", labels=torch.tensor([0, 1]), predicted=torch.tensor([[0, 0]]),
    ...     confidence=torch.ones(1, 2),
    ... )
    >>> accuracies(Outcomes(subjects=(Subject(name="dense"),), observed=(seen,)))[0].value
    50.0
    """
    found = list[Measured]()
    dense = any(one.overlaps is not None for one in outcomes.observed)
    drawn = resampled_errors(outcomes, resamples, seed) if dense else {}
    for one in outcomes.observed:
        shares = torch.tensor([float(1 - error) for error in one.errors], dtype=torch.float64)
        limits = ends(1 - drawn[one.distribution]).T if dense else wilson(shares, one.examples)
        rows = zip(outcomes.subjects, (100 * shares).tolist(), (100 * limits).tolist(), strict=True)
        for subject, share, (low, high) in rows:
            found.append(
                Measured(
                    subject=subject.name,
                    distribution=one.distribution,
                    metric="mean IoU" if dense else "accuracy",
                    value=share,
                    low=low,
                    high=high,
                    nominal=one.nominal,
                    family=one.family,
                )
            )
    return tuple(found)


def agreements(outcomes: Outcomes) -> tuple[Measured, ...]:
    """How often models predict the same class, in percent, with Wilson's interval; higher is more alike.

    Pruned and control models are compared with the reference of their net, and every model with each of
    role ``separate`` and each reference with those of other nets: how often two networks agree that were
    trained independently is the yardstick for what pruning changes.

    Raises:
        DataError: these are segmentations.

    >>> from shapleaf.records import Subject
    >>> seen = Observed(
    ...     distribution="clean", labels=torch.tensor([0, 1]), predicted=torch.tensor([[0, 0], [0, 1]]),
    ...     confidence=torch.ones(2, 2),
    ... )
    >>> both = Subject(name="dense", role="reference"), Subject(name="half", method="WT", removed=0.5)
    >>> found = agreements(Outcomes(subjects=both, observed=(seen,)))
    >>> [(one.subject, one.other, one.value) for one in found]
    [('half', 'dense', 50.0)]
    """
    return tuple(
        _agreement(outcomes, one, k, other) for one in outcomes.observed for k, other in _pairs(outcomes)
    )


def _pairs(outcomes: Outcomes) -> Iterator[tuple[int, int]]:
    for k, one in enumerate(outcomes.subjects):
        for j, other in enumerate(outcomes.subjects):
            own = other.role == "reference" and other.net == one.net and one.role in ("pruned", "control")
            apart = other.role == "separate" and (one.role != "separate" or k < j)
            between = one.role == other.role == "reference" and k < j
            if own or apart or between:
                yield k, j


def _agreement(outcomes: Outcomes, one: Observed, k: int, other: int) -> Measured:
    one.check_classified()
    share = (one.predicted[k] == one.predicted[other]).double().mean()
    low, high = (100 * wilson(share, one.examples)).tolist()
    return Measured(
        subject=outcomes.subjects[k].name,
        distribution=one.distribution,
        metric="agreement",
        value=100 * share.item(),
        low=low,
        high=high,
        other=outcomes.subjects[other].name,
        nominal=one.nominal,
        family=one.family,
    )

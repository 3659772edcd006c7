"""What pruning changes class by class, and on which examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import DataError
from ..records.outcomes import Outcomes
from ..records.robustness import ClassCounts, Flips


def flips(outcomes: Outcomes, subject: str, *, distribution: str | None = None) -> Flips:
    """The examples on which a model and the reference of its net differ.

    Args:
        outcomes: of :func:`shapleaf.assess`.
        subject: the model's name.
        distribution: which; by default the first nominal one.

    Raises:
        DataError: there is no such model or distribution, its net has no reference, or these are
            segmentations.

    >>> from shapleaf.records import Observed, Subject
    >>> seen = Observed(
    ...     distribution="clean", nominal=True, labels=torch.tensor([0, 1, 1]),
    ...     predicted=torch.tensor([[0, 1, 0], [1, 1, 1]]), confidence=torch.ones(2, 3),
    ... )
    >>> both = Subject(name="dense", role="reference"), Subject(name="half", method="WT", removed=0.5)
    >>> found = flips(Outcomes(subjects=both, observed=(seen,)), "half")
    >>> print(found)
    What half changes of dense on clean: 1 example lost, 1 won
    class  examples  before (%)  interval       after (%)  interval       lost  won
    ─────  ────────  ──────────  ─────────────  ─────────  ─────────────  ────  ───
    0             1         100  20.7 to 100.0          0  0.0 to 79.3       1    0
    1             2          50  9.5 to 90.5          100  34.2 to 100.0     0    1
    2 predictions of 3 changed
    """
    name = _nominal(outcomes) if distribution is None else distribution
    seen, k = outcomes[name], outcomes.index(subject)
    reference = outcomes.reference(outcomes.subjects[k].net)
    wrong, classes = seen.wrong, class_names(outcomes)
    lost, won = ~wrong[reference] & wrong[k], wrong[reference] & ~wrong[k]
    chosen = torch.stack([torch.ones_like(lost), ~wrong[reference], ~wrong[k], lost, won])
    counts = _by_class(seen.labels, chosen, len(classes))
    return Flips(
        subject=subject,
        reference=outcomes.subjects[reference].name,
        distribution=name,
        classes=classes,
        lost=lost.nonzero().flatten(),
        won=won.nonzero().flatten(),
        changed=(seen.predicted[k] != seen.predicted[reference]).nonzero().flatten(),
        examples=counts[0],
        reference_right=counts[1],
        right=counts[2],
        lost_by_class=counts[3],
        won_by_class=counts[4],
    )


def identified(outcomes: Outcomes, subjects: Sequence[str], *, distribution: str | None = None) -> Tensor:
    """The pruning-identified examples of several pruned models: their ids, int64, ``(n,)``.

    An example is identified if the class that most of the pruned models predict is not the one that most
    of the references of their nets predict (Hooker et al. 2019, section 3.1). Of equally many the lowest
    class counts. With models of one net it is where one reference disagrees with the pruned models.

    Args:
        outcomes: of :func:`shapleaf.assess`.
        subjects: names of pruned models, usually of one method and size from several nets.
        distribution: which; by default the first nominal one.

    Raises:
        DataError: as for :func:`flips`, or there are no models.

    >>> from shapleaf.records import Observed, Subject
    >>> seen = Observed(
    ...     distribution="clean", nominal=True, labels=torch.tensor([0, 1]),
    ...     predicted=torch.tensor([[0, 1], [1, 1], [1, 1], [0, 0]]), confidence=torch.ones(4, 2),
    ... )
    >>> pruned = [Subject(name=name, method="WT", removed=0.5) for name in ("a", "b", "c")]
    >>> outcomes = Outcomes(subjects=(Subject(name="dense", role="reference"), *pruned), observed=(seen,))
    >>> identified(outcomes, ["a", "b", "c"]).tolist()
    [0]
    """
    if not subjects:
        raise DataError("there are no models to identify examples by; name at least one.")
    seen = outcomes[_nominal(outcomes) if distribution is None else distribution]
    pruned = [outcomes.index(name) for name in subjects]
    nets = dict.fromkeys(outcomes.subjects[k].net for k in pruned)
    references = [outcomes.reference(net) for net in nets]
    seen.check_classified()
    size = len(class_names(outcomes))
    changed = _mode(seen.predicted[pruned], size) != _mode(seen.predicted[references], size)
    return changed.nonzero().flatten()


def class_counts(outcomes: Outcomes) -> tuple[ClassCounts, ...]:
    """How many examples of each class every model gets right, loses and wins, on every distribution.

    Raises:
        DataError: a net has no reference, or these are segmentations.

    >>> from shapleaf.records import Observed, Subject
    >>> seen = Observed(
    ...     distribution="clean", labels=torch.tensor([0, 1, 1]),
    ...     predicted=torch.tensor([[0, 1, 0], [1, 1, 1]]), confidence=torch.ones(2, 3),
    ... )
    >>> both = Subject(name="dense", role="reference"), Subject(name="half", method="WT", removed=0.5)
    >>> counts = class_counts(Outcomes(subjects=both, observed=(seen,)))[0]
    >>> counts.right.tolist(), counts.lost.tolist(), counts.won.tolist()
    ([[1, 1], [0, 2]], [[0, 0], [1, 0]], [[0, 0], [0, 1]])
    """
    references = [
        k if one.role in ("reference", "separate") else outcomes.reference(one.net)
        for k, one in enumerate(outcomes.subjects)
    ]
    size, found = len(class_names(outcomes)), list[ClassCounts]()
    for seen in outcomes.observed:
        wrong = seen.wrong
        before = wrong[references]
        found.append(
            ClassCounts(
                distribution=seen.distribution,
                examples=torch.bincount(seen.labels.long(), minlength=size),
                right=_by_class(seen.labels, ~wrong, size),
                lost=_by_class(seen.labels, ~before & wrong, size),
                won=_by_class(seen.labels, before & ~wrong, size),
            )
        )
    return tuple(found)


def _by_class(labels: Tensor, which: Tensor, classes: int) -> Tensor:
    """How many examples of each class are chosen, ``(subjects, classes)``."""
    return torch.stack([torch.bincount(labels[row].long(), minlength=classes) for row in which])


def _nominal(outcomes: Outcomes) -> str:
    for one in outcomes.observed:
        if one.nominal:
            return one.distribution
    raise DataError("none of the distributions is nominal; say which by distribution=.")


def class_names(outcomes: Outcomes) -> tuple[str, ...]:
    """The names of the classes; numbers where there are none.

    >>> class_names(Outcomes(subjects=(), observed=(), classes=("cat", "dog")))
    ('cat', 'dog')
    """
    if outcomes.classes:
        return outcomes.classes
    most = max(max(int(one.labels.max()), int(one.predicted.max())) for one in outcomes.observed)
    return tuple(str(k) for k in range(most + 1))


def _mode(predicted: Tensor, classes: int) -> Tensor:
    """The class predicted most often for each example, of equals the lowest."""
    votes = torch.zeros(predicted.shape[1], classes, dtype=torch.int32)
    for row in predicted.long():
        votes.scatter_add_(1, row[:, None], torch.ones_like(row, dtype=torch.int32)[:, None])
    return votes.argmax(1)

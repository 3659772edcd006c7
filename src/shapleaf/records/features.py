"""Informative features: in which order a model can do without its inputs, and what others see in the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from .._store import Tensor
from .._table import count
from ..errors import DataError
from ._base import Record
from .outcomes import Subject


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ordering(Record):
    """The features of each example in the order that :func:`shapleaf.backselect` masked them.

    Attributes:
        order: the features, numbered row by row, the least informative first, int64,
            ``(examples, features)``.
        values: the confidence once a feature and all before it are masked, ``(examples, features)``;
            NaN where the fast mode did not look.
        whole: the confidence in the whole input, ``(examples,)``.
        targets: the class whose confidence it is, ``(examples,)``.
        shape: of the mask of one example; it broadcasts over the example.
        evaluations: how many times the model ran on an example with something masked, all examples together;
            a run with its gradient counts 3.
        settings: mode, what masked features are replaced by, versions.

    Raises:
        DataError: the order's rows are no permutations, or the tensors do not fit each other.

    >>> found = Ordering(
    ...     order=torch.tensor([[0, 3, 1, 2]]), values=torch.tensor([[1.4, 1.3, 0.8, 0.0]]),
    ...     whole=torch.tensor([1.5]), targets=torch.tensor([0]), shape=(4,), evaluations=10,
    ... )
    >>> found.top(0.5).tolist(), found.sufficient(1.0)
    ([[False, True, True, False]], ((2, 1),))
    >>> print(found)
    Orderings of 1 example, 4 features, 10 evaluations
    example  class  confidence  with the best tenth  least informative  most informative
    ───────  ─────  ──────────  ───────────────────  ─────────────────  ────────────────
          0      0         1.5                  0.8                  0                 2
    """

    order: Tensor
    values: Tensor
    whole: Tensor
    targets: Tensor
    shape: tuple[int, ...]
    evaluations: int
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is no ordering."""
        features = int(torch.tensor(self.shape).prod())
        expected = (len(self.order), features)
        if tuple(self.order.shape) != expected or tuple(self.values.shape) != expected:
            raise DataError(
                f"an ordering of {features} features needs order and values of shape {expected}, received "
                f"{tuple(self.order.shape)} and {tuple(self.values.shape)}."
            )
        if not bool((self.order.sort(1).values == torch.arange(features)).all()):
            raise DataError(f"every row of order must be a permutation of 0 to {features - 1}.")

    def top(self, share: float) -> torch.Tensor:
        """Where the most informative features are, those masked last: bool, ``(examples, *shape)``.

        Args:
            share: of the features, rounded to a whole number by :func:`kept`.

        Raises:
            DataError: the share is not above 0 and at most 1.
        """
        features = self.order.shape[1]
        chosen = torch.zeros(self.order.shape, dtype=torch.bool)
        chosen.scatter_(1, self.order[:, features - kept(share, features) :], True)
        return chosen.view(-1, *self.shape)

    def sufficient(self, threshold: float) -> tuple[tuple[int, ...] | None, ...]:
        """The sufficient input subset of each example, most informative first (Carter et al. 2019).

        It is the shortest tail of the ordering that, with all else masked, still has a confidence of at
        least ``threshold``; None if not even the whole example has.
        """
        found = list[tuple[int, ...] | None]()
        for order, values, whole in zip(self.order, self.values, self.whole, strict=True):
            enough = torch.cat([whole[None], values]) >= threshold  # by the number of features masked
            places = enough.nonzero().flatten()
            found.append(tuple(order[int(places[-1]) :].flip(0).tolist()) if len(places) else None)
        return tuple(found)

    def table(self) -> dict[str, Any]:
        examples, features = self.order.shape
        at = features - kept(0.1, features) - 1 if features > 1 else 0
        columns = (self.targets, self.whole, self.values[:, at], self.order[:, 0], self.order[:, -1])
        cells = [[None if math.isnan(value) else value for value in column.tolist()] for column in columns]
        return {
            "title": f"Orderings of {count(examples, 'example')}, {count(features, 'feature')}, "
            + count(self.evaluations, "evaluation"),
            "header": [
                *("example", "class", "confidence", "with the best tenth"),
                *("least informative", "most informative"),
            ],
            "rows": [[i, *row] for i, row in enumerate(zip(*cells, strict=True))],
            "footer": ", ".join(f"{key}={value}" for key, value in self.settings.items()),
        }


def kept(share: float, features: int) -> int:
    """How many features a share is: rounded half to even, at least one.

    Raises:
        DataError: the share is not above 0 and at most 1.

    >>> kept(0.1, 1024), kept(0.1, 256), kept(0.01, 4)
    (102, 26, 1)
    """
    if not 0 < share <= 1:
        raise DataError(f"share must be above 0 and at most 1, received {share}.")
    return max(1, round(share * features))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeatMap(Record):
    """What :func:`shapleaf.heat_map` measured: what models see in each other's informative features.

    Attributes:
        subjects: the models, in the order of rows and columns.
        confidence: the probability that the column's model gives to the true class of an example of which
            only the row's model's most informative features are left, mean over examples,
            ``(subjects, subjects)``, 0 to 1, higher is better.
        interval: ends of its 95 % interval, as examples vary, ``(subjects, subjects, 2)``.
        whole: the same probability for the whole examples, ``(subjects,)``.
        examples: the number of examples.
        kept: how many features are left.
        features: out of how many.
        settings: mode, what masked features are replaced by, versions.

    Raises:
        DataError: tensors that do not fit the subjects.

    >>> subjects = Subject(name="dense", role="reference"), Subject(name="half", removed=0.5)
    >>> mean, spread = torch.tensor([[0.9, 0.8], [0.7, 0.9]]), torch.tensor([-0.02, 0.02])
    >>> print(HeatMap(subjects=subjects, confidence=mean, interval=mean[..., None] + spread, examples=250,
    ...               whole=torch.tensor([0.95, 0.9]), kept=102, features=1024))
    Confidence in the true class with 102 of 1,024 features left, mean of 250 examples
    features of  dense        half
    ───────────  ───────────  ───────────
    dense        0.90 ± 0.02  0.80 ± 0.02
    half         0.70 ± 0.02  0.90 ± 0.02
    (all)        0.95         0.90
    """

    subjects: tuple[Subject, ...]
    confidence: Tensor
    interval: Tensor
    whole: Tensor
    examples: int
    kept: int
    features: int
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse tensors that do not fit."""
        n = len(self.subjects)
        for name, shape in (("confidence", (n, n)), ("interval", (n, n, 2)), ("whole", (n,))):
            if tuple(getattr(self, name).shape) != shape:
                raise DataError(f"{name} has shape {tuple(getattr(self, name).shape)}, expected {shape}.")

    def table(self) -> dict[str, Any]:
        names = [subject.name for subject in self.subjects]
        half = (self.interval[..., 1] - self.interval[..., 0]) / 2
        rows: list[list[object]] = [
            [name, *(f"{m:.2f} ± {h:.2f}" for m, h in zip(mean.tolist(), width.tolist(), strict=True))]
            for name, mean, width in zip(names, self.confidence, half, strict=True)
        ]
        return {
            "title": f"Confidence in the true class with {self.kept:,} of {count(self.features, 'feature')} "
            f"left, mean of {count(self.examples, 'example')}",
            "header": ["features of", *names],
            "rows": [*rows, ["(all)", *(f"{value:.2f}" for value in self.whole.tolist())]],
            "footer": ", ".join(f"{key}={value}" for key, value in self.settings.items()),
        }

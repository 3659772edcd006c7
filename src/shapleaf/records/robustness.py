"""Robustness: what pruning kept and lost on many test distributions, all measures in one record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from .._store import Tensor
from .._table import count, number
from ..errors import DataError
from ._base import Part, Record
from .excess import ExcessError
from .features import HeatMap
from .outcomes import Subject
from .potential import Potential
from .similarity import NoiseSimilarity
from .verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured(Part):
    """One number of one model on one distribution.

    Attributes:
        subject: the model's name.
        distribution: what it was tested on.
        metric: "accuracy", "mean IoU", "agreement" or "calibration error".
        value: in percent.
        low: lower end of its 95 % interval.
        high: upper end.
        better: which direction is good.
        other: the model that it is compared with; empty for none.
    """

    subject: str
    distribution: str
    metric: str
    value: float
    low: float
    high: float
    unit: str = "%"
    better: Literal["higher", "lower"] = "higher"
    other: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassCounts(Part):
    """How many examples of each true class every model gets right on one distribution.

    Attributes:
        distribution: its name.
        examples: how many examples each class has, ``(classes,)``.
        right: how many of them each model gets right, ``(subjects, classes)``.
        lost: how many the reference of its net gets right and it does not, ``(subjects, classes)``.
        won: how many it gets right and the reference does not, ``(subjects, classes)``.
    """

    distribution: str
    examples: Tensor
    right: Tensor
    lost: Tensor
    won: Tensor

    @property
    def accuracy(self) -> torch.Tensor:
        """Share of each class's examples that each model gets right, ``(subjects, classes)``, 0 to 1.

        NaN where a class has no examples.
        """
        return self.right.double() / self.examples


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flips(Record):
    """The examples that pruning changed on one distribution; see :func:`shapleaf.evaluation.flips`.

    Attributes:
        subject: the pruned model's name.
        reference: that of the model it is compared with.
        distribution: what they were tested on.
        classes: names of the classes.
        lost: ids of the examples that the reference got right and the pruned model wrong, ``(n,)``.
        won: ids of those that the reference got wrong and the pruned model right, ``(n,)``.
        changed: ids of all examples for which they predict different classes, ``(n,)``.
        examples: how many examples each class has, ``(classes,)``.
        reference_right: how many of them the reference gets right, ``(classes,)``.
        right: how many the pruned model gets right, ``(classes,)``.
        lost_by_class: how many of each class are lost, ``(classes,)``.
        won_by_class: how many of each class are won, ``(classes,)``.
    """

    subject: str
    reference: str
    distribution: str
    classes: tuple[str, ...]
    lost: Tensor
    won: Tensor
    changed: Tensor
    examples: Tensor
    reference_right: Tensor
    right: Tensor
    lost_by_class: Tensor
    won_by_class: Tensor

    def table(self) -> dict[str, Any]:
        counts = zip(
            self.classes,
            self.examples.tolist(),
            self.reference_right.tolist(),
            self.right.tolist(),
            self.lost_by_class.tolist(),
            self.won_by_class.tolist(),
            strict=True,
        )
        rows = [
            [name, n, round(100 * before / n, 2), round(100 * after / n, 2), lost, won]
            for name, n, before, after, lost, won in counts
            if n
        ]
        return {
            "title": f"What {self.subject} changes of {self.reference} on {self.distribution}: "
            f"{count(len(self.lost), 'example')} lost, {len(self.won):,} won",
            "header": ["class", "examples", "accuracy before (%)", "after (%)", "lost", "won"],
            "rows": rows,
            "footer": f"{count(len(self.changed), 'prediction')} of {int(self.examples.sum()):,} changed",
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Robustness(Record):
    """What :func:`shapleaf.robustness` measured.

    Attributes:
        subjects: the models.
        curves: accuracy (or mean IoU), agreement and calibration error of each model and distribution.
        potential: how much each method may remove.
        excess: how much more pruned models lose to shifts; None where only nominal data were measured.
        verdict: what follows from it.
        similarity: how alike the models respond to noise.
        features: which models' informative pixels convince which.
        classes: right and changed predictions by class; empty for segmentations.
        class_names: of the classes.
        settings: data, seeds, versions.
    """

    subjects: tuple[Subject, ...]
    curves: tuple[Measured, ...]
    potential: Potential
    excess: ExcessError | None = None
    verdict: Verdict
    similarity: NoiseSimilarity | None = None
    features: HeatMap | None = None
    classes: tuple[ClassCounts, ...] = ()
    class_names: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)

    def curve(self, metric: str, distribution: str) -> tuple[Measured, ...]:
        """The numbers of all models on one distribution.

        Raises:
            DataError: there are none.
        """
        found = tuple(o for o in self.curves if (o.metric, o.distribution) == (metric, distribution))
        if not found:
            metrics, names = ({getattr(o, key): 0 for o in self.curves} for key in ("metric", "distribution"))
            raise DataError(
                f"no {metric!r} on {distribution!r}; metrics: {', '.join(metrics)}; distributions: "
                f"{', '.join(names)}."
            )
        return found

    def table(self) -> dict[str, Any]:
        rows = [
            [
                one.subject,
                one.distribution,
                f"{one.metric} with {one.other}" if one.other else one.metric,
                round(one.value, 2),
                f"{number(one.low)} to {number(one.high)}",
            ]
            for one in self.curves
        ]
        return {
            "title": f"Robustness of {count(len(self.subjects), 'model')}, in %",
            "header": ["model", "distribution", "metric", "value", "interval"],
            "rows": rows,
            "footer": "\n".join(self.verdict.sentences),
        }

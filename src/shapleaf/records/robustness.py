"""Robustness: what pruning kept and lost on many test distributions, all measures in one record."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

import torch

from .. import _intervals
from .._store import Tensor
from .._table import count, interval, percent
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
        unit: "%".
        better: which direction is good.
        other: the model that it is compared with; empty for none.
        nominal: whether the distribution is one that the networks were trained on.
        family: the kind of shift.
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
    nominal: bool = False
    family: str = ""


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

    @property
    def interval(self) -> torch.Tensor:
        """The ends of its 95 % interval (Wilson's), ``(subjects, classes, 2)``."""
        return _intervals.wilson(self.accuracy, self.examples)


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
        rows = list[list[object]]()
        for k, name in enumerate(self.classes):
            n = int(self.examples[k])
            if n:
                row: list[object] = [name, n]
                for right in (self.reference_right, self.right):
                    share = right[k].double() / n
                    row += [percent(share.item()), interval(*_intervals.wilson(share, n).tolist())]
                rows.append([*row, int(self.lost_by_class[k]), int(self.won_by_class[k])])
        return {
            "title": f"What {self.subject} changes of {self.reference} on {self.distribution}: "
            f"{count(len(self.lost), 'example')} lost, {len(self.won):,} won",
            "header": ["class", "examples", "before (%)", "interval", "after (%)", "interval", "lost", "won"],
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

    >>> numbers = dict(subject="dense", metric="accuracy")
    >>> curves = (
    ...     Measured(distribution="clean", value=92.0, low=90.0, high=94.0, nominal=True, **numbers),
    ...     Measured(distribution="fog 3", value=80.0, low=77.0, high=83.0, **numbers),
    ... )
    >>> print(Robustness(
    ...     subjects=(Subject(name="dense", role="reference"),), curves=curves,
    ...     potential=Potential(limits=()), verdict=Verdict(advice=(), delta=0.005),
    ... ))
    Robustness of 1 model, in %
    model  method  removed  accuracy: nominal  shifted  worst  on     agreement  calibration error
    ─────  ──────  ───────  ─────────────────  ───────  ─────  ─────  ─────────  ─────────────────
    dense  -             0                 92       80     80  fog 3          -                  -
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

    def _mean(self, subject: str, metric: str, *, nominal: bool) -> float | None:
        """A model's mean over the nominal or the shifted distributions, in percent."""
        found = [
            one.value
            for one in self.curves
            if (one.subject, one.metric, one.nominal) == (subject, metric, nominal)
            and one.other in ("", *self._references)
        ]
        return round(fmean(found), 2) if found else None

    @property
    def _references(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.subjects if one.role == "reference")

    def table(self) -> dict[str, Any]:
        main = "mean IoU" if any(one.metric == "mean IoU" for one in self.curves) else "accuracy"
        rows = list[list[object]]()
        for one in self.subjects:
            shifted = [m for m in self.curves if (m.subject, m.metric) == (one.name, main) and not m.nominal]
            worst = min(shifted, key=lambda m: m.value, default=None)
            row = [one.name, one.method or None, percent(one.removed)]
            row += [self._mean(one.name, main, nominal=nominal) for nominal in (True, False)]
            row += [round(worst.value, 2), worst.distribution] if worst is not None else [None, None]
            other = (
                self._mean(one.name, metric, nominal=True) for metric in ("agreement", "calibration error")
            )
            rows.append([*row, *other])
        header = ["model", "method", "removed", f"{main}: nominal", "shifted", "worst", "on"]
        return {
            "title": f"Robustness of {count(len(self.subjects), 'model')}, in %",
            "header": [*header, "agreement", "calibration error"],
            "rows": rows,
            "footer": "\n".join(self.verdict.sentences),
        }

"""Outcomes: what each of several models predicted on each of several distributions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import torch

from .._store import Tensor
from .._table import count
from ..errors import DataError
from ._base import Part, Record

Role = Literal["reference", "pruned", "separate", "control"]


def named_apart(kind: str, names: Iterable[str]) -> None:
    """Refuse things of one name.

    Raises:
        DataError: two have one.

    >>> named_apart("models", ["dense", "half"])
    """
    for name, times in Counter(names).items():
        if times > 1:
            raise DataError(f"two {kind} are named {name!r}; give each a name of its own.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject(Part):
    """A model that was measured.

    Attributes:
        name: what it is called, unlike any other.
        method: how it was pruned; subjects of one method and net form a curve.
        removed: share of the parameters that are gone (or zero), 0 to 1.
        net: which of several independently trained networks it comes from; its reference has the same.
        role: ``reference``, the network before pruning; ``pruned``; ``separate``, an independently trained
            network of no other use; ``control``, trained again without pruning.

    Raises:
        DataError: the name is empty, or the share is not between 0 and 1.
    """

    name: str
    method: str = ""
    removed: float = 0.0
    net: str = "0"
    role: Role = "pruned"

    def __post_init__(self) -> None:
        if not self.name:
            raise DataError("a model has no name; give each one of its own.")
        if not 0 <= self.removed <= 1:
            raise DataError(
                f"model {self.name!r}: removed is the share of parameters that are gone, 0 to 1; "
                f"received {self.removed}."
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observed(Part):
    """One distribution, and what all subjects predicted on it, in their order.

    Attributes:
        distribution: its name.
        nominal: whether it is one that the networks were trained on.
        family: the kind of shift, such as "noise"; empty for none.
        labels: the true classes, ``(examples,)``, whole numbers.
        predicted: the classes predicted, ``(subjects, examples)``, whole numbers.
        confidence: the probability given to the class predicted, ``(subjects, examples)``.
        overlaps: of segmentations, the pixels of every class that are right, wrongly there and missed,
            ``(subjects, examples, classes, 3)``; then the three above are empty, ``(0,)`` and
            ``(subjects, 0)``. None for classifiers.

    Raises:
        DataError: there is no example, or the tensors do not fit each other.
    """

    distribution: str
    nominal: bool = False
    family: str = ""
    labels: Tensor
    predicted: Tensor
    confidence: Tensor
    overlaps: Tensor | None = None

    def __post_init__(self) -> None:
        name = f"distribution {self.distribution!r}"
        whole = [self.labels, self.predicted, *([] if self.overlaps is None else [self.overlaps])]
        if any(tensor.is_floating_point() or tensor.dtype == torch.bool for tensor in whole):
            raise DataError(f"{name}: labels, predicted classes and overlaps must be whole numbers.")
        examples = 0 if self.overlaps is not None else self.examples
        shapes = tuple(self.labels.shape), tuple(self.predicted.shape), tuple(self.confidence.shape)
        if (
            self.labels.ndim != 1
            or shapes[1:] != ((self.subjects, examples),) * 2
            or len(self.labels) != examples
        ):
            raise DataError(
                f"{name}: labels, predicted and confidence have shapes {shapes}, expected ({examples},) and "
                f"twice (models, {examples})."
            )
        if self.overlaps is not None and (self.overlaps.ndim != 4 or self.overlaps.shape[3] != 3):
            raise DataError(
                f"{name}: overlaps have shape {tuple(self.overlaps.shape)}, expected (models, examples, "
                "classes, 3)."
            )
        if not self.examples:
            raise DataError(f"{name} has no examples.")
        if any(tensor.numel() and int(tensor.min()) < 0 for tensor in whole):
            raise DataError(f"{name}: a label, predicted class or overlap is negative.")
        if not bool(((self.confidence >= 0) & (self.confidence <= 1 + 1e-6)).all()):
            raise DataError(f"{name}: a confidence is not a probability between 0 and 1.")

    @property
    def examples(self) -> int:
        """The number of examples."""
        return len(self.labels) if self.overlaps is None else self.overlaps.shape[1]

    @property
    def subjects(self) -> int:
        """The number of models."""
        return len(self.predicted if self.overlaps is None else self.overlaps)

    @property
    def wrong(self) -> torch.Tensor:
        """Whether each model is wrong on each example, ``(subjects, examples)``, bool.

        Raises:
            DataError: these are segmentations, which are right on some pixels and wrong on others.
        """
        self.check_classified()
        return self.predicted != self.labels

    def check_classified(self) -> None:
        """Refuse segmentations.

        Raises:
            DataError: these are some.
        """
        if self.overlaps is not None:
            raise DataError(
                f"distribution {self.distribution!r} holds segmentations; examples that are right or wrong "
                "as a whole, in one class, are those of classifiers."
            )

    @property
    def errors(self) -> tuple[Fraction, ...]:
        """The exact error of each model, 0 to 1, lower is better.

        The share of examples that are wrong; of segmentations, 1 less the mean intersection over union:
        summed over all examples first, then averaged over the classes that occur in labels or predictions.
        """
        if self.overlaps is None:
            return tuple(Fraction(int(count), self.examples) for count in self.wrong.sum(1))
        return tuple(1 - _mean_iou(counts.tolist()) for counts in self.overlaps.long().sum(1))


def _mean_iou(counts: Sequence[Sequence[int]]) -> Fraction:
    shares = [Fraction(row[0], sum(row)) for row in counts if sum(row)]
    return sum(shares, Fraction()) / len(shares) if shares else Fraction()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes(Record):
    """What :func:`shapleaf.assess` observed; everything else is worked out from it, without any model.

    Attributes:
        subjects: the models.
        observed: the distributions, with the predictions on them.
        classes: their names or numbers.
        settings: data, seeds, device, versions.

    Raises:
        DataError: two subjects or distributions of one name, or tensors that do not fit them.

    >>> import torch
    >>> labels = torch.tensor([0, 1])
    >>> sure = torch.ones(1, 2)
    >>> seen = Observed(distribution="clean", labels=labels, predicted=labels[None], confidence=sure)
    >>> print(Outcomes(subjects=(Subject(name="dense"),), observed=(seen,)))
    Outcomes of 1 model
    distribution  family  nominal  examples
    ────────────  ──────  ───────  ────────
    clean                 no              2
    """

    subjects: tuple[Subject, ...]
    observed: tuple[Observed, ...]
    classes: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named_apart("models", (one.name for one in self.subjects))
        named_apart("distributions", (one.distribution for one in self.observed))
        if len({one.overlaps is None for one in self.observed}) > 1:
            raise DataError("some distributions hold segmentations, others do not; put them in two records.")
        for one in self.observed:
            if one.subjects != len(self.subjects):
                raise DataError(
                    f"distribution {one.distribution!r} holds predictions of {count(one.subjects, 'model')}, "
                    f"expected {len(self.subjects)}."
                )
            most = (
                max(int(one.labels.max()), int(one.predicted.max())) + 1
                if one.overlaps is None
                else one.overlaps.shape[2]
            )
            if self.classes and most > len(self.classes):
                raise DataError(
                    f"distribution {one.distribution!r} holds {most} classes, but there are "
                    f"{len(self.classes)}."
                )

    def __getitem__(self, distribution: str) -> Observed:
        for one in self.observed:
            if one.distribution == distribution:
                return one
        known = ", ".join(one.distribution for one in self.observed)
        raise DataError(f"no distribution is named {distribution!r}; there are: {known}.")

    def index(self, subject: str) -> int:
        """Where a model stands in the tensors.

        Raises:
            DataError: no model is named so.
        """
        names = [one.name for one in self.subjects]
        if subject not in names:
            raise DataError(f"no model is named {subject!r}; there are: {', '.join(names)}.")
        return names.index(subject)

    def reference(self, net: str) -> int:
        """Where the reference of a net stands in the tensors.

        Raises:
            DataError: the net has no reference, or more than one.
        """
        found = [k for k, one in enumerate(self.subjects) if (one.role, one.net) == ("reference", net)]
        if len(found) != 1:
            raise DataError(
                f"net {net!r} has {len(found)} models of role 'reference', expected 1: the network before "
                "pruning, which the pruned ones are compared with."
            )
        return found[0]

    def curves(self) -> dict[tuple[str, str], tuple[int, ...]]:
        """Where the pruned models of each method and net stand in the tensors, fewest removed first.

        Raises:
            DataError: no model is pruned.
        """
        found: dict[tuple[str, str], list[int]] = {}
        for k, one in enumerate(self.subjects):
            if one.role == "pruned":
                found.setdefault((one.method, one.net), []).append(k)
        if not found:
            raise DataError("none of the models is pruned: give those that are role='pruned'.")
        return {key: tuple(sorted(ks, key=lambda k: self.subjects[k].removed)) for key, ks in found.items()}

    def table(self) -> dict[str, Any]:
        return {
            "title": f"Outcomes of {count(len(self.subjects), 'model')}",
            "header": ["distribution", "family", "nominal", "examples"],
            "rows": [[one.distribution, one.family, one.nominal, one.examples] for one in self.observed],
            "footer": ", ".join(f"{key}={value}" for key, value in self.settings.items()),
        }

"""Outcomes: what each of several models predicted on each of several distributions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .._store import Tensor
from .._table import count
from ..errors import DataError
from ._base import Part, Record

Role = Literal["reference", "pruned", "separate", "control"]


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
    """

    name: str
    method: str = ""
    removed: float = 0.0
    net: str = "0"
    role: Role = "pruned"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observed(Part):
    """One distribution, and what all subjects predicted on it, in their order.

    Attributes:
        distribution: its name.
        nominal: whether it is one that the networks were trained on.
        family: the kind of shift, such as "noise"; empty for none.
        labels: the true classes, ``(examples,)``; of segmentations, which have ``overlaps``, empty.
        predicted: the classes predicted, ``(subjects, examples)``.
        confidence: the probability given to the class predicted, ``(subjects, examples)``.
        overlaps: of segmentations, the pixels of every class that are right, wrongly there and missed,
            ``(subjects, examples, classes, 3)``; None for classifiers.
    """

    distribution: str
    nominal: bool = False
    family: str = ""
    labels: Tensor
    predicted: Tensor
    confidence: Tensor
    overlaps: Tensor | None = None


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

    def __getitem__(self, distribution: str) -> Observed:
        for one in self.observed:
            if one.distribution == distribution:
                return one
        known = ", ".join(one.distribution for one in self.observed)
        raise DataError(f"no distribution is named {distribution!r}; there are: {known}.")

    def table(self) -> dict[str, Any]:
        return {
            "title": f"Outcomes of {count(len(self.subjects), 'model')}",
            "header": ["distribution", "family", "nominal", "examples"],
            "rows": [
                [one.distribution, one.family, one.nominal, one.predicted.shape[-1]] for one in self.observed
            ],
            "footer": ", ".join(f"{key}={value}" for key, value in self.settings.items()),
        }

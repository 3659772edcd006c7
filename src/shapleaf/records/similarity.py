"""Noise similarity: how far pruned models still do what their reference does when the inputs are noisy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch

from .._store import Tensor
from .._table import count
from ..errors import DataError
from ._base import Record
from .outcomes import Subject


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NoisePotential(Record):
    """How much can be removed of models whose inputs are noisy, higher is better.

    Attributes:
        methods: how the models of each curve were pruned.
        references: the model each curve is compared with.
        epsilons: the noise's largest size, in units of the inputs (after normalisation: their std).
        removed: the largest share of parameters removed whose accuracy is above the reference's minus
            ``delta``, 0 if there is none, ``(curves, epsilons, draws)``.
        delta: the loss of accuracy that is still allowed, as a share.

    >>> kept = torch.tensor([[[0.5, 0.5, 0.8]]])
    >>> found = NoisePotential(methods=("WT",), references=("dense",), epsilons=(0.1,), removed=kept)
    >>> print(found)
    Prune potential under noise, accuracy lost below 0.5 points
    method  against  epsilon  removed %  ± over draws
    ──────  ───────  ───────  ─────────  ────────────
    WT      dense        0.1         60            10
    """

    methods: tuple[str, ...]
    references: tuple[str, ...]
    epsilons: tuple[float, ...]
    removed: Tensor
    delta: float = 0.005

    @property
    def mean(self) -> torch.Tensor:
        """Mean over draws, ``(curves, epsilons)``."""
        return self.removed.mean(-1)

    @property
    def deviation(self) -> torch.Tensor:
        """Median over draws of the distance to their mean, ``(curves, epsilons)``."""
        return (self.removed - self.mean[..., None]).abs().quantile(0.5, -1)

    def table(self) -> dict[str, Any]:
        mean, deviation = self.mean, self.deviation
        rows = [
            [method, against, epsilon, *(round(100 * float(x[c, e]), 2) for x in (mean, deviation))]
            for c, (method, against) in enumerate(zip(self.methods, self.references, strict=True))
            for e, epsilon in enumerate(self.epsilons)
        ]
        return {
            "title": f"Prune potential under noise, accuracy lost below {100 * self.delta:g} points",
            "header": ["method", "against", "epsilon", "removed %", "± over draws"],
            "rows": rows,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NoiseSimilarity(Record):
    """What :func:`shapleaf.noise_similarity` measured: models and their references on the same noisy inputs.

    Attributes:
        subjects: the models, references among them.
        against: the name of the reference that each is compared with; a reference's own is itself.
        epsilons: the noise's largest size, in units of the inputs (after normalisation: their std).
        examples: the number of examples.
        matching: share of examples on which the model and its reference predict the same class,
            ``(subjects, epsilons, draws)``, 0 to 1, higher is more alike.
        matching_interval: ends of the 95 % interval of its mean over draws, as examples vary,
            ``(subjects, epsilons, 2)``.
        distance: Euclidean distance between the two models' class probabilities, mean over examples,
            ``(subjects, epsilons, draws)``, 0 to 1.414, lower is more alike.
        distance_interval: as ``matching_interval``.
        correct: the number of positions that each model got right, int64, ``(subjects, epsilons, draws)``;
            None without labels.
        scored: how many positions those are out of: one per example, or one per pixel of a segmentation.
        settings: draws, seed, versions.

    Raises:
        DataError: tensors that do not fit the subjects and epsilons.

    >>> dense, half = Subject(name="dense", role="reference"), Subject(name="half", method="WT", removed=0.5)
    >>> found = NoiseSimilarity(
    ...     subjects=(dense, half), against=("dense", "dense"), epsilons=(0.5,), examples=100, scored=100,
    ...     matching=torch.tensor([[[1.0, 1.0]], [[0.8, 0.9]]]), distance=torch.tensor([[[0.0]], [[0.1]]]),
    ...     matching_interval=torch.tensor([[[0.96, 1.0]], [[0.77, 0.91]]]),
    ...     distance_interval=torch.tensor([[[0.0, 0.0]], [[0.08, 0.12]]]),
    ...     correct=torch.tensor([[[90, 92]], [[90, 85]]]),
    ... )
    >>> print(found)
    Similarity to the reference under uniform noise on [-epsilon, epsilon], 100 examples
    subject  against  removed %  epsilon  matching %  ±  95 %      distance  ±  95 %          accuracy %
    ───────  ───────  ─────────  ───────  ──────────  ─  ────────  ────────  ─  ────────────  ──────────
    half     dense           50      0.5          85  5  77 to 91       0.1  0  0.08 to 0.12        87.5
    dense    -                0      0.5           -  -  -                -  -  -                     91
    >>> found.potential().removed.tolist()
    [[[0.5, 0.0]]]
    """

    subjects: tuple[Subject, ...]
    against: tuple[str, ...]
    epsilons: tuple[float, ...]
    examples: int
    matching: Tensor
    matching_interval: Tensor
    distance: Tensor
    distance_interval: Tensor
    correct: Tensor | None = None
    scored: int = 0
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse tensors that do not fit."""
        lead = (len(self.subjects), len(self.epsilons))
        if len(self.against) != len(self.subjects):
            raise DataError(f"{len(self.subjects)} subjects, but {len(self.against)} names in against.")
        for name in ("matching", "matching_interval", "distance", "distance_interval", "correct"):
            tensor = getattr(self, name)
            if tensor is not None and (tensor.ndim != 3 or tuple(tensor.shape[:2]) != lead):
                raise DataError(
                    f"{name} has shape {tuple(tensor.shape)}, expected {lead[0]} subjects x "
                    f"{lead[1]} epsilons and a third axis."
                )

    @property
    def accuracy(self) -> torch.Tensor:
        """Share of positions right, ``(subjects, epsilons, draws)``.

        Raises:
            DataError: the data had no labels.
        """
        return self._right.double() / self.scored

    @property
    def _right(self) -> torch.Tensor:
        if self.correct is None:
            raise DataError("the data had no labels, so there is no accuracy; give batches (inputs, labels).")
        return self.correct

    def potential(self, delta: float = 0.005) -> NoisePotential:
        """How much can be removed under noise, for each method and reference with pruned subjects.

        In every draw it is the largest share removed whose accuracy is above (not equal to) the reference's
        minus ``delta``, on the same noisy inputs ("Lost in Pruning", Liebenwein et al. 2021).

        Args:
            delta: the loss of accuracy that is still allowed, as a share: 0.005 is half a point.

        Raises:
            DataError: the data had no labels, or no subject is pruned.
        """
        names = [subject.name for subject in self.subjects]
        curves = dict[tuple[str, str], list[int]]()
        for i, subject in enumerate(self.subjects):
            if subject.role == "pruned":
                curves.setdefault((subject.method, self.against[i]), []).append(i)
        if not curves:
            raise DataError("no subject has the role 'pruned', so there is no potential.")
        exact = Fraction(str(delta))  # counts are compared, for a float's rounding would decide on equality
        found = []
        for (_, against), members in curves.items():
            gain = self._right[members] - self._right[names.index(against)]
            good = gain * exact.denominator + exact.numerator * self.scored > 0
            removed = torch.tensor([self.subjects[i].removed for i in members], dtype=torch.float64)
            found.append((good * removed[:, None, None]).amax(0))
        return NoisePotential(
            methods=tuple(method for method, _ in curves),
            references=tuple(against for _, against in curves),
            epsilons=self.epsilons,
            removed=torch.stack(found),
            delta=delta,
        )

    def table(self) -> dict[str, Any]:
        compared = [i for i, one in enumerate(self.subjects) if one.name != self.against[i]]
        alone = [i for i in range(len(self.subjects)) if i not in compared]
        return {
            "title": "Similarity to the reference under uniform noise on [-epsilon, epsilon], "
            + count(self.examples, "example"),
            "header": [
                *("subject", "against", "removed %", "epsilon"),
                *("matching %", "±", "95 %", "distance", "±", "95 %", "accuracy %"),
            ],
            "rows": [
                self._row(i, e, compared=i in compared)
                for i in compared + alone
                for e in range(len(self.epsilons))
            ],
            "footer": ", ".join(f"{key}={value}" for key, value in self.settings.items()),
        }

    def _row(self, i: int, e: int, *, compared: bool) -> Sequence[object]:
        subject = self.subjects[i]
        right = None if self.correct is None else 100 * float(self.accuracy[i, e].mean())
        start = [subject.name, self.against[i] if compared else None, 100 * subject.removed, self.epsilons[e]]
        if not compared:
            return [*start, *[None] * 6, right]
        found = list[object]()
        for values, ends, unit in (
            (self.matching[i, e], self.matching_interval[i, e], 100),
            (self.distance[i, e], self.distance_interval[i, e], 1),
        ):
            low, high = (f"{unit * float(end):.3g}" for end in ends)
            same = bool((values == values[0]).all())  # rounding would make some of it
            spread = 0.0 if same else float(f"{unit * float(values.double().std(correction=0)):.3g}")
            found += [float(f"{unit * float(values.double().mean()):.5g}"), spread, f"{low} to {high}"]
        return [*start, *found, right]

"""Models that are functions, and outcomes made by hand: wrong on the examples that a test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shapleaf.records import Observed, Outcomes, Subject


class Fn(nn.Module):
    """A function as a model."""

    def __init__(self, f: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Any:
        return self.f(x)


def seen(
    name: str, wrong: Sequence[Sequence[int] | int], examples: int, *, nominal: bool = False, family: str = ""
) -> Observed:
    """Two classes, labels 0: each model is wrong on its first so many examples, or on those listed."""
    predicted = torch.zeros(len(wrong), examples, dtype=torch.int64)
    for row, which in zip(predicted, wrong, strict=True):
        row[list(range(which)) if isinstance(which, int) else list(which)] = 1
    return Observed(
        distribution=name,
        nominal=nominal,
        family=family,
        labels=torch.zeros(examples, dtype=torch.int64),
        predicted=predicted,
        confidence=torch.full((len(wrong), examples), 0.9),
    )


def chain(
    removed: Sequence[float], observed: Sequence[Observed], method: str = "WT", net: str = "0"
) -> Outcomes:
    """A reference and its pruned models, in this order."""
    dense = Subject(name=f"dense {net}", role="reference", net=net)
    pruned = [Subject(name=f"{method} {net} {r}", method=method, removed=r, net=net) for r in removed]
    return Outcomes(subjects=(dense, *pruned), observed=tuple(observed), classes=("right", "wrong"))


def joined(*chains: Outcomes) -> Outcomes:
    """Several chains on the same distributions as one record."""
    parts = zip(*(one.observed for one in chains), strict=True)
    return Outcomes(
        subjects=tuple(subject for one in chains for subject in one.subjects),
        observed=tuple(
            Observed(
                distribution=same[0].distribution,
                nominal=same[0].nominal,
                family=same[0].family,
                labels=same[0].labels,
                predicted=torch.cat([one.predicted for one in same]),
                confidence=torch.cat([one.confidence for one in same]),
            )
            for same in parts
        ),
        classes=chains[0].classes,
    )


def masks(
    counts: Sequence[Sequence[Sequence[int]]], name: str = "clean", *, nominal: bool = True
) -> Observed:
    """Segmentations of two classes: for each model and example right, wrong and missed of class 1.

    Nothing is said of class 0: its pixels are ignored.
    """
    overlaps = torch.zeros(len(counts), len(counts[0]), 2, 3, dtype=torch.int32)
    overlaps[:, :, 1] = torch.tensor(counts, dtype=torch.int32)
    return Observed(
        distribution=name,
        nominal=nominal,
        labels=torch.empty(0, dtype=torch.int64),
        predicted=torch.empty(len(counts), 0, dtype=torch.int16),
        confidence=torch.empty(len(counts), 0),
        overlaps=overlaps,
    )

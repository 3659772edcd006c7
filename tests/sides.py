"""Criteria by hand, and a comparison of some made by hand: for the tests of comparison, record and page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from shapleaf.criteria import Needs, Probe
from shapleaf.records import (
    Compared,
    Comparison,
    PruningCurve,
    PruningCurves,
    RankCorrelation,
    Stability,
)

RATES = (0.0, 0.25, 0.5, 0.75)
EXAMPLES = 20
REFIT = "LeastSquares(data)"
WORTH = (0.1, 0.4, 0.2, 0.3)


@dataclass(frozen=True)
class Fixed:
    """The scores that it was given."""

    values: tuple[float, ...]
    needs: ClassVar[Needs] = Needs.NOTHING

    def score(self, probe: Probe) -> Tensor:
        return torch.tensor(self.values)


@dataclass(frozen=True)
class Seen:
    """What each unit is in each example, and which examples were asked for, time after time."""

    asked: list[tuple[int, ...]] = field(default_factory=list)
    needs: ClassVar[Needs] = Needs.ACTIVATION

    def score(self, probe: Probe) -> Tensor:
        self.asked.append(probe.ids)
        return probe.activation.flatten(2).sum(2) if probe.activation.ndim > 2 else probe.activation


def gain(output: Tensor, target: Tensor) -> Tensor:
    """A loss that is linear in the units: minus the output."""
    return -output[:, 0]


def ids(asked: Sequence[tuple[int, ...]]) -> list[int]:
    return [example for one in asked for example in one]


def curve(name: str, right: tuple[int, ...], **more: str) -> PruningCurve:
    """A curve with so many of 20 examples right at each rate."""
    rows = [[k < count for k in range(EXAMPLES)] for count in right]
    return PruningCurve(criterion=name, rates=RATES, removed=RATES, params=(1.0, 0.8, 0.6, 0.4),
                        macs=(1.0, 0.8, 0.6, 0.4), right=torch.tensor(rows), **more)  # fmt: skip


def comparison(count: int = 3, prefix: str = "", refit: bool = False) -> Comparison:
    """So many criteria; the first ones are good ones, none is the last one, which reads no data."""
    names = [f"{prefix}criterion {k}" for k in range(count)]
    step = 1 / max(count - 1, 1)
    criteria, curves = [], []
    for k, name in enumerate(names):
        good = 1 - k * step
        data = k < count - 1
        criteria.append(
            Compared(
                name=name,
                criterion=f"Mine({k})",
                wall=2.0 + k,
                cpu=1.5 + k,
                steps=3.0 + 60 * k,
                evaluations=100 * k or None,
                sensitivity=good - 0.2,
                ablation=RankCorrelation(within=good - 0.1, overall=good),
                stability=tuple(
                    Stability(within=good * share, overall=None, samples=samples, draws=3)
                    for samples, share in ((10, 0.5), (30, 0.75))
                    if data
                ),
            )
        )
        kept = (20, 20 - 2 * k if k < 10 else 0, max(0, 18 - 4 * k), 8 - min(k, 8))
        curves.append(curve(name, kept))
        curves.append(curve(name, (20, 4, 2, 2), order="most"))
        if refit:
            curves.append(curve(name, (20, 20, 19, 12), compensation=REFIT))
    places = torch.arange(count, dtype=torch.float64)
    alike = 1 - 2 * step * (places[:, None] - places[None]).abs()
    return Comparison(
        criteria=tuple(criteria),
        within=alike,
        overall=alike.clone(),
        shares=(0.25, 0.5),
        overlaps=torch.stack([(alike + 1) / 2] * 2),
        scores={name: {"conv": torch.arange(4.0)} for name in names},
        curves=PruningCurves(curves=tuple(curves)),
        step=0.5,
        settings={"examples": "100", "seed": "0"},
    )

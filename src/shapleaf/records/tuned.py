"""Tuned: the rules of relevance that pruned best, and whether what they gained holds elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .._table import count
from ..errors import DataError
from ._base import Part, Record
from .pruning_curves import PruningCurves

PARTS = ("reference", "selection", "test")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tried(Part):
    """A preset that was tried.

    Attributes:
        number: of the trial, from 0, which is epsilon everywhere.
        choices: what it chose, by name.
        area: the A_PR on the selection examples.
    """

    number: int
    choices: dict[str, str | float]
    area: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tuned(Record):
    """What :func:`shapleaf.tune` found.

    Attributes:
        trials: in the order of their numbers.
        preset: the criterion that was best on the selection, as JSON values; ``LRP.from_json(preset)``
            makes it.
        areas: the A_PR on the reference, the selection and the test examples, of ``"tuned"``, ``"epsilon"``
            and, where it is another, ``"default"``: ``LRP()``.
        curves: those on the test examples.
        gain: by how much the A_PR on the test examples exceeds that of epsilon, and the ends of its 95 %
            interval.
        settings: what was chosen from, how, and versions.

    Raises:
        DataError: there are no trials, or no areas of ``"tuned"`` and ``"epsilon"`` on all parts.

    >>> areas = {"reference": 0.8, "selection": 0.6, "test": 0.5}
    >>> better = {name: area + 0.125 for name, area in areas.items()}
    >>> print(Tuned(
    ...     trials=(Tried(number=2, choices={"linear": "ZPlus"}, area=0.725),), preset={"criterion": "LRP"},
    ...     areas={"tuned": better, "epsilon": areas}, curves=PruningCurves(curves=()),
    ...     gain=(0.125, 0.1, 0.15),
    ... ))
    Rules tuned for pruning: 1 trial, best number 2
    A_PR     reference  selection   test
    ───────  ─────────  ─────────  ─────
    tuned        0.925      0.725  0.625
    epsilon        0.8        0.6    0.5
    linear=ZPlus
    the gain of 0.125 over epsilon everywhere on the selection is 0.125 (0.100 to 0.150) on the test: it holds
    """

    trials: tuple[Tried, ...]
    preset: dict[str, Any]
    areas: dict[str, dict[str, float]]
    curves: PruningCurves
    gain: tuple[float, float, float]
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        complete = all(
            set(self.areas.get(name, ())) == {*PARTS} for name in ("tuned", "epsilon", *self.areas)
        )
        if not self.trials or not complete:
            raise DataError(
                f"a tuning has trials, and areas of tuned and epsilon on {', '.join(PARTS)}; received "
                f"{count(len(self.trials), 'trial')} and areas {self.areas}."
            )

    @property
    def best(self) -> Tried:
        """The trial with the highest area, the first of several."""
        return max(self.trials, key=lambda one: (one.area, -one.number))

    @property
    def holds(self) -> bool:
        """Whether the gain is above chance on the test examples: its interval lies above zero."""
        return self.gain[1] > 0

    def table(self) -> dict[str, Any]:
        before = self.areas["tuned"]["selection"] - self.areas["epsilon"]["selection"]
        mean, low, high = self.gain
        ends = f"{mean:.3f} ({low:.3f} to {high:.3f}) on the test"
        verdict = "it holds" if self.holds else "it is worse" if high < 0 else "it may be chance"
        said = f"the gain of {before:.3f} over epsilon everywhere on the selection is {ends}: {verdict}"
        if not self.best.number:
            said = "nothing that was tried is better on the selection than epsilon everywhere"
        choices = (f"{k}={v if isinstance(v, str) else f'{v:.3g}'}" for k, v in self.best.choices.items())
        return {
            "title": f"Rules tuned for pruning: {count(len(self.trials), 'trial')}, "
            f"best number {self.best.number}",
            "header": ["A_PR", *PARTS],
            "rows": [[name, *(found[part] for part in PARTS)] for name, found in self.areas.items()],
            "footer": f"{', '.join(choices)}\n{said}",
        }

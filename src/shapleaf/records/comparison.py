"""Comparison: how criteria rank units, what they are good for, and what they cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from .._intervals import Z
from .._store import Tensor
from .._table import count, enumerated
from ..errors import DataError
from ._base import Part, Record
from .faithfulness import Faithfulness
from .pruning_curves import Order, PruningCurve, PruningCurves


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankCorrelation(Part):
    """Spearman's rank correlation of two scores of the same units, from -1 to 1; None where nothing varies.

    Attributes:
        within: in each group, averaged over the groups by their units: what ranking group by group goes by.
        overall: over all units in one list: what ranking across groups goes by.
    """

    within: float | None
    overall: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stability(RankCorrelation):
    """The mean rank correlation of scores from few examples with those of all.

    Attributes:
        samples: how many examples.
        draws: sets of so many over which it is the mean.
    """

    samples: int
    draws: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compared(Part):
    """What was measured of one criterion alone.

    Attributes:
        name: of the criterion in the comparison.
        criterion: as written in Python.
        wall: seconds that attribution took, by the clock.
        cpu: seconds of all processor cores together.
        steps: the same in training steps, forward and backward over the same data: in time of the processor,
            on an accelerator by the clock; None of a model that no gradient goes through.
        evaluations: forward passes of all examples, where scores report them; a backward counts 2.
        sensitivity: pooled area of Sensitivity-n, the mean over groups by units; None if it was not measured.
        ablation: rank correlation of the scores with the rise of the loss when a unit alone is removed.
        stability: one for each number of examples; empty for a criterion that reads no data.
    """

    name: str
    criterion: str
    wall: float
    cpu: float
    steps: float | None
    evaluations: int | None = None
    sensitivity: float | None = None
    ablation: RankCorrelation | None = None
    stability: tuple[Stability, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison(Record):
    """What :func:`shapleaf.compare` measured.

    Attributes:
        criteria: what was measured of each alone.
        within: rank correlation of every two, in each group and averaged by units, ``(criteria, criteria)``.
        overall: that over all units in one list.
        shares: the shares of the units of which the removed sets are compared.
        overlaps: what the sets removed at each share have in common, of their size: 1 for the same sets, the
            share itself by chance, ``(shares, criteria, criteria)``.
        scores: by criterion and group, ``(units,)``.
        curves: accuracy as units are removed; None if it was not measured.
        faithfulness: Sensitivity-n of every group; None if it was not measured.
        step: seconds of the processor for one training step on the calibration data, if there is one.
        settings: of the comparison; numbers of examples, seed, versions.

    Raises:
        DataError: matrices that do not fit the criteria, or two criteria of one name.

    >>> norm = Compared(name="norm", criterion="WeightNorm()", wall=0.5, cpu=0.5, steps=0.25)
    >>> taylor = Compared(name="taylor", criterion="Taylor()", wall=4.0, cpu=4.0, steps=2.0)
    >>> alike = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    >>> found = Comparison(criteria=(norm, taylor), within=alike, overall=alike)
    >>> print(found)
    Comparison of 2 criteria
    criterion  seconds  steps
    ─────────  ───────  ─────
    norm           0.5   0.25
    taylor           4      2
    >>> found.correlation("norm", "taylor").within
    0.5
    """

    criteria: tuple[Compared, ...]
    within: Tensor
    overall: Tensor
    shares: tuple[float, ...] = ()
    overlaps: Tensor = field(default_factory=lambda: torch.zeros(0))
    scores: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    curves: PruningCurves | None = None
    faithfulness: Faithfulness | None = None
    step: float | None = 0.0
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = self.names
        if len(set(names)) < len(names):
            raise DataError(f"criteria need different names, received {', '.join(names)}.")
        square = (len(names), len(names))
        shapes = {"within": square, "overall": square, "overlaps": (len(self.shares), *square)}
        for name, shape in shapes.items():
            found = getattr(self, name)
            if found.shape != shape and (name != "overlaps" or self.shares):
                raise DataError(f"{name} of {count(len(names), 'criterion', 'criteria')} must be {shape}, "
                                f"received {tuple(found.shape)}.")  # fmt: skip
            object.__setattr__(self, name, found.detach().cpu().double())

    @property
    def names(self) -> tuple[str, ...]:
        """The criteria's names."""
        return tuple(one.name for one in self.criteria)

    def __getitem__(self, name: str) -> Compared:
        return self.criteria[self._place(name)]

    def correlation(self, a: str, b: str) -> RankCorrelation:
        """How alike two criteria rank the units.

        Raises:
            KeyError: there is no such criterion.
        """
        i, j = self._place(a), self._place(b)
        within, overall = (float(matrix[i, j]) for matrix in (self.within, self.overall))
        return RankCorrelation(
            within=None if within != within else within,  # noqa: PLR0124 - a NaN is not itself
            overall=None if overall != overall else overall,  # noqa: PLR0124
        )

    def overlap(self, a: str, b: str, share: float) -> float:
        """What the sets have in common that two criteria remove at a share of the units.

        Raises:
            KeyError: there is no such criterion or share.
        """
        if share not in self.shares:
            raise KeyError(f"no overlap at {share}; measured: {', '.join(map(str, self.shares)) or 'none'}")
        return float(self.overlaps[self.shares.index(share), self._place(a), self._place(b)])

    def curve(self, name: str, order: Order = "least", compensation: str = "none") -> PruningCurve | None:
        """The pruning curve of a criterion; None if it was not measured."""
        found = () if self.curves is None else self.curves.curves
        key = (name, order, compensation)
        return next((one for one in found if (one.criterion, one.order, one.compensation) == key), None)

    def ordered(self, order: Order = "least", compensation: str = "none") -> dict[str, PruningCurve]:
        """The pruning curves of one order by criterion, of those that were measured."""
        curves = {name: self.curve(name, order, compensation) for name in self.names}
        return {name: curve for name, curve in curves.items() if curve is not None}

    def leaders(self, order: Order = "least", compensation: str = "none") -> tuple[str, ...]:
        """The criterion whose curve has the largest area, and those that the examples cannot tell from it.

        A criterion can be told if its area is behind by more than 1.96 standard errors of the difference,
        paired by examples. The largest area comes first; empty where no curves were measured.
        """
        each = {name: c.right.double().mean(0) for name, c in self.ordered(order, compensation).items()}
        ranked = sorted(each, key=lambda name: -float(each[name].mean()))
        gaps = {name: each[ranked[0]] - each[name] for name in ranked}
        return tuple(
            name
            for name, gap in gaps.items()
            if len(gap) < 2 or gap.mean() <= Z * gap.std() / math.sqrt(len(gap))
        )

    @property
    def compensations(self) -> tuple[str, ...]:
        """Those with which curves were measured too."""
        found = () if self.curves is None else self.curves.compensations
        return tuple(name for name in found if name != "none")

    def _place(self, name: str) -> int:
        if name not in self.names:
            raise KeyError(f"no criterion {name!r}; compared: {', '.join(self.names)}")
        return self.names.index(name)

    def _columns(self) -> dict[str, list[object]]:
        """What the table shows of every criterion, by the head of the column."""
        columns: dict[str, list[object]] = {"criterion": list(self.names)}
        kinds: list[tuple[str, Order, str]] = [
            ("A_PR", "least", "none"),
            ("A_PR, most first", "most", "none"),
        ]
        kinds += [(f"A_PR, {name}", "least", name) for name in self.compensations]
        for head, order, compensation in kinds:
            found = [self.curve(name, order, compensation) for name in self.names]
            if any(found):
                columns[head] = [None if one is None else round(one.area, 4) for one in found]
                if head == "A_PR" and all(one is None or not one.rates[0] for one in found):
                    columns["Top-PR"] = [None if one is None else one.top() for one in found]
        columns["Sensitivity-n"] = [rounded(one.sensitivity) for one in self.criteria]
        alone = [one.ablation or RankCorrelation(within=None, overall=None) for one in self.criteria]
        columns["ablation"] = [rounded(one.within) for one in alone]
        columns["ablation, overall"] = [rounded(one.overall) for one in alone]
        for samples in dict.fromkeys(one.samples for c in self.criteria for one in c.stability):
            alike = [{s.samples: s.within for s in one.stability}.get(samples) for one in self.criteria]
            columns[f"stability at {samples}"] = [rounded(one) for one in alike]
        columns["seconds"] = [float(f"{one.cpu:.3g}") for one in self.criteria]
        columns["steps"] = [one.steps and float(f"{one.steps:.3g}") for one in self.criteria]
        columns["evaluations"] = [one.evaluations for one in self.criteria]
        return {head: cells for head, cells in columns.items() if set(cells) != {None}}

    def table(self) -> dict[str, Any]:
        columns = self._columns()
        leaders = self.leaders()
        alike = f"A_PR: {enumerated(leaders)} cannot be told apart." if len(leaders) > 1 else ""
        settings = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return {
            "title": f"Comparison of {count(len(self.criteria), 'criterion', 'criteria')}",
            "header": list(columns),
            "rows": [list(row) for row in zip(*columns.values(), strict=True)],
            "footer": "\n".join(filter(None, (alike, settings))),
        }


def rounded(value: float | None) -> float | None:
    """A correlation for a table cell.

    >>> rounded(0.12345), rounded(None)
    (0.123, None)
    """
    return None if value is None else round(value, 3)

"""LatencyTable: how long a model's calls take at several widths, and what any plan takes by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .._grids import Surface
from .._store import Tensor
from ..errors import DataError, PlanError, StaleGraphError
from ._base import Part, Record
from .graph import Axis, Graph
from .plan import Plan

Predictor = Callable[[Mapping[str, int]], float]
_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimedCall(Part):
    """A function call of the model's forward whose time was measured.

    Attributes:
        call: its name, ``module:function#k``.
        kind: calls of one function on arguments of the same shapes share this number.
        axes: the lengths that its time depends on, at most two.
    """

    call: str
    kind: int
    axes: tuple[Axis, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatencyTable(Record):
    """What :func:`shapleaf.profile` measured on one machine: the time of every call against its widths.

    Attributes:
        graph: of the model.
        calls: the timed calls.
        units: how many units each group kept, ``(runs, groups)``; the first run keeps all, later ones again.
        times: milliseconds of each call in each run, ``(runs, calls)``.
        whole: milliseconds of the whole model in each run, not interrupted by taking times, ``(runs,)``.
        planned: how many runs there are to be.
        seconds: how long measuring took.
        settings: machine, device, dtype, inputs, threads, clock and versions.

    Raises:
        PlanError: its parts do not fit each other.

    >>> import shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> graph = sl.trace(model, torch.zeros(1, 3))
    >>> call = TimedCall(call="0:linear#0", kind=0, axes=(Axis(fixed=0, groups=("0",), per_unit=(1.0,)),))
    >>> times = torch.tensor([0.8, 0.4, 0.2])
    >>> units = torch.tensor([[8], [4], [2]])
    >>> table = LatencyTable(
    ...     graph=graph, calls=(call,), units=units, times=times[:, None], whole=times + 0.1, planned=3
    ... )
    >>> f"{table.predict(sl.plan(graph, {'0': range(3)})):.1f} of {table.dense:.1f} ms"
    '0.4 of 0.9 ms'
    """

    graph: Graph
    calls: tuple[TimedCall, ...]
    units: Tensor
    times: Tensor
    whole: Tensor
    planned: int
    seconds: float = 0.0
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        runs, groups = len(self.units), {group.name for group in self.graph}
        shapes = tuple(self.units.shape), tuple(self.times.shape), tuple(self.whole.shape)
        if shapes != ((runs, len(groups)), (runs, len(self.calls)), (runs,)):
            raise PlanError(
                f"the latency table is inconsistent: units, times and whole have shapes {shapes}, expected "
                f"(runs, {len(groups)}), (runs, {len(self.calls)}) and (runs,)."
            )
        for axis in (axis for timed in self.calls for axis in timed.axes):
            if len(axis.groups) != len(axis.per_unit) or not {*axis.groups} <= groups:
                raise PlanError(f"the latency table is inconsistent: {axis} names unknown groups.")
        if self.planned < 1:
            raise PlanError(f"the latency table is inconsistent: {self.planned} runs are planned.")
        sizes = torch.tensor([group.size for group in self.graph])
        if not bool(((self.units >= 1) & (self.units <= sizes)).all()) or not bool(self._dense[:1].all()):
            raise PlanError(
                "the latency table is inconsistent: its units must be those of its groups, and all of them "
                "in the first run."
            )
        if not bool((self.times > 0).all() and (self.whole > 0).all()):
            raise PlanError("the latency table is inconsistent: a time is not positive.")

    @property
    def complete(self) -> bool:
        """Whether everything was measured that was to be."""
        return len(self.units) >= self.planned

    @property
    def _dense(self) -> torch.Tensor:
        return (self.units == torch.tensor([group.size for group in self.graph])).all(1)

    @property
    def dense(self) -> float:
        """Milliseconds of the model as it is: the median of its runs."""
        return float(self.whole[self._dense].double().median())

    def check(self, graph: Graph) -> None:
        """Refuse another graph, and a table that was not finished.

        Raises:
            StaleGraphError: the table was made for another model, or its groups are others.
            DataError: measuring was interrupted.
        """
        self.belongs(graph)
        if not self.complete:
            raise DataError(
                f"the latency table was not finished: {len(self.units)} of {self.planned} runs were made. "
                "Call profile again with the same path, and it goes on from there."
            )

    def belongs(self, graph: Graph) -> None:
        """Refuse another graph.

        Raises:
            StaleGraphError: the table was made for another model, or its groups are others.
        """
        mine, other = ({g.name: g.size for g in one} for one in (self.graph, graph))
        if self.graph.fingerprint != graph.fingerprint or mine != other:
            raise StaleGraphError(
                f"the latency table belongs to another model: it was made for graph "
                f"{self.graph.fingerprint} with {len(mine)} groups, not for {graph.fingerprint} with "
                f"{len(other)}. Make one of this model: shapleaf.profile(model, graph, inputs)."
            )

    def predict(self, plan: Plan) -> float:
        """Milliseconds that the model takes under a plan, by interpolation; nothing is run.

        Raises:
            StaleGraphError, DataError: as :meth:`check`.
        """
        self.check(plan.graph)
        return self.predictor()({name: len(units) for name, units in plan.keep.items()})

    def predictor(self) -> Predictor:
        """From how many units each group keeps (all where not named) to milliseconds.

        The times of calls are added up. A line through the times of the whole model maps their sum to it:
        what runs between the calls, and what taking times adds. The model as it is takes what was measured.
        """
        names = [group.name for group in self.graph]
        sizes = np.array([group.size for group in self.graph], float)
        fit = self._fit(np.arange(len(self.units)))

        def predict(kept: Mapping[str, int]) -> float:
            row = np.array([kept.get(name, size) for name, size in zip(names, sizes, strict=True)], float)
            return self.dense if bool((row == sizes).all()) else float(fit(row[None])[0])

        return predict

    @property
    def errors(self) -> np.ndarray:
        """Of each run that prunes, the relative error of predicting it from the others, a fifth at a time."""
        pruned = np.flatnonzero(~self._dense.numpy())
        whole, units = self.whole.double().numpy(), self.units.double().numpy()
        found = []
        for fold in range(_FOLDS):
            out = pruned[fold::_FOLDS]
            fit = self._fit(np.setdiff1d(np.arange(len(units)), out))
            found.append(fit(units[out]) / whole[out] - 1)
        return np.concatenate(found)

    def _fit(self, runs: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Counts ``(plans, groups)`` to milliseconds, from some of the runs."""
        units, lengths = self.units.double().numpy(), self._lengths()
        times, whole = self.times.double().numpy()[runs], self.whole.double().numpy()[runs]
        surfaces = {
            kind: Surface(
                np.concatenate([lengths[i](units[runs]) for i in members]),
                np.concatenate([times[:, i] for i in members]),
            )
            for kind, members in self._kinds().items()
        }
        # From one step of an order to the next, few calls change their widths.
        known: dict[tuple[int, bytes], np.ndarray] = {}

        def total(counts: np.ndarray) -> np.ndarray:
            found = np.zeros(len(counts))
            for timed, lengths_of in zip(self.calls, lengths, strict=True):
                widths = lengths_of(counts)
                key = (timed.kind, widths.tobytes())
                if key not in known:
                    known[key] = surfaces[timed.kind](widths)
                found += known[key]
            return found

        line = _line(total(units[runs]), whole)
        return lambda counts: np.maximum(line[0] + line[1] * total(counts), 1e-6)

    def _kinds(self) -> dict[int, list[int]]:
        """The calls of each kind."""
        found: dict[int, list[int]] = {}
        for i, timed in enumerate(self.calls):
            found.setdefault(timed.kind, []).append(i)
        return found

    def _lengths(self) -> list[Callable[[np.ndarray], np.ndarray]]:
        """Of each call, counts ``(plans, groups)`` to the lengths of its axes ``(plans, axes)``."""
        at = {group.name: i for i, group in enumerate(self.graph)}

        def lengths(timed: TimedCall) -> Callable[[np.ndarray], np.ndarray]:
            fixed = np.array([axis.fixed for axis in timed.axes], float)
            per_unit = np.zeros((len(at), len(timed.axes)))
            for column, axis in enumerate(timed.axes):
                for name, each in zip(axis.groups, axis.per_unit, strict=True):
                    per_unit[at[name], column] += each
            return lambda counts: np.maximum(counts @ per_unit + fixed, 1e-9)

        return [lengths(timed) for timed in self.calls]

    def table(self) -> dict[str, Any]:
        shares = (1.0, 0.75, 0.5, 0.25)
        sizes = np.array([group.size for group in self.graph], float)
        rows: list[list[object]] = []
        units, times, lengths = self.units.double().numpy(), self.times.double().numpy(), self._lengths()
        for members in self._kinds().values() if len(units) else ():
            first = members[0]
            if not self.calls[first].axes:
                continue
            at = lengths[first](np.maximum(np.round(np.outer(shares, sizes)), 1))
            widths = np.concatenate([lengths[i](units) for i in members])
            found = Surface(widths, np.concatenate([times[:, i] for i in members]))(at)
            dense = " x ".join(f"{length:g}" for length in at[0])
            rows.append([self.calls[first].call, len(members), dense, *(float(f"{t:.3g}") for t in found)])
        footer = [f"whole model {self.dense:.4g} ms, measured in {self.seconds:.0f} s"]
        errors = np.abs(self.errors) if self.complete else np.zeros(0)
        if len(errors):
            footer[0] += (
                f"; a fifth of the {len(errors)} pruned models predicted from the others: "
                f"off by {np.median(errors):.1%} in the median, {np.quantile(errors, 0.9):.1%} in nine of ten"
            )
        if not self.complete:
            footer.append(f"not finished: {len(self.units)} of {self.planned} runs")
        footer.append(", ".join(f"{key}={value}" for key, value in self.settings.items()))
        return {
            "title": "Milliseconds of calls against the share of units kept",
            "header": ["call", "calls alike", "widths", *(f"{share:.0%}" for share in shares)],
            "rows": rows,
            "footer": "\n".join(footer),
        }


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Offset and slope with the least relative deviations, those beyond a tenth counting less."""
    design, weights = np.stack([np.ones(len(x)), x], 1), 1 / y
    for _ in range(5):
        offset, slope = np.linalg.lstsq(design * weights[:, None], y * weights, rcond=None)[0]
        weights = 1 / y / np.sqrt(np.maximum(1, np.abs(offset + slope * x - y) / y / 0.1))
    return float(offset), float(slope)

"""Scores: what each unit is worth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from .._store import Tensor
from .._table import count
from ..errors import CriterionError
from ._base import Record
from .graph import Graph


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores(Record):
    """What :func:`shapleaf.attribute` measured: higher means needed more.

    Attributes:
        graph: the graph that was scored.
        values: group name to scores, ``(units,)``, or ``(examples, units)`` if not aggregated.
        stderr: group name to standard errors in the same shape; absent where nothing was sampled.
        samples: number of examples seen.
        evaluations: group name to forward passes of all examples spent (forward plus backward counts 3).
        stopped: group name to what ended the sampling, where that was open.
        criterion: the criterion, as written in Python.
        curves: group name to rows (units removed, rise of the loss, standard error), if scanned.
        settings: everything else that made the scores: aggregation, loss, seed, versions.

    Raises:
        PlanError: a group that the graph does not have.
        CriterionError: scores, standard errors or curves of the wrong shape.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> graph = sl.trace(model, torch.zeros(1, 3))
    >>> print(sl.Scores(graph=graph, values={"0": torch.tensor([3.0, -1.0, 2.0, 5.0])}, criterion="mine"))
    Scores by mine, 0 examples
    group  units  min  median  max  stderr  negative  evaluations
    ─────  ─────  ───  ──────  ───  ──────  ────────  ───────────
    0          4   -1       2    5       -         1            -
    """

    graph: Graph
    values: dict[str, Tensor]
    stderr: dict[str, Tensor] = field(default_factory=dict)
    samples: int = 0
    evaluations: dict[str, int] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    criterion: str = ""
    curves: dict[str, Tensor] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for group, values in self.values.items():
            units = self.graph[group].size
            if values.ndim not in (1, 2) or values.shape[-1] != units:
                raise CriterionError(
                    f"scores of group {group} must have shape ({units},) or (examples, {units}), "
                    f"received {tuple(values.shape)}."
                )
        for group, errors in self.stderr.items():
            shape = self.values[group].shape if group in self.values else None
            if errors.shape != shape:
                raise CriterionError(
                    f"standard errors of group {group} have shape {tuple(errors.shape)}, its scores {shape}."
                )
        for group, curve in self.curves.items():
            if not _is_curve(curve, self.graph[group].size):
                raise CriterionError(
                    f"the curve of group {group} must have rows (units removed, rise, error), from none "
                    f"removed to all {self.graph[group].size}."
                )
        for name in ("values", "stderr", "curves"):
            cpu = {group: tensor.detach().cpu() for group, tensor in getattr(self, name).items()}
            object.__setattr__(self, name, cpu)

    def table(self) -> dict[str, Any]:
        rows = []
        for name, values in self.values.items():
            flat = values.double()
            error = self.stderr[name].double().median().item() if name in self.stderr else None
            rows.append(
                [
                    name,
                    flat.shape[-1],
                    flat.min().item(),
                    flat.median().item(),
                    flat.max().item(),
                    error,
                    int((flat < 0).sum()),
                    self.evaluations.get(name),
                    *([self.stopped.get(name)] if self.stopped else []),
                ]
            )
        extra = ["stopped"] if self.stopped else []
        return {
            "title": f"Scores by {self.criterion}, {count(self.samples, 'example')}",
            "header": ["group", "units", "min", "median", "max", "stderr", "negative", "evaluations", *extra],
            "rows": rows,
            "footer": ", ".join(f"{key}={value}" for key, value in self.settings.items()),
        }


def _is_curve(curve: torch.Tensor, size: int) -> bool:
    if curve.ndim != 2 or curve.shape[1] != 3 or len(curve) < 2:
        return False
    removed = curve[:, 0].tolist()
    return removed == sorted(removed) and (removed[0], removed[-1]) == (0, size)

"""Scores: what each unit is worth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .._store import Tensor
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
        evaluations: group name to forward passes spent per batch (forward plus backward counts 3).
        criterion: the criterion, as written in Python.
        settings: everything else that made the scores: aggregation, removal, seed, versions.
    """

    graph: Graph
    values: dict[str, Tensor]
    stderr: dict[str, Tensor] = field(default_factory=dict)
    samples: int = 0
    evaluations: dict[str, int] = field(default_factory=dict)
    criterion: str = ""
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("values", "stderr"):
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
                ]
            )
        return {
            "title": f"Scores by {self.criterion}, {self.samples} examples",
            "header": ["group", "units", "min", "median", "max", "stderr", "negative", "evaluations"],
            "rows": rows,
            "footer": ", ".join(f"{key}={value}" for key, value in self.settings.items()),
        }

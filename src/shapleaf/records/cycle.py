"""Cycle: the points of a chain of pruning and retraining."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from ._base import Part, Record

if TYPE_CHECKING:
    from ..evaluation import Candidate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Point(Part):
    """A network on the way: pruned, and perhaps retrained.

    Attributes:
        keep: the share of the parameters that was asked for.
        removed: the share that is gone or zero, counted on the network.
        retrained: whether it is, or is to be, retrained; otherwise it was only pruned on.
        loss: the mean training loss of the last epoch.
        batches: the digest of what it saw, see :class:`shapleaf.records.Training`.
        record: the file of what was pruned in this step; empty where nothing was.
        first: the point whose step comes first when this one is built from the original network.
        weights: the file of its weights; empty before it is retrained.
    """

    keep: float
    removed: float
    retrained: bool
    loss: float | None = None
    batches: str = ""
    record: str = ""
    first: int = 0
    weights: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cycle(Record):
    """What :func:`shapleaf.cycle` made: networks of ever fewer parameters, whose weights lie in its folder.

    Attributes:
        method: how they were pruned.
        mode: ``cascade``, ``one-shot`` or ``rewind``.
        net: which of several independently trained networks they come from.
        seed: named the random draws.
        dense: the number of parameters of the original network that are not zero.
        points: one for each keep ratio, in order.
        settings: what was done, in detail.

    >>> print(Cycle(method="WT", mode="cascade", dense=1000, points=(Point(keep=0.5, removed=0.5,
    ...     retrained=True, loss=0.25, weights="000.weights.safetensors"),)))
    Cycle: WT, cascade
    keep  removed  retrained  loss  weights
    ────  ───────  ─────────  ────  ───────────────────────
     0.5      50%  yes        0.25  000.weights.safetensors
    of 1,000 parameters; net 0, seed 0
    """

    method: str
    mode: str
    net: str = "0"
    seed: int = 0
    dense: int = 0
    points: tuple[Point, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)

    def candidates(self, model: nn.Module, path: str | os.PathLike[str]) -> list[Candidate]:
        """Its retrained networks, to be measured: each is built when it is asked for.

        Args:
            model: of the original architecture; its weights do not matter, and it is left alone.
            path: the folder of the cycle.

        >>> Cycle(method="WT", mode="cascade").candidates(nn.Identity(), "folder")
        []
        """
        from ..retraining.rebuilding import candidates

        return candidates(self, model, path)

    def table(self) -> dict[str, Any]:
        return {
            "title": f"Cycle: {self.method}, {self.mode}",
            "header": ["keep", "removed", "retrained", "loss", "weights"],
            "rows": [
                [
                    point.keep,
                    f"{100 * point.removed:.4g}%",
                    point.retrained,
                    point.loss,
                    point.weights or None,
                ]
                for point in self.points
            ],
            "footer": f"of {self.dense:,} parameters; net {self.net}, seed {self.seed}",
        }

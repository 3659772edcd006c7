"""What is tuned for: the area under the pruning curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from ..attribution import attribute
from ..criteria import LRP
from ..data import Batches
from ..evaluation.pruning_curves import pruning_curves
from ..records import Graph, PruningCurves, Scores
from .space import Tuning


class Objective:
    """How well a criterion, attributing the reference examples, prunes on others.

    Args:
        model: the model.
        graph: its graph.
        parts: the examples by name, see :func:`~shapleaf.tuning.parts.parts`.
        settings: how it is measured.

    >>> import torch, shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> data = Batches(tuple(sl.batches((torch.ones(4, 1), torch.zeros(4, dtype=torch.long)))))
    >>> graph = sl.trace(model, torch.zeros(1, 1))
    >>> found = Objective(model, graph, {"reference": data, "selection": data}, Tuning(rates=(0, 0.5)))
    >>> found.area(LRP()) == found.curves("epsilon", LRP(), "selection").area("epsilon")[0]
    True
    """

    def __init__(
        self, model: nn.Module, graph: Graph, parts: Mapping[str, Batches], settings: Tuning
    ) -> None:
        self.model, self.graph, self.parts, self.settings = model, graph, parts, settings
        self._whole: int | None = None

    def scores(self, criterion: LRP) -> Scores:
        """Of the units, from the reference examples."""
        restricted = self.settings.restricted
        if restricted is not None:
            criterion = replace(criterion, target=replace(restricted, target=criterion.target))
        return attribute(
            self.model,
            self.graph,
            self.parts["reference"],
            criterion,
            aggregate=self.settings.aggregate,
            groups=self.settings.groups,
            seed=self.settings.seed,
        )

    def area(self, criterion: LRP) -> float:
        """A_PR on the selection examples; what the model itself does, at rate 0, is measured once."""
        rates, scores = self.settings.rates, self.scores(criterion)
        known = self._whole is not None and len(rates) > 1
        (curve,) = self._curves("", scores, "selection", rates[1:] if known else rates).curves
        if not known and rates[0] == 0:
            self._whole = int(curve.right[0].sum())
        right = int(curve.right.sum()) + (self._whole or 0 if known else 0)
        return right / (len(rates) * curve.right.shape[1])

    def curves(self, name: str, criterion: LRP, part: str) -> PruningCurves:
        """The curve on a part of the examples, under this name."""
        return self._curves(name, self.scores(criterion), part, self.settings.rates)

    def _curves(self, name: str, scores: Scores, part: str, rates: tuple[float, ...]) -> PruningCurves:
        return pruning_curves(
            self.model, {name: scores}, self.parts[part], rates=rates, restricted=self.settings.restricted
        )

"""The rows of the tables: the criteria of the library, and how their scores are aggregated over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

import shapleaf as sl
from shapleaf.aggregation import Aggregation
from shapleaf.criteria import Criterion


@dataclass(frozen=True, slots=True)
class Method:
    """A row of a table: a criterion, and how its scores are aggregated over the images."""

    name: str
    criterion: Criterion
    aggregate: Aggregation

    def scores(
        self, model: nn.Module, graph: sl.Graph, layer: str, calibration: tuple[Tensor, Tensor], seed: int
    ) -> sl.Scores:
        """The units of one layer scored on the calibration images."""
        return sl.attribute(
            model,
            graph,
            calibration,
            self.criterion,
            aggregate=self.aggregate,
            groups=[layer],
            seed=seed,
        )


def named(methods: Sequence[Method], parts: Sequence[str]) -> list[Method]:
    """The methods with one of the parts in their name."""
    return [method for method in methods if any(part in method.name for part in parts)]


PAPER = sl.Shapley(sl.Permutation(5, antithetic=False, shared=True))
OWN_ORDERS = sl.Shapley(sl.Permutation(4))
LINE = sl.Shapley(sl.Path(16, "line"))
GAUSSIAN = sl.Shapley(sl.Path(4, "gaussian", 4, prior=0))
DEFAULT = sl.Shapley()

# In the order in which the tables are filled: cheap ones first, of those the rows that matter most.
METHODS = (
    Method("Shapley, default path, mean + 2 std", DEFAULT, sl.MeanPlusStd(2)),
    Method("Shapley, line path, mean + 2 std", LINE, sl.MeanPlusStd(2)),
    Method("Shapley, gaussian path, mean + 2 std", GAUSSIAN, sl.MeanPlusStd(2)),
    Method("weight norm", sl.WeightNorm(), sl.Mean()),
    Method("Taylor, mean + 2 std", sl.Taylor(), sl.MeanPlusStd(2)),
    Method("Taylor signed, mean + 2 std", sl.Taylor(signed=True), sl.MeanPlusStd(2)),
    Method("sensitivity, mean + 2 std", sl.Sensitivity(), sl.MeanPlusStd(2)),
    Method("APoZ, mean + 2 std", sl.APoZ(), sl.MeanPlusStd(2)),
    Method("random", sl.Random(), sl.Mean()),
    Method("Shapley, line path, mean", LINE, sl.Mean()),
    Method("Shapley, gaussian path, mean", GAUSSIAN, sl.Mean()),
    Method("leave one out, mean + 2 std", sl.LeaveOneOut(), sl.MeanPlusStd(2)),
    Method("Shapley, paper's sampler, mean + 2 std", PAPER, sl.MeanPlusStd(2)),
    Method("Shapley, orders per example, mean + 2 std", OWN_ORDERS, sl.MeanPlusStd(2)),
    Method("Taylor, mean", sl.Taylor(), sl.Mean()),
    Method("sensitivity, mean", sl.Sensitivity(), sl.Mean()),
    Method("APoZ, mean", sl.APoZ(), sl.Mean()),
    Method("Taylor signed, mean", sl.Taylor(signed=True), sl.Mean()),
    Method("leave one out, mean", sl.LeaveOneOut(), sl.Mean()),
    Method("Shapley, paper's sampler, mean", PAPER, sl.Mean()),
    Method("Shapley, orders per example, mean", OWN_ORDERS, sl.Mean()),
)

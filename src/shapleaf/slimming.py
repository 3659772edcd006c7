"""slim: the whole flow in one call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from torch import nn

from . import _context
from .allocation import allocate
from .attribution import attribute
from .budgets import Budget
from .criteria import Criterion
from .data import batches
from .evaluation import evaluate
from .records import Receipt, Report
from .scanning import scan
from .strategies import Strategy, Tradeoff
from .surgery import Compensation, FoldMean, prune
from .tracing import trace


class Slimmed(NamedTuple):
    """A smaller model, the receipt of what was cut, and the report of what was gained and lost."""

    model: nn.Module
    receipt: Receipt
    report: Report

    def __repr__(self) -> str:
        return str(self.report)


def slim(
    model: nn.Module,
    calibration: Any,
    budget: Budget,
    *,
    test: Any = None,
    criterion: Criterion | None = None,
    strategy: Strategy | None = None,
    compensate: Compensation | None = None,
) -> Slimmed:
    """Trace, attribute, scan, allocate, prune and evaluate, with the defaults that measured best.

    The model stays as it is; the smaller one is a copy. Without ``test`` the report is measured on the
    calibration data, which decided what was cut, and says so.

    Args:
        model: any trained module.
        calibration: labelled batches ``(inputs, labels)``; a hundred examples are enough to begin with.
        budget: what may stay: ``Macs(keep=0.5)``, ``Params(remove=0.3)``, ``Units(keep=0.75)``.
        test: labelled batches that calibration did not see.
        criterion: how units are scored; ``Shapley()`` by default.
        strategy: how the budget is spread over the groups; ``Tradeoff()`` by default.
        compensate: by default ``FoldMean(calibration)``.

    Raises:
        ShapleafError: as the five verbs do; nothing is lost.

    >>> import torch, shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
    >>> calibration = [(torch.randn(50, 4), torch.randint(3, (50,)))]
    >>> slimmed = slim(model, calibration, sl.Macs(keep=0.5))
    >>> slimmed.model[0].out_features
    16
    """
    example = next(iter(batches(calibration, limit=2)))
    graph = trace(model, _context.on_device(example.inputs, model))
    scores = scan(model, attribute(model, graph, calibration, criterion), calibration)
    plan = allocate(scores, budget, strategy=strategy or Tradeoff())
    pruned, receipt = prune(model, plan, compensate=compensate or FoldMean(calibration))
    report = evaluate(
        pruned,
        calibration if test is None else test,
        reference=model,
        receipt=receipt,
        scores=scores,
        title=f"{type(model).__name__} slimmed to {budget}",
    )
    if test is None:
        seen = {"data": "the calibration examples themselves: pass test= for an honest figure"}
        report = replace(report, settings={**seen, **report.settings})
    return Slimmed(pruned, receipt, report)

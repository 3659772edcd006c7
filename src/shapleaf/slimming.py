"""slim: the whole flow in one call."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch import nn

from . import _context
from .allocation import allocate
from .attribution import attribute
from .budgets import Budget
from .criteria import Criterion, OptimalBrainSurgeon
from .data import batches, repeatable
from .errors import PlanError
from .evaluation import evaluate
from .records import Receipt, Report, Scores
from .scanning import curved
from .strategies import Strategy, Tradeoff
from .surgery import Compensation, Distill, LeastSquares, prune
from .tracing import trace

EFFORTS = {"fast": 0, "balanced": 200, "best": 1000}
"""Efforts, and for how many steps each distils what was refitted."""


class Slimmed(NamedTuple):
    """A smaller model, the receipt of what was cut, and the report of what was gained and lost."""

    model: nn.Module
    receipt: Receipt
    report: Report

    def __repr__(self) -> str:
        return str(self.report)


def steps(effort: str, calibration: Any) -> tuple[Compensation, ...]:
    """How what stays makes up for what goes: least squares, then distillation.

    Raises:
        PlanError: no effort is named so.

    >>> steps("balanced", None)
    (LeastSquares(), Distill(steps=200, lr=0.01, batch=32, blocks=1.0, seed=0))
    """
    if effort not in EFFORTS:
        raise PlanError(f"effort={effort!r}: expected {', '.join(map(repr, EFFORTS))}.")
    learning = (Distill(calibration, steps=EFFORTS[effort]),) if EFFORTS[effort] else ()
    return (LeastSquares(calibration), *learning)


def slim(  # noqa: PLR0913 - the parts of the flow
    model: nn.Module,
    calibration: Any,
    budget: Budget,
    *,
    test: Any = None,
    effort: str = "balanced",
    criterion: Criterion | None = None,
    strategy: Strategy | None = None,
    compensate: Compensation | Sequence[Compensation] | None = None,
) -> Slimmed:
    """Trace, attribute, allocate, prune and evaluate, with the defaults that measured best.

    The model stays as it is; the smaller one is a copy. Without ``test`` the report is measured on the
    calibration data, which decided what was cut, and says so.

    Args:
        model: any trained module.
        calibration: labelled batches ``(inputs, labels)``; a hundred examples are enough to begin with.
        budget: what may stay: ``Macs(keep=0.5)``, ``Params(remove=0.3)``, ``Units(keep=0.75)``.
        test: labelled batches that calibration did not see.
        effort: ``"fast"`` refits what read the removed units, ``"balanced"`` also distils for 200 steps,
            ``"best"`` for 1,000.
        criterion: how units are scored; ``OptimalBrainSurgeon(felt=True)`` by default, which
            ranked best for what is refitted afterwards. Scores without curves are scanned if the strategy
            needs them.
        strategy: how the budget is spread over the groups; ``Tradeoff()`` by default.
        compensate: instead of what ``effort`` says; ``()`` for nothing.

    Raises:
        DataError: the calibration data are a generator, which one pass uses up.
        ShapleafError: as the five verbs do; nothing is lost.

    >>> import torch, shapleaf as sl
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(60, 4)
    >>> model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
    >>> calibration = [(x, model(x).argmax(1))]
    >>> slimmed = slim(model, calibration, sl.Macs(keep=0.5), effort="fast")
    >>> slimmed.model[0].out_features
    16
    """
    usual = steps(effort, calibration)
    compensate = usual if compensate is None else compensate
    with _context.rng(0):  # shuffled data draw from the caller's
        example = next(iter(batches(repeatable(calibration), limit=2)))
    graph = trace(model, _context.on_device(example.inputs, model))
    scores = attribute(model, graph, calibration, criterion or OptimalBrainSurgeon(felt=True))
    strategy = strategy or Tradeoff()
    if isinstance(strategy, Tradeoff):
        scores = curved(model, scores, calibration)
    plan = allocate(scores, budget, strategy=strategy)
    pruned, receipt = prune(model, plan, compensate=compensate)
    _warn(receipt, budget)
    return Slimmed(pruned, receipt, _judged(pruned, receipt, scores, model, calibration, test, str(budget)))


def _warn(receipt: Receipt, budget: Budget) -> None:
    """Say so where the outputs have lost touch with the intact model's, even on the calibration data."""
    last = receipt.effects[-1] if receipt.effects else None
    if last is not None and last.error is not None and last.error > _LOST:
        loss = "" if last.loss is None else f" The loss on them is {last.loss:.3g}; expect more on others."
        warnings.warn(
            f"{budget} is below what compensation can save: outputs on the calibration data differ from the "
            f"intact model's by {last.error:.0%} of their spread.{loss} Keep more, or fine-tune.",
            stacklevel=3,
        )


_LOST = 0.5
"""A share of the outputs' spread, squared, that is lost: half of what the model says."""


def _judged(
    pruned: nn.Module,
    receipt: Receipt,
    scores: Scores,
    model: nn.Module,
    calibration: Any,
    test: Any,
    budget: str,
) -> Report:
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
    return report

"""The verb: measure a model beside its reference, in one pass over the data."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import _context
from ..data import Batch, batches
from ..errors import CriterionError, DataError, StaleGraphError
from ..records.receipt import Receipt
from ..records.report import Measurement, Report
from ..records.scores import Scores
from .latency import Latency
from .metrics import (
    Accuracy,
    Agreement,
    ExampleMetric,
    Loss,
    Macs,
    Metric,
    ModelMetric,
    Params,
    check_classes,
)


def evaluate(
    model: nn.Module,
    data: Any,
    metrics: Sequence[Metric] | None = None,
    *,
    reference: nn.Module | None = None,
    receipt: Receipt | None = None,
    scores: Scores | None = None,
    title: str = "Pruning report",
) -> Report:
    """Measure a model, and beside it the model it was made from.

    Both models see the same batches, in eval mode and without gradients, and are left as
    they were found. The data is gone through once. Where a model draws random numbers, both draw the same.

    Args:
        model: what is measured, usually pruned.
        data: batches ``(inputs, labels)``, any iterable; see :func:`shapleaf.data.batches`.
        metrics: instances from :mod:`shapleaf.evaluation`; by default accuracy, loss, agreement
            (with a reference), parameters, MACs and latency.
        reference: the model before pruning.
        receipt: what ``prune`` did, to be shown in the report.
        scores: what the cut was decided on, to be shown in the report.
        title: the heading of the report.

    Returns:
        One row per measurement: ``report["accuracy"].value``; ``print(report)`` is a table,
        ``report.to_html()`` a page.

    Raises:
        DataError: the data is empty, labels do not fit the model, an output is NaN, or the two
            models have different numbers of classes.
        CriterionError: an object in ``metrics`` is no metric, or a loss is not finite.
        StaleGraphError: receipt and scores belong to different models.

    >>> data = [(torch.eye(2), torch.tensor([0, 1])), (torch.eye(2), torch.tensor([1, 1]))]
    >>> report = evaluate(nn.Identity(), data, [Accuracy(), Params()])
    >>> report["accuracy"].value, report["params"].value
    (75.0, 0.0)
    """
    _check_records(receipt, scores)
    if metrics is None:
        paired = (Agreement(),) if reference is not None else ()
        metrics = (Accuracy(), Loss(), *paired, Params(), Macs(), Latency())
    for metric in metrics:
        if isinstance(metric, type) or not isinstance(metric, ExampleMetric | ModelMetric):
            raise CriterionError(
                f"metrics: {metric!r} is no metric; pass instances such as evaluation.Accuracy()."
            )
    over_examples = [metric for metric in metrics if isinstance(metric, ExampleMetric)]
    first, values = _pass(model, data, over_examples, reference)
    settings = {"examples": f"{len(values[0][0]):,}"} if values else {}
    rows = list[Measurement]()
    for metric in metrics:
        if isinstance(metric, ExampleMetric):
            rows.append(_row(metric, *values.pop(0)))
        else:
            rows.extend(metric.rows(model, reference, first))
    settings |= {
        "metrics": ", ".join(repr(metric) for metric in metrics),
        "batch": str(first.examples),
        "device": str(_context.device_of(model)),
        "dtype": _dtype(model),
        "threads": str(torch.get_num_threads()),
        **_context.versions(),
    }
    return Report(title=title, rows=tuple(rows), receipt=receipt, scores=scores, settings=settings)


def _check_records(receipt: Receipt | None, scores: Scores | None) -> None:
    if receipt is None or scores is None:
        return
    cut, scored = receipt.plan.graph.fingerprint, scores.graph.fingerprint
    if cut != scored:
        raise StaleGraphError(
            f"receipt and scores belong to different models: the receipt's graph is {cut}, "
            f"the scores' is {scored}. Pass the scores that the plan was allocated from."
        )


def _dtype(model: nn.Module) -> str:
    """The type of the first parameter; torch's default if there is none."""
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.get_default_dtype())
    return str(dtype).removeprefix("torch.")


def _pass(
    model: nn.Module, data: Any, metrics: Sequence[ExampleMetric], reference: nn.Module | None
) -> tuple[Batch, list[tuple[Tensor, Tensor | None]]]:
    """The first batch, and for each metric both models' values over all examples."""
    mine: list[list[Tensor]] = [[] for _ in metrics]
    theirs: list[list[Tensor]] = [[] for _ in metrics]
    labelled = any(not metric.paired for metric in metrics)
    with contextlib.ExitStack() as stack:
        for each in (model,) if reference is None else (model, reference):
            stack.enter_context(_context.inference(each))
        stack.enter_context(torch.no_grad())
        stream = batches(data, labelled=labelled, device=_context.device_of(model))
        first = next(stream)
        batch: Batch | None = first
        while batch is not None and metrics:
            output = _predicted(model, batch)
            beside = None if reference is None else _predicted(reference, batch)
            _check_classes(output, beside)
            for k, metric in enumerate(metrics):
                with _context.located(f"the model, batch from example {batch.first}"):
                    mine[k].append(metric.observe(output, batch, beside).double().cpu())
                if reference is not None and not metric.paired:
                    with _context.located(f"the reference, batch from example {batch.first}"):
                        theirs[k].append(metric.observe(beside, batch, None).double().cpu())
            batch = next(stream, None)
    pairs = zip(mine, theirs, strict=True)
    return first, [(torch.cat(a), torch.cat(b) if b else None) for a, b in pairs]


def _predicted(model: nn.Module, batch: Batch) -> Any:
    """What a model returns; one that draws random numbers draws the same as any other, for every batch."""
    with _context.rng(0):  # a generator of its own, since the data may draw from the other
        return _context.forward(model, batch.inputs)


def _check_classes(output: Any, beside: Any) -> None:
    if beside is None:
        return
    try:
        mine, theirs = _context.logits(output).shape[1:], _context.logits(beside).shape[1:]
    except DataError:
        return  # no tensor of predictions: it is for the metrics to say what they need
    check_classes(mine, theirs, "the model", "the reference")


def _row(metric: ExampleMetric, mine: Tensor, theirs: Tensor | None) -> Measurement:
    value, low, high = metric.summarise(mine)
    reference = (None, None, None) if theirs is None else metric.summarise(theirs)
    return Measurement(
        metric=metric.name,
        value=value,
        low=low,
        high=high,
        reference=reference[0],
        reference_low=reference[1],
        reference_high=reference[2],
        unit=metric.unit,
        better=metric.better,
    )

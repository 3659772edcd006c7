"""Excess error: how much more pruned networks lose to shifts than the unpruned one does."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import _rng
from ..errors import CriterionError, DataError
from ..records.excess import Excess, ExcessError, Slope
from ..records.outcomes import Outcomes
from .resampling import ends, resampled_errors


def excess_error(
    outcomes: Outcomes, *, resamples: int = 1000, refits: int = 10_000, seed: int = 0
) -> ExcessError:
    """How much more error shifts add to pruned models than to their reference.

    The excess error of a model is its error averaged over the shifted distributions less that averaged
    over the nominal ones; the difference is the pruned model's less its reference's (Liebenwein et al.
    2021, definition 2). Above 0, pruning has cost robustness that nominal accuracy does not show. For each
    method a line without intercept is fitted to the differences of all its models, of all nets, against
    the share removed: ``slope = sum(x y) / sum(x^2)``.

    Args:
        outcomes: of :func:`shapleaf.assess`, with nominal and shifted distributions.
        resamples: of the examples, for the interval of each difference; see
            :func:`shapleaf.prune_potential`.
        refits: of the line to models drawn again, for the slope's 95 % percentile interval.
        seed: of the resamples.

    Raises:
        DataError: no model is pruned, a net has no reference, or either kind of distribution is missing.
        CriterionError: there are no resamples or refits.

    >>> from shapleaf.records import Observed, Subject
    >>> def seen(name, dense, half, nominal):
    ...     predicted = torch.zeros(2, 100, dtype=torch.int64)
    ...     predicted[0, :dense], predicted[1, :half] = 1, 1
    ...     labels = torch.zeros(100, dtype=torch.int64)
    ...     return Observed(distribution=name, nominal=nominal, labels=labels, predicted=predicted,
    ...                     confidence=torch.ones(2, 100))
    >>> both = Subject(name="dense", role="reference"), Subject(name="half", method="WT", removed=0.5)
    >>> found = excess_error(
    ...     Outcomes(subjects=both, observed=(seen("clean", 8, 9, True), seen("fog", 20, 26, False)))
    ... )
    >>> round(found.points[0].difference, 12), round(found["WT"].value, 12)
    (0.05, 0.1)
    """
    if refits < 1:
        raise CriterionError(f"refits must be at least 1, received {refits}.")
    curves = outcomes.curves()
    references = {net: outcomes.reference(net) for _, net in curves}
    groups = [[one for one in outcomes.observed if one.nominal is kind] for kind in (True, False)]
    if not all(groups):
        missing = "nominal" if not groups[0] else "shifted"
        raise DataError(
            f"excess error compares nominal with shifted distributions, but none is {missing}; measure "
            "both, and mark those that the networks were trained on by nominal=True."
        )
    exact = [
        [sum(column) / len(group) for column in zip(*(one.errors for one in group), strict=True)]
        for group in groups
    ]
    excess = [shifted - nominal for nominal, shifted in zip(*exact, strict=True)]
    drawn_errors = resampled_errors(outcomes, resamples, seed)
    nominal, shifted = (
        torch.stack([drawn_errors[one.distribution] for one in group]).mean(0) for group in groups
    )
    drawn = shifted - nominal
    points = list[Excess]()
    for (method, net), curve in curves.items():
        reference = references[net]
        for k in curve:
            low, high = ends(drawn[:, k] - drawn[:, reference]).tolist()
            points.append(
                Excess(
                    subject=outcomes.subjects[k].name,
                    method=method,
                    net=net,
                    removed=outcomes.subjects[k].removed,
                    reference=float(excess[reference]),
                    value=float(excess[k]),
                    difference=float(excess[k] - excess[reference]),
                    low=low,
                    high=high,
                )
            )
    slopes = tuple(
        fitted(method, [p for p in points if p.method == method], refits, seed)
        for method in dict.fromkeys(point.method for point in points)
        if any(point.removed for point in points if point.method == method)
    )
    settings = {
        "nominal": ", ".join(one.distribution for one in groups[0]),
        "shifted": ", ".join(one.distribution for one in groups[1]),
        "resamples": f"{resamples:,}",
        "refits": f"{refits:,}",
        "seed": str(seed),
    }
    return ExcessError(slopes=slopes, points=tuple(points), settings=settings)


def fitted(method: str, points: list[Excess], refits: int, seed: int) -> Slope:
    """The line through the origin and its 95 % interval.

    Points where nothing was removed say nothing about the line and are left out; there must be others.

    >>> same = dict(method="WT", net="0", reference=0.0, value=0.0, low=0.0, high=0.0)
    >>> points = [Excess(subject=str(x), removed=x, difference=0.02 * x, **same) for x in (0.25, 0.5)]
    >>> line = fitted("WT", points, 1000, seed=0)
    >>> line.value, line.low, line.high
    (0.02, 0.02, 0.02)
    """
    used = [point for point in points if point.removed]
    x = torch.tensor([point.removed for point in used], dtype=torch.float64)
    y = torch.tensor([point.difference for point in used], dtype=torch.float64)
    order = np.argsort([point.subject for point in used], kind="stable")
    picks = _rng.stream(seed, "excess error", method).integers(len(used), size=(refits, len(used)))
    chosen = torch.from_numpy(order[picks])
    low, high = ends(_slope(x[chosen], y[chosen])).tolist()
    return Slope(method=method, value=_slope(x, y).item(), low=low, high=high, points=len(used))


def _slope(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1) / (x * x).sum(-1)

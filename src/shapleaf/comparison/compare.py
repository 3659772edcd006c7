"""The verb: several criteria on one model, measured side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .. import _context
from .._progress import progress
from .._rng import stream
from ..criteria import Criterion, Loss
from ..data import Batch, batches
from ..errors import CriterionError
from ..evaluation import faithfulness
from ..evaluation.pruning_curves import pruning_curves
from ..records import Compared, Comparison, Faithfulness, Graph, PruningCurves, Scores
from ..scanning import curved
from ..strategies import Tradeoff
from .attributions import Attributed, Case, Seconds, attributed, training_step
from .ranks import correlations, overlaps, removed
from .removals import ablated, agreement, pooled_area
from .settings import Comparing
from .stability import picked, stabilities


def compare(
    model: nn.Module,
    graph: Graph,
    criteria: Mapping[str, Criterion],
    data: Any,
    test: Any,
    *,
    settings: Comparing = Comparing(),  # noqa: B008 - frozen
    seed: int = 0,
) -> Comparison:
    """Measure criteria side by side: whom they agree with, what they are good for, and what they cost.

    Every criterion is attributed once, on ``data``, and all measures share its scores:

    - the rank correlation of every two, within groups and over all, and the overlap of the sets of units that
      they would remove;
    - the accuracy on ``test`` as units are removed, the least needed first and as a control the most needed
      first: areas A_PR and Top-PR of :func:`shapleaf.pruning_curves`;
    - Sensitivity-n, the pooled area of :func:`shapleaf.faithfulness`, on examples of ``test``;
    - the rank correlation of the scores with what the removal of single units costs, on the same examples.
      Even leaving one out, which measures just this on ``data``, reaches 1 only if other examples agree;
    - the rank correlation of scores from few examples of ``data`` with those from all. Few are among all, so
      that this tends to 1 as they come to be all;
    - what attribution costs, in seconds and, of a model that can be trained, in training steps on the same
      data.

    Args:
        model: the model that ``graph`` was traced from.
        graph: its graph.
        criteria: name to criterion.
        data: calibration batches, labelled.
        test: labelled batches that no criterion sees.
        settings: what is measured, and how; parts can be left out.
        seed: names every random draw.

    Raises:
        StaleGraphError: the graph belongs to another model.
        PlanError: a pattern of groups matches none.
        CriterionError: there are no criteria, or more samples are asked for than there are data. An error in
            a criterion begins with its name.
        DataError: data are missing, empty, unlabelled, or do not fit the model.

    >>> import shapleaf as sl
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> x = torch.randn(60, 3)
    >>> y, graph = model(x).argmax(1), sl.trace(model, x[:1])
    >>> criteria = {"taylor": sl.Taylor(), "norm": sl.WeightNorm()}
    >>> found = compare(model, graph, criteria, (x[:40], y[:40]), (x[40:], y[40:]))
    >>> found.names, found.within.shape, [one.samples for one in found["taylor"].stability]
    (('taylor', 'norm'), torch.Size([2, 2]), [10, 30])
    """
    graph.check(model)
    chosen = graph.groups if settings.groups is None else graph.select(*settings.groups)
    if not criteria or not isinstance(criteria, Mapping):
        raise CriterionError("there are no named criteria to compare; pass {'taylor': Taylor()}, say.")
    device = _context.device_of(model)
    sample, rest = list(batches(data, device=device)), list(batches(test, device=device))
    _check(settings, _count(sample))
    tried = _some(rest, settings.examples, seed)
    case = Case(model, graph, settings, seed)
    with progress("compare", 5) as done:
        step = training_step(model, sample, case.loss)
        found = attributed(case, criteria, sample)
        done("attributed")
        stable = stabilities(case, found, sample)
        done("stability")
        scores = {name: one.scores for name, one in found.items()}
        alone = ablated(case, chosen, tried)
        done("single units")
        foretold = _foretold(case, scores, tried)
        done("Sensitivity-n")
        curves = _curves(case, scores, sample, rest)
        done("curves")
    within, overall = correlations([one.values for one in scores.values()])
    rows = [
        replace(
            _row(name, one, step, device),
            sensitivity=None if foretold is None else pooled_area(foretold, name, chosen),
            ablation=agreement(one.scores.values, alone) if alone else None,
            stability=stable[name],
        )
        for name, one in found.items()
    ]
    return Comparison(
        criteria=tuple(rows),
        within=within,
        overall=overall,
        shares=tuple(settings.overlaps),
        overlaps=_overlaps(case, scores),
        scores={name: dict(one.values) for name, one in scores.items()},
        curves=curves,
        faithfulness=foretold,
        step=None if step is None else step.cpu,
        settings=_told(case, sample, rest, tried),
    )


def _count(data: Sequence[Batch]) -> int:
    return sum(batch.examples for batch in data)


def _check(settings: Comparing, examples: int) -> None:
    """Refuse more samples than there are."""
    most = max(settings.samples, default=0)
    if most > examples:
        raise CriterionError(
            f"samples={list(settings.samples)}: there are only {examples} calibration examples; ask for "
            "fewer, or for none."
        )


def _some(data: Sequence[Batch], most: int, seed: int) -> list[Batch]:
    """So many of the examples at most, drawn by seed."""
    order = torch.from_numpy(stream(seed, "compare", "examples").permutation(_count(data)))
    return picked(data, order[:most].sort().values)


def _row(name: str, one: Attributed, step: Seconds | None, device: torch.device) -> Compared:
    """What attribution took; on a processor in its own time, which other processes hardly disturb."""
    clock = "cpu" if device.type == "cpu" else "wall"
    return Compared(
        name=name,
        criterion=one.scores.criterion,
        wall=one.seconds.wall,
        cpu=one.seconds.cpu,
        steps=None if step is None else getattr(one.seconds, clock) / max(getattr(step, clock), 1e-9),
        evaluations=sum(one.scores.evaluations.values()) or None,
    )


def _foretold(case: Case, scores: Mapping[str, Scores], data: Sequence[Batch]) -> Faithfulness | None:
    """Sensitivity-n of all criteria on the same sets."""
    model, _, settings, seed = case
    if not settings.subsets:
        return None
    return faithfulness(
        model, scores, data, sizes=settings.sizes, subsets=settings.subsets, loss=settings.loss, seed=seed
    )


def _curves(
    case: Case, scores: Mapping[str, Scores], sample: Sequence[Batch], test: Sequence[Batch]
) -> PruningCurves | None:
    """The accuracy as units go, and if that is asked for, with a compensation too."""
    model, _, settings, _ = case
    if not settings.rates:
        return None
    if isinstance(settings.strategy, Tradeoff):
        scores = {name: curved(model, one, sample, loss=case.loss) for name, one in scores.items()}
    measure = partial(pruning_curves, model, scores, test, rates=settings.rates, strategy=settings.strategy)
    found = [measure(orders=settings.orders)]
    if settings.compensate is not None:
        found.append(measure(compensate=settings.compensate))
    return PruningCurves.joined(found)


def _overlaps(case: Case, scores: Mapping[str, Scores]) -> Tensor:
    """At every share, what the removed sets of every two criteria have in common."""
    found = [overlaps([removed(one, share) for one in scores.values()]) for share in case.settings.overlaps]
    return torch.stack(found) if found else torch.zeros(0)


def _told(
    case: Case, sample: Sequence[Batch], test: Sequence[Batch], tried: Sequence[Batch]
) -> dict[str, str]:
    """What made the comparison."""
    settings = case.settings
    return {
        "aggregate": repr(settings.aggregate),
        "examples": f"{_count(sample):,}",
        "test": f"{_count(test):,}",
        "removals on": f"{_count(tried):,}",
        "subsets": f"{settings.subsets:,}",
        "single units": f"{settings.ablated:,} of a group",
        "draws": f"{settings.draws:,}",
        **({} if case.target == Loss() else {"removals by": repr(case.target)}),
        **_context.made_with(case.loss, case.seed),
    }

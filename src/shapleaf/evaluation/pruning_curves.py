"""Pruning curves: the accuracy that is left when more and more units go by their scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from .. import _context
from .._progress import progress
from ..allocation import allocate, removable
from ..budgets import Units
from ..criteria import Restricted
from ..data import Batch, batches
from ..errors import CriterionError, DataError
from ..records import Plan, PruningCurve, PruningCurves, Scores
from ..records.pruning_curves import Order
from ..strategies import Global, Strategy
from ..surgery import Compensation, prune
from .metrics import labels_of, predictions

RATES = tuple(k / 20 for k in range(20))
"""Of Hatefi et al. (2024): 0, 0.05, ... 0.95."""

Named = Mapping[str, Scores | Sequence[Scores]]


def pruning_curves(  # noqa: PLR0913 - what to prune by, on what, how
    model: nn.Module,
    scores: Scores | Named,
    data: Any,
    *,
    rates: Sequence[float] = RATES,
    orders: Sequence[Order] = ("least",),
    strategy: Strategy | None = None,
    compensate: Compensation | Sequence[Compensation] | None = None,
    restricted: Restricted | None = None,
) -> PruningCurves:
    """Measure the accuracy that is left when more and more units are removed, and sum it up.

    At rate *r*, ``floor(r N)`` of the *N* units of all scored groups are removed, those with the lowest
    scores wherever they are, and the model is pruned, compensated if that is asked for, and tested; nothing
    is trained. A group keeps its last unit: where that stops it, as many go as can. The mean accuracy over
    the rates is the area A_PR of Hatefi et al. (2024), Pruning by eXplaining Revisited, and the highest rate
    that keeps 95 % of the accuracy their Top-PR. Removing the units that are needed most first is the
    control: scores that mean something lose accuracy at once.

    The model itself is tested once, for rate 0 of all curves; every other point costs an allocation, a
    pruning with its proof, and one pass of the pruned model over the data.

    Args:
        model: the model that was scored.
        scores: those of one criterion; or by name, those of several, each one's or a sequence for several
            seeds. All on the same graph and groups.
        data: labelled batches that no score has seen.
        rates: shares of the units, ascending, below 1.
        orders: ``"least"`` removes the units that are needed least first, ``"most"`` those needed most.
        strategy: in which order units go across groups; ``Global()`` by default.
        compensate: what makes up for removed units, as in :func:`shapleaf.prune`.
        restricted: only these classes count; labels must be among them.

    Raises:
        StaleGraphError: the scores belong to another model.
        CriterionError: scores of different graphs or groups, or none; rates or orders out of range.
        PlanError: scores are per example or not finite, or a pruned model fails.
        DataError: data are missing, empty, unlabelled or do not fit; the model is no classifier; or data of
            the compensation are a generator.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> with torch.no_grad():  # each unit speaks for a class
    ...     _ = model[0].weight.copy_(torch.eye(2)), model[0].bias.fill_(0.1)
    ...     _ = model[2].weight.copy_(torch.eye(2))
    >>> x = torch.tensor([[1.0, 0.0], [2.0, 1.0], [3.0, 2.0]])
    >>> data, graph = (x, torch.tensor([0, 0, 0])), sl.trace(model, x[:1])
    >>> named = {"logit": sl.attribute(model, graph, data, sl.Taylor(target=sl.Logit()))}
    >>> found = pruning_curves(model, named, data, rates=(0, 0.5), orders=("least", "most"))
    >>> [one.accuracy.tolist() for one in found.curves]
    [[100.0, 100.0], [100.0, 0.0]]
    >>> found.area("logit"), found.top("logit")
    ((1.0, None), (0.5, None))
    """
    named = _checked(model, scores)
    wanted = _rates(rates)
    if not orders or not set(orders) <= {"least", "most"}:
        raise CriterionError(f'orders are "least", "most" or both, received {orders!r}.')
    test = _Test(model, data, restricted)
    jobs = [(name, order, seed) for name in named for order in orders for seed in range(len(named[name]))]
    curves = []
    with progress("pruning curves", len(jobs) * len(wanted)) as step:
        for name, order, seed in jobs:
            plans, right = _plans(named[name][seed], order, wanted, strategy), []
            for rate, plan in zip(wanted, plans, strict=True):
                with _context.located(f"scores {name!r}, seed {seed}, rate {rate:g}"):
                    right.append(test.pruned(plan, compensate))
                step(name)
            curves.append(
                PruningCurve(
                    criterion=name,
                    order=order,
                    compensation=_name(compensate),
                    seed=seed,
                    rates=wanted,
                    right=torch.stack(right),
                    **_shares(plans, named[name][seed]),
                )
            )
    return PruningCurves(curves=tuple(curves), settings=_settings(named, test, strategy))


class _Test:
    """The examples, and which of them a model classifies right."""

    def __init__(self, model: nn.Module, data: Any, restricted: Restricted | None) -> None:
        self.model, self.restricted = model, restricted
        self.batches: list[Batch] = list(batches(data, device=_context.device_of(model)))

    @cached_property
    def whole(self) -> Tensor:
        """Those of the model itself, ``(examples,)``."""
        return self.right(self.model)

    def pruned(self, plan: Plan, compensate: Compensation | Sequence[Compensation] | None) -> Tensor:
        """Those of what a plan leaves, ``(examples,)``; a plan that removes nothing changes nothing."""
        return self.right(prune(self.model, plan, compensate=compensate).model) if plan.pruned else self.whole

    def right(self, model: nn.Module) -> Tensor:
        """Whether the highest score is the label's, ``(examples,)``."""
        found = []
        with torch.no_grad(), _context.inference(model):
            for batch in self.batches:
                scores = predictions(_context.forward(model, batch.inputs), batch)
                if scores.ndim > 2:
                    raise DataError(
                        f"pruning curves are of classifiers, but the model returned {(*scores.shape,)} for "
                        f"{batch.examples} examples; expected one score for each class."
                    )
                labels = labels_of(batch.target, scores)
                if self.restricted is not None:
                    self.restricted.check(labels)
                    scores = self.restricted.scores(scores)
                found.append((scores.argmax(1) == labels).cpu())
        return torch.cat(found)


def _checked(model: nn.Module, scores: Scores | Named) -> dict[str, tuple[Scores, ...]]:
    """The scores by name and seed, all of the model and of the same groups."""
    given = {scores.criterion: scores} if isinstance(scores, Scores) else scores
    named = {name: (one,) if isinstance(one, Scores) else tuple(one) for name, one in given.items()}
    every = [(f"{name!r}, seed {seed}", one) for name, ones in named.items() for seed, one in enumerate(ones)]
    if not all(named.values()) or not every:
        raise CriterionError("there are no scores to prune by; pass those of one criterion at least.")
    first = every[0]
    first[1].graph.check(model)
    for name, one in every[1:]:
        if one.graph.fingerprint != first[1].graph.fingerprint:
            raise CriterionError(f"scores {first[0]} and {name} belong to different graphs.")
        if one.values.keys() != first[1].values.keys():
            raise CriterionError(
                f"scores {first[0]} are of groups {', '.join(first[1].values)}; scores {name} of "
                f"{', '.join(one.values) or 'nothing'}. Score the same groups."
            )
    return named


def _rates(rates: Sequence[float]) -> tuple[float, ...]:
    found = tuple(float(rate) for rate in rates)
    if not found or list(found) != sorted(set(found)) or not 0 <= found[0] <= found[-1] < 1:
        raise CriterionError(f"rates are ascending shares from 0 to below 1, received {found}.")
    return found


def _plans(scores: Scores, order: Order, rates: Sequence[float], strategy: Strategy | None) -> list[Plan]:
    """A plan for each rate, each one's units among those of the next."""
    if order == "most":
        scores = replace(scores, values={name: -values for name, values in scores.values.items()})
    most, units = removable(scores)
    wanted = [min(most, math.floor(Fraction(repr(rate)) * units)) for rate in rates]
    return [allocate(scores, Units(remove=n), strategy=strategy, multiple_of=1) for n in wanted]


def _shares(plans: Sequence[Plan], scores: Scores) -> dict[str, tuple[float, ...]]:
    """What of the scored units went, and of the model's size is left."""
    units = removable(scores)[1]
    return {
        "removed": tuple((plan.before.units - plan.after.units) / units for plan in plans),
        "params": tuple(plan.after.params / plan.before.params for plan in plans),
        "macs": tuple(plan.after.macs / plan.before.macs for plan in plans),
    }


def _name(compensate: Compensation | Sequence[Compensation] | None) -> str:
    """As a receipt calls it."""
    steps = () if compensate is None else compensate if isinstance(compensate, Sequence) else (compensate,)
    return " + ".join(map(repr, steps)) or "none"


def _settings(
    named: Mapping[str, Sequence[Scores]], test: _Test, strategy: Strategy | None
) -> dict[str, str]:
    first = next(iter(named.values()))[0]
    classes = {} if test.restricted is None else {"restricted": repr(test.restricted)}
    return {
        "strategy": repr(strategy or Global()),
        "units": str(removable(first)[1]),
        "groups": str(len(first.values)),
        "examples": str(sum(batch.examples for batch in test.batches)),
        **classes,
        **_context.versions(),
    }

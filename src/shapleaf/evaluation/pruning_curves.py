"""Pruning curves: the accuracy that is left when more and more units go by their scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property, partial
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
from ..strategies import ErrorLevel, Global, Strategy, Tradeoff
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
        strategy: in which order units go across groups; ``Global()`` by default. ``Tradeoff()`` and
            ``ErrorLevel()`` have no order ``"most"``.
        compensate: what makes up for removed units, as in :func:`shapleaf.prune`, on data of its own; that
            it makes things worse is no warning here, but what the curve shows.
        restricted: only the scores of these classes count; labels must be among them.

    Raises:
        StaleGraphError: the scores belong to another model.
        CriterionError: scores of different graphs or groups, or none; rates or orders out of range, or an
            order that the strategy does not have.
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
    check(orders, strategy)
    test = _Test(model, data, strategy, compensate, restricted)
    jobs = [(name, order, seed) for name in named for order in orders for seed in range(len(named[name]))]
    curves = []
    with progress("pruning curves", len(jobs) * len(wanted)) as step:
        for name, order, seed in jobs:
            with _context.located(f"scores {name!r}, seed {seed}"):
                found = test.points(named[name][seed], order, wanted, partial(step, name))
            curves.append(
                PruningCurve(
                    criterion=name,
                    order=order,
                    compensation=test.compensation,
                    seed=seed,
                    rates=wanted,
                    **found,
                )
            )
    return PruningCurves(curves=tuple(curves), settings=test.settings(next(iter(named.values()))[0]))


class _Test:
    """The examples, what is done to a model before it sees them, and which it then classifies right."""

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        strategy: Strategy | None,
        compensate: Compensation | Sequence[Compensation] | None,
        restricted: Restricted | None,
    ) -> None:
        self.model, self.restricted = model, restricted
        self.strategy, self.compensate = strategy or Global(), compensate
        self.batches: list[Batch] = list(batches(data, device=_context.device_of(model)))

    @property
    def compensation(self) -> str:
        """As a receipt calls it."""
        steps = self.compensate if isinstance(self.compensate, Sequence) else (self.compensate,)
        return " + ".join(repr(step) for step in steps if step is not None) or "none"

    def settings(self, scores: Scores) -> dict[str, str]:
        """What the record says of all curves."""
        return {
            "strategy": repr(self.strategy),
            "units": str(removable(scores)[1]),
            "groups": str(len(scores.values)),
            "examples": str(sum(batch.examples for batch in self.batches)),
            **({} if self.restricted is None else {"restricted": repr(self.restricted)}),
            **_context.versions(),
        }

    def points(
        self, scores: Scores, order: Order, rates: Sequence[float], step: Callable[[], None]
    ) -> dict[str, Any]:
        """What a curve consists of: the shares that went and are left, and what was right, at every rate."""
        if order == "most":
            turned = {name: -values for name, values in scores.values.items()}
            scores = replace(scores, values=turned, curves={})  # which went in the other order
        units = removable(scores)[1]
        if not units:
            raise CriterionError("none of the groups that were scored can lose units; score others.")
        found: dict[str, list[Any]] = {"removed": [], "params": [], "macs": [], "right": []}
        for rate in rates:
            with _context.located(f"rate {rate:g}"):
                plan = lowest(scores, rate, self.strategy)
                before, after = plan.before, plan.after
                found["removed"].append((before.units - after.units) / units)
                found["params"].append(after.params / before.params)
                found["macs"].append(after.macs / before.macs)
                found["right"].append(self.pruned(plan) if plan.pruned else self.whole)
            step()
        shares = {name: tuple(values) for name, values in found.items() if name != "right"}
        return {**shares, "right": torch.stack(found["right"])}

    @cached_property
    def whole(self) -> Tensor:
        """Those of the model itself, ``(examples,)``."""
        return self.right(self.model)

    def pruned(self, plan: Plan) -> Tensor:
        """Those of what a plan leaves, ``(examples,)``."""
        # What a compensation is worth is what the curve shows.
        return self.right(prune(self.model, plan, compensate=self.compensate, measure=False).model)

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


def lowest(scores: Scores, share: float, strategy: Strategy | None = None) -> Plan:
    """The plan without the lowest share of all units, rounded down, or without as many as can go.

    >>> import shapleaf as sl
    >>> graph = sl.trace(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.zeros(1, 3))
    >>> lowest(sl.Scores(graph=graph, values={"0": torch.tensor([3.0, 1.0, 2.0, 5.0])}), 0.7).keep
    {'0': (0, 3)}
    """
    most, units = removable(scores)
    wanted = min(most, math.floor(Fraction(repr(float(share))) * units))
    return allocate(scores, Units(remove=wanted), strategy=strategy, multiple_of=1)


def check(orders: Sequence[Order], strategy: Strategy | None = None) -> None:
    """Refuse orders that are none, and the one in which a strategy cannot remove units.

    Raises:
        CriterionError: see above.

    >>> check(("least", "most"))
    """
    _context.several("orders", orders)
    if not orders or not set(orders) <= {"least", "most"} or len(set(orders)) < len(orders):
        raise CriterionError(f'orders are "least", "most" or both, received {orders!r}.')
    if "most" in orders and isinstance(strategy, Tradeoff | ErrorLevel):
        raise CriterionError(
            f"{strategy} goes by more than the order of the scores, so it cannot remove the units that are "
            'needed most first; pass orders=("least",), or strategy=Global() or Uniform().'
        )


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

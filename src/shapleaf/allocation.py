"""From scores to a plan: how many units each group keeps within a budget, and which."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np

from ._context import number
from .budgets import Budget
from .costs import Costs
from .errors import BudgetError, PlanError
from .records import Cost, Graph, Plan, Scores
from .records.plan import integers
from .strategies import Global, Strategy


@dataclass(slots=True)
class _Set:
    """Groups that keep equal shares: one group unit by unit, or several that are tied, in portions."""

    names: tuple[str, ...]
    size: int
    step: int
    order: dict[str, np.ndarray]
    scores: np.ndarray
    fewest: int
    keys: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def kept(self, removed: int) -> int:
        """Portions that stay when ``removed`` may go: rounded up to the step, never below the fewest.

        All of them count as a whole step, even where they are not a multiple of it.
        """
        up = -(-(self.size - removed) // self.step) * self.step
        return min(self.size, max(up, self.fewest))

    def units(self, name: str, kept: int) -> int:
        """How many units of a group so many portions are."""
        return kept * len(self.order[name]) // self.size


def allocate(
    scores: Scores,
    budget: Budget,
    *,
    strategy: Strategy | None = None,
    min_keep: int = 1,
    multiple_of: int = 8,
) -> Plan:
    """Decide which units stay: the best plan within the budget along the strategy's order.

    Units leave in the order of the strategy until the cost, counted on the graph or predicted from a table,
    is within the budget; one step less would exceed it. Plans are nested: what a smaller budget keeps, a
    larger one keeps as well. Only groups that were scored and are not blocked lose units; tied groups lose
    equal shares.

    Args:
        scores: aggregated scores, ``(units,)`` for each group.
        budget: ``Units``, ``Params``, ``Macs`` or ``Latency``; fractions of units refer to the scored groups.
        strategy: ``Global()`` (the default), ``Uniform()``, ``ErrorLevel()`` on sensitivities, or
            ``Tradeoff()`` on scanned scores.
        min_keep: every group keeps at least so many units.
        multiple_of: groups that lose units keep a multiple of this if they are wide enough (at least
            four times it; half of it in a group half as wide, and so on): odd widths run slower than
            the units they save.

    Raises:
        BudgetError: even the smallest plan exceeds the budget; the nearest achievable one is named. Or
            ``min_keep`` or ``multiple_of`` is no whole number, at least 1.
        PlanError: the scores are per example, or not finite, or the strategy's keys are unusable.
        StaleGraphError, DataError: the table of a ``Latency`` belongs to another model, or is not finished.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> graph = sl.trace(model, torch.zeros(1, 3))
    >>> scores = sl.Scores(graph=graph, values={"0": torch.tensor([3.0, 1.0, 2.0, 5.0])})
    >>> allocate(scores, sl.Units(keep=0.5)).keep
    {'0': (0, 3)}
    """
    budget.check(scores.graph)
    covered = {group.name for group in scores.graph if budget.covers(group)}
    sets = [one for one in _sets(scores, min_keep, multiple_of) if covered.issuperset(one.names)]
    keys = (strategy or Global()).keys({s.names[0]: s.scores for s in sets}, scores, budget)
    for one in sets:
        one.keys = _checked(keys.get(one.names[0], ()), one)
    costs = Costs(scores.graph)
    scored = [name for one in sets for name in one.names]
    counts = _solve(sets, costs, budget, scored)
    keep = {
        name: tuple(sorted(one.order[name][-one.units(name, n) :].tolist()))
        for one, n in zip(sets, counts, strict=True)
        for name in one.names
    }
    made_by = {
        "budget": str(budget),
        "strategy": type(strategy or Global()).__name__,
        "min_keep": str(number(min_keep)),
        "multiple_of": str(number(multiple_of)),
        "criterion": scores.criterion,
        **scores.settings,
    }
    return plan(scores.graph, keep, made_by=made_by)


def removable(scores: Scores, *, min_keep: int = 1, multiple_of: int = 1) -> tuple[int, int]:
    """How many units :func:`allocate` can remove at most, and how many the scored groups have.

    Raises:
        PlanError: the scores are per example, or not finite.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> graph = sl.trace(model, torch.zeros(1, 3))
    >>> removable(sl.Scores(graph=graph, values={"0": torch.tensor([3.0, 1.0, 2.0, 5.0])}))
    (3, 4)
    """
    sets = _sets(scores, min_keep, multiple_of)
    every, fewest = (
        sum(one.units(name, n(one)) for one in sets for name in one.names)
        for n in (attrgetter("size"), attrgetter("fewest"))
    )
    return every - fewest, every


def plan(
    graph: Graph, keep: Mapping[str, Sequence[int]], *, made_by: Mapping[str, str] | None = None
) -> Plan:
    """A plan that keeps the units named, and every unit of the groups that are not.

    Raises:
        PlanError: an unknown group, or units that are no integers, repeated or out of range.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> plan(sl.trace(model, torch.zeros(1, 3)), {"0": [3, 0]}).after
    Cost(units=2, params=14, macs=10)
    """
    chosen = {name: tuple(sorted(integers(units))) for name, units in keep.items()}
    counts = {name: len(units) for name, units in chosen.items()}
    costs = Costs(graph)
    return Plan(graph=graph, keep=chosen, before=costs({}), after=costs(counts), made_by=dict(made_by or {}))


def _checked(keys: Any, one: _Set) -> np.ndarray:
    found = np.asarray(keys, float)
    if found.shape != (one.size,) or not np.isfinite(found).all() or (np.diff(found) < 0).any():
        raise PlanError(
            f"the strategy must give group {one.names[0]} {one.size} finite keys in ascending order, one per "
            f"unit; received {found.tolist()[:12]}."
        )
    return found


def granularity(size: int, multiple_of: int) -> int:
    """What the number of units kept of so many is a multiple of: less in a group that is not wide enough.

    >>> [granularity(size, 8) for size in (64, 16, 8, 4)]
    [8, 4, 2, 1]
    """
    while multiple_of > 1 and size < 4 * multiple_of:
        multiple_of //= 2
    return multiple_of


def _sets(scores: Scores, min_keep: int, multiple_of: int) -> list[_Set]:
    min_keep, multiple_of = number(min_keep), number(multiple_of)
    for name, limit in (("min_keep", min_keep), ("multiple_of", multiple_of)):
        if type(limit) is not int or limit < 1:
            raise BudgetError(f"{name}={limit!r} must be a whole number, at least 1.")
    graph, sets = scores.graph, []
    done: set[str] = set()
    for name, values in scores.values.items():
        if values.ndim != 1:
            raise PlanError(
                f"the scores of {name} are per example, {tuple(values.shape)}; aggregate them first "
                "(attribute(..., aggregate=Mean()))."
            )
        if not bool(values.isfinite().all()):
            unit = int((~values.isfinite()).nonzero()[0])
            raise PlanError(f"the score of unit {unit} of {name} is {float(values[unit])}.")
    for name in scores.values:
        tie = graph.tied(name)
        if name in done or any(member not in scores.values or graph[member].blocked for member in tie):
            continue
        done.update(tie)
        order = {m: np.argsort(scores.values[m].double().numpy(), kind="stable") for m in tie}
        size = graph.portions(name)
        ranked = sum(scores.values[m].double().numpy()[order[m]].reshape(size, -1).sum(1) for m in tie)
        step = granularity(size, multiple_of)
        enough = -(-min_keep * size // min(graph[m].size for m in tie))
        fewest = min(size, -(-enough // step) * step)
        sets.append(_Set(tie, size, step, order, np.asarray(ranked), fewest))
    return sets


def _solve(sets: list[_Set], costs: Costs, budget: Budget, scored: list[str]) -> list[int]:
    """The fewest removals along the order that meet the budget, on the real cost."""
    owner = np.concatenate([np.full(len(s.keys), i) for i, s in enumerate(sets)] or [np.zeros(0, int)])
    order = np.argsort(np.concatenate([s.keys for s in sets] or [np.zeros(0)]), kind="stable")
    gone = owner[order]

    def counts(removed: int) -> list[int]:
        taken = np.bincount(gone[:removed], minlength=len(sets))
        return [one.kept(int(n)) for one, n in zip(sets, taken, strict=True)]

    def cost(kept: dict[str, int]) -> Cost:
        full = costs(kept)
        return Cost(units=sum(kept[name] for name in scored), params=full.params, macs=full.macs)

    known: dict[tuple[int, ...], int] = {}

    def measured(removed: int) -> int:
        found = tuple(counts(removed))
        if found not in known:
            kept = {n: one.units(n, left) for one, left in zip(sets, found, strict=True) for n in one.names}
            known[found] = budget.measure(cost(kept), kept)
        return known[found]

    limit = budget.limit(cost({n: one.units(n, one.size) for one in sets for n in one.names}))
    every = range(len(gone) + 1)
    if budget.monotone:
        removed = bisect.bisect_left(every, True, key=lambda n: measured(n) <= limit)
    else:
        removed = next((n for n in every if measured(n) <= limit), len(every))
    if removed < len(every):
        return counts(removed)
    least, full = (measured(len(gone)) if budget.monotone else min(known.values())), measured(0)
    raise BudgetError(
        f"{budget} cannot be met: at most {limit:,} of {full:,}{budget.unit and f' {budget.unit}'} may stay, "
        f"but {least:,} remain when every scored group keeps its fewest units. The nearest is "
        f"{type(budget).__name__}(keep={least}) ({least / max(full, 1):.1%}); lower min_keep or "
        "multiple_of, or score more groups."
    )

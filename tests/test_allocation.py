"""allocate: budgets met within one step, order and limits kept, plans nested, for any graph and scores."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import shapleaf as sl
from shapleaf.allocation import removable
from shapleaf.costs import Costs
from shapleaf.errors import BudgetError, PlanError
from shapleaf.records import Axis, Graph, Group, Op, Slice, TensorInfo
from timings import made_up
from zoo import NETS


def chain(*sizes: int, ties: tuple[tuple[str, ...], ...] = ()) -> Graph:
    """Linear layers ``g0, g1, …`` of these sizes, each reading the one before, then one of 2 outputs."""
    names = [f"g{i}" for i in range(len(sizes))]
    rows, columns = [*sizes, 2], [3, *sizes]

    def axis(i: int) -> Axis:
        if i in (-1, len(sizes)):
            return Axis(fixed=3 if i == -1 else 2)
        return Axis(fixed=0, groups=(names[i],), per_unit=(1.0,))

    def slices(i: int) -> tuple[Slice, ...]:
        index = torch.arange(sizes[i])[:, None]
        return (
            Slice(tensor=f"w{i}", dim=0, index=index),
            Slice(tensor=f"b{i}", dim=0, index=index),
            Slice(tensor=f"w{i + 1}", dim=1, index=index),
        )

    shapes = {f"w{i}": (row, column) for i, (row, column) in enumerate(zip(rows, columns, strict=True))}
    shapes |= {f"b{i}": (row,) for i, row in enumerate(rows)}
    groups = [Group(name=names[i], size=size, slices=slices(i), sites=()) for i, size in enumerate(sizes)]
    return Graph(
        groups=tuple(groups),
        tensors=tuple(
            TensorInfo(name=n, shape=s, dtype="float32", parameter=True) for n, s in shapes.items()
        ),
        ops=tuple(Op(call=f"w{i}", scale=1.0, axes=(axis(i), axis(i - 1))) for i in range(len(rows))),
        ties=ties,
    )


def scored(graph: Graph, values: Mapping[str, Any] | None = None) -> sl.Scores:
    """Scores as given, or those of a fixed random draw."""
    rng = np.random.default_rng(0)
    values = values or {group.name: rng.normal(size=group.size) for group in graph}
    tensors = {name: torch.as_tensor(np.asarray(v, float)) for name, v in values.items()}
    return sl.Scores(graph=graph, values=tensors)


def kept(plan: sl.Plan) -> dict[str, int]:
    return {name: len(units) for name, units in plan.keep.items()}


FREE = {"multiple_of": 1}
BUDGETS = [sl.Units, sl.Params, sl.Macs]


# Which units stay


def test_the_lowest_scores_go_first_across_groups() -> None:
    scores = scored(chain(3, 4), {"g0": [5, 1, 4], "g1": [3, 2, 6, 0]})
    assert sl.allocate(scores, sl.Units(keep=4), **FREE).keep == {"g0": (0, 2), "g1": (0, 2)}
    assert sl.allocate(scores, sl.Units(remove=1), **FREE).keep == {"g0": (0, 1, 2), "g1": (0, 1, 2)}


def test_signs_count() -> None:
    scores = scored(chain(4), {"g0": [-5, 1, -0.1, 0]})
    assert sl.allocate(scores, sl.Units(keep=2), **FREE).keep == {"g0": (1, 3)}


def test_equal_scores_go_in_the_order_of_groups_and_units() -> None:
    scores = scored(chain(3, 3), {"g0": [1, 1, 1], "g1": [1, 1, 0]})
    keeps = [sl.allocate(scores, sl.Units(remove=n), **FREE).keep for n in range(4)]
    assert keeps[1] == {"g0": (0, 1, 2), "g1": (0, 1)}
    assert keeps[2] == {"g0": (1, 2), "g1": (0, 1)}
    assert keeps[3] == {"g0": (2,), "g1": (0, 1)}


def test_equal_scores_of_wide_groups_go_in_order_too() -> None:
    """Where sorting algorithms are not stable by luck."""
    scores = scored(chain(200, 200), {"g0": [1] * 200, "g1": [u % 2 for u in range(200)]})
    plan = sl.allocate(scores, sl.Units(remove=130), **FREE)
    assert plan.keep == {"g0": tuple(range(30, 200)), "g1": tuple(range(1, 200, 2))}
    gone = set(range(200)) - set(sl.allocate(scores, sl.Units(remove=50), **FREE).keep["g1"])
    assert gone == set(range(0, 100, 2))


def test_a_group_keeps_one_unit_though_all_of_its_scores_are_lower() -> None:
    scores = scored(chain(4, 4), {"g0": [0, 0.1, 0.2, 0.3], "g1": [1, 2, 3, 4]})
    assert sl.allocate(scores, sl.Units(keep=3), **FREE).keep == {"g0": (3,), "g1": (2, 3)}


def test_the_plan_says_how_it_was_made() -> None:
    scores = dataclasses.replace(scored(chain(4)), criterion="Taylor()", settings={"seed": "3"})
    assert sl.allocate(scores, sl.Units(keep=0.5), strategy=sl.Uniform()).made_by == {
        "budget": "Units(keep=0.5)",
        "strategy": "Uniform",
        "min_keep": "1",
        "multiple_of": "8",
        "criterion": "Taylor()",
        "seed": "3",
    }


def test_costs_are_those_of_the_pruned_model() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 2))
    graph = sl.trace(model, torch.zeros(1, 3))
    plan = sl.allocate(scored(graph), sl.Params(keep=0.4), **FREE)
    pruned, _ = sl.prune(model, plan)
    assert plan.after.params == sum(p.numel() for p in pruned.parameters())
    assert plan.before.params == sum(p.numel() for p in model.parameters())
    assert plan.after == sl.cost(graph, kept(plan))


# Uniform


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.75])
def test_uniform_takes_the_exact_fraction_where_there_is_one(keep: float) -> None:
    plan = sl.allocate(scored(chain(8, 16, 24)), sl.Units(keep=keep), strategy=sl.Uniform(), **FREE)
    assert kept(plan) == {"g0": 8 * keep, "g1": 16 * keep, "g2": 24 * keep}


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5), percent=st.integers(1, 100))
@settings(max_examples=60, deadline=None)
def test_uniform_rounds_every_group_to_a_neighbour_of_its_fraction(sizes: list[int], percent: int) -> None:
    """Each group loses floor or ceil of one common fraction; the first groups lose the unit more."""
    fewest = len(sizes)
    limit = percent * sum(sizes) // 100
    assume(limit >= fewest)
    plan = sl.allocate(scored(chain(*sizes)), sl.Units(keep=limit), strategy=sl.Uniform(), **FREE)
    left = [kept(plan)[f"g{i}"] for i in range(len(sizes))]
    assert sum(left) <= limit
    gone = [(size - n) / size for size, n in zip(sizes, left, strict=True)]
    next_gone = [(size - n + 1) / size for size, n in zip(sizes, left, strict=True)]
    free = [i for i, n in enumerate(left) if n > 1]  # others are at their last unit
    assert all(gone[i] <= next_gone[j] + 1e-12 for i in range(len(sizes)) for j in free)


def test_uniform_on_equal_layers_differs_by_one_unit_and_the_first_lose_it() -> None:
    plan = sl.allocate(scored(chain(10, 10, 10)), sl.Units(keep=0.75), strategy=sl.Uniform(), **FREE)
    assert kept(plan) == {"g0": 7, "g1": 7, "g2": 8}  # 22 of at most 22.5


# Limits


@pytest.mark.parametrize(
    ("size", "multiple_of", "step"),
    [
        *((64, 8, 8), (32, 8, 8), (31, 8, 4), (16, 8, 4), (15, 8, 2), (8, 8, 2), (7, 8, 1), (4, 8, 1)),
        *((3, 8, 1), (64, 1, 1), (100, 3, 3), (11, 3, 1)),
    ],
)
def test_kept_counts_are_multiples_where_the_group_is_wide_enough(
    size: int, multiple_of: int, step: int
) -> None:
    graph = chain(size)
    counts = {
        kept(sl.allocate(scored(graph), sl.Units(keep=n), multiple_of=multiple_of))["g0"]
        for n in range(min(step, size), size + 1)
    }
    assert counts == {n for n in range(step, size) if n % step == 0} | {size}


def test_a_width_that_is_no_multiple_may_stay_whole() -> None:
    plan = sl.allocate(scored(chain(33, 64)), sl.Units(keep=96), multiple_of=8)
    assert all(n in (33, 64) or n % 8 == 0 for n in kept(plan).values())
    assert kept(sl.allocate(scored(chain(33)), sl.Units(keep=1.0))) == {"g0": 33}


@pytest.mark.parametrize(("min_keep", "fewest"), [(1, 8), (8, 8), (9, 16), (64, 64), (100, 64)])
def test_min_keep_is_rounded_up_to_the_multiple(min_keep: int, fewest: int) -> None:
    scores = scored(chain(64))
    plan = sl.allocate(scores, sl.Units(keep=fewest), min_keep=min_keep, multiple_of=8)
    assert kept(plan) == {"g0": fewest}
    with pytest.raises(BudgetError, match=rf"The nearest is Units\(keep={fewest}\)"):
        sl.allocate(scores, sl.Units(keep=fewest - 1), min_keep=min_keep, multiple_of=8)


@pytest.mark.parametrize(
    "limits",
    [{"min_keep": 0}, {"multiple_of": 0}, {"min_keep": -1}, {"multiple_of": 2.5}, {"min_keep": True}],
)
def test_limits_are_whole_numbers_at_least_one(limits: dict[str, Any]) -> None:
    message = "{}={} must be a whole number, at least 1".format(*next(iter(limits.items())))
    for verb in (partial(sl.allocate, budget=sl.Units(keep=0.5)), removable):
        with pytest.raises(BudgetError, match=message):
            verb(scored(chain(4)), **limits)


def test_limits_are_whole_numbers_of_any_kind() -> None:
    scores, budget = scored(chain(64)), sl.Units(keep=0.6)
    plans = [
        sl.allocate(scores, budget, min_keep=two, multiple_of=eight)
        for two, eight in ((2, 8), (np.int64(2), torch.tensor(8)))
    ]
    assert plans[0] == plans[1]
    assert plans[0].made_by == plans[1].made_by


@pytest.mark.parametrize("units", [4, [False, True, True, False], torch.ones(4) > 0, [0.0, 1.0], "01"])
def test_units_that_are_no_integers_are_refused(units: Any) -> None:
    with pytest.raises(PlanError, match="units to keep must be integers"):
        sl.plan(chain(4), {"g0": units})
    assert sl.plan(chain(4), {"g0": np.array([2, 0])}).keep["g0"] == (0, 2)


# Ties and partial scores


def test_tied_groups_lose_equally_many_each_its_own_lowest() -> None:
    graph = chain(4, 4, ties=(("g0", "g1"),))
    scores = scored(graph, {"g0": [1, 2, 3, 4], "g1": [40, 30, 20, 10]})
    assert sl.allocate(scores, sl.Units(keep=4), **FREE).keep == {"g0": (2, 3), "g1": (0, 1)}


def test_tied_groups_compete_with_the_sum_of_their_scores() -> None:
    graph = chain(2, 2, 2, ties=(("g0", "g1"),))
    scores = scored(graph, {"g0": [1, 5], "g1": [1, 5], "g2": [1.5, 2.5]})
    assert kept(sl.allocate(scores, sl.Units(remove=1), **FREE)) == {"g0": 2, "g1": 2, "g2": 1}
    assert kept(sl.allocate(scores, sl.Units(remove=3), **FREE)) == {"g0": 1, "g1": 1, "g2": 1}


def test_tied_groups_of_other_sizes_lose_equal_shares() -> None:
    """Two heads and the four channels that the code takes for theirs: a head goes with two channels."""
    graph = chain(2, 4, 4, ties=(("g0", "g1"),))
    scores = scored(graph, {"g0": [7, 1], "g1": [4, 1, 3, 2], "g2": [1, 2, 3, 9]})
    assert graph.portions("g0") == graph.portions("g1") == 2
    assert graph.portions("g2") == 4
    assert sl.allocate(scores, sl.Units(remove=3), **FREE).keep["g1"] == (0, 1, 2, 3)
    plan = sl.allocate(scores, sl.Units(remove=4), **FREE)
    assert plan.keep == {"g0": (0,), "g1": (0, 2), "g2": (3,)}
    curves = {name: torch.tensor([[0.0, 0, 0], [len(v), 1, 0]]) for name, v in scores.values.items()}
    scanned = dataclasses.replace(scores, curves=curves)
    for removed, expected in ((3, (2, 4, 1)), (4, (1, 2, 1))):
        plan = sl.allocate(scanned, sl.Units(remove=removed), strategy=sl.Tradeoff(), **FREE)
        assert tuple(kept(plan).values()) == expected


def test_groups_without_scores_stay_whole_and_do_not_count() -> None:
    scores = scored(chain(10, 20), {"g1": range(20)})
    plan = sl.allocate(scores, sl.Units(keep=0.5), **FREE)
    assert plan.keep == {"g0": tuple(range(10)), "g1": tuple(range(10, 20))}
    assert plan.after.units == 20
    assert kept(sl.allocate(scores, sl.Params(keep=0.7), **FREE))["g0"] == 10


def test_a_tie_that_is_scored_in_part_stays_whole() -> None:
    graph = chain(4, 4, 8, ties=(("g0", "g1"),))
    scores = scored(graph, {"g0": [0, 0, 0, 0], "g2": range(8)})
    assert kept(sl.allocate(scores, sl.Units(keep=0.5), **FREE)) == {"g0": 4, "g1": 4, "g2": 4}


# Budgets


@st.composite
def cases(draw: st.DrawFn) -> tuple[sl.Scores, dict[str, int], sl.Global | sl.Uniform]:
    """Scores of a random chain with random ties, equal scores among them, and limits."""
    sizes = draw(st.lists(st.integers(1, 20), min_size=1, max_size=5))
    ties: tuple[tuple[str, ...], ...] = ()
    if len(sizes) > 2 and draw(st.booleans()):
        sizes[2] = sizes[0] * draw(st.integers(1, 3))
        ties = (("g0", "g2"),)
    score = st.one_of(st.integers(-2, 2).map(float), st.floats(-10, 10, allow_subnormal=False))
    values = {f"g{i}": draw(st.lists(score, min_size=n, max_size=n)) for i, n in enumerate(sizes)}
    limits = {"min_keep": draw(st.integers(1, 5)), "multiple_of": draw(st.sampled_from([1, 2, 3, 4, 8]))}
    return (
        scored(chain(*sizes, ties=ties), values),
        limits,
        draw(st.sampled_from([sl.Global(), sl.Uniform()])),
    )


def outcomes(scores: sl.Scores, limits: dict[str, int], strategy: Any) -> list[sl.Plan]:
    """Every plan there is along the order, smallest last."""
    total = sum(len(v) for v in scores.values.values())
    plans = []
    for units in range(total, 0, -1):
        try:
            plan = sl.allocate(scores, sl.Units(keep=units), strategy=strategy, **limits)
        except BudgetError:
            break
        if not plans or plan.keep != plans[-1].keep:
            plans.append(plan)
    return plans


@settings(max_examples=60, deadline=None)
@given(case=cases(), kind=st.sampled_from(BUDGETS), keep=st.floats(0, 1))
def test_the_best_plan_within_the_budget(case: Any, kind: type[sl.Macs], keep: float) -> None:
    """The largest along the order that meets the budget; if none does, the error names the nearest."""
    scores, limits, strategy = case
    budget, plans = kind(keep=keep), outcomes(*case)
    assert plans[0].pruned == ()
    limit = budget.limit(plans[0].before)
    within = [plan for plan in plans if budget.measure(plan.after) <= limit]
    if within:
        plan = sl.allocate(scores, budget, strategy=strategy, **limits)
        assert budget.measure(plan.after) <= limit
        assert plan.keep == within[0].keep
    else:
        with pytest.raises(BudgetError, match="cannot be met") as caught:
            sl.allocate(scores, budget, strategy=strategy, **limits)
        least = budget.measure(plans[-1].after)
        assert f"The nearest is {kind.__name__}(keep={least})" in str(caught.value)
        nearest = sl.allocate(scores, kind(keep=least), strategy=strategy, **limits)
        assert budget.measure(nearest.after) == least


@settings(max_examples=60, deadline=None)
@given(case=cases(), kind=st.sampled_from(BUDGETS), keeps=st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_plans_are_nested_and_hold_the_limits(case: Any, kind: type[sl.Macs], keeps: list[float]) -> None:
    scores, limits, strategy = case
    plans = []
    with contextlib.suppress(BudgetError):
        for keep in sorted(keeps, reverse=True):  # until the first that cannot be met
            plans.append(sl.allocate(scores, kind(keep=keep), strategy=strategy, **limits))  # noqa: PERF401
    for plan in plans:
        for group in plan.graph:
            size = plan.graph.portions(group.name)
            n = len(plan.keep[group.name]) * size // group.size
            step = limits["multiple_of"]
            while step > 1 and size < 4 * step:
                step //= 2
            assert n == size or (n % step == 0 and len(plan.keep[group.name]) >= limits["min_keep"])
        for tie in plan.graph.ties:
            assert len({len(plan.keep[name]) / plan.graph[name].size for name in tie}) == 1
    for larger, smaller in pairwise(plans):
        assert all(set(smaller.keep[name]) <= set(larger.keep[name]) for name in larger.keep)


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_every_group_keeps_its_highest_scores(case: Any) -> None:
    scores, limits, strategy = case
    for plan in outcomes(scores, limits, strategy)[-2:]:
        for name, values in scores.values.items():
            stays = plan.mask(name)
            if bool(stays.any()) and not bool(stays.all()):
                assert float(values[~stays].max()) <= float(values[stays].min())


@settings(max_examples=30, deadline=None)
@given(case=cases(), factor=st.sampled_from([0.5, 4.0, 1024.0]))
def test_positive_scale_changes_nothing(case: Any, factor: float) -> None:
    scores, limits, strategy = case
    larger = dataclasses.replace(scores, values={name: v * factor for name, v in scores.values.items()})
    mine, other = (outcomes(s, limits, strategy) for s in (scores, larger))
    assert [plan.keep for plan in mine] == [plan.keep for plan in other]


@settings(max_examples=30, deadline=None)
@given(data=st.data(), sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_units_in_another_order_make_the_same_plan_of_them(data: st.DataObject, sizes: list[int]) -> None:
    graph, rng = chain(*sizes), np.random.default_rng(1)
    values = {group.name: rng.permutation(group.size) + rng.random() for group in graph}
    orders = {name: np.array(data.draw(st.permutations(range(len(v))))) for name, v in values.items()}
    keep = data.draw(st.integers(len(sizes), sum(sizes)))
    plan = sl.allocate(scored(graph, values), sl.Units(keep=keep), **FREE)
    moved = sl.allocate(scored(graph, {n: values[n][orders[n]] for n in values}), sl.Units(keep=keep), **FREE)
    assert {n: {int(orders[n][u]) for u in units} for n, units in moved.keep.items()} == {
        n: set(units) for n, units in plan.keep.items()
    }


# What the bisection relies on: less kept never costs more


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5), data=st.data())
def test_costs_never_rise_as_units_go(sizes: list[int], data: st.DataObject) -> None:
    graph = chain(*sizes)
    more = {group.name: data.draw(st.integers(1, group.size)) for group in graph}
    less = {name: data.draw(st.integers(1, n)) for name, n in more.items()}
    a, b = sl.cost(graph, more), sl.cost(graph, less)
    assert (b.units, b.params, b.macs) <= (a.units, a.params, a.macs)
    assert b.params <= a.params
    assert b.macs <= a.macs


@pytest.mark.parametrize("name", sorted(NETS))
def test_costs_of_real_graphs_never_rise_as_units_go(name: str) -> None:
    graph = sl.trace(*NETS[name]())
    costs, rng = Costs(graph), np.random.default_rng(0)
    for _ in range(20):
        more = {group.name: int(rng.integers(1, group.size + 1)) for group in graph}
        less = {group: int(rng.integers(1, n + 1)) for group, n in more.items()}
        a, b, full = costs(more), costs(less), costs({})
        assert 0 <= b.params <= a.params <= full.params
        assert 0 <= b.macs <= a.macs <= full.macs


@pytest.mark.parametrize("name", sorted(NETS))
@pytest.mark.parametrize("kind", [sl.Params, sl.Macs])
def test_real_graphs_meet_their_budgets(name: str, kind: type[sl.Macs]) -> None:
    graph = sl.trace(*NETS[name]())
    budget = kind(keep=0.7)
    plan = sl.allocate(scored(graph), budget, strategy=sl.Uniform(), **FREE)
    assert budget.measure(plan.after) <= budget.limit(plan.before)
    assert plan.after == sl.cost(graph, kept(plan))


# Errors


def test_a_budget_that_cannot_be_met_names_the_nearest_that_can() -> None:
    scores = scored(chain(64, 64))
    with pytest.raises(BudgetError) as caught:
        sl.allocate(scores, sl.Macs(keep=0.01))
    # 64 * 3 + 64 * 64 + 2 * 64 of which 8 * 3 + 8 * 8 + 2 * 8 remain
    assert str(caught.value) == (
        "Macs(keep=0.01) cannot be met: at most 44 of 4,416 may stay, but 104 remain when every scored group "
        "keeps its fewest units. The nearest is Macs(keep=104) (2.4%); lower min_keep or multiple_of, or "
        "score more groups."
    )
    assert sl.allocate(scores, sl.Macs(keep=104)).after.macs == 104


@pytest.mark.parametrize(
    "budget", [sl.Units(keep=0.0), sl.Units(remove=1.0), sl.Units(remove=99), sl.Units(keep=0)]
)
def test_nothing_cannot_be_kept(budget: sl.Units) -> None:
    with pytest.raises(BudgetError, match=r"The nearest is Units\(keep=2\)"):
        sl.allocate(scored(chain(4, 4)), budget, **FREE)


def test_a_graph_without_macs_has_no_share_to_name() -> None:
    graph = dataclasses.replace(chain(4), ops=())
    with pytest.raises(BudgetError, match=r"at most -5 of 0 may stay"):
        sl.allocate(scored(graph), sl.Macs(remove=5))


def test_what_is_removable_by_hand() -> None:
    graph = chain(2, 4, 4, ties=(("g0", "g1"),))  # in two portions of 1 and 2 units
    assert removable(scored(graph)) == (1 + 2 + 3, 10)
    assert removable(scored(graph), min_keep=2) == (2, 10)
    assert removable(scored(graph, {"g1": range(4), "g2": range(4)})) == (3, 4)  # a tie scored in part stays
    assert removable(scored(chain(64)), multiple_of=8) == (56, 64)


@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_what_is_removable_can_be_removed_and_no_more(case: Any) -> None:
    scores, limits, _ = case
    most, units = removable(scores, **limits)
    assert units == sum(len(values) for values in scores.values.values())
    smallest = sl.allocate(scores, sl.Units(remove=most), **limits)
    assert smallest.before.units - smallest.after.units == most
    with pytest.raises(BudgetError, match=rf"nearest is Units\(keep={units - most}\)"):
        sl.allocate(scores, sl.Units(remove=most + 1), **limits)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_named(bad: float) -> None:
    scores = scored(chain(4, 3), {"g0": range(4), "g1": [0, bad, bad]})
    with pytest.raises(PlanError, match=f"the score of unit 1 of g1 is {bad}"):
        sl.allocate(scores, sl.Units(keep=0.5))


def test_scores_per_example_must_be_aggregated() -> None:
    scores = sl.Scores(graph=chain(4), values={"g0": torch.zeros(10, 4)})
    with pytest.raises(PlanError, match=r"the scores of g0 are per example, \(10, 4\); aggregate them first"):
        sl.allocate(scores, sl.Units(keep=0.5))


@dataclasses.dataclass(frozen=True)
class Given:
    """A strategy that returns what it was told."""

    answer: Any

    def keys(self, ranked: Any, scores: Any, budget: Any) -> Any:
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [{}, {"g0": [1, 2, 3]}, {"g0": [1, 2, 3, np.nan]}, {"g0": [4, 3, 2, 1]}, {"g0": [1, 2, 3, np.inf]}],
)
def test_strategies_must_give_every_unit_a_key(answer: Any) -> None:
    with pytest.raises(PlanError, match="the strategy must give group g0 4 finite keys in ascending order"):
        sl.allocate(scored(chain(4)), sl.Units(keep=0.5), strategy=Given(answer))


def test_a_users_own_strategy() -> None:
    scores = scored(chain(4, 4))
    last = Given({"g0": [10, 11, 12, 13], "g1": [0, 1, 2, 3]})  # spare the first group
    assert kept(sl.allocate(scores, sl.Units(keep=5), strategy=last, **FREE)) == {"g0": 4, "g1": 1}


# plan


def test_a_plan_by_hand() -> None:
    graph = chain(4, 5)
    made = sl.plan(graph, {"g1": [4, 0, 2]}, made_by={"who": "me"})
    assert made.keep == {"g0": (0, 1, 2, 3), "g1": (0, 2, 4)}
    assert made.made_by == {"who": "me"}
    assert (made.before, made.after) == (sl.cost(graph), sl.cost(graph, {"g1": 3}))


@pytest.mark.parametrize("units", [torch.tensor([2, 0]), np.array([2, 0]), range(0, 3, 2), {0, 2}])
def test_any_collection_of_integers_will_do(units: Any) -> None:
    assert sl.plan(chain(3), {"g0": units}).keep == {"g0": (0, 2)}


@pytest.mark.parametrize("units", [[], [0, 0], [5], [-1], [0.5]])
def test_impossible_units_are_refused(units: list[Any]) -> None:
    with pytest.raises(PlanError, match="units to keep must be"):
        sl.plan(chain(3), {"g0": units})


def test_plans_of_the_empty_mapping_keep_everything() -> None:
    made = sl.plan(chain(3), {})
    assert made.pruned == ()
    assert made.before == made.after


# Latency


def slow_at_odd(n: float) -> float:
    """Milliseconds of a layer to which an odd width costs as much as three units more."""
    return 0.1 * (n + 3 * (n % 2))


def test_latency_takes_the_first_plan_along_the_order_that_is_fast_enough() -> None:
    """8, 7, 6, 5, 4 units take 0.8, 1.0, 0.6, 0.8 and 0.4 ms beside 0.2 of the second layer."""
    graph = chain(8, 2)
    table = made_up(graph, {"w0": slow_at_odd, "w2": lambda n: 0.1 * n}, runs=400)
    scores = scored(graph, {"g0": range(8), "g1": [50, 60]})
    found = {}
    for keep in (1.0, 0.99, 0.8, 0.79, 0.6, 0.59, 0.4):
        plan = sl.allocate(scores, sl.Latency(keep=keep, table=table), **FREE)
        assert table.predict(plan) <= keep * table.dense + 1e-3
        found[keep] = kept(plan)["g0"]
    assert found == {1.0: 8, 0.99: 6, 0.8: 6, 0.79: 4, 0.6: 4, 0.59: 2, 0.4: 2}
    assert sl.allocate(scores, sl.Latency(keep=0.8, table=table), **FREE).made_by["budget"] == (
        "Latency(keep=0.8)"
    )


def test_plans_by_latency_are_nested() -> None:
    graph = chain(16, 12)
    table = made_up(graph, {"w0": slow_at_odd, "w1": lambda a, b: 0.01 * a * b}, runs=300)
    scores = scored(graph)
    keeps = (0.9, 0.75, 0.6, 0.4, 0.3)
    plans = [sl.allocate(scores, sl.Latency(keep=keep, table=table), **FREE) for keep in keeps]
    for larger, smaller in pairwise(plans):
        assert all(set(smaller.keep[name]) <= set(larger.keep[name]) for name in larger.keep)


def test_the_fastest_plan_is_named_where_none_is_fast_enough() -> None:
    """Two units are faster than the one that is the fewest."""
    graph = chain(8)
    table = made_up(graph, {"w0": slow_at_odd}, runs=300)
    scores = scored(graph)
    message = r"at most 80 of 800 microseconds may stay, but 20\d remain.*The nearest is Latency\(keep=20\d\)"
    with pytest.raises(BudgetError, match=message) as caught:
        sl.allocate(scores, sl.Latency(keep=0.1, table=table), **FREE)
    least = int(str(caught.value).partition("Latency(keep=")[2].partition("(keep=")[2].partition(")")[0])
    nearest = sl.allocate(scores, sl.Latency(keep=least, table=table), **FREE)
    assert kept(nearest) == {"g0": 2}


def test_tradeoff_prefers_what_saves_time_though_a_single_unit_saves_none() -> None:
    """Layers in blocks of four: the units of the slow one go first, all rises being equal."""
    graph = chain(16, 16)
    blocks = {"w0": lambda n: 1.0 * np.ceil(n / 4), "w2": lambda n: 0.1 * np.ceil(n / 4)}
    table = made_up(graph, blocks, runs=400)
    curves = {name: torch.tensor([[0.0, 0, 0], [16, 1, 0]]) for name in ("g0", "g1")}
    scores = dataclasses.replace(scored(graph), curves=curves)
    plan = sl.allocate(scores, sl.Latency(keep=0.6, table=table), strategy=sl.Tradeoff(), **FREE)
    assert kept(plan) == {"g0": 8, "g1": 16}


def test_a_table_of_another_model_is_refused() -> None:
    table = made_up(chain(8), {"w0": slow_at_odd})
    with pytest.raises(sl.StaleGraphError, match="latency table belongs to another model"):
        sl.allocate(scored(chain(9)), sl.Latency(keep=0.5, table=table))

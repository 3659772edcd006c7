"""Budgets: exactly one of keep and remove, fractions or amounts."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf.records import Cost
from timings import made_up

FULL = Cost(units=10, params=200, macs=3000)


@pytest.mark.parametrize(
    ("budget", "limit"),
    [
        (sl.Macs(keep=0.5), 1500),
        (sl.Macs(remove=0.25), 2250),
        (sl.Macs(keep=700), 700),
        (sl.Params(remove=50), 150),
        (sl.Units(keep=1.0), 10),
        (sl.Units(keep=1), 1),
    ],
)
def test_limits(budget: sl.Macs, limit: float) -> None:
    assert budget.limit(FULL) == limit


@pytest.mark.parametrize("kind", [sl.Units, sl.Params, sl.Macs])
def test_keep_and_remove_exclude_each_other(kind: type[sl.Macs]) -> None:
    for arguments in ({}, {"keep": 0.5, "remove": 0.5}):
        with pytest.raises(sl.BudgetError, match=rf"{kind.__name__} takes exactly one of keep= and remove="):
            kind(**arguments)


@pytest.mark.parametrize("value", [1.5, -0.1, -3, True])
def test_what_is_no_fraction_and_no_amount_is_refused(value: float) -> None:
    with pytest.raises(sl.BudgetError, match=str(value)):
        sl.Macs(keep=value)


def test_it_prints_as_it_is_written() -> None:
    assert str(sl.Macs(keep=0.5)) == "Macs(keep=0.5)"
    assert str(sl.Units(remove=3)) == "Units(remove=3)"


# Latency: one layer of 8 units between 3 and 2 that takes 0.1 milliseconds for each of them


@pytest.fixture(scope="module")
def table() -> sl.LatencyTable:
    graph = sl.trace(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(1, 3))
    return made_up(graph, {"0:linear#0": lambda n: 0.1 * n})


@pytest.mark.parametrize(
    ("amount", "limit"),
    [({"keep": 0.5}, 400), ({"remove": 0.25}, 600), ({"keep": 700}, 700), ({"remove": 50}, 750)],
)
def test_latency_counts_microseconds_as_the_table_predicts_them(
    table: sl.LatencyTable, amount: dict[str, float], limit: int
) -> None:
    budget = sl.Latency(**amount, table=table)
    assert budget.limit(FULL) == limit
    assert budget.measure(FULL) == 800
    assert budget.measure(FULL, {"0": 3}) == pytest.approx(300, abs=1)


def test_latency_prints_without_its_table(table: sl.LatencyTable) -> None:
    assert str(sl.Latency(keep=0.5, table=table)) == "Latency(keep=0.5)"


def test_latency_refuses_other_graphs_and_tables(table: sl.LatencyTable) -> None:
    budget = sl.Latency(keep=0.5, table=table)
    budget.check(table.graph)
    other = sl.trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.zeros(1, 3))
    with pytest.raises(sl.StaleGraphError, match="latency table belongs to another model"):
        budget.check(other)
    with pytest.raises(sl.DataError, match="not finished: 60 of 61 runs"):
        sl.Latency(keep=0.5, table=dataclasses.replace(table, planned=61)).check(table.graph)
    with pytest.raises(sl.BudgetError, match="must be what shapleaf.profile returned, received dict"):
        sl.Latency(keep=0.5, table={})
    with pytest.raises(sl.BudgetError, match="Latency takes exactly one of keep= and remove="):
        sl.Latency(table=table)


def test_a_correction_scales_what_is_predicted_of_pruned_models(table: sl.LatencyTable) -> None:
    """Half of the units were said to take 0.4 ms, and took six tenths of 0.8."""
    budget = sl.Latency(keep=0.5, table=table)
    plan = sl.plan(table.graph, {"0": range(4)})
    again = budget.corrected(plan, 0.6)
    assert again.measure(FULL, {"0": 4}) == pytest.approx(480, abs=1)
    assert again.measure(FULL, {"0": 2}) == pytest.approx(240, abs=1)
    assert again.measure(FULL) == 800
    assert (str(again), again.limit(FULL)) == (str(budget), budget.limit(FULL))
    assert again.corrected(plan, 0.5).measure(FULL, {"0": 4}) == pytest.approx(400, abs=1)
    with pytest.raises(sl.BudgetError, match="measured=0 must be positive"):
        budget.corrected(plan, 0)


# after: the budget for what a plan has left


def two() -> nn.Module:
    """Two groups, of 8 and 6 units."""
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))


def test_after_a_plan_the_whole_tables_times_are_those_of_the_units_left() -> None:
    """0.1 a + 0.01 a b milliseconds: 1.28 whole, 0.4 + 0.24 after half of a is gone."""
    model, inputs = two(), torch.zeros(2, 3)
    graph = sl.trace(model, inputs)
    table = made_up(graph, {"0:linear#0": lambda a: 0.1 * a, "2:linear#0": lambda a, b: 0.01 * a * b})
    budget = sl.Latency(keep=0.5, table=table)
    first = sl.plan(graph, {"0": [0, 2, 4, 6]})
    later = budget.after(first)
    left = sl.trace(sl.prune(model, first).model, inputs)
    later.check(left)
    assert (budget.measure(FULL), budget.limit(FULL)) == (1280, 640)
    assert (later.measure(FULL), later.limit(FULL)) == (pytest.approx(640, abs=2), pytest.approx(320, abs=1))
    assert later.measure(FULL, {"2": 3}) == pytest.approx(520, abs=2)
    assert later.measure(FULL, {"0": 2}) == budget.measure(FULL, {"0": 2}) == pytest.approx(320, abs=2)
    second = sl.plan(left, {"0": [1, 3], "2": [0, 1, 2]})
    whole = first.compose(second)
    assert later.after(second).measure(FULL) == budget.measure(FULL, {"0": 2, "2": 3})
    assert later.after(second).pruned == budget.after(whole).pruned
    assert sl.Latency(keep=640, table=table).after(first).limit(FULL) == 640


def test_a_group_of_which_one_unit_is_left_keeps_it_though_no_graph_names_it() -> None:
    model, inputs = two(), torch.zeros(2, 3)
    graph = sl.trace(model, inputs)
    table = made_up(graph, {"0:linear#0": lambda a: 0.1 * a, "2:linear#0": lambda a, b: 0.01 * a * b})
    first = sl.plan(graph, {"0": [5]})
    left = sl.trace(sl.prune(model, first).model, inputs)
    assert [group.name for group in left] == ["2"]
    later = sl.Latency(keep=0.5, table=table).after(first)
    later.check(left)
    assert later.measure(FULL) == pytest.approx(160, abs=2)
    assert later.after(sl.plan(left, {"2": [0]})).measure(FULL) == pytest.approx(110, abs=2)


def test_after_a_plan_other_models_are_refused(table: sl.LatencyTable) -> None:
    budget = sl.Latency(keep=0.5, table=table)
    later = budget.after(sl.plan(table.graph, {"0": range(4)}))
    with pytest.raises(sl.StaleGraphError, match="with 4 units in group 0; the one received has 8. Give it"):
        later.check(table.graph)
    narrow = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    other = sl.trace(narrow, torch.zeros(1, 3))
    with pytest.raises(sl.StaleGraphError, match="with no units in group 2; the one received has 6"):
        later.check(other)
    with pytest.raises(sl.StaleGraphError, match="latency table belongs to another model"):
        budget.after(sl.plan(sl.trace(two(), torch.zeros(1, 3)), {}))


def test_a_correction_goes_on_after_a_plan(table: sl.LatencyTable) -> None:
    """Half was said to take 0.4 of 0.8 ms and took 0.5: all that is pruned takes a quarter more."""
    half = sl.plan(table.graph, {"0": range(4)})
    later = sl.Latency(keep=0.5, table=table).after(half)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    whole = sl.plan(sl.trace(model, torch.zeros(1, 3)), {})
    again = later.corrected(whole, 0.5 / 0.8)
    assert again.measure(FULL) == pytest.approx(500, abs=1)
    assert again.measure(FULL, {"0": 2}) == pytest.approx(250, abs=1)


def test_the_other_budgets_are_the_same_after_any_plan(table: sl.LatencyTable) -> None:
    plan = sl.plan(table.graph, {"0": range(4)})
    for kind in (sl.Units, sl.Params, sl.Macs):
        assert kind(keep=0.5).after(plan) == kind(keep=0.5)


def test_the_other_budgets_take_any_graph(table: sl.LatencyTable) -> None:
    for kind in (sl.Units, sl.Params, sl.Macs):
        kind(keep=0.5).check(table.graph)
        assert kind(keep=0.5).monotone


def test_nonzeros_are_for_single_weights() -> None:
    assert sl.Nonzeros(keep=0.1).most(1001) == 100
    assert sl.Nonzeros(remove=0.1).most(1001) == 900
    assert sl.Nonzeros(remove=1).most(1001) == 1000
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    scores = sl.attribute(model, sl.trace(model, torch.zeros(1, 3)), None, sl.WeightNorm())
    with pytest.raises(sl.BudgetError, match=r"Nonzeros\(keep=0.5\) counts single weights"):
        sl.allocate(scores, sl.Nonzeros(keep=0.5))

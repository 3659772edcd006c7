"""Plans: units are checked, masks and counts follow, and they print."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import shapleaf as sl
from shapleaf.errors import DataError, PlanError
from shapleaf.records import Cost, Graph, Plan

ZERO = Cost(units=0, params=0, macs=0)


def keeping(graph: Graph, keep: object) -> Plan:
    return Plan(graph=graph, keep=keep, before=ZERO, after=ZERO)  # type: ignore[arg-type]


def test_it_prints_what_stays_and_what_it_costs(plan: Plan) -> None:
    assert str(plan) == (
        "Plan\n"
        "group  units  kept  kept %\n"
        "─────  ─────  ────  ──────\n"
        "conv       4     2  50%\n"
        "fc         3     3  100%\n"
        "units 7 -> 5 (71.4%), params 70 -> 38 (54.3%), MACs 48 -> 24 (50.0%)\n"
        "budget=Macs(keep=0.5)"
    )


def test_groups_that_are_not_named_stay_whole(graph: Graph) -> None:
    plan = keeping(graph, {"conv": (1,)})
    assert plan.keep == {"conv": (1,), "fc": (0, 1, 2)}
    assert plan.pruned == ("conv",)


def test_mask_is_true_where_the_unit_stays(plan: Plan) -> None:
    assert plan.mask("conv").tolist() == [True, False, False, True]
    assert plan.mask("fc").tolist() == [True] * 3
    with pytest.raises(PlanError, match="no group is named 'x'"):
        plan.mask("x")


def test_the_callers_mapping_is_copied(graph: Graph) -> None:
    mine = {"conv": (0, 1)}
    plan = keeping(graph, mine)
    mine["conv"] = ()
    assert plan.keep["conv"] == (0, 1)
    assert mine == {"conv": ()}


@pytest.mark.parametrize(
    "units", [[0, 2], np.array([0, 2]), torch.tensor([0, 2]), (np.int64(0), np.int32(2))]
)
def test_any_integers_will_do(graph: Graph, units: object) -> None:
    kept = keeping(graph, {"conv": units}).keep["conv"]
    assert kept == (0, 2)
    assert {type(unit) for unit in kept} == {int}


@pytest.mark.parametrize("units", [(), (4,), (-1, 0), (1, 0), (0, 0), (0, 1, 2, 3, 4)])
def test_units_must_be_sorted_unique_and_within_the_group(graph: Graph, units: tuple[int, ...]) -> None:
    with pytest.raises(
        PlanError, match=r"group conv: units to keep must be sorted, unique and within 0\.\.3"
    ):
        keeping(graph, {"conv": units})


@pytest.mark.parametrize("units", [(0.0, 1.0), ("0",), (None,), 3, (False, True), torch.ones(4) > 0])
def test_units_must_be_integers(graph: Graph, units: object) -> None:
    with pytest.raises(PlanError, match="units to keep must be integers"):
        keeping(graph, {"conv": units})


def test_an_unknown_group_is_refused(graph: Graph) -> None:
    with pytest.raises(PlanError, match="no group is named 'head'; the groups are: conv, fc"):
        keeping(graph, {"head": (0,)})


def test_tied_groups_keep_equal_shares(graph: Graph) -> None:
    twin = dataclasses.replace(graph["fc"], name="twin", slices=())
    tied = dataclasses.replace(graph, groups=(*graph.groups, twin), ties=(("fc", "twin"),))
    assert keeping(tied, {"fc": (0, 1), "twin": (1, 2)}).pruned == ("fc", "twin")
    with pytest.raises(
        PlanError, match="tied groups must keep equal shares of their units; received fc 2 of 3, twin 3 of 3"
    ):
        keeping(tied, {"fc": (0, 1)})


subsets = st.sets(st.integers(0, 3), min_size=1).map(lambda units: tuple(sorted(units)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    conv=subsets,
    numbers=st.tuples(*[st.integers(0, 10**15)] * 6),
    made_by=st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3),
)
def test_any_plan_round_trips(graph: Graph, tmp_path, conv, numbers, made_by) -> None:
    before, after = (
        Cost(units=units, params=params, macs=macs) for units, params, macs in (numbers[:3], numbers[3:])
    )
    plan = Plan(graph=graph, keep={"conv": conv}, before=before, after=after, made_by=made_by)
    plan.save(tmp_path / "plan")
    assert Plan.load(tmp_path / "plan") == plan


def test_a_file_with_impossible_units_is_refused(graph: Graph, tmp_path) -> None:
    plan = keeping(graph, {"conv": (0, 1)})
    plan.keep["conv"] = (0, 9)  # frozen is not deep; the file is checked all the same
    plan.save(tmp_path / "plan")
    with pytest.raises(DataError, match=r"not a valid Plan: group conv: units .* received \[0, 9\]\."):
        Plan.load(tmp_path / "plan")


# Two plans in a row


def mlp() -> nn.Module:
    return (
        nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).double().eval()
    )


def test_composed_plans_do_what_both_did() -> None:
    model, x = mlp(), torch.randn(4, 3, dtype=torch.float64)
    first = sl.plan(sl.trace(model, x), {"0": (1, 2, 4, 5), "2": (0, 3)}, made_by={"a": "1", "b": "1"})
    once = sl.prune(model, first).model
    second = sl.plan(sl.trace(once, x), {"0": (0, 3)}, made_by={"b": "2"})
    both = first.compose(second)
    assert both.keep == {"0": (1, 5), "2": (0, 3)}
    assert both.made_by == {"a": "1", "b": "2"}
    assert both.before == first.before
    assert both.after == sl.plan(first.graph, both.keep).after
    twice = sl.prune(once, second).model
    torch.testing.assert_close(sl.prune(model, both).model(x), twice(x), rtol=0, atol=1e-14)


def test_a_group_that_shrank_to_one_unit_is_no_group_any_more() -> None:
    model, x = mlp(), torch.zeros(1, 3, dtype=torch.float64)
    first = sl.plan(sl.trace(model, x), {"0": (4,)})
    second = sl.plan(sl.trace(sl.prune(model, first).model, x), {"2": (1, 2)})
    assert [group.name for group in second.graph] == ["2"]
    assert first.compose(second).keep == {"0": (4,), "2": (1, 2)}
    assert first.compose(second).after.units == 3


def test_once_a_grouped_convolution_has_one_group_its_channels_are_units() -> None:
    layers = [nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)]
    model, x = nn.Sequential(*layers), torch.randn(2, 3, 4, 4)
    first = sl.plan(sl.trace(model, x), {"0": (1,)})
    left = sl.trace(sl.prune(model, first).model, x)
    assert [(group.name, group.size) for group in left] == [("0", 4), ("1", 4), ("2", 6)]
    second = sl.plan(left, {"2": (1, 3)})
    both = first.compose(second)
    assert both.keep == {"0": (1,), "2": (1, 3)}
    assert both.after == sl.plan(first.graph, both.keep).after
    again = sl.plan(sl.trace(sl.prune(model, both).model, x), {"2": (1,)})
    assert both.compose(again).keep == {"0": (1,), "2": (3,)}
    for name in ("0", "1"):
        with pytest.raises(PlanError, match=f"removes units of group {name} that are no units of the first"):
            first.compose(sl.plan(left, {name: (0, 1)}))


def test_a_second_plan_for_another_model_is_refused(graph: Graph) -> None:
    model, x = mlp(), torch.zeros(1, 3, dtype=torch.float64)
    first = sl.plan(sl.trace(model, x), {"0": (0, 1)})
    with pytest.raises(
        PlanError, match="the second plan's group 0 has 6 units, expected 2: make it for the model"
    ):
        first.compose(sl.plan(first.graph, {"0": (0,)}))
    with pytest.raises(PlanError, match="group conv has 4 units, expected 0"):
        first.compose(keeping(graph, {}))

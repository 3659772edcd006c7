"""Units chosen group by group on the network as pruned so far."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import shapleaf as sl
from zoo import NETS, conv, example, half_plan, head, settle, state

X, Y = example(24, 6, seed=1), torch.arange(24) % 3


def chain() -> nn.Module:
    """Two hidden layers; the second says the same twice."""
    model = settle(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)))
    with torch.no_grad():
        model[2].weight[1], model[2].bias[1] = model[2].weight[0], model[2].bias[0]
    return model


def test_as_many_units_in_every_group_and_the_model_as_it_was() -> None:
    model = chain()
    before = state(model)
    plan = sl.plan(sl.trace(model, X[:2]), {"0": range(5), "2": range(3)})
    for first in ("output", "input"):
        refined = sl.refine(model, plan, (X, Y), first=first)
        assert {name: len(kept) for name, kept in refined.keep.items()} == {"0": 5, "2": 3}
        assert refined.after == plan.after
        assert refined.graph == plan.graph
        assert refined.made_by["refined"].endswith(f"{first} first")
    assert state(model) == before


def test_by_the_slow_way() -> None:
    """Each group is scored on the model that the groups before it left."""
    model = chain()
    plan = sl.plan(sl.trace(model, X[:2]), {"0": range(5), "2": range(3)})
    for order in (["2", "0"], ["0", "2"]):
        current, keep = model, {}
        for name in order:
            graph = sl.trace(current, X[:2])
            values = sl.attribute(current, graph, (X, Y), sl.LeaveOneOut(), groups=[name]).values[name]
            count = len(plan.keep[name])
            keep[name] = tuple(sorted(values.argsort(stable=True)[-count:].tolist()))
            current = sl.prune(current, sl.plan(graph, {name: keep[name]})).model
        first = "output" if order[0] == "2" else "input"
        assert sl.refine(model, plan, (X, Y), sl.LeaveOneOut(), first=first).keep == keep


def test_a_group_of_channels_may_go_down_to_one() -> None:
    """Then its channels are units of their own, which stay."""
    model = settle(nn.Sequential(conv(3, 8), nn.GroupNorm(2, 8), nn.ReLU(), conv(8, 6), nn.ReLU(), head(6)))
    maps = example(12, 3, 6, 6, seed=2)
    plan = sl.plan(sl.trace(model, maps[:2]), {"0": [0], "3": range(3)})
    refined = sl.refine(model, plan, (maps, torch.arange(12) % 3), sl.Taylor(), first="input")
    assert {name: len(kept) for name, kept in refined.keep.items()} == {"0": 1, "3": 3}


def test_a_group_that_loses_nothing_is_left_alone() -> None:
    model = chain()
    plan = sl.plan(sl.trace(model, X[:2]), {"2": range(3)})
    assert sl.refine(model, plan, (X, Y)).keep["0"] == tuple(range(8))


def test_compensation_after_every_group() -> None:
    model = settle(nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6), nn.ReLU(), head(6)))
    maps = example(12, 3, 6, 6, seed=2)
    plan = half_plan(sl.trace(model, maps[:2]))
    seen = []

    class Watching:
        def compensate(self, pruned: nn.Module, reference: nn.Module, plan: sl.Plan) -> tuple[str, ...]:
            seen.append(plan.pruned)
            return ()

    sl.refine(model, plan, (maps, torch.arange(12) % 2), sl.WeightNorm(), compensate=Watching())
    assert seen == [("2",), ("0",)]


@pytest.mark.parametrize("name", ["mlp", "residual", "grouped", "shufflenet"])
def test_the_plan_can_be_carried_out(name: str) -> None:
    model, x = NETS[name]()
    plan = half_plan(sl.trace(model, x[:2]))
    refined = sl.refine(model, plan, x, sl.WeightNorm())
    assert sl.prune(model, refined).receipt.error is not None


def test_a_generator_is_refused_before_any_work() -> None:
    model, once = chain(), iter([(X, Y)])
    plan = sl.plan(sl.trace(model, X[:2]), {"2": range(3)})
    with pytest.raises(sl.DataError, match="a list_iterator can be only once"):
        sl.refine(model, plan, once)
    assert len(list(once)) == 1


def test_an_unknown_end() -> None:
    model = chain()
    plan = sl.plan(sl.trace(model, X[:2]), {"2": range(3)})
    with pytest.raises(sl.PlanError, match='expected "output" or "input"'):
        sl.refine(model, plan, (X, Y), first="middle")  # type: ignore[arg-type]

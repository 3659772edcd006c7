"""Pruning: masked equals pruned, twice equals composed, all or nothing, replayed elsewhere."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.records import Edit
from zoo import (
    INEXACT,
    NETS,
    Apply,
    conv,
    example,
    forward,
    gap,
    half_plan,
    lived_in,
    prove,
    random_plan,
    run,
    settle,
    state,
)  # fmt: skip

EXACT = sorted(set(NETS) - INEXACT)


@pytest.mark.parametrize("name", EXACT)
def test_masked_equals_pruned(name: str) -> None:
    """The master invariant: with another ratio for every group, and for half."""
    model, inputs = NETS[name]()
    graph = sl.trace(model, inputs)
    assert all(group.exact for group in graph)
    for plan in (half_plan(graph), *(random_plan(graph, seed) for seed in range(6))):
        pruned, receipt = sl.prune(model, plan)
        assert gap(run(sl.masked(model, plan), inputs), run(pruned, inputs)) < 1e-12
        assert receipt.error is not None
        assert receipt.error < 1e-12


@pytest.mark.parametrize("name", sorted(INEXACT))
def test_groups_that_are_not_exact_are_pruned_and_say_so(name: str) -> None:
    model, inputs = NETS[name]()
    plan = half_plan(sl.trace(model, inputs))
    pruned, receipt = sl.prune(model, plan)
    assert receipt.error is None
    assert "not exact, not compared" in str(receipt)
    assert gap(run(sl.masked(model, plan), inputs), run(pruned, inputs)) > 1e-3


@pytest.mark.parametrize("name", NETS)
def test_keeping_all_is_bitwise_identity(name: str) -> None:
    model, inputs = NETS[name]()
    plan = sl.plan(sl.trace(model, inputs), {})
    pruned, receipt = sl.prune(model, plan)
    before = {name: t.numpy().tobytes() for name, t in model.state_dict().items()}
    assert {name: t.numpy().tobytes() for name, t in pruned.state_dict().items()} == before
    assert receipt.edits == ()
    assert receipt.error == 0
    for function in (pruned, sl.masked(model, plan)):
        assert all(torch.equal(a, b) for a, b in zip(run(model, inputs), run(function, inputs), strict=True))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", range(2))
def test_pruning_twice_is_pruning_by_the_composed_plan(name: str, seed: int) -> None:
    model, inputs = NETS[name]()
    # With one unit left of a grouped convolution, it is a plain one, whose units are smaller.
    first = random_plan(sl.trace(model, inputs), seed, least=2)
    once = sl.prune(model, first).model
    second = random_plan(sl.trace(once, inputs), seed + 10)
    twice = sl.prune(once, second).model
    composed = first.compose(second)
    at_once = sl.prune(model, composed).model
    assert twice.state_dict().keys() == at_once.state_dict().keys()
    assert all(
        torch.equal(a, b)
        for a, b in zip(twice.state_dict().values(), at_once.state_dict().values(), strict=True)
    )
    assert composed.after == sl.cost(first.graph, {name: len(kept) for name, kept in composed.keep.items()})


def test_a_plan_for_another_model_does_not_compose() -> None:
    model, inputs = NETS["mlp"]()
    plan = half_plan(sl.trace(model, inputs))
    with pytest.raises(sl.PlanError, match="the second plan's group 0 has 8 units, expected 4"):
        plan.compose(plan)
    other, inputs = NETS["plain"]()
    with pytest.raises(sl.PlanError, match="the second plan's group 4 has 8 units, expected 0"):
        sl.plan(sl.trace(model, example(2, 5)), {"0": range(6)}).compose(half_plan(sl.trace(other, inputs)))


@pytest.mark.parametrize("name", NETS)
def test_the_original_is_left_as_it_was(name: str) -> None:
    model, inputs = NETS[name]()
    lived_in(model, inputs)
    plan = half_plan(sl.trace(model, inputs))
    before = state(model)
    pruned, _ = sl.prune(model, plan)
    assert state(model) == before
    assert all(parameter.grad is None for parameter in pruned.parameters())
    ours = {t.data_ptr() for t in model.state_dict().values()}
    assert not ours & {t.data_ptr() for t in pruned.state_dict().values()}


@pytest.mark.parametrize("name", NETS)
def test_in_place_modes_hooks_and_frozen_parameters_stay(name: str) -> None:
    model, inputs = NETS[name]()
    lived_in(model, inputs)
    plan = half_plan(sl.trace(model, inputs))
    before, grads = state(model), {n: p.grad is not None for n, p in model.named_parameters()}
    sl.prune_(model, plan)
    after = state(model)
    for same in ("modules", "hooks", "global hooks", "modes", "random", "grad mode"):
        assert after[same] == before[same]
    assert {n: f[0] for n, f in after["flags"].items()} == {n: f[0] for n, f in before["flags"].items()}
    assert {n: p.grad is not None for n, p in model.named_parameters()} == grads
    assert all(p.grad.shape == p.shape for p in model.parameters() if p.grad is not None)
    for parameter in model.parameters():
        parameter.requires_grad_()
    sum(t.sum() for t in forward(model, inputs)).backward()


def test_gradients_are_cut_like_their_parameters() -> None:
    model, inputs = NETS["mlp"]()
    forward(model, inputs)[0].sum().backward()
    gradient = model[2].weight.grad.clone()
    sl.prune_(model, sl.plan(sl.trace(model, inputs), {"0": [1, 4], "2": [0, 5]}))
    assert torch.equal(model[2].weight.grad, gradient[[0, 5]][:, [1, 4]])


def test_aliases_stay_aliases() -> None:
    model, inputs = NETS["tied"]()
    shared = model[2].weight
    sl.prune_(model, half_plan(sl.trace(model, inputs)))
    assert model[2].weight is model[4].weight is shared
    assert shared.shape == (4, 4)
    pruned = sl.prune(model, half_plan(sl.trace(model, inputs))).model
    assert pruned[2].weight is pruned[4].weight is not shared


def test_channels_last_stays_channels_last() -> None:
    model, inputs = NETS["residual"]()
    model.to(memory_format=torch.channels_last)
    pruned = sl.prune(model, half_plan(sl.trace(model, inputs))).model
    for module in pruned.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_precisions(dtype: torch.dtype) -> None:
    model, inputs = NETS["residual"]()
    model, inputs = model.to(dtype), inputs.to(dtype)
    pruned, receipt = sl.prune(model, half_plan(sl.trace(model, inputs)))
    assert receipt.error <= torch.finfo(dtype).eps ** 0.5
    assert {p.dtype for p in pruned.parameters()} == {dtype}


@pytest.mark.parametrize("name", NETS)
def test_replayed_on_a_fresh_model_a_state_dict_fits(name: str, tmp_path: Any) -> None:
    model, inputs = NETS[name]()
    graph = sl.trace(model, inputs)
    if name == "dropouts":
        graph = sl.Graph.load(_saved(graph, tmp_path / "graph"))
    pruned, receipt = sl.prune(model, random_plan(graph, 3), scale_dropout=True)
    receipt = sl.Receipt.load(_saved(receipt, tmp_path / "receipt"))
    fresh = settle(NETS[name]()[0], seed=9)
    assert sl.replay(fresh, receipt) is fresh
    fresh.load_state_dict(pruned.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(run(pruned, inputs), run(fresh, inputs), strict=True))
    assert str(fresh) == str(pruned)


def _saved(record: Any, path: Any) -> Any:
    record.save(path)
    return path


def test_a_replay_on_another_architecture_is_refused() -> None:
    model, inputs = NETS["mlp"]()
    pruned, receipt = sl.prune(model, half_plan(sl.trace(model, inputs)))
    before = state(pruned)
    with pytest.raises(sl.StaleGraphError, match="belongs to another model"):
        sl.replay(pruned, receipt)
    assert state(pruned) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edits": Edit(module="4", attribute="forward", before=1, after=2)}, "sets 4.forward"),
        ({"edits": Edit(module="4", attribute="out_features", before=9, after=2)}, "holds 3 there"),
        ({"edits": Edit(module="9", attribute="out_features", before=3, after=2)}, "no module '9'"),
        ({"biases": ("4", 3)}, "4 has no place for a bias"),
        ({"biases": ("2", 10**13)}, "2 has 3 outputs and cannot be given a bias of 10"),
        ({"biases": ("2", -1)}, "2 has 3 outputs"),
        ({"biases": ("1", 3)}, "1 has no place for a bias"),
        ({"biases": ("9", 3)}, "9 has no place for a bias"),
    ],
)
def test_a_receipt_that_sets_what_surgery_never_does_leaves_the_model_as_it_is(
    change: dict[str, Any], message: str
) -> None:
    """Receipts are read from files, which anyone may have written."""
    layers = [nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6, bias=False), nn.Tanh(), nn.Linear(6, 3)]
    model = settle(nn.Sequential(*layers))
    receipt = sl.prune(model, half_plan(sl.trace(model, example(2, 5)))).receipt
    fresh, ((field, extra),) = copy.deepcopy(model), change.items()
    hostile = replace(receipt, **{field: (*getattr(receipt, field), extra)})
    before = state(fresh), str(fresh)
    with pytest.raises(sl.PlanError, match=message):
        sl.replay(fresh, hostile)
    assert (state(fresh), str(fresh)) == before
    sl.replay(fresh, replace(receipt, biases=(("2", 3),)))
    assert fresh[2].bias.tolist() == [0, 0, 0]


def literal(f: Callable[[Tensor], Tensor], reader: nn.Module) -> Callable[[], nn.Module]:
    """Eight maps of 6 x 6, something done to them that names a number, and a layer that reads it."""
    return lambda: settle(Apply(lambda self, x: self.b(f(F.relu(self.a(x)))), a=conv(3, 8), b=reader))


def _regrouped(x: Tensor) -> Tensor:
    """Four rows, whatever is left: with fewer channels the code runs on, and mixes others."""
    rows = x.view(len(x), 4, -1, 6, 6)
    return (rows * rows.sum(2, keepdim=True)).flatten(1, 2)


def _checked(x: Tensor) -> Tensor:
    if x.shape[1] != 8:
        raise KeyError("eight channels are expected")
    return x


LITERALS: dict[str, Callable[[], nn.Module]] = {
    "view": literal(lambda x: x.view(-1, 288), nn.Linear(288, 3)),
    "view per example": literal(lambda x: x.view(len(x), 288), nn.Linear(288, 3)),
    "unflatten": literal(lambda x: nn.Unflatten(1, (8, 1))(x.mean((2, 3))).sum(2), nn.Linear(8, 3)),
    "split sizes": literal(lambda x: torch.cat(x.split([4, 4], 1)[::-1], 1), conv(8, 3)),
    "split size": literal(lambda x: sum(x.split(4, 1)), conv(4, 3)),  # type: ignore[arg-type, return-value]
    "regrouping": literal(_regrouped, conv(8, 3)),
    "a check": literal(_checked, conv(8, 3)),
}


@pytest.mark.parametrize("name", LITERALS)
def test_a_size_that_code_holds_blocks_its_group_and_the_line_is_named(name: str) -> None:
    model, inputs = LITERALS[name](), example(2, 3, 6, 6)
    graph = sl.trace(model, inputs)
    assert len(graph) >= 1
    for group in graph:
        assert re.match(r"test_prune\.py:\d+ holds a size that does not follow: ", group.blocked)
    lived_in(model, inputs)
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.step()
    before = state(model, optimizer)
    for plan in (half_plan(graph), random_plan(graph, 1)):
        with pytest.raises(sl.PlanError, match=r"group a\S* cannot lose units: test_prune.py:"):
            sl.prune_(model, plan, optimizer=optimizer, compensate=sl.FoldMean([inputs]))
        with pytest.raises(sl.PlanError, match="cannot lose units"):
            sl.prune(model, plan)
    assert state(model, optimizer) == before
    sl.prune_(model, sl.plan(graph, {}), optimizer=optimizer)
    assert state(model, optimizer)["bytes"] == before["bytes"]


@pytest.mark.parametrize("name", LITERALS)
def test_a_size_that_code_holds_is_refused_and_the_model_is_intact(name: str) -> None:
    """Also where a graph does not say that its groups are blocked."""
    model, inputs = LITERALS[name](), example(2, 3, 6, 6)
    graph = sl.trace(model, inputs)
    graph = replace(graph, groups=tuple(replace(group, blocked="") for group in graph))
    lived_in(model, inputs)
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.step()
    before = state(model, optimizer)
    for plan in (half_plan(graph), random_plan(graph, 1), sl.plan(graph, {g.name: [0] for g in graph})):
        with pytest.raises(
            sl.PlanError,
            match="(does not run|returned shapes|differs from the masked one).*nothing was changed",
        ):
            sl.prune_(model, plan, optimizer=optimizer, compensate=sl.FoldMean([inputs]))
        with pytest.raises(sl.PlanError, match="nothing was changed"):
            sl.prune(model, plan)
    assert state(model, optimizer) == before


def test_a_size_that_a_module_holds_follows() -> None:
    layers = [conv(3, 8), nn.ReLU(), nn.AvgPool2d(6), nn.Flatten(), nn.Unflatten(1, (8, 1)), nn.Flatten()]
    model, inputs = settle(nn.Sequential(*layers, nn.Linear(8, 3))), example(2, 3, 6, 6)
    graph = sl.trace(model, inputs)
    assert [group.blocked for group in graph] == [""]
    pruned, receipt = sl.prune(model, half_plan(graph))
    assert pruned[4].unflattened_size == (4, 1)
    assert [e.index for e in receipt.edits if e.attribute == "unflattened_size"] == [0]
    prove(model, inputs, graph)


def test_the_line_that_would_have_to_change_is_named() -> None:
    model, inputs = LITERALS["view per example"](), example(2, 3, 6, 6)
    graph = sl.trace(model, inputs)
    graph = replace(graph, groups=tuple(replace(group, blocked="") for group in graph))
    with pytest.raises(sl.PlanError, match=r"does not run \(test_prune.py:\d+: .*view\(len\(x\), 288\)"):
        sl.prune(model, half_plan(graph))


def test_rolling_back_takes_added_biases_and_dropout_rates_with_it() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        x = self.d(F.relu(self.b(F.relu(self.a(x)))))
        return self.c(_regrouped(x).flatten(1))

    layers = {"a": conv(3, 8), "b": conv(8, 8, bias=False), "d": nn.Dropout(0.5), "c": nn.Linear(288, 3)}
    model = settle(Apply(run, **layers))
    inputs = example(2, 3, 6, 6)
    graph = sl.trace(model, inputs)
    plan = half_plan(replace(graph, groups=tuple(replace(group, blocked="") for group in graph)))
    before = state(model)
    with pytest.raises(sl.PlanError, match="nothing was changed"):
        sl.prune_(model, plan, compensate=sl.FoldMean([inputs]), scale_dropout=True)
    assert model.b.bias is None
    assert state(model) == before


def test_an_interrupt_rolls_back_too() -> None:
    class Stop(nn.Module):
        armed = False

        def forward(self, x: Tensor) -> Tensor:
            if self.armed and x.shape[1] != 8:
                raise KeyboardInterrupt
            return x

    model = settle(nn.Sequential(nn.Linear(6, 8), Stop(), nn.Linear(8, 2)))
    graph = sl.trace(model, example(1, 6))
    model[1].armed = True
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        sl.prune_(model, half_plan(graph))
    assert state(model) == before


def test_a_stale_plan_is_refused() -> None:
    model, inputs = NETS["mlp"]()
    plan = half_plan(sl.trace(model, inputs))
    sl.prune_(model, plan)
    before = state(model)
    for verb in (sl.prune, sl.prune_, sl.masked):
        with pytest.raises(
            sl.StaleGraphError, match=r"0.weight is \(\(4, 5\), 'float64'\), expected \(\(8, 5\)"
        ):
            verb(model, plan)
    assert state(model) == before


def test_a_model_that_cannot_be_copied_keeps_its_gradients() -> None:
    class Uncopyable(nn.Linear):
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("no copies")

    model = settle(nn.Sequential(Uncopyable(6, 8), nn.Linear(8, 2)))
    plan = half_plan(sl.trace(model, example(1, 6)))
    model(example(2, 6)).sum().backward()
    before = state(model)
    with pytest.raises(RuntimeError, match="no copies"):
        sl.prune(model, plan)
    assert state(model) == before


def test_parameters_of_a_list_and_a_root_module() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 2)])
            self.scales = nn.ParameterList([nn.Parameter(torch.zeros(8))])
            self.offset = nn.Parameter(torch.zeros(8))
            self.register_buffer("shift", torch.ones(8), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.layers[1](F.relu(self.layers[0](x) * self.scales[0] + self.offset + self.shift))

    model, x = settle(Root()), example(2, 6)
    graph = sl.trace(model, x)
    plan = sl.plan(graph, {"layers.0": [2, 3, 7]})
    pruned = sl.prune(model, plan).model
    assert gap(run(sl.masked(model, plan), x), run(pruned, x)) < 1e-12
    assert [tuple(t.shape) for t in (pruned.scales[0], pruned.offset, pruned.shift)] == [(3,), (3,), (3,)]


def test_a_pruned_model_can_be_scripted_exported_copied_and_trained() -> None:
    model, inputs = NETS["residual"]()
    pruned = sl.prune(model, half_plan(sl.trace(model, inputs))).model
    again = copy.deepcopy(pruned)
    optimizer = torch.optim.SGD(again.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        again(inputs).sum().backward()
        optimizer.step()
    exported = torch.export.export(pruned, (inputs,))
    assert gap(run(pruned, inputs), run(exported.module(), inputs)) < 1e-12


def test_one_unit_left_everywhere() -> None:
    for name in EXACT:
        model, inputs = NETS[name]()
        graph = sl.trace(model, inputs)
        plan = sl.plan(graph, {group.name: [group.size - 1] for group in graph})
        pruned = sl.prune(model, plan).model
        assert gap(run(sl.masked(model, plan), inputs), run(pruned, inputs)) < 1e-12, name

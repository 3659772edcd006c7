"""Counted costs are real: parameters of the pruned model, multiply-accumulates as PyTorch counts them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import shapleaf as sl
from shapleaf.costs import Costs
from shapleaf.records import Cost
from zoo import NETS, Apply, conv, example, half_plan, random_plan, run, settle


def measured(model: nn.Module, inputs: Any) -> tuple[int, float]:
    """Elements of parameters, and multiply-accumulates per example by PyTorch's own counter."""
    # It knows attention only as the two products that it is made of.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run(model, inputs)
    first = next(
        t
        for t in [inputs, *(inputs.values() if isinstance(inputs, dict) else inputs)]
        if not isinstance(t, tuple)
    )
    while isinstance(first, dict):
        first = next(iter(first.values()))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() / 2 / len(first)


@pytest.mark.parametrize("name", NETS)
def test_costs_are_those_of_the_real_model_before_and_after(name: str) -> None:
    model, inputs = NETS[name]()
    graph = sl.trace(model, inputs)
    before = sl.cost(graph)
    assert (before.params, before.macs) == measured(model, inputs)
    assert before.units == sum(group.size for group in graph)
    for plan in (half_plan(graph), *(random_plan(graph, seed) for seed in range(3))):
        pruned = sl.prune(model, plan).model
        assert plan.before == before
        assert (plan.after.params, plan.after.macs) == measured(pruned, inputs)
        assert plan.after.units == sum(map(len, plan.keep.values()))


def test_the_cost_of_a_linear_layer_by_hand() -> None:
    graph = sl.trace(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(5, 3))
    assert sl.cost(graph, {"0": 5}) == Cost(units=5, params=5 * 4 + 5 * 2 + 2, macs=5 * 3 + 5 * 2)


def test_counts_may_be_a_mapping_or_an_array() -> None:
    costs = Costs(sl.trace(*NETS["residual"]()))
    assert costs.names == ("stem", "c1", "c3", "c4")
    assert costs({"c1": 2, "c4": 3}) == costs(np.array([6, 2, 7, 3]))
    assert costs({}) == costs(costs.sizes)


def test_macs_do_not_depend_on_how_many_examples_were_traced() -> None:
    model, inputs = NETS["residual"]()
    assert sl.cost(sl.trace(model, inputs)) == sl.cost(sl.trace(model, torch.cat([inputs] * 3)))


def test_a_tied_parameter_counts_once_and_works_twice() -> None:
    graph = sl.trace(*NETS["tied"]())
    assert sl.cost(graph).params == 6 * 8 + 8 + 64 + 8 + 8 + 8 * 3 + 3
    assert sl.cost(graph).macs == 6 * 8 + 64 + 64 + 8 * 3


def test_a_transposed_grouped_convolution_with_other_numbers_in_and_out() -> None:
    model = settle(nn.Sequential(conv(3, 8), nn.ConvTranspose2d(8, 12, 2, groups=4), nn.ReLU(), conv(12, 2)))
    inputs = example(1, 3, 5, 5)
    plan = half_plan(sl.trace(model, inputs))
    assert plan.after.macs == measured(sl.prune(model, plan).model, inputs)[1]


def test_products_of_activations_count_too() -> None:
    def attend(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.o((self.q(x) @ self.k(x).transpose(1, 2)).softmax(-1) @ self.v(x))

    model = settle(Apply(attend, q=nn.Linear(6, 8), k=nn.Linear(6, 8), v=nn.Linear(6, 7), o=nn.Linear(7, 2)))
    inputs = example(3, 5, 6)
    graph = sl.trace(model, inputs)
    plan = sl.plan(graph, {"q": range(3), "v": range(4)})
    assert plan.before.macs == 5 * 6 * (8 + 8 + 7) + 25 * 8 + 25 * 7 + 5 * 7 * 2
    assert plan.after.macs == measured(sl.prune(model, plan).model, inputs)[1]

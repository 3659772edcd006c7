"""Attention is where activations are multiplied with activations; what keeps its width is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.testing import examine
from shapleaf.testing.attention import full_width, products_in, why_held
from zoo import NETS, Apply, example, settle


@pytest.mark.parametrize("name", ["mlp", "squeeze_excite", "two_inputs", "shared", "tokens", "functional"])
def test_gates_and_layers_are_no_attention(name: str) -> None:
    model, inputs = NETS[name]()
    assert products_in(model, inputs, sl.trace(model, inputs)) == {}


def test_a_convolution_with_a_computed_kernel_is_none() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(F.conv1d(self.a(x).relu(), (self.w.weight * x.mean())[:, :, None]))

    model = settle(Apply(run, a=nn.Conv1d(3, 6, 1), w=nn.Linear(6, 5), b=nn.Conv1d(5, 2, 1)))
    inputs = example(2, 3, 7)
    assert products_in(model, inputs, sl.trace(model, inputs)) == {}


def test_heads_of_a_transformer_become_fewer() -> None:
    model, inputs = NETS["transformer"]()
    graph = sl.trace(model, inputs)
    whole = products_in(model, inputs, graph)
    heads = torch.Size([2, 4, 5, 2])  # examples, heads, words, dimensions
    assert whole == {
        f"blocks.{i}": {f"blocks.{i}:scaled_dot_product_attention#0": [heads] * 3} for i in range(2)
    }
    pruned = sl.prune(model, sl.plan(graph, {"blocks.0.qkv": (1, 2)})).model
    assert full_width(whole, products_in(pruned, inputs, graph)) == {"blocks.1"}
    found = examine(model, inputs)
    assert (found.attention, found.given_up) == (2, {})


def test_by_hand_it_is_two_products_and_one_module() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.o((self.q(x) @ self.k(x).transpose(1, 2)).softmax(-1) @ self.v(x))

    model = settle(Apply(run, **{name: nn.Linear(4, 4) for name in "qkv"}, o=nn.Linear(4, 2)))
    (calls,) = products_in(model, example(2, 3, 4), sl.trace(model, example(2, 3, 4))).values()
    shapes = [[2, 3, 4], [2, 4, 3]], [[2, 3, 3], [2, 3, 4]]
    assert [[[*shape] for shape in each] for each in calls.values()] == [*shapes]


def test_a_module_that_keeps_one_of_two_products_whole_keeps_its_width() -> None:
    a, b, less = torch.Size([1, 8, 4]), torch.Size([1, 8, 2]), torch.Size([1, 4, 4])
    whole = {"m": {"m:matmul#0": [a, a], "m:matmul#1": [b, b]}}
    assert full_width(whole, {"m": {"m:matmul#0": [less, less], "m:matmul#1": [b, b]}}) == {"m"}
    assert full_width(whole, {"m": {"m:matmul#0": [less, a], "m:matmul#1": [less, b]}}) == set()
    assert full_width(whole, {}) == set()


def pytorchs_own(**more: bool) -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.out(F.relu(self.up(self.attend(x, x, x, need_weights=False)[0])))

    attend = nn.MultiheadAttention(4, 2, batch_first=True, **more)
    return settle(Apply(run, attend=attend, up=nn.Linear(4, 6), out=nn.Linear(6, 2)))


def test_pytorchs_own_attention_becomes_narrower() -> None:
    found = examine(pytorchs_own(), example(2, 3, 4))
    assert (found.proven, found.attention, found.given_up) == (True, 1, {})


def test_attention_that_keeps_its_width_is_told_with_the_reason() -> None:
    found = examine(pytorchs_own(add_bias_kv=True), example(2, 3, 4))
    assert found.proven
    assert found.attention == 1
    assert [*found.given_up] == ["attend"]
    assert "holds its sizes as integers" in found.given_up["attend"]
    assert "attend keeps its full width: " in str(found)


def test_a_module_without_weights_has_no_reason_of_its_own() -> None:
    model, inputs = NETS["mlp"]()
    assert why_held(sl.trace(model, inputs), "nowhere") == "no weights of its own are held"

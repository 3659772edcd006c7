"""Multi-head attention in plain functions: PyTorch's own results, and heads that can go."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.errors import PlanError
from shapleaf.layers import EQUIVALENTS, SUCCESSORS, MultiheadAttention
from shapleaf.records import Edit
from shapleaf.testing import assert_masked_equals_pruned, untouched
from zoo import Apply

DRAW = {"dtype": torch.float64}


def layer(**more: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    return nn.MultiheadAttention(8, 4, **DRAW, **more).eval()


def successor(attention: nn.MultiheadAttention) -> nn.MultiheadAttention:
    attention.__class__ = MultiheadAttention
    return attention


MASKS = {
    "none": {},
    "padding": {"key_padding_mask": torch.tensor([[False, False, True], [False, False, False]])},
    "additive": {"attn_mask": torch.randn(5, 3, generator=torch.Generator().manual_seed(1), **DRAW)},
    "per head": {"attn_mask": torch.eye(3, dtype=torch.bool)[torch.arange(40).view(8, 5) % 3]},
}
MASKS["both"] = {
    "key_padding_mask": torch.tensor([[0.0, 0.5, -1.0], [0.0, 0.0, 2.0]], **DRAW),
    **MASKS["additive"],
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_it_computes_what_pytorch_computes(mask: str, weights: bool, first: bool) -> None:
    query, key = torch.randn(2, 5, 8, **DRAW), torch.randn(2, 3, 8, **DRAW)
    value = torch.randn(2, 3, 8, **DRAW)
    sources = [x if first else x.transpose(0, 1) for x in (query, key, value)]
    given = {**MASKS[mask], "need_weights": weights}
    expected = layer(batch_first=first)(*sources, **given)
    received = successor(layer(batch_first=first))(*sources, **given)
    torch.testing.assert_close(received, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("bias", "separate", "average"), [*itertools.product([False, True], repeat=3)])
def test_with_and_without_biases_and_packed_weights(bias: bool, separate: bool, average: bool) -> None:
    widths = {"kdim": 5, "vdim": 7} if separate else {}
    query = torch.randn(5, 2, 8, **DRAW)
    key, value = (
        torch.randn(3, 2, 5 if separate else 8, **DRAW),
        torch.randn(3, 2, 7 if separate else 8, **DRAW),
    )
    expected = layer(bias=bias, **widths)(query, key, value, average_attn_weights=average)
    received = successor(layer(bias=bias, **widths))(query, key, value, average_attn_weights=average)
    torch.testing.assert_close(received, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("weights", [False, True])
def test_one_sequence_without_a_batch_and_a_causal_mask(causal: bool, weights: bool) -> None:
    x = torch.randn(5, 8, **DRAW)
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    given: dict[str, Any] = {"is_causal": causal, "need_weights": weights}
    given["attn_mask"] = mask if causal else None
    expected = layer()(x, x, x, **given)
    received = successor(layer())(x, x, x, **given)
    torch.testing.assert_close(received, expected, rtol=0, atol=1e-14)


def test_training_drops_out_at_the_same_rate() -> None:
    x = torch.randn(5, 2, 8, **DRAW)
    attention = successor(layer(dropout=0.9)).train()
    assert not torch.equal(attention(x, x, x)[0], attention(x, x, x)[0])
    assert not torch.equal(*(attention(x, x, x, need_weights=False)[0] for _ in range(2)))


def test_added_keys_are_left_to_pytorch() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 4, add_bias_kv=True, **DRAW).eval()
    x = torch.randn(5, 2, 8, **DRAW)
    more = {
        "first": nn.Linear(8, 6, **DRAW),
        "inner": nn.Linear(6, 8, **DRAW),
        "out": nn.Linear(8, 3, **DRAW),
    }
    graph = sl.trace(Apply(body, attention=attention, **more), x.transpose(0, 1))
    assert "attention" not in [group.name for group in graph]
    reasons = " ".join(held.reason for held in graph.blocked)
    assert "multi_head_attention_forward in attention" in reasons
    assert "holds its sizes as integers" in reasons


def body(self: Any, x: Tensor) -> Tensor:
    x = self.inner(self.first(x)).transpose(0, 1)
    return self.out(self.attention(x, x, x)[0].transpose(0, 1))


def encoder(**more: Any) -> nn.Module:
    torch.manual_seed(0)
    blocks = [nn.TransformerEncoderLayer(8, 4, 16, batch_first=True, **DRAW, **more) for _ in range(2)]
    return nn.Sequential(nn.Linear(6, 8, **DRAW), *blocks, nn.Linear(8, 2, **DRAW)).eval()


@pytest.mark.parametrize("more", [{}, {"norm_first": True}, {"bias": False}])
def test_heads_neurons_and_the_residual_stream_of_an_encoder(more: dict[str, bool]) -> None:
    model, x = encoder(**more), torch.randn(2, 3, 6, **DRAW)
    with untouched(model):
        graph = sl.trace(model, x)
    sizes = {group.name: group.size for group in graph}
    assert sizes == {"0": 8, "1.self_attn": 4, "1.linear1": 16, "2.self_attn": 4, "2.linear1": 16}
    assert [group.name for group in graph if not group.exact] == ["0"]
    assert not any(group.blocked for group in graph)
    assert_masked_equals_pruned(model, x)
    pruned, receipt = sl.prune(model, sl.plan(graph, {"1.self_attn": (0, 2, 3), "2.self_attn": (1,)}))
    assert receipt.error is not None
    assert receipt.error < 1e-14
    assert pruned[1].self_attn.in_proj_weight.shape == (18, 8)
    assert pruned[2].self_attn.num_heads == 1
    assert type(pruned[1].self_attn) is MultiheadAttention
    assert type(model[1].self_attn) is nn.MultiheadAttention
    narrower, _ = sl.prune(model, sl.plan(graph, {"0": (0, 1, 2, 5, 7), "1.self_attn": (3,)}))
    assert narrower(x).shape == (2, 3, 2)


def test_a_head_takes_its_rows_of_queries_keys_and_values() -> None:
    model = encoder()
    group = sl.trace(model, torch.zeros(1, 3, 6, **DRAW))["1.self_attn"]
    rows = {piece.tensor: piece.index.tolist() for piece in group.slices}
    assert rows["1.self_attn.in_proj_weight"][1] == [2, 3, 10, 11, 18, 19]
    assert rows["1.self_attn.in_proj_bias"][1] == [2, 3, 10, 11, 18, 19]
    assert rows["1.self_attn.out_proj.weight"][1] == [2, 3]


def test_weights_that_nobody_reads_leave_heads_exact_and_weights_that_are_read_do_not() -> None:
    def ignored(self: Any, x: Tensor) -> Tensor:
        return self.out(self.attention(x, x, x)[0])

    def read(self: Any, x: Tensor) -> Tensor:
        out, weights = self.attention(x, x, x)
        return self.out(out) * weights.amax(-1, keepdim=True)

    x = torch.randn(2, 3, 8, **DRAW)
    for code, exact in ((ignored, True), (read, False)):
        model = Apply(code, attention=layer(batch_first=True), out=nn.Linear(8, 3, **DRAW)).eval()
        group = sl.trace(model, x)["attention"]
        assert (group.size, group.exact) == (4, exact)
        sl.prune(model, sl.plan(sl.trace(model, x), {"attention": (0, 3)}))


def test_a_receipt_makes_a_fresh_model_the_pruned_one() -> None:
    model, x = encoder(), torch.randn(2, 3, 6, **DRAW)
    plan = sl.plan(sl.trace(model, x), {"1.self_attn": (0,), "2.linear1": range(5)})
    pruned, receipt = sl.prune(model, plan)
    again = sl.replay(encoder(), receipt)
    again.load_state_dict(pruned.state_dict())
    assert torch.equal(again(x), pruned(x))


def test_a_receipt_cannot_name_other_classes() -> None:
    model = encoder()
    plan = sl.plan(sl.trace(model, torch.zeros(1, 3, 6, **DRAW)), {"1.self_attn": (0,)})
    _, receipt = sl.prune(model, plan)
    for module, name in (("1.self_attn", "os.System"), ("1.linear1", "shapleaf.MultiheadAttention")):
        edit = Edit(module=module, attribute="__class__", before="", after=name)
        forged = sl.Receipt(plan=receipt.plan, edits=(edit,))
        with pytest.raises(PlanError, match="cannot become"):
            sl.replay(encoder(), forged)


def test_a_failed_prune_gives_the_old_class_back() -> None:
    model, x = encoder(), torch.randn(2, 3, 6, **DRAW)
    plan = sl.plan(sl.trace(model, x), {"1.self_attn": (0,)})
    model[1].linear2.register_forward_hook(failing)
    with pytest.raises(Exception, match="too few heads"):
        sl.prune_(model, plan)
    assert type(model[1].self_attn) is nn.MultiheadAttention


def failing(module: nn.Module, inputs: Any, out: Tensor) -> None:
    model_inputs = inputs[0]
    if isinstance(model_inputs, Tensor) and failing.calls:
        raise ValueError("too few heads")
    failing.calls += 1


failing.calls = 0  # type: ignore[attr-defined]


def test_tables_name_functions_and_layers_of_pytorch() -> None:
    assert F.multi_head_attention_forward in EQUIVALENTS
    assert all(issubclass(after, before) for before, after in SUCCESSORS.items())

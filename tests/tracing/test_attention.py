"""Attention: its units are whole heads, in whatever way the code lays them out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from zoo import example, gap, prove, run, settle

TOKENS = example(2, 5, 6)
H, D = 4, 3


class Attention(nn.Module):
    """Four heads of three dimensions over five tokens of width 6."""

    def __init__(self, fused: bool = True, keys: int = H, layout: str = "apart", gqa: bool = False) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = H, D, H * D
        self.fused, self.layout, self.gqa, self.repeats = fused, layout, gqa, H // keys
        self.bias: Any = None
        if layout == "apart":
            self.q, self.k, self.v = nn.Linear(6, H * D), nn.Linear(6, keys * D), nn.Linear(6, keys * D)
        else:
            self.qkv = nn.Linear(6, 3 * H * D)
        self.o = nn.Linear(H * D, 2)

    def heads(self, x: Tensor) -> Any:
        n, t, _ = x.shape
        if self.layout == "reshape":
            return (
                self.qkv(x).reshape(n, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
            )
        if self.layout == "chunk":
            return [y.view(n, t, self.num_heads, -1).transpose(1, 2) for y in self.qkv(x).chunk(3, -1)]
        return [f(x).view(n, t, -1, self.head_dim).transpose(1, 2) for f in (self.q, self.k, self.v)]

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.heads(x)
        if not self.gqa and self.repeats > 1:
            k, v = k.repeat_interleave(self.repeats, 1), v.repeat_interleave(self.repeats, 1)
        bias = None if self.bias is None else self.bias.expand(n, -1, t, t)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, enable_gqa=self.gqa)
        else:
            scores = q @ k.transpose(-1, -2) / self.head_dim**0.5
            y = (scores if bias is None else scores + bias).softmax(-1) @ v
        y = y.transpose(1, 2)
        width = {"reshape": self.attn_dim, "chunk": self.num_heads * self.head_dim}.get(self.layout, -1)
        return self.o(y.reshape(n, t, width))


def owners(group: Any) -> dict[str, list[list[int]]]:
    return {f"{s.tensor}[{s.dim}]": s.index.tolist() for s in group.slices}


def spans(count: int, width: int, *starts: int) -> list[list[int]]:
    return [[i for s in starts for i in range(s + h * width, s + (h + 1) * width)] for h in range(count)]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("layout", ["apart", "reshape", "chunk"])
def test_a_unit_is_a_head_with_all_its_dimensions(layout: str, fused: bool) -> None:
    model = settle(Attention(fused=fused, layout=layout))
    graph = sl.trace(model, TOKENS)
    (group,) = graph
    assert (group.size, group.exact, group.blocked) == (H, True, "")
    rows = spans(H, D, 0) if layout == "apart" else spans(H, D, 0, H * D, 2 * H * D)
    names = ("q", "k", "v") if layout == "apart" else ("qkv",)
    expected = {f"{name}.{part}[0]": rows for name in names for part in ("weight", "bias")}
    assert owners(group) == {**expected, "o.weight[1]": spans(H, D, 0)}
    prove(model, TOKENS, graph)


@pytest.mark.parametrize("fused", [True, False])
def test_the_sizes_that_the_code_holds_follow_and_the_scale_stays(fused: bool) -> None:
    model = settle(Attention(fused=fused, layout="reshape"))
    graph = sl.trace(model, TOKENS)
    pruned, receipt = sl.prune(model, sl.plan(graph, {"qkv": [0, 3]}))
    assert (pruned.num_heads, pruned.head_dim, pruned.attn_dim) == (2, 3, 6)
    assert (model.num_heads, model.attn_dim) == (4, 12)
    assert {(e.attribute, e.before, e.after) for e in receipt.edits if not e.module} == {
        ("num_heads", 4, 2),
        ("attn_dim", 12, 6),
    }
    # By hand: heads 0 and 3, each with the scale of three dimensions.
    q, k, v = (y[:, [0, 3]] for y in model.heads(TOKENS))
    attended = (q @ k.transpose(-1, -2) * 3**-0.5).softmax(-1) @ v
    weight = model.o.weight[:, [0, 1, 2, 9, 10, 11]]
    expected = attended.transpose(1, 2).flatten(2) @ weight.t() + model.o.bias
    assert gap([expected.detach()], run(pruned, TOKENS)) < 1e-12


@pytest.mark.parametrize(("fused", "gqa"), [(True, True), (True, False), (False, False)])
def test_grouped_queries_go_with_the_key_head_that_they_read(fused: bool, gqa: bool) -> None:
    model = settle(Attention(fused=fused, keys=2, gqa=gqa))
    graph = sl.trace(model, TOKENS)
    (group,) = graph
    queries, keys = spans(2, 2 * D, 0), spans(2, D, 0)
    assert owners(group) == {
        "q.weight[0]": queries, "q.bias[0]": queries, "k.weight[0]": keys, "k.bias[0]": keys,
        "v.weight[0]": keys, "v.bias[0]": keys, "o.weight[1]": queries,
    }  # fmt: skip
    assert group.exact
    prove(model, TOKENS, graph)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("shape", [(1, H, 1, 1), (1, H, 5, 5)])
@pytest.mark.parametrize("kind", ["parameter", "buffer"])
def test_a_bias_per_head_goes_with_its_head(fused: bool, shape: tuple[int, ...], kind: str) -> None:
    model = Attention(fused=fused)
    del model.bias
    if kind == "parameter":
        model.bias = nn.Parameter(torch.zeros(shape))
    else:
        model.register_buffer("bias", example(*shape, seed=3))
    settle(model)
    graph = sl.trace(model, TOKENS)
    (group,) = graph
    assert group.size == H
    assert owners(group)["bias[1]"] == [[0], [1], [2], [3]]
    prove(model, TOKENS, graph)


@pytest.mark.parametrize("fused", [True, False])
def test_a_constant_bias_per_head_holds_the_heads(fused: bool) -> None:
    model = settle(Attention(fused=fused))
    model.bias = example(1, H, 5, 5, seed=3)
    with pytest.raises(sl.TraceError, match="without units"):
        sl.trace(model, TOKENS)


def test_a_constant_mask_for_all_heads_does_not() -> None:
    model = settle(Attention())
    model.bias = example(1, 1, 5, 5, seed=3)
    graph = sl.trace(model, TOKENS)
    assert [(g.name, g.size) for g in graph] == [("q", H)]
    prove(model, TOKENS, graph)


def test_without_a_grid_of_heads_the_dimensions_set_the_scale() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = map(nn.Linear, (6, 6, 6, 4), (4, 4, 4, 2))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.q(x), self.k(x), self.v(x)
            return self.o(F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0])

    model = settle(Single())
    graph = sl.trace(model, TOKENS)
    assert [(g.name, g.size) for g in graph] == [("v", 4)]
    reasons = {f"{b.tensor}[{b.dim}]": b.reason for b in graph.blocked}
    for name in ("q", "k"):
        assert reasons[f"{name}.weight[0]"].startswith("the dimensions of a head set the scale")
    prove(model, TOKENS, graph)


def test_multiply_accumulates_follow_the_heads() -> None:
    """Twice (queries x keys x dimensions) for each head, beside the layers."""
    model = settle(Attention())
    graph = sl.trace(model, TOKENS)
    layers, each = 5 * (3 * 6 * H * D + H * D * 2), 2 * 5 * 5 * D
    assert sl.cost(graph).macs == layers + H * each
    assert sl.plan(graph, {"q": [0, 2]}).after.macs == layers // 2 + 2 * each


class Windows(nn.Module):
    """Attention over five axes is products in a row, whose scale PyTorch takes from the dimensions."""

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        self.scale, self.qkv, self.out = scale, nn.Linear(6, 18), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(len(x), 2, 2, 3, 1, 6).permute(3, 0, 4, 1, 2, 5).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.out(y.permute(0, 2, 3, 1, 4).reshape(len(x), 4, -1))


def test_one_head_of_windows_keeps_what_sets_its_scale() -> None:
    with pytest.raises(sl.TraceError, match="the dimensions of a head set the scale in :scaled_dot"):
        sl.trace(settle(Windows(None)), example(2, 4, 6))
    graph = sl.trace(settle(Windows(0.5)), example(2, 4, 6))
    assert [group.size for group in graph] == [6]
    assert graph.groups[0].blocked  # the view names six dimensions


def test_key_heads_repeated_by_an_attribute_go_with_their_queries() -> None:
    class Repeated(nn.Module):
        """As gemma-2 attends: key heads expanded by the number of queries each, then products."""

        def __init__(self) -> None:
            super().__init__()
            self.repeats, self.width = 3, 4
            self.q, self.k, self.v = nn.Linear(6, 24), nn.Linear(6, 8), nn.Linear(6, 8)
            self.out = nn.Linear(24, 3)

        def repeat(self, x: Tensor) -> Tensor:
            n, heads, steps, width = x.shape
            x = x[:, :, None].expand(n, heads, self.repeats, steps, width)
            return x.reshape(n, heads * self.repeats, steps, width)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (
                f(x).view(*x.shape[:2], -1, self.width).transpose(1, 2) for f in (self.q, self.k, self.v)
            )
            k, v = self.repeat(k), self.repeat(v)
            y = torch.matmul(torch.matmul(q, k.transpose(2, 3)).softmax(-1), v)
            return self.out(y.transpose(1, 2).reshape(*x.shape[:2], -1))

    model, x = settle(Repeated()), example(2, 5, 6)
    graph = sl.trace(model, x)
    (group,) = graph
    assert (group.size, group.blocked) == (2, "")
    rows = {piece.tensor: piece.index.shape[1] for piece in group.slices if piece.dim == 0}
    assert (rows["q.weight"], rows["k.weight"]) == (12, 4)  # three heads of queries, one of keys
    prove(model, x, graph)

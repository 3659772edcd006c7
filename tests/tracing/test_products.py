"""Matrix products and convolutions: what is united, what is read, what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from zoo import Apply, Weights, between, conv, example, half_plan, head, prove, prove_exact, settle

VECTORS, MAPS, TOKENS = example(2, 6), example(2, 3, 6, 6), example(2, 5, 6)


def owners(group: Any) -> dict[str, list[list[int]]]:
    return {f"{s.tensor}[{s.dim}]": s.index.tolist() for s in group.slices}


PRODUCTS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "linear": lambda self, x: F.linear(x, self.w.t()),
    "matmul": lambda self, x: x @ self.w,
    "mm": lambda self, x: torch.mm(x, self.w),
    "addmm": lambda self, x: torch.addmm(self.u.sum(0), x, self.w),
    "einsum": lambda self, x: torch.einsum("nk,ko->no", x, self.w),
    "bmm": lambda self, x: torch.bmm(x[:, None], self.w.expand(len(x), -1, -1))[:, 0],
    "as convolution": lambda self, x: F.conv1d(x[..., None], self.w.t()[..., None])[..., 0],
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_all_ways_to_multiply_read_the_same_units(name: str) -> None:
    model = settle(
        Weights(
            lambda self, x: PRODUCTS[name](self, F.relu(x @ self.v)) @ self.u, v=(6, 8), w=(8, 5), u=(5, 5)
        )
    )
    graph = sl.trace(model, VECTORS)
    assert owners(graph["v"]) == {"v[1]": [[i] for i in range(8)], "w[0]": [[i] for i in range(8)]}
    (site,) = graph["v"].sites
    assert (site.weight, site.dim) == ("w", 0)
    if name != "addmm":  # its bias is a sum over parameters
        prove(model, VECTORS, graph)


def test_a_product_of_activations_reads_units_without_a_weight() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.o((self.q(x) @ self.k(x).transpose(1, 2)).softmax(-1) @ self.v(x))

    model = settle(Apply(run, q=nn.Linear(6, 8), k=nn.Linear(6, 8), v=nn.Linear(6, 7), o=nn.Linear(7, 2)))
    graph = sl.trace(model, TOKENS)
    assert {g.name: (g.size, [s.weight for s in g.sites]) for g in graph} == {
        "q": (8, [None]),
        "v": (7, ["o.weight"]),
    }
    prove(model, TOKENS, graph)


def test_the_units_of_attention_by_hand_are_whole_heads() -> None:
    def attention(self: Any, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (part.view(n, t, self.heads, 4).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return self.o(((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).reshape(n, t, -1))

    model = settle(Apply(attention, qkv=nn.Linear(6, 24), o=nn.Linear(8, 2)))
    model.heads = 2
    graph = sl.trace(model, TOKENS)
    heads = [[*range(d, d + 4), *range(8 + d, 12 + d), *range(16 + d, 20 + d)] for d in (0, 4)]
    assert owners(graph["qkv"]) == {
        "qkv.weight[0]": heads, "qkv.bias[0]": heads, "o.weight[1]": [[0, 1, 2, 3], [4, 5, 6, 7]],
    }  # fmt: skip
    assert graph["qkv"].exact
    assert graph["qkv"].blocked == ""
    prove(model, TOKENS, graph)
    assert sl.prune(model, half_plan(graph)).model.heads == 1


def test_units_along_the_examples_axis_are_frozen() -> None:
    model = settle(Weights(lambda self, x: (self.w.t() @ F.relu(x @ self.v).t()).t(), v=(6, 8), w=(8, 2)))
    with pytest.raises(
        sl.TraceError, match="what :matmul#1 reads does not have the examples along its first axis"
    ):
        sl.trace(model, VECTORS)


@pytest.mark.parametrize("examples", [1, 3])
def test_examples_along_another_axis_freeze(examples: int) -> None:
    """A mask for every example could not be laid there."""
    model = settle(
        Apply(
            lambda self, x: self.b(F.relu(self.a(x.transpose(0, 1)))).transpose(0, 1),
            a=nn.Linear(6, 8),
            b=nn.Linear(8, 2),
        )
    )
    with pytest.raises(
        sl.TraceError, match="what b:linear#0 reads does not have the examples along its first axis"
    ):
        sl.trace(model, example(examples, 5, 6))


def test_of_two_kinds_of_units_in_one_argument_the_first_may_go() -> None:
    model = settle(
        Apply(
            lambda self, x: self.c(torch.einsum("ni,nj->nij", self.a(x), self.b(x)).flatten(1)),
            a=nn.Linear(6, 4),
            b=nn.Linear(6, 5),
            c=nn.Linear(20, 2),
        )
    )
    graph = sl.trace(model, VECTORS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("a", 4, True)]
    assert owners(graph["a"])["c.weight[1]"] == [[5 * i + j for j in range(5)] for i in range(4)]
    (held,) = (b.reason for b in graph.blocked if (b.tensor, b.dim) == ("b.weight", 0))
    assert held.startswith("contracts several kinds of units at once (addmm in c, ")
    prove(model, VECTORS, graph)


def test_the_unit_of_a_grouped_convolution_is_a_whole_group() -> None:
    model = settle(nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 6, groups=2), head(6)))
    graph = sl.trace(model, MAPS)
    assert owners(graph["0"]) == {
        "0.weight[0]": [[0, 1], [2, 3]], "0.bias[0]": [[0, 1], [2, 3]],
        "2.weight[0]": [[0, 1, 2], [3, 4, 5]], "2.bias[0]": [[0, 1, 2], [3, 4, 5]],
        "3.2.weight[1]": [[0, 1, 2], [3, 4, 5]],
    }  # fmt: skip


def test_a_depthwise_convolution_has_the_units_of_its_input() -> None:
    model = settle(nn.Sequential(conv(3, 4), conv(4, 8, groups=4), head(8)))
    graph = sl.trace(model, MAPS)
    assert owners(graph["0"])["1.weight[0]"] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_a_transposed_grouped_convolution() -> None:
    model = settle(nn.Sequential(conv(3, 4), nn.ConvTranspose2d(4, 6, 2, groups=2), head(6)))
    graph = sl.trace(model, MAPS)
    assert owners(graph["0"]) == {
        "0.weight[0]": [[0, 1], [2, 3]], "0.bias[0]": [[0, 1], [2, 3]], "1.weight[0]": [[0, 1], [2, 3]],
        "1.bias[0]": [[0, 1, 2], [3, 4, 5]], "2.2.weight[1]": [[0, 1, 2], [3, 4, 5]],
    }  # fmt: skip
    prove(model, MAPS, graph)


def test_grouping_by_hand_and_then_shuffling_leaves_one_unit() -> None:
    """Whole groups of the convolution, and whole columns of the shuffle: that is everything."""
    model = settle(nn.Sequential(conv(3, 6), conv(6, 12, groups=3), nn.ChannelShuffle(3), head(12)))
    with pytest.raises(sl.TraceError, match=r"all of 0.weight\[0\] is one unit"):
        sl.trace(model, MAPS)


def test_a_fixed_kernel_over_every_channel_freezes() -> None:
    model = settle(
        Apply(
            lambda self, x: self.h(F.conv2d(self.a(x), torch.ones(8, 1, 3, 3).double(), groups=8)),
            a=conv(3, 8),
            h=head(8),
        )
    )
    with pytest.raises(sl.TraceError, match="grouped by a weight without units"):
        sl.trace(model, MAPS)


def test_convolving_over_the_axis_of_units_freezes() -> None:
    gate = nn.Conv1d(1, 1, 3, padding=1).double()
    model = settle(
        Apply(
            lambda self, x: self.b(self.g(self.a(x)[:, None])[:, 0]),
            a=nn.Linear(6, 8),
            g=gate,
            b=nn.Linear(8, 2),
        )
    )
    with pytest.raises(sl.TraceError, match=r"slides over an axis of units \(convolution in g"):
        sl.trace(model, VECTORS)


def test_macs_are_the_lengths_of_the_axes() -> None:
    model = settle(
        nn.Sequential(conv(3, 8), conv(8, 8, groups=4), nn.Flatten(), nn.Linear(8 * 36, 5), nn.Linear(5, 2))
    )
    ops = sl.trace(model, MAPS).ops
    sizes = {"0": 4, "3": 5}

    def length(axis: Any) -> float:
        return axis.fixed + sum(n * sizes[group] for group, n in zip(axis.groups, axis.per_unit, strict=True))

    lengths = [(op.scale, [length(axis) for axis in op.axes]) for op in ops]
    assert lengths == [(9 * 36, [8, 3]), (2 * 9 * 36, [8]), (1, [288, 5]), (1, [5, 2])]


def raw(f: Any, **shapes: tuple[int, ...]) -> nn.Module:
    return settle(Weights(f, **shapes))


def test_heads_and_their_dimensions_are_contracted_at_once() -> None:
    """The first identity of the axis, heads, may go; the other one is held."""
    model = raw(
        lambda s, x: torch.einsum("bthd,hdo->bto", torch.einsum("btc,chd->bthd", x, s.a).relu(), s.b),
        a=(6, 4, 2),
        b=(4, 2, 3),
    )
    inputs = example(2, 5, 6)
    graph = sl.trace(model, inputs)
    assert [g.size for g in graph] == [4]
    assert owners(graph["a"]) == {"a[1]": [[0], [1], [2], [3]], "b[0]": [[0], [1], [2], [3]]}
    prove(model, inputs, graph)


PATTERNS: dict[str, tuple[Any, dict[str, tuple[int, ...]], list[int]]] = {
    "channels mixed": (
        lambda s, x: torch.einsum("nc,oc->no", torch.einsum("nc,oc->no", x, s.a).relu(), s.b),
        {"a": (8, 6), "b": (3, 8)},
        [8],
    ),
    "matrix by vector": (
        lambda s, x: torch.mv((x @ s.a).relu(), s.v)[:, None],
        {"a": (6, 8), "v": (8,)},
        [8],
    ),
    "with a bias": (
        lambda s, x: torch.addmv(s.b, (x @ s.a).relu(), s.v)[:, None],
        {"a": (6, 8), "v": (8,), "b": (1,)},
        [8],
    ),
    "outer": (lambda s, x: torch.outer(x.sum(1), s.v).relu() @ s.w, {"v": (8,), "w": (8, 3)}, [8]),
    "outer with a bias": (
        lambda s, x: torch.addr(s.b, x.sum(1), s.v).relu() @ s.w,
        {"b": (8,), "v": (8,), "w": (8, 3)},
        [8],
    ),
    "summed over both": (
        lambda s, x: torch.einsum("ni,ni->n", x @ s.a, x @ s.b)[:, None],
        {"a": (6, 5), "b": (6, 5)},
        [5],
    ),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_units_are_contracted(name: str) -> None:
    f, shapes, sizes = PATTERNS[name]
    model = raw(f, **shapes)
    graph = sl.trace(model, VECTORS)
    assert [(g.size, g.exact) for g in graph] == [(size, True) for size in sizes]
    prove(model, VECTORS, graph)


def test_a_dot_product_has_no_examples() -> None:
    model = raw(lambda s, x: (x.sum(0) @ s.a).relu().dot(s.v) * x, a=(6, 8), v=(8,))
    with pytest.raises(
        sl.TraceError, match="what :dot#0 reads does not have the examples along its first axis"
    ):
        sl.trace(model, VECTORS)


def test_what_is_contracted_twice_within_one_call_cannot_be_masked_and_stays() -> None:
    model = raw(lambda s, x: torch.einsum("nc,ck,kd->nd", x, s.a, s.b), a=(6, 8), b=(8, 3))
    with pytest.raises(sl.TraceError, match="einsum#0, where units cannot be masked"):
        sl.trace(model, VECTORS)


@pytest.mark.parametrize("turn", [lambda g: g.sum(2), lambda g: g.sum(1), lambda g: (g @ g).sum(2)])
def test_products_of_units_with_themselves(turn: Any) -> None:
    """One tensor has the same units along two axes: masks lie on the one that is read."""
    model = between(lambda x: turn(x[:, :, None] @ x[:, None, :]))
    graph = sl.trace(model, VECTORS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("a", 8, True)]
    prove(model, VECTORS, graph)


def test_a_bilinear_layer() -> None:
    model = settle(
        Apply(
            lambda self, x: self.h(self.m(self.a(x).relu(), self.b(x).relu()).relu()),
            a=nn.Linear(6, 5), b=nn.Linear(6, 4), m=nn.Bilinear(5, 4, 7), h=nn.Linear(7, 3),
        )
    )  # fmt: skip
    graph = sl.trace(model, VECTORS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("a", 5, True), ("b", 4, True), ("m", 7, True)]
    assert {s.tensor: s.dim for s in graph["b"].slices} == {"b.weight": 0, "b.bias": 0, "m.weight": 2}
    prove(model, VECTORS, graph)
    pruned = sl.prune(model, sl.plan(graph, {"a": [0, 1], "b": [2], "m": [0, 3, 4]})).model
    assert (pruned.m.in1_features, pruned.m.in2_features, pruned.m.out_features) == (2, 1, 3)
    assert next(op for op in graph.ops if op.call == "m:bilinear#0").scale == 1


def prototypes(f: Any) -> nn.Module:
    table = Weights(lambda self, x: x, weight=(5, 8))
    return settle(
        Apply(
            lambda self, x: self.h(f(self.a(x), self.p.weight)), a=nn.Linear(6, 8), p=table, h=nn.Linear(5, 3)
        )
    )


def test_distances() -> None:
    """From parameters they are not exact: their own part of the distance goes with the unit."""
    model = prototypes(torch.cdist)
    graph = sl.trace(model, VECTORS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("a", 8, False), ("p", 5, True)]
    assert graph["a"].reason.startswith("a distance from parameters (_cdist_forward in the model")
    prove_exact(model, VECTORS, graph)
    sl.prune(model, half_plan(graph))
    between_two = settle(
        Apply(
            lambda self, x: torch.cdist(self.a(x)[:, None], self.b(x)[:, None])[:, 0],
            a=nn.Linear(6, 8), b=nn.Linear(6, 8),
        )
    )  # fmt: skip
    graph = sl.trace(between_two, VECTORS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("a", 8, True)]
    prove(between_two, VECTORS, graph)
    with pytest.raises(sl.TraceError, match="distances of a tensor from itself"):
        sl.trace(
            settle(Apply(lambda self, x: torch.cdist(y := self.a(x), y), a=nn.Linear(6, 8))), example(2, 5, 6)
        )


def test_cosine_similarity() -> None:
    model = prototypes(lambda x, p: F.cosine_similarity(x[:, None], p, dim=-1))
    graph = sl.trace(model, VECTORS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("a", 8, False), ("p", 5, True)]
    prove_exact(model, VECTORS, graph)
    sl.prune(model, half_plan(graph))

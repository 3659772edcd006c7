"""Picking, placing, ordering: units pass along other axes; along their own they are held, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from zoo import Apply, Weights, between, between_maps, example, prove, settle

VECTORS, TOKENS, MAPS = example(2, 6), example(2, 5, 6), example(2, 3, 6, 6)
SOME, MASK = torch.tensor([0, 2, 4]), torch.tensor([True, False, True, True, False])
Function = Callable[[Tensor], Tensor]


def rows(x: Tensor) -> Tensor:
    """Numbers of three tokens, for all channels."""
    return SOME[None, :, None].expand(len(x), -1, x.shape[2])


def best(x: Tensor) -> Tensor:
    """Numbers of the three tokens with the largest sums."""
    return x.sum(2, keepdim=True).topk(3, 1).indices


def masked_write(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, MASK] = 0
    return x


PASS: dict[str, Function] = {
    "numbers": lambda x: x[:, SOME],
    "a mask": lambda x: x[:, MASK],
    "a mask over two axes": lambda x: x[MASK.expand(len(x), -1)].view(len(x), 3, -1),
    "numbers in front": lambda x: x[torch.arange(len(x)), torch.zeros(len(x), dtype=torch.int64)],
    "a grid of numbers": lambda x: x[torch.arange(len(x))[:, None], SOME[None]],
    "numbers twice": lambda x: x[:, SOME[:, None], None, :][:, :, 0, 0],
    "index_select": lambda x: x.index_select(1, SOME),
    "repeated": lambda x: x.repeat_interleave(torch.tensor([1, 2, 1, 0, 1]), 1),
    "gather": lambda x: x.gather(1, rows(x)),
    "the best by the sum": lambda x: x.gather(1, best(x).expand(-1, -1, x.shape[2])),
    "the order of each unit": lambda x: x.gather(1, x.argsort(1)),
    "take_along_dim": lambda x: torch.take_along_dim(x, SOME[None, :, None], 1),
    "index_put": lambda x: x.clone().index_put_((torch.arange(len(x))[:, None], SOME[None]), x[:, :3] * 2),
    "a masked write": masked_write,
    "scatter": lambda x: torch.zeros_like(x).scatter(1, rows(x), x[:, :3]),
    "scatter a number": lambda x: x.scatter(1, rows(x), 0.5),
    "scatter_add": lambda x: torch.zeros_like(x).scatter_add_(1, rows(x), x[:, :3]),
    "scatter_reduce": lambda x: x.scatter_reduce(1, rows(x), x[:, :3], "amax"),
    "index_add": lambda x: x.index_add(1, SOME, x[:, :3]),
    "index_copy": lambda x: x.index_copy(1, SOME, x[:, :3]),
    "index_fill": lambda x: x.index_fill(1, SOME, 0.5),
    "masked_fill": lambda x: x.masked_fill(MASK[None, :, None], 0.5),
    "where": lambda x: torch.where(MASK[None, :, None], x, x.flip(1)),
    "sort": lambda x: torch.sort(x, dim=1, stable=True).values,
    "topk": lambda x: x.topk(3, 1).values,
    "cumsum": lambda x: x.cumsum(1),
    "cumprod in place": lambda x: x.clone().cumprod_(1),
    "cummax": lambda x: x.cummax(1).values,
    "logcumsumexp": lambda x: x.logcumsumexp(1),
    "median": lambda x: x.median(1, keepdim=True).values,
    "kthvalue": lambda x: x.kthvalue(2, 1).values[:, None],
    "argmax": lambda x: x.argmax(1, keepdim=True).double(),
    "any": lambda x: x * (x > 0.5).any(1, keepdim=True),
    "diff": lambda x: x.diff(dim=1),
    "tril": lambda x: x[:, None].transpose(1, 3).tril().transpose(1, 3)[:, 0],
    "fft": lambda x: torch.fft.fft(x, dim=1).abs(),
    "a filter in frequencies": lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=1) * 2j, n=5, dim=1),
    "cross product": lambda x: torch.linalg.cross(x[:, :3], x[:, 2:], dim=1),
}  # fmt: skip


@pytest.mark.parametrize("name", PASS)
def test_units_pass_along_other_axes(name: str) -> None:
    model = between(PASS[name])
    graph = sl.trace(model, TOKENS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("a", 8, True)]
    prove(model, TOKENS, graph)


PICKS, WRITES, WORKS = "picks numbered places along", "writes numbered places along", "works along"
ZERO = torch.zeros((), dtype=torch.float64)

HELD: dict[str, tuple[Function, int, str]] = {
    "numbers": (lambda x: x[:, SOME], 3, f"{PICKS} units (index in"),
    "a permutation": (lambda x: x[:, [3, 1, 2, 0, 7, 6, 5, 4]], 8, f"{PICKS} units (index in"),
    "index_select": (lambda x: x.index_select(1, SOME), 3, f"{PICKS} units (index_select in"),
    "gather": (lambda x: x.gather(1, SOME.expand(len(x), 3)), 3, f"{PICKS} units (gather in"),
    "an index": (lambda x: x + torch.ones(9).double()[x.long().clamp(0, 8)], 8, "used as an index (index in"),
    "index_put": (
        lambda x: x.clone().index_put_((torch.arange(len(x)), torch.zeros(len(x)).long()), ZERO),
        8,
        f"{WRITES} units (index_put_ in",
    ),
    "scatter": (lambda x: x.scatter(1, SOME.expand(len(x), 3), 0.0), 8, f"{WRITES} units (scatter in"),
    "index_fill": (lambda x: x.clone().index_fill_(1, SOME, 0), 8, f"{WRITES} units (index_fill_ in"),
    "a write without units": (
        lambda x: x.clone().index_put_((torch.tensor([0]),), torch.ones(8).double()),
        8,
        "writes a tensor without units there (index_put_ in",
    ),
    "sort": (lambda x: x.sort(1).values, 8, f"{WORKS} units (sort in"),
    "topk": (lambda x: x.topk(3, 1).values, 3, f"{WORKS} units (topk in"),
    "cumsum": (lambda x: x.cumsum(1), 8, f"{WORKS} units (cumsum in"),
    "in place": (lambda x: x.cumsum_(1) + 1, 8, f"{WORKS} units (cumsum_ in"),
    "argmax": (lambda x: x * x.argmax(1, keepdim=True), 8, f"{WORKS} units (argmax in"),
    "all": (lambda x: x * (x > 0).all(1, keepdim=True), 8, f"{WORKS} units (all in"),
    "tril": (lambda x: x.tril(), 8, f"{WORKS} units (tril in"),
    "fft": (lambda x: torch.fft.fft(x).abs(), 8, f"{WORKS} units (_fft_r2c in"),
    "place of the largest": (
        lambda x: x * x.max(1, keepdim=True).indices,
        8,
        "reads which place a unit has (mul in",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_along_units_all_are_held(name: str) -> None:
    f, after, reason = HELD[name]
    with pytest.raises(sl.TraceError) as caught:
        sl.trace(between(f, after), VECTORS)
    assert reason in str(caught.value)


def test_nothing_picked() -> None:
    """An empty choice has no units, and no harm is done to those it was made from."""
    model = between(lambda x: x + x[torch.zeros(len(x), dtype=torch.bool)].sum())
    graph = sl.trace(model, VECTORS)
    prove(model, VECTORS, graph)


def test_the_rows_of_a_table_are_held_and_its_columns_are_units() -> None:
    """Positions looked up by a fixed number of each token."""
    numbers = torch.tensor([0, 3, 2, 1, 1])
    model = settle(
        Apply(
            lambda self, x: self.b(self.t.weight[numbers] + self.a(x)).mean(1),
            t=Weights(lambda self, x: x, weight=(4, 8)), a=nn.Linear(6, 8), b=nn.Linear(8, 3),
        )
    )  # fmt: skip
    graph = sl.trace(model, TOKENS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("t", 8, True)]
    (held,) = (b.reason for b in graph.blocked if (b.tensor, b.dim) == ("t.weight", 0))
    assert held.startswith("picks numbered places along units (index in the model")
    prove(model, TOKENS, graph)


def attend(self: Any, x: Tensor) -> Tensor:
    """Attention with a table of relative positions, a causal mask, and rotated queries and keys."""
    n, t, _ = x.shape
    q, k, v = self.qkv(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
    bias = self.table.weight[self.distance.view(-1)].view(t, t, -1).permute(2, 0, 1)
    scores = torch.einsum("bhqd,bhkd->bhqk", self.rotate(q), self.rotate(k)) + bias
    scores = scores.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), -1e9)
    return self.out(torch.einsum("bhqk,bhkd->bhqd", scores.softmax(-1), v).transpose(1, 2).flatten(2)).mean(1)


def by_complex_numbers(z: Tensor) -> Tensor:
    angles = torch.arange(z.shape[-2])[:, None] * torch.tensor([1.0, 0.1])
    pairs = torch.view_as_complex(z.reshape(*z.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def by_halves(z: Tensor) -> Tensor:
    angles = torch.arange(z.shape[-2])[:, None] * torch.tensor([1.0, 0.1, 1.0, 0.1])
    left, right = z.chunk(2, -1)
    return z * angles.cos() + torch.cat([-right, left], -1) * angles.sin()


def by_quarters(z: Tensor) -> Tensor:
    """Half of the dimensions of a head are rotated, the others stay."""
    angles = torch.arange(z.shape[-2])[:, None] * torch.tensor([1.0, 0.1])
    turned, rest = z[..., :2], z[..., 2:]
    return torch.cat([turned * angles.cos() + turned.flip(-1) * angles.sin(), rest], -1)


@pytest.mark.parametrize("rotate", [by_complex_numbers, by_halves, by_quarters, lambda z: z])
def test_heads_with_relative_and_rotary_positions(rotate: Function) -> None:
    """The angles hold the dimensions of a head; units are whole heads with their column of the table."""
    table = Weights(lambda self, x: x, weight=(9, 4))
    model = settle(Apply(attend, qkv=nn.Linear(6, 48), table=table, out=nn.Linear(16, 3)))
    model.heads, model.rotate = 4, rotate
    model.distance = torch.arange(5)[:, None] - torch.arange(5) + 4
    graph = sl.trace(model, TOKENS)
    assert [(g.name, g.size, g.exact, g.blocked) for g in graph] == [("qkv", 4, True, "")]
    index = {s.tensor: s.index for s in graph["qkv"].slices}
    assert index["table.weight"].tolist() == [[0], [1], [2], [3]]
    assert index["qkv.weight"][1].tolist() == [base + i for base in (4, 20, 36) for i in range(4)]
    prove(model, TOKENS, graph)
    assert sl.prune(model, sl.plan(graph, {"qkv": [0, 2, 3]})).model.heads == 3


def test_a_buffer_of_frequencies_is_held_and_heads_are_not() -> None:
    """What heads meet along their dimensions only, a norm's weight or the frequencies of angles, stays."""

    def rotate(self: Any, z: Tensor) -> Tensor:
        angles = torch.arange(z.shape[-2])[:, None] * torch.cat([self.frequencies.f] * 2)
        return F.layer_norm(z * angles.cos(), (4,), self.n.weight)

    def run(self: Any, x: Tensor) -> Tensor:
        q, k, v = (y.unflatten(2, (-1, 4)).transpose(1, 2) for y in (self.q(x), self.k(x), self.v(x)))
        y = F.scaled_dot_product_attention(rotate(self, q), rotate(self, k), v)
        return self.o(y.transpose(1, 2).flatten(2)).mean(1)

    layers = {name: nn.Linear(6, 16) for name in "qkv"}
    model = settle(Apply(run, **layers, n=nn.LayerNorm(4), frequencies=nn.Module(), o=nn.Linear(16, 3)))
    model.frequencies.register_buffer("f", torch.tensor([1.0, 0.1]))
    graph = sl.trace(model, TOKENS)
    assert [(g.name, g.size, g.exact, g.blocked) for g in graph] == [("q", 4, True, "")]
    assert {b.tensor for b in graph.blocked} >= {"frequencies.f", "n.weight"}
    prove(model, TOKENS, graph)


def test_a_number_of_heads_in_the_code_is_found_before_pruning() -> None:
    """With fewer heads the view would still give four, of fewer dimensions: it runs, and is wrong."""

    def run(self: Any, x: Tensor) -> Tensor:
        q, k, v = (y.view(*y.shape[:2], 4, -1).transpose(1, 2) for y in (self.q(x), self.k(x), self.v(x)))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).mean(1)

    layers = {name: nn.Linear(6, 8) for name in "qkv"}
    model = settle(Apply(run, **layers, o=nn.Linear(8, 3)))
    graph = sl.trace(model, TOKENS)
    assert [g.size for g in graph] == [4]
    assert "test_indexing.py:" in graph["q"].blocked
    assert "holds a size that does not follow: axis 2 has length 4, expected 2" in graph["q"].blocked


def test_frequencies_of_maps() -> None:
    """A global filter: complex weights per channel and frequency."""

    class Filter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(8, 6, 4, 2))

        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.irfft2(torch.fft.rfft2(x) * torch.view_as_complex(self.w), s=(6, 6))

    model = between_maps(lambda x: x)
    model.filter = settle(Filter())
    model.run = lambda self, x: self.b(self.filter(self.a(x)))
    graph = sl.trace(model, MAPS)
    assert {s.tensor: s.dim for s in graph["a"].slices}["filter.w"] == 0
    assert [(g.size, g.exact) for g in graph] == [(8, True)]
    prove(model, MAPS, graph)

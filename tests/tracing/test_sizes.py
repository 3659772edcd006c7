"""Sizes that code holds as integers: what they remember, and what follows from where they arrive."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.tracing.sizes import Attribute, Computed, Size, along, arrivals, loose, shape_of, tagged
from zoo import Apply, example, half_plan, prove, settle, state

VECTORS, TOKENS = example(2, 6), example(2, 5, 6)


def holding(run: Callable[..., Tensor], layers: dict[str, nn.Module], **sizes: Any) -> nn.Module:
    """Modules, how they are put together, and sizes that the code reads off itself."""
    model = settle(Apply(run, **layers))
    for name, size in sizes.items():
        setattr(model, name, size)
    return model


def test_a_size_remembers_its_origin_when_scaled() -> None:
    size = Size.of(12, "here")
    scaled = {
        size * 2: Fraction(2),
        3 * size: Fraction(3),
        size // 4: Fraction(1, 4),
        size * 2 // 3: Fraction(2, 3),
    }
    assert {int(s): (s.origin, s.factor) for s in scaled} == {
        24: ("here", 2), 36: ("here", 3), 3: ("here", Fraction(1, 4)), 8: ("here", Fraction(2, 3)),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("f", "value"),
    [
        (lambda s: s + 1, 13), (lambda s: 1 + s, 13), (lambda s: s - 1, 11), (lambda s: 20 - s, 8),
        (lambda s: s // 5, 2), (lambda s: s * s, 144), (lambda s: s // s, 1), (lambda s: 25 // s, 2),
        (lambda s: (s + 1) * 2, 26), (lambda s: 2 * (s - 1) // 3, 7),
    ],
)  # fmt: skip
def test_other_arithmetic_gives_numbers_that_follow_by_themselves(
    f: Callable[[int], Any], value: int
) -> None:
    found = f(Size.of(12, "here"))
    assert found == value
    assert type(found) is Computed
    assert type(copy.deepcopy(found)) is type(pickle.loads(pickle.dumps(found))) is int


@pytest.mark.parametrize(
    ("f", "value"),
    [(lambda s: s % 5, 2), (lambda s: s / 4, 3.0), (lambda s: -s, -12), (lambda s: s * 0.5, 6.0)],
)
def test_what_is_no_length_is_a_plain_number(f: Callable[[int], Any], value: float) -> None:
    found = f(Size.of(12, "here"))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ((slice(None), slice(0, Size.of(4, "n"))), True),
        ((Ellipsis, slice(Size.of(4, "n"), None)), True),
        (slice(None, Size.of(1, "n")), True),
        ((slice(None), slice(0, 4)), False),
        ((slice(None), slice(0, Size.of(4, "n") + 1)), False),
        ((slice(None), slice(0, Size.of(4, "n"), 2)), False),
        ((0, slice(0, Size.of(4, "n"))), False),
        ((slice(None), slice(None)), False),
    ],
)
def test_slices_by_sizes_are_loose(index: Any, expected: bool) -> None:
    assert loose("__getitem__", (torch.zeros(2, 8), index)) == expected


def test_slices_by_a_size_part_units_of_two_layers() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        y = torch.cat([self.a(x), self.b(x)], 1)
        return self.c(F.relu(y[:, : self.n])) + self.d(torch.tanh(y[:, self.n :]))

    layers = {"a": nn.Linear(6, 8), "b": nn.Linear(6, 4), "c": nn.Linear(8, 3), "d": nn.Linear(4, 3)}
    model = holding(run, layers, n=8)
    graph = sl.trace(model, VECTORS)
    assert {group.name: (group.size, group.blocked) for group in graph} == {"a": (8, ""), "b": (4, "")}
    pruned, _ = sl.prune(model, sl.plan(graph, {"a": [0, 3, 7], "b": [2]}))
    assert pruned.n == 3
    prove(model, VECTORS, graph)


def test_halves_of_one_layer_stay() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.c(F.relu(y[:, : y.shape[1] // 2])) + self.d(torch.tanh(y[:, y.shape[1] // 2 :]))

    layers = {
        "a": nn.Linear(6, 8),
        "c": nn.Linear(4, 3),
        "d": nn.Linear(4, 3),
        "e": nn.Linear(3, 5),
        "f": nn.Linear(5, 2),
    }
    model = holding(lambda self, x: self.f(self.e(run(self, x))), layers)
    graph = sl.trace(model, VECTORS)
    held = {f"{b.tensor}[{b.dim}]": b.reason for b in graph.blocked}
    assert held["a.weight[0]"].startswith("a length of a tensor is the size of another axis too (")
    prove(model, VECTORS, graph)


def test_dividing_by_zero_is_the_usual_error() -> None:
    with pytest.raises(ZeroDivisionError):
        Size.of(12, "here") // 0


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copy_of_a_size_is_a_plain_integer(duplicate: Callable[[Any], Any]) -> None:
    found = duplicate({"n": Size.of(12, "here"), "all": (Size.of(3, "there"), 4)})
    assert found == {"n": 12, "all": (3, 4)}
    assert [type(found["n"]), type(found["all"][0])] == [int, int]


def test_integers_tuples_and_lists_of_modules_are_tagged_for_the_block_only() -> None:
    model = holding(lambda self, x: x, {"a": nn.Linear(6, 8)}, n=8, one=1, flag=True, both=(4, 2), row=[8, 1])
    held = dict(vars(model))
    with tagged(model):
        assert (model.n.origin, str(model.n.origin)) == (Attribute("", "n"), "n")
        assert [type(model.one), type(model.flag)] == [int, bool]
        assert [str(size.origin) for size in model.both] == ["both[0]", "both[1]"]
        assert isinstance(model.row, list)
        assert [type(size) for size in model.row] == [Size, int]
        assert type(model.a.in_features) is int
    assert all(vars(model)[name] is value for name, value in held.items())
    assert str(Attribute("b.0", "n", 1)) == "b.0.n[1]"


def test_attributes_are_restored_after_an_exception() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        raise ValueError(f"{type(self.n).__name__} of {self.n}")

    model = holding(run, {"a": nn.Linear(6, 8)}, n=8, both=[4, 2])
    before, both = state(model), model.both
    with pytest.raises(sl.TraceError, match="Size of 8"):
        sl.trace(model, VECTORS)
    assert state(model) == before
    assert (type(model.n), model.both is both, [type(v) for v in both]) == (int, True, [int, int])


def test_a_shape_remembers_the_labels_along_its_axes() -> None:
    labels = torch.arange(1, 9).view(1, 8)
    shape = shape_of(torch.zeros(2, 8), torch.Size([2, 8]), [labels])
    assert tuple(shape) == (2, 8)
    assert [isinstance(size, Size) for size in shape] == [False, True]
    assert shape[1].origin.tolist() == [[i] for i in range(1, 9)]
    assert along([labels], 0) is None


@pytest.mark.parametrize(
    ("name", "args", "axes"),
    [
        ("view", (2, Size.of(4, "n"), -1), [1]),
        ("reshape", ((2, 4, Size.of(2, "n")),), [2]),
        ("view", (torch.float64,), []),
        ("unflatten", (1, (Size.of(4, "n"), 2)), [1]),
        ("sum", (Size.of(1, "n"),), []),
    ],
)
def test_where_sizes_arrive(name: str, args: tuple[Any, ...], axes: list[int]) -> None:
    out = torch.zeros(2, 4, 2)
    found = [*arrivals(name, (out, *args), {}, out)]
    assert [axis for size, _, axis in found if isinstance(size, Size)] == axes


def test_sizes_of_the_ops_of_a_program_arrive() -> None:
    x, four, six = torch.zeros(2, 8, 6), Size.of(4, "n"), Size.of(6, "m")
    assert [(s, a) for s, _, a in arrivals("layer_norm", (x, [six]), {}, x)] == [(6, 2)]
    (found,) = arrivals("conv1d", (x, x, None, [1], [0], [1], four), {}, x)
    assert (found[0].factor, found[0], found[2]) == (2, 8, 1)
    bounds = [*arrivals("slice", (x, 1, four, six), {}, x[:, 4:6])]
    assert [(int(s), t is x, a) for s, t, a in bounds] == [(4, True, 1), (6, True, 1)]
    assert [*arrivals("slice", (x, 2, 0, Size.of(9, "k")), {}, x)] == []  # beyond the end


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("split", ([Size.of(5, "n"), Size.of(3, "m")], 1), True),
        ("split", ([Size.of(5, "n"), 3], 1), False),
        ("split", (Size.of(4, "n"), 1), False),  # the last part may be shorter
        ("slice", (1, 0, Size.of(4, "n")), True),
        ("slice", (1, Size.of(4, "n"), sys.maxsize), True),
        ("slice", (1, 0, 4), False),
        ("slice", (1, -4, sys.maxsize), False),
        ("slice", (1, 0, Size.of(4, "n"), 2), False),
        ("view", (2, Size.of(4, "n"), 2), False),
    ],
)
def test_parts_are_loose_where_every_one_has_a_size_of_its_own(
    name: str, args: tuple[Any, ...], expected: bool
) -> None:
    assert loose(name, (torch.zeros(2, 8), *args)) == expected


def test_every_part_of_a_split_arrives_by_its_own_size() -> None:
    x, four = torch.zeros(2, 8), Size.of(4, "n")
    assert [a for *_, a in arrivals("split", (x, four), {"dim": -1}, x.split(4, 1))] == [1]
    assert [a for *_, a in arrivals("split", (x, [four, four], 1), {}, x.split(4, 1))] == [1, 1]
    five, (part, rest) = Size.of(5, "n"), x.split([5, 3], 1)
    ((size, tensor, axis), (three, other, _)) = arrivals("split", (x, [five, 3], 1), {}, (part, rest))
    assert (size, axis, three) == (five, 1, 3)
    assert type(three) is int
    assert tensor is part
    assert other is rest
    (found,) = arrivals("group_norm", (x, four), {}, x)
    assert (found[0].factor, found[2]) == (2, 1)


@pytest.mark.parametrize("kind", [tuple, list])
def test_an_element_of_a_tuple_or_a_list_follows(kind: type[Any]) -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(self.a(x).view(len(x), *self.grid).flatten(1))

    model = holding(run, {"a": nn.Linear(6, 8), "b": nn.Linear(8, 2)}, grid=kind((4, 2)))
    graph = sl.trace(model, VECTORS)
    assert [(s.attribute, s.index, s.axis.groups, s.axis.per_unit) for s in graph.sizes] == [
        ("grid", 1, ("a",), (1.0,))
    ]
    prove(model, VECTORS, graph)
    pruned, receipt = sl.prune(model, half_plan(graph))
    assert (pruned.grid, model.grid) == (kind((4, 1)), kind((4, 2)))
    fresh = holding(run, {"a": nn.Linear(6, 8), "b": nn.Linear(8, 2)}, grid=kind((4, 2)))
    assert sl.replay(fresh, receipt).grid == kind((4, 1))


def test_one_attribute_for_two_equal_groups_ties_them() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.c(self.a(x).view(len(x), self.n)) + self.d(self.b(x).view(len(x), self.n))

    layers = {"a": nn.Linear(6, 8), "b": nn.Linear(6, 8), "c": nn.Linear(8, 2), "d": nn.Linear(8, 2)}
    model = holding(run, layers, n=8)
    graph = sl.trace(model, VECTORS)
    assert graph.ties == (("a", "b"),)
    prove(model, VECTORS, graph)
    assert sl.prune(model, half_plan(graph)).model.n == 4


def test_one_attribute_for_unequal_axes_holds_them() -> None:
    """``n`` is the width of ``a``, but only a part of what ``b`` and its constant neighbour make."""

    def run(self: Any, x: Tensor) -> Tensor:
        y = torch.cat([self.b(x), x[:, :3]], 1)
        return self.c(self.a(x).view(len(x), self.n)) + self.d(y.view(len(x), self.n)) + self.f(self.e(x))

    layers = {"a": nn.Linear(6, 8), "b": nn.Linear(6, 5), "c": nn.Linear(8, 2), "d": nn.Linear(8, 2)}
    model = holding(run, {**layers, "e": nn.Linear(6, 4), "f": nn.Linear(4, 2)}, n=8)
    graph = sl.trace(model, VECTORS)
    assert [g.name for g in graph] == ["e"]
    reasons = {f"{b.tensor}[{b.dim}]": b.reason for b in graph.blocked}
    for name in ("a.weight[0]", "b.weight[0]"):
        assert reasons[name].startswith("n is the size of another axis too (the model, test_sizes.py:")
    prove(model, VECTORS, graph)


def test_an_attribute_that_is_the_size_of_the_input_too_holds() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(self.a(x.view(len(x), self.n)).view(len(x), self.n))

    model = holding(run, {"a": nn.Linear(6, 6), "b": nn.Linear(6, 2)}, n=6)
    with pytest.raises(sl.TraceError, match="n is the size of another axis too"):
        sl.trace(model, VECTORS)


def test_a_shape_that_sizes_other_units_ties_them() -> None:
    """``reshape(n, t, c)`` with the embedding's ``c``: the value's width must stay equal to it."""

    def run(self: Any, x: Tensor) -> Tensor:
        x = self.e(x)
        n, t, c = x.shape
        return self.o(self.v(x).reshape(n, t, c))

    model = holding(run, {"e": nn.Linear(6, 8), "v": nn.Linear(8, 8), "o": nn.Linear(8, 2)})
    graph = sl.trace(model, TOKENS)
    assert graph.ties == (("e", "v"),)
    prove(model, TOKENS, graph)


def test_a_shape_that_sizes_units_of_another_measure_ties_them_by_shares() -> None:
    """Heads of four dimensions laid out as wide as the embedding, whose units are single."""

    def run(self: Any, x: Tensor) -> Tensor:
        x = self.e(x)
        n, t, c = x.shape
        q, k, v = (f(x).view(n, t, -1, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        return self.o(y.transpose(1, 2).reshape(n, t, c)) + self.h(self.g(x))

    layers = {name: nn.Linear(8, 8) for name in "qkvg"}
    ends = {"e": nn.Linear(6, 8), "o": nn.Linear(8, 2), "h": nn.Linear(8, 2)}
    model = holding(run, {**layers, **ends})
    graph = sl.trace(model, TOKENS)
    assert {g.name: g.size for g in graph} == {"e": 8, "q": 2, "g": 8}
    assert graph.ties == (("q", "e"),)
    with pytest.raises(sl.PlanError, match="equal shares of their units; received q 1 of 2, e 8 of 8"):
        sl.plan(graph, {"q": [1]})
    pruned, receipt = sl.prune(model, sl.plan(graph, {"e": [0, 2, 3, 7], "q": [1]}))
    assert pruned.q.weight.shape == (4, 4)
    assert receipt.error is not None
    assert receipt.error < 1e-12
    prove(model, TOKENS, graph)

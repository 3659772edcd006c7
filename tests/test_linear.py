"""Layers as products: rows times matrix plus bias is what the call returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from shapleaf.layers.recurrent import recur
from shapleaf.linear import Linear, places, reading, within
from zoo import example


def check(function: str, run: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Linear:
    """Rows times matrix, and back from the matrix to the weights."""
    layer = reading(f"layer:{function}#0", args, kwargs)
    assert layer is not None
    out = run(*args, **kwargs)
    rows, matrix, expected = layer.rows(layer.input), layer.matrix(), layer.outputs(out)
    bias = 0 if layer.bias is None else layer.bias.reshape(1, layer.groups, 1, -1)
    assert rows.shape[:2] == expected.shape[:2] == (len(layer.input), layer.groups)
    assert torch.allclose(rows @ matrix + bias, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(layer.weights(matrix), layer.weight)
    other = torch.randn_like(matrix)
    assert torch.equal(type(layer).matrix(_with(layer, layer.weights(other))), other)
    return layer


def _with(layer: Linear, weight: Tensor) -> Linear:
    return replace(layer, weight=weight)


def test_by_hand() -> None:
    """One channel, kernel 2: every row holds two neighbours."""
    x = torch.tensor([[[1.0, 2, 3]]]).double()
    layer = check("conv1d", F.conv1d, x, torch.tensor([[[10.0, 1]]]).double())
    assert layer.rows(x).tolist() == [[[[1, 2], [2, 3]]]]
    assert layer.matrix().tolist() == [[[10], [1]]]


def test_by_hand_upsampled() -> None:
    """Stride 2 spreads the input out; the kernel is read backwards."""
    x = torch.tensor([[[1.0, 2]]]).double()
    layer = check("conv_transpose1d", F.conv_transpose1d, x, torch.tensor([[[10.0, 1]]]).double(), stride=2)
    assert layer.rows(x).tolist() == [[[[0, 1], [1, 0], [0, 2], [2, 0]]]]
    assert layer.matrix().tolist() == [[[1], [10]]]


def test_linear_in_its_forms() -> None:
    x, w, b = example(4, 5, 6), example(3, 6, seed=2), example(3, seed=3)
    check("linear", F.linear, x, w)
    check("linear", F.linear, x, w, b)
    check("linear", F.linear, x[:, 0], w, bias=b)
    check("matmul", torch.matmul, x, w.T)
    check("mm", torch.mm, x[:, 0], mat2=w.T)
    check("__matmul__", torch.matmul, x, w.T)
    assert check("addmm", torch.addmm, b, x[:, 0], w.T).bias is b


def test_a_step_of_a_recurrence_is_linear_behind_its_number() -> None:
    x, w, b = example(4, 6), example(9, 6, seed=2), example(9, seed=3)
    layer = reading(f"cell:{recur.__name__}#0", ("l0", x, w, b), {})
    assert layer is not None
    assert torch.allclose(layer.rows(x)[:, 0, 0] @ layer.matrix()[0] + b, F.linear(x, w, b))


SIZES = {1: (11,), 2: (9, 8), 3: (6, 5, 7)}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"padding": "same", "dilation": 2},
        {"padding": "valid"},
        {"groups": 2, "bias": example(4, seed=4)},
        {"groups": 4, "padding": 2, "dilation": 2, "stride": 3},
    ],
    ids=str,
)
def test_convolutions(rank: int, options: dict[str, Any]) -> None:
    x = example(2, 4, *(size + 4 for size in SIZES[rank]))
    weight = example(4, 4 // options.get("groups", 1), *(3, 2, 4)[:rank], seed=2)
    check(f"conv{rank}d", getattr(F, f"conv{rank}d"), x, weight, **options)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_the_same_padding_of_an_even_kernel_is_longer_behind() -> None:
    layer = check("conv1d", F.conv1d, example(2, 3, 7), example(2, 3, 4, seed=2), padding="same")
    assert layer.padding == ((1, 2),)  # type: ignore[attr-defined]


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1, "output_padding": 1},
        {"stride": 3, "dilation": 2},
        {"groups": 2, "stride": 2, "bias": example(6, seed=4)},
        {"groups": 4, "dilation": 2, "padding": 1},
    ],
    ids=str,
)
def test_transposed_convolutions(rank: int, options: dict[str, Any]) -> None:
    x, weight = example(2, 4, 5, 4, 3)[(..., *(0,) * (3 - rank))], example(4, 3, *(3, 2, 4)[:rank], seed=2)
    check(f"conv_transpose{rank}d", getattr(F, f"conv_transpose{rank}d"), x, weight, **options)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.integers(1, 3),
    each=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    up=st.booleans(),
)
def test_any_convolution(
    groups: int,
    each: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    up: bool,
) -> None:
    into, out = each
    x = example(2, groups * into, 7, 8)
    shape = (groups * into, out) if up else (groups * out, into)
    options: dict[str, Any] = {
        "stride": stride, "padding": padding, "dilation": dilation, "groups": groups,
    }  # fmt: skip
    if up:
        padding = tuple(min(p, d * (k - 1)) for p, d, k in zip(padding, dilation, kernel, strict=True))
        check(
            "conv_transpose2d",
            F.conv_transpose2d,
            x,
            example(*shape, *kernel),
            **options | {"padding": padding},
        )
    else:
        check("conv2d", F.conv2d, x, example(*shape, *kernel), **options)


def test_a_transposed_convolution_padded_away_at_the_border() -> None:
    """Padding beyond the kernel's reach cuts rows off instead of adding them."""
    check("conv_transpose1d", F.conv_transpose1d, example(2, 3, 9), example(3, 2, 1, seed=2), padding=1)


def test_calls_that_are_no_layer() -> None:
    x, b = example(4, 6), example(3)
    assert reading(":relu#0", (x,), {}) is None
    assert reading(":matmul#0", (example(2, 4, 6), example(2, 6, 3)), {}) is None
    assert reading(":addmm#0", (b, x, example(6, 3)), {"beta": 2}) is None
    assert reading(":addmm#0", (b, x, example(6, 3)), {"alpha": 0.5}) is None


def test_calls_without_an_axis_of_examples_are_none() -> None:
    assert reading(":linear#0", (example(6), example(3, 6)), {}) is None
    assert reading(":conv2d#0", (example(3, 6, 6), example(2, 3, 3, 3)), {}) is None


def test_places_are_few_sorted_and_always_the_same() -> None:
    x, weight = example(2, 3, 40, 40), example(4, 3, 3, 3)
    layer = reading(":conv2d#0", (x, weight), {})
    assert layer is not None
    out = F.conv2d(x, weight)
    chosen = places(layer, out, examples=2)
    assert chosen is not None
    assert len(chosen) == 16 * 16  # never fewer; 16 for each of 27 features over 2 examples would be 216
    more = places(layer, out, examples=1)
    assert more is not None
    assert len(more) == 16 * 27
    assert torch.equal(chosen, chosen.unique())
    assert torch.equal(chosen, places(layer, out, examples=2))
    assert places(layer, out[..., :16, :16], examples=2) is None


@pytest.mark.parametrize("axis", [0, 1])
def test_positions_within_parts_of_a_parameter(axis: int) -> None:
    """Rows and columns, plain and transposed; parts of the other axis have all positions."""
    whole = torch.arange(24.0).reshape(6, 4).clone()
    kept = torch.tensor([0, 2, 3])
    for first, size in ((0, 2), (2, 2), (1, 3)):
        mine = [int(k) for k in kept if first <= k < first + size]
        part = whole.narrow(axis, first, size)
        for view, at in ((part, axis), (part.T, 1 - axis)):
            found = view.index_select(at, within(view, kept, axis))
            assert torch.equal(found if at == axis else found.T, whole.index_select(axis, torch.tensor(mine)))
        assert torch.equal(within(whole.narrow(1 - axis, first, size), kept, axis), kept)
    assert torch.equal(within(whole.T, kept, axis), kept)
    assert torch.equal(within(whole[:3].clone(), kept, axis), kept)  # no view of anything

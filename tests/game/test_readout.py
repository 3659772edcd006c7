"""Reading calls as sums over units, against running the call on one unit at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from games import random
from shapleaf._calls import Call
from shapleaf.errors import CriterionError
from shapleaf.game import readout as module
from shapleaf.game.readout import Readout
from shapleaf.masking import Gate

Case = tuple[Any, Tensor, tuple[Any, ...], list[int], tuple[int, ...]]

CASES: dict[str, Case] = {
    "linear": (F.linear, random(2, 3), (random(4, 3, seed=1), random(4)), [0, 1, 2], (3,)),
    "shuffled": (F.linear, random(2, 3), (random(4, 3, seed=1),), [2, 0, 1], (3,)),
    "flattened maps": (F.linear, random(2, 6), (random(4, 6, seed=1), random(4)), [0, 0, 1, 1, 2, 2], (6,)),
    "unequal shares": (F.linear, random(2, 6), (random(4, 6, seed=1),), [0, 2, 0, 3, 1, 0], (6,)),
    "tokens": (F.linear, random(2, 5, 3), (random(4, 3, seed=1), random(4)), [0, 1, 2], (1, 3)),
    "tokens, shared": (F.linear, random(2, 5, 4), (random(3, 4, seed=1),), [0, 1, 2, 0], (4,)),
    "convolution": (
        F.conv2d,
        random(2, 3, 5, 6),
        (random(4, 3, 3, 3, seed=1), random(4), 2, 1),
        [0, 1, 2],
        (3, 1, 1),
    ),
    "1 x 1": (F.conv2d, random(2, 3, 5, 6), (random(4, 3, 1, 1, seed=1),), [1, 2, 0], (3, 1, 1)),
    "grouped": (
        F.conv2d,
        random(2, 6, 4, 4),
        (random(4, 3, 3, 3, seed=1), None, 1, 0, 1, 2),
        [0, 1, 2, 0, 1, 2],
        (6, 1, 1),
    ),
    "transposed": (
        F.conv_transpose2d,
        random(2, 3, 3, 3),
        (random(3, 4, 2, 2, seed=1), random(4), 2, 0, 1),
        [2, 0, 1],
        (3, 1, 1),
    ),
    "dilated 1-d": (
        F.conv1d,
        random(2, 4, 9),
        (random(4, 4, 3, seed=1), None, 1, "same", 2),
        [0, 1, 2, 3],
        (4, 1),
    ),
}


def reading(name: str, fill: Tensor | None = None) -> tuple[Readout, Tensor, Tensor]:
    """The readout, and contributions ``(examples, 3, *outputs)`` found one unit at a time."""
    func, read, (weight, *rest), owner, shape = CASES[name]
    gate = Gate(("g",), torch.tensor(owner).view(shape), (0, b""))
    call = Call(f"m:{func.__name__}#0", func, (read, weight, *rest), {})
    readout = Readout(call, {0: gate}, fill, 2, 3)
    without = [None, *rest[1:]]
    present = read if fill is None else read - fill
    one = [func(present * (gate.index == unit), weight, *without) for unit in range(3)]
    return readout, torch.stack(one, 1), func(read * 0, weight, *without)


@pytest.mark.parametrize("chunk", [2**26, 1, 400])
@pytest.mark.parametrize("name", CASES)
def test_sums_over_units_are_those_of_one_unit_at_a_time(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    readout, parts, _ = reading(name)
    flat = parts.flatten(2)
    slope = random(*readout.total.shape, seed=4)
    close = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(readout.total, parts.sum(1), **close)
    torch.testing.assert_close(readout.squares, parts.square().sum(1), **close)
    expected = torch.einsum("euo,eo->eu", flat.square(), slope.flatten(1))
    torch.testing.assert_close(readout.against_squares(slope), expected, **close)
    if parts.ndim == 3:
        torch.testing.assert_close(readout.products, torch.einsum("euo,eup->eop", flat, flat), **close)
        slope = random(2, 4, 4, seed=5)
        expected = torch.einsum("euo,eop,eup->eu", flat, slope, flat)
        torch.testing.assert_close(readout.against_products(slope), expected, **close)
    factor = random(4, 3, seed=6)  # the examples twice over
    expected = torch.einsum("eu,eu...->e...", factor, parts.repeat(2, *[1] * (parts.ndim - 1)))
    torch.testing.assert_close(readout.contribution(factor), expected, **close)


@pytest.mark.parametrize("name", ["flattened maps", "unequal shares", "convolution"])
def test_elements_count_from_what_absent_units_leave_behind(name: str) -> None:
    read = CASES[name][1]
    readout, parts, _ = reading(
        name, random(*[1 if d > 0 else n for d, n in enumerate(read.shape[1:])], seed=9)
    )
    torch.testing.assert_close(readout.total, parts.sum(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(readout.squares, parts.square().sum(1), rtol=0, atol=1e-12)


def test_squares_are_taken_after_summing_within_a_unit() -> None:
    """Two positions of one unit that cancel each other contribute nothing."""
    gate = Gate(("g",), torch.tensor([0, 0, 1]), (0, b""))
    call = Call(":linear#0", F.linear, (torch.ones(1, 3), torch.tensor([[1.0, -1.0, 2.0]])), {})
    assert Readout(call, {0: gate}, None, 1, 2).squares.tolist() == [[4.0]]


@pytest.mark.parametrize(
    ("func", "args", "index", "gated", "why"),
    [
        (F.layer_norm, (torch.ones(2, 3), (3,)), torch.arange(3), 0, "is neither linear nor a convolution"),
        (F.linear, (torch.ones(2, 4, 3), torch.ones(5, 3)), torch.arange(4)[:, None], 0, "along the axis"),
        (F.conv1d, (torch.ones(2, 4, 3), torch.ones(5, 4, 1)), torch.arange(3), 0, "along the axis"),
        (F.linear, (torch.ones(2, 3), torch.ones(3, 3)), torch.arange(3), 1, "not in its first argument"),
    ],
)
def test_other_ways_of_reading_are_refused(func: Any, args: Any, index: Tensor, gated: int, why: str) -> None:
    call = Call(f"m:{func.__name__}#0", func, args, {})
    with pytest.raises(CriterionError, match=rf"group g through '{func.__name__}'.*{why}.*Use Path\(\)"):
        Readout(call, {gated: Gate(("g",), index, (0, b""))}, None, 2, 4)


def test_weights_stay_out_of_the_graph() -> None:
    layer = nn.Linear(3, 2)
    gate = Gate(("g",), torch.arange(3), (0, b""))
    readout = Readout(
        Call(":linear#0", F.linear, (torch.ones(1, 3), layer.weight), {}), {0: gate}, None, 1, 3
    )
    assert not readout.squares.requires_grad
    assert not readout.total.requires_grad

"""Ops on maps: channels pass, and where places become channels a unit is all that a channel becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from zoo import Apply, between_maps, conv, example, head, prove, settle

MAPS = example(2, 3, 6, 6)
GRID = torch.linspace(-1, 1, 36, dtype=torch.float64).view(1, 3, 6, 2)


def owners(group: Any) -> dict[str, list[list[int]]]:
    return {f"{s.tensor}[{s.dim}]": s.index.tolist() for s in group.slices}


def test_depth_to_space() -> None:
    """A unit is an output channel with its four input channels."""
    model = settle(nn.Sequential(conv(3, 16), nn.PixelShuffle(2), nn.ReLU(), conv(4, 3)))
    graph = sl.trace(model, MAPS)
    fours = [[4 * i + j for j in range(4)] for i in range(4)]
    assert owners(graph["0"]) == {
        "0.weight[0]": fours,
        "0.bias[0]": fours,
        "3.weight[1]": [[0], [1], [2], [3]],
    }
    prove(model, MAPS, graph)


def test_space_to_depth() -> None:
    """A unit is an input channel with the four that it becomes."""
    model = settle(nn.Sequential(conv(3, 5), nn.PixelUnshuffle(2), conv(20, 3)))
    graph = sl.trace(model, MAPS)
    assert owners(graph["0"])["2.weight[1]"] == [[4 * i + j for j in range(4)] for i in range(5)]
    prove(model, MAPS, graph)


def test_patches_multiplied_by_a_matrix() -> None:
    """A convolution by hand: a unit has nine columns of the matrix, and no more than one channel."""

    def run(self: Any, x: Tensor) -> Tensor:
        return (self.b.weight @ F.unfold(F.relu(self.a(x)), 3, padding=1)).mean(2)

    model = settle(Apply(run, a=conv(3, 4), b=nn.Linear(36, 5)))
    graph = sl.trace(model, MAPS)
    assert owners(graph["a"])["b.weight[1]"] == [[9 * i + j for j in range(9)] for i in range(4)]
    prove(model, MAPS, graph)


PASS: dict[str, Callable[[Tensor], Tensor]] = {
    "patches and back": lambda x: F.fold(F.unfold(x, 2, stride=2), (6, 6), 2, stride=2),
    "patches apart": lambda x: F.unfold(x, 3, padding=1).view(len(x), x.shape[1], 9, 6, 6).amax(2),
    "windows": lambda x: x.unfold(2, 3, 1).unfold(3, 3, 1).flatten(-2).mean(-1),
    "unpool": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "sample": lambda x: F.grid_sample(x, GRID.expand(len(x), -1, -1, -1), align_corners=False),
    "power pooling": lambda x: F.lp_pool2d(x + 1, 2, 2),
    **{
        mode: lambda x, mode=mode: F.interpolate(x, scale_factor=2, mode=mode)
        for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PASS)
def test_channels_pass(name: str) -> None:
    model = between_maps(PASS[name])
    graph = sl.trace(model, MAPS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("a", 8, True)]
    prove(model, MAPS, graph)


def test_a_learned_place_to_look_stays() -> None:
    """A spatial transformer: the six numbers of the transformation are held, its hidden units are not."""

    def run(self: Any, x: Tensor) -> Tensor:
        grid = F.affine_grid(self.where(x).view(-1, 2, 3), x.shape, align_corners=False)
        return self.h(F.grid_sample(self.a(x), grid, align_corners=False))

    where = nn.Sequential(nn.Flatten(), nn.Linear(108, 10), nn.ReLU(), nn.Linear(10, 6))
    model = settle(Apply(run, a=conv(3, 8), where=where, h=head(8)))
    graph = sl.trace(model, MAPS)
    assert [(g.name, g.size) for g in graph] == [("a", 8), ("where.1", 10)]
    (held,) = (b.reason for b in graph.blocked if (b.tensor, b.dim) == ("where.3.weight", 0))
    assert held.startswith("names places of an image (affine_grid_generator in the model")
    prove(model, MAPS, graph)


def test_places_that_are_units_are_held() -> None:
    tokens = settle(
        Apply(
            lambda s, x: s.b(F.pixel_shuffle(s.a(x).transpose(1, 3), 2).mean((1, 2))),
            a=conv(3, 8),
            b=nn.Linear(16, 2),
        )
    )
    tokens.a = conv(3, 8)
    with pytest.raises(sl.TraceError, match=r"mixes places of units \(pixel_shuffle in the model"):
        sl.trace(settle(tokens), example(2, 3, 6, 4))


def test_kernels_made_to_the_measure_of_the_channels() -> None:
    """A fixed blur of every channel: its kernel is expanded to as many as there are."""

    def blur(x: Tensor) -> Tensor:
        kernel = torch.ones(1, 1, 3, 3, dtype=x.dtype).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(x, kernel / 9, groups=x.shape[1], padding=1)

    model = between_maps(blur)
    graph = sl.trace(model, MAPS)
    assert [(g.name, g.size) for g in graph] == [("a", 8)]
    prove(model, MAPS, graph)

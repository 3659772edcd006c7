"""Sums, norms and statistics over units: which are exact, and which numbers say where a unit lies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.tracing.statistics import spread
from zoo import between, between_maps, example, half_plan, prove

VECTORS, MAPS = example(2, 6), example(2, 3, 6, 6)
Function = Callable[[Tensor], Tensor]

EXACT: dict[str, Function] = {
    "euclidean": lambda x: x / (x.norm(dim=1, keepdim=True) + 1),
    "of order one": lambda x: x / (torch.linalg.vector_norm(x, 1, dim=-1, keepdim=True) + 1),
    "largest": lambda x: x / (x.norm(float("inf"), dim=1, keepdim=True) + 1),
    "of everything": lambda x: x / (x.flatten(1).norm(dim=1, keepdim=True) + 1),
    "normalised": F.normalize,
    "sum": lambda x: x / (1 + x.nansum(1, keepdim=True)),
}


@pytest.mark.parametrize("name", EXACT)
def test_norms_and_sums_are_exact_as_an_absent_unit_adds_nothing(name: str) -> None:
    model = between(EXACT[name])
    graph = sl.trace(model, VECTORS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("a", 8, True)]
    prove(model, VECTORS, graph)


def test_a_norm_over_places_leaves_units_alone() -> None:
    model = between_maps(lambda x: x / (x.norm(dim=(2, 3), keepdim=True) + 1))
    graph = sl.trace(model, MAPS)
    assert [(g.size, g.exact) for g in graph] == [(8, True)]
    prove(model, MAPS, graph)


def test_a_norm_of_negative_order_is_held() -> None:
    with pytest.raises(sl.TraceError, match=r"a smallest unit \(linalg_vector_norm in the model"):
        sl.trace(between(lambda x: x * x.norm(-1, dim=1, keepdim=True)), VECTORS)


def test_a_largest_value_may_be_read_but_not_its_place() -> None:
    model = between(lambda x: x - x.max(1, keepdim=True).values)
    graph = sl.trace(model, VECTORS)
    assert [(g.size, g.exact) for g in graph] == [(8, False)]
    sl.prune(model, half_plan(graph))
    for f in (lambda x: x + x.max(1, keepdim=True).indices, lambda x: x + x.min(1, keepdim=True)[1].double()):
        with pytest.raises(sl.TraceError, match="reads which place a unit has"):
            sl.trace(between(f), VECTORS)


def test_groups_of_channels_that_are_reduced_go_as_one() -> None:
    """Maxout: a unit is a pair of channels, and the code names the pairs, not how many there are."""
    model = between_maps(lambda x: x.unflatten(1, (-1, 2)).amax(2), 4)
    graph = sl.trace(model, MAPS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("a", 4, True)]
    assert {s.tensor: s.index.tolist() for s in graph["a"].slices}["a.weight"] == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
    ]
    prove(model, MAPS, graph)


def test_axes_are_counted_from_the_front() -> None:
    assert spread(None, 3) == spread([], 3) == (0, 1, 2)
    assert spread(-1, 3) == (2,)
    assert spread([-1, 0], 2) == (0, 1)

"""The order in which units go."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import shapleaf as sl
from shapleaf.strategies import _slopes


def test_slopes_follow_the_curve_where_it_is_convex() -> None:
    curve = np.array([[0, 0, 0], [2, 1, 0], [4, 5, 0]], float)
    assert _slopes(curve).tolist() == [0.5, 0.5, 2, 2]


def test_slopes_are_those_of_the_hull_where_it_is_not() -> None:
    curve = np.array([[0, 0, 0], [1, 3, 0], [2, 2, 0], [4, 8, 0]], float)
    assert _slopes(curve).tolist() == [1, 1, 3, 3]


def test_slopes_may_be_negative_but_never_fall() -> None:
    curve = np.array([[0, 0, 0], [1, -1, 0], [2, 0, 0], [3, -1, 0], [4, 5, 0]], float)
    assert _slopes(curve).tolist() == [-1, 0, 0, 6]


def two_layers() -> sl.Graph:
    model = torch.nn.Sequential(
        torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
    )
    return sl.trace(model, torch.zeros(1, 2))


def scanned(rises: dict[str, float]) -> sl.Scores:
    graph = two_layers()
    values = {group.name: torch.arange(group.size, dtype=torch.float64) for group in graph}
    curves = {
        name: torch.tensor([[0.0, 0.0, 0.0], [graph[name].size, rise, 0.1]], dtype=torch.float64)
        for name, rise in rises.items()
    }
    return sl.Scores(graph=graph, values=values, curves=curves)


def test_tradeoff_divides_the_rise_by_what_a_unit_saves() -> None:
    # A unit of "0" (four of them) saves 2 + 8 = 10 of 56 MACs, one of "2" (eight) saves 4 + 2 = 6.
    ranked = {"0": np.arange(4.0), "2": np.arange(8.0)}
    keys = sl.Tradeoff().keys(ranked, scanned({"0": 4.0, "2": 8.0}), sl.Macs(keep=0.5))
    np.testing.assert_allclose(keys["0"], 1.0 / (10 / 56))
    np.testing.assert_allclose(keys["2"], 1.0 / (6 / 56))


def test_tradeoff_takes_from_the_group_that_feels_it_least() -> None:
    cheap_first = sl.allocate(
        scanned({"0": 0.1, "2": 10.0}), sl.Macs(keep=0.6), strategy=sl.Tradeoff(), multiple_of=1
    )
    assert [len(kept) for kept in cheap_first.keep.values()] == [1, 8]
    other = sl.allocate(
        scanned({"0": 10.0, "2": 0.1}), sl.Macs(keep=0.6), strategy=sl.Tradeoff(), multiple_of=1
    )
    assert [len(kept) for kept in other.keep.values()] == [4, 4]


def test_tradeoff_without_curves_says_what_to_do() -> None:
    with pytest.raises(
        sl.PlanError, match=r"needs the loss curve of 2; measure it first: scores = shapleaf\.scan"
    ):
        sl.allocate(scanned({"0": 1.0}), sl.Macs(keep=0.5), strategy=sl.Tradeoff())


def test_uniform_takes_the_same_share_whatever_the_scores() -> None:
    plan = sl.allocate(scanned({}), sl.Units(keep=0.5), strategy=sl.Uniform(), multiple_of=1)
    assert plan.keep == {"0": (2, 3), "2": (4, 5, 6, 7)}


def test_global_compares_scores_across_groups() -> None:
    plan = sl.allocate(scanned({}), sl.Units(keep=0.5), strategy=sl.Global(), multiple_of=1)
    assert plan.keep == {"0": (3,), "2": (3, 4, 5, 6, 7)}

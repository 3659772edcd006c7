"""The order in which units go."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

import shapleaf as sl
from shapleaf._draws import error_level, most_draws
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


def three_layers() -> sl.Graph:
    """O10's two layers read four and three units; what comes before makes them, for inputs are never cut."""
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    return sl.trace(model, torch.zeros(1, 5))


def sensitivities(**values: list[float]) -> sl.Scores:
    graph = three_layers()
    return sl.Scores(graph=graph, values={name[1:]: torch.tensor(v) for name, v in values.items()})


O10 = {"_0": [0.6, 0.3, 0.2, 0.1], "_1": [0.9, 0.05, 0.05]}


def kept_at(level: float, scores: sl.Scores, **options: float) -> list[int]:
    """How many units each group keeps at an error level, by the keys."""
    ranked = {name: np.sort(v.double().numpy()) for name, v in scores.values.items()}
    keys = sl.ErrorLevel(**options).keys(ranked, scores, sl.Units(keep=1.0))
    return [int((one > level).sum()) for one in keys.values()]


def test_o10_one_error_level() -> None:
    scores = sensitivities(**O10)
    assert kept_at(300, scores) == [3, 2]
    assert kept_at(100, scores) == [4, 3]
    assert kept_at(1, scores) == [4, 3]
    sizes = [np.prod(kept_at(level, scores)) for level in np.geomspace(1, 1e6, 200)]
    assert (np.diff(sizes) <= 0).all()
    assert kept_at(1e12, scores) == [1, 1]


def test_o10_budget_picks_the_level() -> None:
    """Of the layers that O10 knows, sizes 18 and 10: the inputs kept times the outputs."""
    scores = sensitivities(**O10)
    plan = sl.allocate(scores, sl.Units(keep=5), strategy=sl.ErrorLevel(), multiple_of=1)
    assert plan.keep == {"0": (0, 1, 2), "1": (0, 2)}  # of equal scores the first goes first
    size = len(plan.keep["0"]) * len(plan.keep["1"]) + len(plan.keep["1"]) * 2
    assert size == 10
    assert plan.made_by["strategy"] == "ErrorLevel"


def test_o11_equal_sensitivities_keep_equal_fractions() -> None:
    """Up to rounding of draws and of units, and (1 - 1/n)^n for exp(-1)."""
    wide = torch.nn.Sequential(torch.nn.Linear(2, 40), torch.nn.Linear(40, 80), torch.nn.Linear(80, 2))
    graph = sl.trace(wide, torch.zeros(1, 2))
    scores = sl.Scores(graph=graph, values={"0": torch.ones(40), "1": torch.ones(80)})
    found = [kept_at(float(level), scores) for level in np.geomspace(100, 1e4, 40)]
    assert len({first for first, _ in found}) > 20
    assert all(abs(first / 40 - second / 80) <= 2 / 40 for first, second in found)


def test_o11_one_hot_keeps_one() -> None:
    scores = sensitivities(_0=[0.0, 0.0, 0.7, 0.0], _1=[0.4, 0.3, 0.3])
    assert kept_at(1e-3, scores) == [1, 3]
    assert sl.allocate(scores, sl.Units(keep=4), strategy=sl.ErrorLevel(), multiple_of=1).keep["0"] == (2,)


def test_o11_delta_hardly_matters() -> None:
    scores = sensitivities(**O10)
    for budget in range(2, 8):
        plans = [
            sl.allocate(scores, sl.Units(keep=budget), strategy=sl.ErrorLevel(delta), multiple_of=1).keep
            for delta in (1e-16, 1e-2)
        ]
        assert plans[0] == plans[1]


def test_error_level_knows_places_and_kernels() -> None:
    """Of two layers alike in everything but the size of the map, the larger map keeps more."""
    convs = [torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2)]
    model = torch.nn.Sequential(convs[0], convs[1], torch.nn.AdaptiveAvgPool2d(1), *convs[2:])
    graph = sl.trace(model, torch.zeros(1, 3, 20, 20))
    values = {"0": torch.arange(1.0, 9.0), "1": torch.arange(1.0, 9.0)}
    scores = sl.Scores(graph=graph, values=values)
    ranked = {name: v.double().numpy() for name, v in values.items()}
    keys = sl.ErrorLevel().keys(ranked, scores, sl.Units(keep=1.0))
    # The convolution has 16 x 16 places and 9 weights a kernel, the classifier one of each.
    draws = most_draws(ranked["0"] / 36, np.arange(7, 0, -1))
    np.testing.assert_allclose(keys["0"][:-1], error_level(draws, 6 * 36 * np.log(8 * 257 * 9 / 1e-16)))
    np.testing.assert_allclose(keys["1"][:-1], error_level(draws, 6 * 36 * np.log(16 / 1e-16)))
    assert (keys["0"][:-1] > keys["1"][:-1]).all()


@pytest.mark.parametrize("kind", [sl.Macs, sl.Params, sl.Units])
def test_error_level_meets_any_budget_on_the_real_cost(kind: type[sl.budgets.Budget]) -> None:
    """Within it, one unit of the next level more would not be, and smaller budgets keep fewer of the same."""
    scores = sensitivities(**O10)
    full = kind(keep=1.0).measure(sl.cost(scores.graph))
    plans = [
        sl.allocate(scores, kind(keep=limit), strategy=sl.ErrorLevel(), multiple_of=1)
        for limit in range(full, full // 2, -1)
    ]
    measured = [kind(keep=1.0).measure(plan.after) for plan in plans]
    assert all(cost <= limit for cost, limit in zip(measured, range(full, 0, -1), strict=False))
    assert measured == sorted(measured, reverse=True)
    for larger, smaller in pairwise(plans):
        assert all({*smaller.keep[name]} <= {*larger.keep[name]} for name in larger.keep)


def test_error_level_refuses_what_is_no_sensitivity() -> None:
    run = sl.ErrorLevel()
    with pytest.raises(sl.PlanError, match="the scores of 0 are all zero"):
        sl.allocate(sensitivities(_0=[0.0] * 4, _1=[1.0] * 3), sl.Units(keep=4), strategy=run)
    with pytest.raises(sl.PlanError, match="the scores of 1 are negative"):
        sl.allocate(sensitivities(_0=[1.0] * 4, _1=[1.0, -0.5, 1.0]), sl.Units(keep=4), strategy=run)
    with pytest.raises(sl.PlanError, match="probability"):
        sl.ErrorLevel(delta=0)


def test_error_level_needs_a_layer_that_reads() -> None:
    class Summed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x).relu().sum(1, keepdim=True)

    graph = sl.trace(Summed(), torch.zeros(1, 3))
    scores = sl.Scores(graph=graph, values={"a": torch.ones(4)})
    with pytest.raises(sl.PlanError, match="group a is read by no layer with weights"):
        sl.allocate(scores, sl.Units(keep=2), strategy=sl.ErrorLevel())


def test_o7_uniform_fractions_of_a_chain() -> None:
    """1x1 convolutions 3 -> 4 -> 6 -> 3, inputs and outputs protected, 54 parameters."""
    layers = [torch.nn.Conv2d(i, o, 1, bias=False) for i, o in ((3, 4), (4, 6), (6, 3))]
    model = torch.nn.Sequential(*layers)
    graph = sl.trace(model, torch.zeros(1, 3, 4, 4))
    scores = sl.attribute(model, graph, None, sl.WeightNorm())
    for size, widths in ((11, [1, 2]), (21, [2, 3]), (33, [3, 4]), (54, [4, 6])):
        plan = sl.allocate(scores, sl.Params(keep=size), strategy=sl.Uniform(), multiple_of=1)
        pruned = sl.prune(model, plan).model
        assert [layer.out_channels for layer in pruned] == [*widths, 3]
        assert [layer.in_channels for layer in pruned] == [3, *widths]
        assert plan.after.params == sum(p.numel() for p in pruned.parameters()) == size


def test_o13_h1_random_filters_are_kept_with_the_same_frequency() -> None:
    """On convolutions, where the reference code fails."""
    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 12, 3)]
    pool = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(12, 2)]
    model = torch.nn.Sequential(*layers, *pool)
    graph = sl.trace(model, torch.zeros(1, 3, 8, 8))
    kept = {group.name: np.zeros(group.size) for group in graph}
    runs = 600
    for seed in range(runs):
        scores = sl.attribute(model, graph, None, sl.Random(), seed=seed)
        plan = sl.allocate(scores, sl.Units(keep=0.5), strategy=sl.Uniform(), multiple_of=1)
        assert [len(units) for units in plan.keep.values()] == [4, 6]
        for name, units in plan.keep.items():
            kept[name][list(units)] += 1 / runs
    for frequency in kept.values():  # 4 standard errors
        np.testing.assert_allclose(frequency, 0.5, atol=4 * 0.5 / runs**0.5)

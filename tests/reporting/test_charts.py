"""The score charts: axes, which units are drawn, and where."""

from __future__ import annotations

import itertools
import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shapleaf.records import Cost, Graph, Group, Plan, Scores
from shapleaf.reporting.charts import BOTTOM, RIGHT, TOP, axis, charts, skewed, spread

MARK = re.compile(r"M([\d.-]+) ([\d.-]+)")


def scored(values: dict[str, list[float]], errors: dict[str, list[float]] | None = None) -> Scores:
    groups = tuple(Group(name=name, size=len(v), slices=(), sites=()) for name, v in values.items())
    stderr = {name: torch.tensor(v) for name, v in (errors or {}).items()}
    tensors = {name: torch.tensor(v, dtype=torch.float64) for name, v in values.items()}
    return Scores(graph=Graph(groups=groups, tensors=()), values=tensors, stderr=stderr)


def keeping(scores: Scores, keep: dict[str, tuple[int, ...]]) -> Plan:
    cost = Cost(units=1, params=1, macs=1)
    return Plan(graph=scores.graph, keep=keep, before=cost, after=cost)


# ── axes ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("low", "high", "root", "labels", "exponent"),
    [
        (0.0, 1.0, False, ("0", "0.2", "0.4", "0.6", "0.8", "1.0"), ""),
        (-0.0005, 0.001, False, ("−0.5", "0", "0.5", "1.0"), "10⁻³"),
        (-3.0, 120.0, False, ("0", "50", "100"), ""),
        (3.2, 3.9, False, ("3.2", "3.4", "3.6", "3.8"), ""),
        (0.0, 2.5e6, False, ("0", "0.5", "1.0", "1.5", "2.0", "2.5"), "10⁶"),
        (-5.0, 0.0, False, ("−5", "−4", "−3", "−2", "−1", "0"), ""),
        (0.0, 0.0, False, ("−1.0", "−0.5", "0", "0.5", "1.0"), ""),
        (-0.01, 1.0, True, ("0", "0.05", "0.2", "0.5", "1"), ""),
        (-1.0, 1.0, True, ("−1", "−0.2", "0", "0.2", "1"), ""),
    ],
)
def test_axes(low: float, high: float, root: bool, labels: tuple[str, ...], exponent: str) -> None:
    seen = axis(low, high, root)
    assert (seen.labels, seen.exponent) == (labels, exponent)


finite = st.floats(-1e30, 1e30, allow_subnormal=False)


@given(a=finite, b=finite, root=st.booleans())
def test_any_range_gets_a_legible_axis(a: float, b: float, root: bool) -> None:
    low, high = sorted((a, b))
    seen = axis(low, high, root)
    assert 2 <= len(seen.steps) <= 7
    assert len(set(seen.labels)) == len(seen.labels)
    places = [seen.place(step) for step in seen.steps]
    assert all(0 <= place <= 1 for place in places)
    assert all(after - before > 0.08 for before, after in itertools.pairwise(places))
    assert -1e-9 <= seen.place(low) <= seen.place(high) <= 1 + 1e-9


def test_a_square_root_axis_spreads_what_is_near_zero() -> None:
    plain, root = axis(0.0, 1.0), axis(0.0, 1.0, root=True)
    assert plain.place(0.25) == pytest.approx(0.03 + 0.94 * 0.25)
    assert root.place(0.25) == pytest.approx(0.03 + 0.94 * 0.5)
    signed = axis(-1.0, 1.0, root=True)
    assert signed.place(-0.25) == pytest.approx(1 - signed.place(0.25))


def test_skewed_scores_are_told_from_even_ones() -> None:
    assert skewed(scored({"a": [1.0, 0.01, 0.02, 0.03]}))
    assert not skewed(scored({"a": [1.0, 0.9, 0.8, 0.7]}))
    assert not skewed(scored({"a": [0.0, 0.0]}))


# ── marks ────────────────────────────────────────────────────────────────────────────────────


def test_units_are_sorted_and_removed_ones_are_crosses() -> None:
    scores = scored({"a": [0.3, -0.1, 0.2, 0.4]}, {"a": [0.1, 0.1, 0.0, math.nan]})
    (chart,) = charts(scores, keeping(scores, {"a": (0, 2, 3)}))
    dots, crosses = MARK.findall(chart.dots), MARK.findall(chart.crosses)
    assert (len(dots), len(crosses)) == (3, 1)
    heights = [float(y) for _, y in dots]
    assert heights == sorted(heights, reverse=True)
    assert float(crosses[0][0]) + 2.5 < float(dots[0][0])
    assert chart.zero is not None
    assert float(crosses[0][1]) + 2.5 > chart.zero  # below zero is lower on the page
    assert (len(MARK.findall(chart.bars)), len(MARK.findall(chart.cut_bars))) == (1, 1)
    assert (chart.low, chart.high, chart.size, chart.kept) == (-0.1, 0.4, 4, 3)
    assert [tick.label for tick in chart.x] == ["1", "2", "3", "4"]


def test_an_error_bar_reaches_one_standard_error_either_way() -> None:
    scores = scored({"a": [0.0, 0.8, 1.0]}, {"a": [0.0, 0.2, 0.0]})
    (chart,) = charts(scores, None)
    scale = axis(0.0, 1.0)
    low, high = (BOTTOM - (BOTTOM - TOP) * scale.place(v) for v in (0.6, 1.0))
    x = float(MARK.findall(chart.dots)[1][0])
    assert chart.bars == f"M{x:g} {round(low, 1):g}V{round(high, 1):g}"


def test_every_mark_is_inside_the_frame() -> None:
    scores = scored({"a": torch.randn(500).tolist()}, {"a": torch.rand(500).tolist()})
    (chart,) = charts(scores, keeping(scores, {"a": tuple(range(0, 500, 3))}))
    for x, y in MARK.findall(chart.dots + chart.bars + chart.cut_bars):
        assert chart.left <= float(x) <= RIGHT
        assert TOP <= float(y) <= BOTTOM


def test_large_groups_are_thinned_but_keep_their_ends_and_their_removed_units() -> None:
    scores = scored({"a": list(range(4096))})
    (chart,) = charts(scores, keeping(scores, {"a": tuple(range(5, 4096))}))
    assert chart.drawn == 96
    assert len(MARK.findall(chart.crosses)) == 5
    assert float(MARK.findall(chart.dots)[-1][0]) == RIGHT - 6
    (chart,) = charts(scores, keeping(scores, {"a": (4095,)}))
    assert len(MARK.findall(chart.dots)) == 1
    (chart,) = charts(scores, keeping(scores, {"a": tuple(range(2048, 4096))}))
    assert len(MARK.findall(chart.crosses)) == len(MARK.findall(chart.dots)) == 48


@given(size=st.integers(0, 300), limit=st.integers(0, 100))
def test_spread_is_even_and_keeps_the_ends(size: int, limit: int) -> None:
    seen = spread(range(size), limit)
    assert len(seen) == min(size, limit)
    assert len(set(seen)) == len(seen)
    assert seen == sorted(seen)
    if size > limit >= 2:
        assert (seen[0], seen[-1]) == (0, size - 1)
        gaps = [after - before for before, after in itertools.pairwise(seen)]
        assert max(gaps) - min(gaps) <= 1


def test_scores_that_are_no_numbers_are_counted_not_drawn() -> None:
    scores = scored({"a": [math.nan, math.inf, 1.0], "b": [math.nan, -math.inf]})
    first, second = charts(scores, None)
    assert (first.drawn, first.broken, second.drawn, second.broken) == (1, 2, 0, 2)
    assert second.dots == second.crosses == ""
    assert math.isnan(second.low)


def test_scores_per_example_show_mean_and_standard_error() -> None:
    scores = scored({"a": [0.0, 0.0]})
    values = {"a": torch.tensor([[0.0, 1.0], [0.0, 3.0]])}
    (chart,) = charts(Scores(graph=scores.graph, values=values), None)
    assert (chart.size, chart.low, chart.high) == (2, 0.0, 2.0)
    assert len(MARK.findall(chart.bars)) == 1


def test_a_plan_of_other_sizes_marks_nothing() -> None:
    scores = scored({"a": [1.0, 2.0]})
    plan = keeping(scored({"a": [1.0, 2.0, 3.0]}), {"a": (0,)})
    (chart,) = charts(scores, plan)
    assert chart.kept is None
    assert chart.crosses == ""


def test_of_very_many_groups_those_that_lose_most_are_drawn_in_order() -> None:
    scores = scored({f"g{i}": [1.0, 2.0, 3.0] for i in range(70)})
    plan = keeping(scores, {f"g{i}": (0,) if i % 7 == 3 else (0, 1, 2) for i in range(70)})
    names = [chart.name for chart in charts(scores, plan)]
    assert len(names) == 60
    assert names == sorted(names, key=lambda name: int(name[1:]))
    assert {f"g{i}" for i in range(70) if i % 7 == 3} <= set(names)

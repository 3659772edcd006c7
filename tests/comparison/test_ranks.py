"""Rank correlations and overlaps, by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import shapleaf as sl
from shapleaf.comparison.ranks import (
    correlation,
    correlations,
    overlap,
    overlaps,
    removed,
    spearman,
    weighted,
)
from shapleaf.records import RankCorrelation


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=9))
def test_spearman_is_scipys_ties_included(pairs: list[tuple[int, int]]) -> None:
    a, b = torch.tensor(pairs, dtype=torch.float64).T
    found = spearman(a, b)
    if len(set(a.tolist())) == 1 or len(set(b.tolist())) == 1:
        assert found is None
    else:
        assert found == pytest.approx(stats.spearmanr(a.numpy(), b.numpy()).statistic, abs=1e-12)


def test_groups_weigh_by_their_units_and_those_that_do_not_vary_do_not_count() -> None:
    a = {"x": torch.tensor([1.0, 2.0, 3.0]), "y": torch.tensor([1.0, 2.0]), "z": torch.tensor([7.0, 7.0])}
    b = {"x": torch.tensor([4.0, 5.0, 6.0]), "y": torch.tensor([2.0, 1.0]), "z": torch.tensor([1.0, 2.0])}
    assert correlation(a, b).within == pytest.approx((3 * 1 + 2 * -1) / 5, abs=1e-15)
    same = {"x": torch.ones(3), "y": torch.zeros(2)}
    # One list: 1 1 1 0 0 ranks 4 4 4 1.5 1.5, and 4 5 6 2 1 ranks 3 4 5 2 1.
    found = correlation(same, {name: b[name] for name in same})
    assert (found.within, found.overall) == (None, pytest.approx(7.5 / (7.5 * 10) ** 0.5))
    nothing = {"x": torch.ones(3)}
    assert correlation(nothing, nothing) == RankCorrelation(within=None, overall=None)


def test_opposite_orders_are_at_minus_one() -> None:
    one = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([30.0, 40.0, 50.0])}
    two = {name: -values for name, values in one.items()}
    within, overall = correlations([one, two, {name: torch.zeros_like(v) for name, v in one.items()}])
    assert within[:2, :2].tolist() == overall[:2, :2].tolist() == [[1, -1], [-1, 1]]
    assert bool(within[2].isnan().all())


def test_what_goes_first_is_at_the_bottom_of_one_list_and_no_group_is_emptied() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 6), torch.nn.Linear(6, 2))
    values = {"0": torch.tensor([1.0, 2.0]), "1": torch.tensor([1.5, 9.0, 8.0, 7.0, 6.0, 5.0])}
    scores = sl.Scores(graph=sl.trace(model, torch.zeros(1, 3)), values=values)
    assert removed(scores, 0.25).tolist() == [True, False, True, *[False] * 5]
    assert removed(scores, 0.38).int().tolist() == [1, 0, 1, 0, 0, 0, 0, 1]  # 3 of 8, and 0 keeps one
    assert int(removed(scores, 0.1).sum()) == 0
    assert int(removed(scores, 0.99).sum()) == 6


def test_overlaps_by_hand() -> None:
    a, b, c = (torch.tensor(row, dtype=torch.bool) for row in ([1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]))
    assert overlaps([a, b, c]).tolist() == [[1, 0, 0.5], [0, 1, 0.5], [0.5, 0.5, 1]]
    empty = torch.zeros(4, dtype=torch.bool)
    assert overlap(empty, empty) is None
    assert bool(overlaps([empty, empty]).isnan().all())


def test_a_weighted_mean_leaves_out_what_is_not_there() -> None:
    assert weighted([(1, 2.0), (3, 6.0), (9, None)]) == 5
    assert weighted([]) is None

"""Scores from few examples against those from all, by hand and against attributing anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import shapleaf as sl
from shapleaf.comparison.attributions import attributed
from shapleaf.comparison.stability import picked, stabilities, subsets
from shapleaf.data import Batch
from sides import Fixed, Seen, ids


def test_sets_are_disjoint_sorted_and_nested() -> None:
    tens, fours = subsets(25, 10, draws=5, seed=3), subsets(25, 4, draws=5, seed=3)
    assert [len(one) for one in tens] == [10, 10]
    assert [len(one) for one in fours] == [4] * 5
    assert all(one.tolist() == sorted(one.tolist()) for one in tens + fours)
    assert len({example for one in tens for example in one.tolist()}) == 20
    assert set(fours[0].tolist()) <= set(tens[0].tolist())
    assert subsets(25, 10, draws=5, seed=3)[0].tolist() == tens[0].tolist()
    assert subsets(25, 10, draws=5, seed=4)[0].tolist() != tens[0].tolist()


def test_examples_are_picked_across_batches_of_any_kind() -> None:
    data = [
        Batch({"a": torch.arange(3)}, torch.arange(3), 0),
        Batch({"a": torch.arange(3, 5)}, torch.ones(2), 3),
    ]
    first, second = picked(data, torch.tensor([0, 2, 4]))
    assert (first.inputs["a"].tolist(), first.target.tolist(), first.ids) == ([0, 2], [0, 2], (0, 1))
    assert (second.inputs["a"].tolist(), second.target.tolist(), second.ids) == ([4], [1], (2,))


def test_by_hand(case: Any, data: Any) -> None:
    one = case(samples=(3,), draws=2)
    first = subsets(6, 3, draws=2)[0].tolist()
    each = torch.zeros(6, 4).double()
    each[:] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    each[first] = torch.tensor(
        [1.0, 2.0, 3.0, 3.5]
    ).double()  # what the first three say is the opposite, and weaker
    found = attributed(one, {"taylor": sl.Taylor()}, data)
    whole = replace(found["taylor"].scores, values={"0": each.mean(0)})
    found = {"taylor": replace(found["taylor"], scores=whole, each={"0": each})}
    (stability,) = stabilities(one, found, data)["taylor"]
    # In the mean 2.5, 2.5, 2.5, 2.25: the first set ranks the last one highest, the second one lowest.
    assert (stability.samples, stability.draws) == (3, 2)
    assert stability.within == stability.overall == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("criterion", [sl.Taylor(), sl.Sensitivity(), sl.LeaveOneOut(), sl.LRP()])
def test_scores_of_examples_aggregated_anew_are_those_attributed_anew(criterion: Any) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 12), torch.nn.ReLU(), torch.nn.Linear(12, 4)).double()
    x, y = torch.randn(20, 3).double(), torch.randint(4, (20,))
    from shapleaf.comparison.attributions import Case

    one = Case(model, sl.trace(model, x[:1]), sl.Comparing(samples=(4, 9)))
    data = [Batch(x[:12], y[:12], 0), Batch(x[12:], y[12:], 12)]
    found = attributed(one, {"it": criterion}, data)
    assert found["it"].each
    anew = {"it": replace(found["it"], each={})}
    shared, again = stabilities(one, found, data)["it"], stabilities(one, anew, data)["it"]
    for a, b in zip(shared, again, strict=True):
        assert (a.samples, a.draws) == (b.samples, b.draws)
        assert (a.within, a.overall) == pytest.approx((b.within, b.overall), abs=1e-9)
        assert 0 < a.within < 1


def test_examples_are_asked_for_once_more_only_where_others_matter(case: Any, data: Any) -> None:
    seen = Seen()
    one = case(samples=(2, 3))
    found = attributed(one, {"seen": seen, "norm": sl.WeightNorm(), "fixed": Fixed((1, 2, 3, 4))}, data)
    stable = stabilities(one, found, data)
    assert ids(seen.asked) == [0, 1, 2, 3, 4, 5]
    assert [s.samples for s in stable["seen"]] == [2, 3]
    assert stable["norm"] == stable["fixed"] == ()
    stabilities(one, {"seen": replace(found["seen"], each={})}, data)
    assert len(ids(seen.asked)) == 6 + 3 * 2 + 2 * 3


def test_all_examples_agree_with_themselves(case: Any, data: Any) -> None:
    one = case(samples=(6,))
    (stability,) = stabilities(one, attributed(one, {"taylor": sl.Taylor()}, data), data)["taylor"]
    assert (stability.within, stability.draws) == (pytest.approx(1), 1)

"""Excess error: the paper's numbers, the slope, its band, and what must not change it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measured import chain, joined, seen
from shapleaf import excess_error
from shapleaf.errors import CriterionError, DataError
from shapleaf.evaluation.excess import fitted
from shapleaf.records import Excess


def point(removed: float, difference: float, name: str | None = None) -> Excess:
    return Excess(
        subject=name or str(removed), method="WT", net="0", removed=removed, reference=0.0,
        value=difference, difference=difference, low=difference, high=difference,
    )  # fmt: skip


def test_o19_excess() -> None:
    nominal, shifted = seen("clean", [16, 17], 200, nominal=True), seen("fog", [40, 52], 200)
    found = excess_error(chain([0.5], [nominal, shifted]), refits=10, resamples=200)
    one = found.points[0]
    assert (one.reference, one.value, one.difference) == (0.12, 0.175, 0.055)
    assert one.low <= one.difference <= one.high


def test_o19_unpruned_against_itself_is_zero() -> None:
    same = chain([0.5], [seen("clean", [7, 7], 50, nominal=True), seen("fog", [20, 20], 50)])
    one = excess_error(same, refits=10, resamples=50).points[0]
    assert (one.difference, one.low, one.high) == (0, 0, 0)


def test_o19_a_loss_that_is_the_same_on_both_is_none() -> None:
    both = chain([0.5], [seen("clean", [10, 15], 100, nominal=True), seen("fog", [20, 25], 100)])
    assert excess_error(both, refits=10, resamples=10).points[0].difference == 0


def test_o19_slope() -> None:
    found = fitted("WT", [point(0.2, 0.002), point(0.5, 0.012), point(0.8, 0.02)], 2000, seed=0)
    assert found.value == pytest.approx(0.0240860, abs=5e-8)
    # One resample in 27 is three times the flattest point (.002 / .2), one the steepest (.02 / .8).
    assert (found.low, found.high) == (pytest.approx(0.01), pytest.approx(0.025))
    assert found.points == 3


def test_o19_an_exact_line_has_no_band() -> None:
    found = fitted("WT", [point(x, 0.02 * x) for x in (0.2, 0.5, 0.8)], 2000, seed=0)
    assert (found.value, found.low, found.high) == (pytest.approx(0.02, abs=1e-15),) * 3


def test_o19_without_a_trend_the_band_contains_the_null() -> None:
    shares = [0.1 * k for k in range(1, 10)]
    differences = [0.01, -0.012, 0.008, -0.006, 0.011, -0.009, 0.007, -0.008, 0.002]
    found = fitted("WT", [point(*pair) for pair in zip(shares, differences, strict=True)], 2000, seed=0)
    assert found.low < 0 < found.high


def test_errors_are_averaged_over_each_kind_of_distribution() -> None:
    observed = [
        seen("clean", [10, 12], 100, nominal=True),
        seen("blur", [20, 24], 200, nominal=True),
        seen("fog", [30, 60], 100),
        seen("frost", [5, 10], 50),
    ]
    found = excess_error(chain([0.5], observed), refits=10, resamples=10)
    # (.30 + .10)/2 - .10 and (.60 + .20)/2 - .12
    assert (found.points[0].reference, found.points[0].value) == (0.1, 0.28)
    assert (found.settings["nominal"], found.settings["shifted"]) == ("clean, blur", "fog, frost")
    assert found["WT"].value == pytest.approx(0.36)


def test_each_net_is_compared_with_its_own_reference() -> None:
    nets = [
        chain([0.5], [seen("clean", [0, 0], 100, nominal=True), seen("fog", wrong, 100)], net=net)
        for net, wrong in (("a", [10, 15]), ("b", [40, 41]))
    ]
    found = excess_error(joined(*nets), refits=10, resamples=10)
    assert [one.difference for one in found.points] == [0.05, 0.01]
    assert found["WT"].value == pytest.approx(0.06)


def test_what_is_not_pruned_says_nothing_about_the_line() -> None:
    points = [point(0.0, 0.5), point(0.5, 0.01)]
    assert fitted("WT", points, 50, seed=0).high == pytest.approx(0.02)
    kept = chain([0.0], [seen("clean", [1, 1], 10, nominal=True), seen("fog", [2, 3], 10)])
    found = excess_error(kept, refits=10, resamples=10)
    assert (found.slopes, len(found.points)) == ((), 1)


@given(
    points=st.lists(st.tuples(st.integers(1, 99), st.integers(-50, 50)), min_size=1, max_size=8),
    scale=st.sampled_from([-2.0, 0.5, 4.0]),
)
@settings(max_examples=40, deadline=None)
def test_the_slope_goes_with_the_differences_and_not_with_their_order(
    points: list[tuple[int, int]], scale: float
) -> None:
    made = [point(x / 100, y / 1000, str(k)) for k, (x, y) in enumerate(points)]
    scaled = [point(p.removed, scale * p.difference, p.subject) for p in made]
    one, other = (fitted("WT", each, 200, seed=0) for each in (made, scaled))
    ends = sorted((scale * one.low, scale * one.high))
    assert other.value == pytest.approx(scale * one.value, abs=1e-12)
    assert (other.low, other.high) == (pytest.approx(ends[0], abs=1e-12), pytest.approx(ends[1], abs=1e-12))
    back = fitted("WT", made[::-1], 200, seed=0)
    assert (back.low, back.high) == (pytest.approx(one.low, abs=1e-15), pytest.approx(one.high, abs=1e-15))


def test_both_kinds_of_distribution_are_needed() -> None:
    for nominal, missing in ((True, "shifted"), (False, "nominal")):
        with pytest.raises(DataError, match=f"none is {missing}"):
            excess_error(chain([0.5], [seen("clean", [1, 2], 10, nominal=nominal)]))
    both = chain([0.5], [seen("clean", [1, 1], 10, nominal=True), seen("fog", [2, 3], 10)])
    for arguments in ({"resamples": 0}, {"refits": 0}):
        with pytest.raises(CriterionError, match=f"{next(iter(arguments))} must be at least 1, received 0"):
            excess_error(both, **arguments)

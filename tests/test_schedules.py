"""Keep-curves by their numbers."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import shapleaf as sl

CURVES = [sl.OneShot, sl.Linear, sl.Cubic, sl.Geometric]


def made(kind: type[sl.Schedule], steps: int) -> sl.Schedule:
    return sl.OneShot() if kind is sl.OneShot else kind(steps=steps, every=1)


@pytest.mark.parametrize(
    ("schedule", "keeps"),
    [
        (sl.OneShot(), [0.2]),
        (sl.Linear(steps=4, every=1), [0.8, 0.6, 0.4, 0.2]),
        # 0.2 + 0.8 (1 - t)^3 at t = 1/4, 1/2, 3/4, 1
        (sl.Cubic(steps=4, every=1), [0.5375, 0.3, 0.2125, 0.2]),
        (sl.Geometric(steps=4, every=1), [0.2**0.25, 0.2**0.5, 0.2**0.75, 0.2]),
    ],
)
def test_shares_that_may_stay(schedule: sl.Schedule, keeps: list[float]) -> None:
    assert schedule.keeps(0.2) == pytest.approx(keeps, abs=1e-15)


def test_cubic_is_equation_1_of_zhu_and_gupta() -> None:
    """Their sparsity from 0 to s in n times, every so many steps from t0, at all of them but the first."""
    start, every, n, s = 30, 20, 5, 0.9
    schedule = sl.Cubic(steps=n, every=every, start=start)
    t0 = start - every
    for done, keep in enumerate(schedule.keeps(1 - s)):
        t = schedule.at(done)
        assert t is not None
        sparsity = s + (0 - s) * (1 - (t - t0) / (n * every)) ** 3
        assert 1 - keep == pytest.approx(sparsity, abs=1e-15)


def test_geometric_takes_the_same_share_of_what_is_left() -> None:
    keeps = [1.0, *sl.Geometric(steps=7, every=1).keeps(0.1)]
    ratios = [b / a for a, b in pairwise(keeps)]
    assert ratios == pytest.approx([0.1 ** (1 / 7)] * 7)


@given(st.sampled_from(CURVES), st.integers(1, 50), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_curves_fall_from_all_to_the_final_share(
    kind: type[sl.Schedule], steps: int, final: float, one: float, other: float
) -> None:
    schedule = made(kind, steps)
    assert schedule.keep(1.0, final) == pytest.approx(final)
    assert schedule.keep(0.0, final) == 1
    early, late = sorted([one, other])
    assert final - 1e-12 <= schedule.keep(late, final) <= schedule.keep(early, final) + 1e-12 <= 1 + 2e-12
    keeps = schedule.keeps(final)
    assert len(keeps) == schedule.steps
    assert keeps[-1] == final


def test_times() -> None:
    schedule = sl.Linear(steps=3, every=50, start=10)
    assert [schedule.at(done) for done in range(5)] == [10, 60, 110, None, None]
    assert [sl.OneShot(start=7).at(done) for done in range(2)] == [7, None]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0, "every": 1}, "steps must be a whole number, at least 1"),
        ({"steps": 2, "every": 0}, "every must be a whole number, at least 1"),
        ({"steps": 2, "every": 1.5}, "every must be a whole number"),
        ({"steps": True, "every": 1}, "steps must be a whole number"),
        ({"steps": 2, "every": 1, "start": -1}, "start must be a whole number, at least 0"),
        ({"steps": math.inf, "every": 1}, "steps must be a whole number"),
    ],
)
def test_what_is_no_schedule(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(sl.BudgetError, match=message):
        sl.Linear(**wrong)


def test_they_print_as_python() -> None:
    assert repr(sl.OneShot(start=3)) == "OneShot(start=3)"
    assert repr(sl.Cubic(steps=2, every=3)) == "Cubic(steps=2, every=3, start=0)"


def test_whole_numbers_of_any_kind() -> None:
    schedule = sl.Cubic(steps=np.int64(2), every=torch.tensor(3))  # type: ignore[arg-type]
    assert str(schedule) == "Cubic(steps=2, every=3, start=0)"
    assert schedule == sl.Cubic(steps=2, every=3)

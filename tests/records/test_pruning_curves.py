"""Pruning curves as a record: areas and their errors by hand, look-up, printing, saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shapleaf._rng import stream
from shapleaf.errors import DataError
from shapleaf.records import PruningCurve, PruningCurves

RATES = (0.0, 0.25, 0.5, 0.75)
SHARES: dict[str, Any] = {
    "rates": RATES, "removed": RATES, "params": (1.0, 0.8, 0.6, 0.3), "macs": (1.0, 0.7, 0.4, 0.2)
}  # fmt: skip


def curve(counts: list[int], of: int = 20, **options: Any) -> PruningCurve:
    """So many of the first examples are right at each rate."""
    right = torch.arange(of) < torch.tensor(counts)[:, None]
    return PruningCurve(**{"criterion": "mine", "right": right, **SHARES, **options})


def test_accuracy_area_and_top_by_hand() -> None:
    one = curve([20, 19, 10, 0])
    assert one.accuracy.tolist() == [100, 95, 50, 0]
    assert one.area == pytest.approx((1 + 0.95 + 0.5 + 0) / 4)
    assert one.top() == 0.25  # 19 of 20 is exactly 95 %
    assert (one.top(0.96), one.top(0.5), one.top(1)) == (0, 0.5, 0)


def test_top_ends_where_accuracy_first_falls() -> None:
    assert curve([20, 10, 20, 20]).top() == 0
    assert curve([20, 20, 20, 20]).top() == 0.75
    assert curve([0, 0, 0, 0]).top() == 0.75  # nothing to lose
    assert curve([60, 57, 56, 0], of=60).top() == 0.25  # 0.95 * 60 is more than 57 in floating point


def test_means_and_standard_errors_over_seeds() -> None:
    found = PruningCurves(curves=(curve([20, 20, 20, 20]), curve([20, 10, 10, 10], seed=1)))
    mean, error = found.area("mine")  # areas 1 and 0.625
    assert mean == pytest.approx(0.8125)
    assert error == pytest.approx(0.1875)  # half of their difference
    assert found.top("mine") == pytest.approx((0.375, 0.375))
    assert found.top("mine", share=0.5) == (0.75, 0)
    alone = PruningCurves(curves=(curve([20, 10, 10, 10]),))
    assert (alone.area("mine"), alone.top("mine")) == ((0.625, None), (0, None))


def several() -> PruningCurves:
    return PruningCurves(
        curves=(
            curve([20, 20, 19, 10]),
            curve([20, 19, 19, 10], seed=1),
            curve([20, 5, 0, 0], order="most"),
            curve([20, 20, 20, 20], compensation="LeastSquares()"),
            curve([20, 10, 5, 5], criterion="random"),
        ),
        settings={"examples": "20"},
    )


def test_look_up() -> None:
    found = several()
    assert found.criteria == ("mine", "random")
    assert found.compensations == ("none", "LeastSquares()")
    assert [one.seed for one in found.select("mine", compensation="none")] == [0, 1]
    assert found.select("mine", "most") == (found.curves[2],)
    assert found.area("random")[0] == pytest.approx(0.5)
    with pytest.raises(DataError, match=r"several compensations; name one: none, LeastSquares\(\)"):
        found.select("mine")
    with pytest.raises(DataError, match=r"no curve of 'random', most needed.*measured: mine \(least, none\)"):
        found.select("random", "most")
    with pytest.raises(DataError, match="measured: nothing"):
        PruningCurves(curves=()).area("mine")


def test_the_bootstrap_is_a_slow_loop() -> None:
    """The same examples and seeds for both; each resample's own draw."""
    generator = torch.Generator().manual_seed(0)
    rights = torch.rand(2, 3, 4, 30, generator=generator) < torch.tensor([0.8, 0.6]).view(2, 1, 1, 1)
    rows = [
        PruningCurve(criterion=name, seed=k, right=rights[i, k], **SHARES)
        for i, name in enumerate("ab")
        for k in range(3)
    ]
    found = PruningCurves(curves=tuple(rows))
    mean, low, high = found.difference("a", "b", resamples=50, seed=4)
    gaps = (rights[0].double() - rights[1].double()).mean(1)
    expected = []
    for k in range(50):
        draw = stream(4, "pruning curves", k)
        examples, seeds = draw.integers(30, size=30), draw.integers(3, size=3)
        expected.append(np.mean([[float(gaps[s, e]) for e in examples] for s in seeds]))
    assert mean == pytest.approx(float(gaps.mean()))
    assert (low, high) == pytest.approx(tuple(np.quantile(expected, [0.025, 0.975])))
    assert low < mean < high
    assert found.difference("a", "b", resamples=50, seed=4) == (mean, low, high)
    assert found.difference("b", "a", resamples=50, seed=4) == pytest.approx((-mean, -high, -low))


def test_what_both_have_in_common_cancels() -> None:
    """Always one rate more: no resample of examples can tell otherwise."""
    better = curve([20, 20, 20, 0], criterion="better")
    worse = curve([20, 20, 0, 0], criterion="worse")
    found = PruningCurves(curves=(better, worse))
    assert found.difference("better", "worse", resamples=20) == pytest.approx((0.25, 0.25, 0.25))
    assert found.difference("better", "better", resamples=20) == (0, 0, 0)


def test_other_numbers_of_seeds_and_other_compensations_compare() -> None:
    found = several()
    mean, low, high = found.difference(
        found.select("mine", compensation="LeastSquares()"), found.select("mine", compensation="none"),
        resamples=100,
    )  # fmt: skip
    assert mean == pytest.approx(1 - (69 + 68) / 160)
    assert low <= mean <= high
    with pytest.raises(DataError, match="resamples must be at least 1, received 0"):
        found.difference("random", "random", resamples=0)


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    """Over 100 test sets of 50 examples, where one criterion is better by 5 points on average."""
    inside = 0
    for trial in range(100):
        draw = np.random.default_rng(trial).random((2, 4, 50))
        rights = torch.from_numpy(draw < np.array([0.70, 0.65])[:, None, None])
        a, b = (PruningCurve(criterion=n, right=r, **SHARES) for n, r in zip("ab", rights, strict=True))
        _, low, high = PruningCurves(curves=(a, b)).difference("a", "b", resamples=100)
        inside += low <= 0.05 <= high
    assert 86 <= inside <= 99


def test_it_prints_a_row_for_each_criterion_and_compensation() -> None:
    lines = str(several()).splitlines()
    assert lines[0].endswith("those needed least first: its mean over 4 rates up to 75 %")
    rows = [line.split() for line in lines[3:-1]]
    assert rows[0] == ["mine", "none", "2", "0.8562", "0.00625", "0.5", "0", "0.3125"]
    assert rows[1] == ["mine", "LeastSquares()", "1", "1", "-", "0.75", "-", "-"]
    assert rows[2] == ["random", "none", "1", "0.5", "-", "0", "-", "-"]
    assert lines[-1] == "examples=20"
    only = PruningCurves(curves=(curve([20, 5, 0, 0], order="most"),))
    assert str(only).splitlines()[3].split() == ["mine", "none", "1", *"----", "0.3125"]
    assert "mine" in several()._repr_html_()


def test_no_rate_of_zero_no_top() -> None:
    shares = {**SHARES, "rates": (0.1, 0.2, 0.3, 0.4)}
    one = PruningCurve(criterion="mine", right=torch.ones(4, 2), **shares)
    with pytest.raises(DataError, match="the first rate is 0.1"):
        one.top()
    assert str(PruningCurves(curves=(one,))).splitlines()[3].split() == ["mine", "none", "1", "1", *"----"]
    for share in (0, 1.5):
        with pytest.raises(DataError, match="takes a share from 0 to 1"):
            curve([20, 20, 19, 10]).top(share)


def test_it_comes_back_from_a_file(tmp_path: Path) -> None:
    several().save(tmp_path / "curves")
    back = PruningCurves.load(tmp_path / "curves")
    assert back == several()
    assert back.curves[0].right.dtype == torch.bool


def test_parts_join() -> None:
    first = PruningCurves(curves=several().curves[:2], settings={"examples": "20", "strategy": "Global()"})
    second = PruningCurves(curves=several().curves[2:], settings={"examples": "20", "strategy": "Uniform()"})
    assert PruningCurves.joined([first, second]) == several()
    with pytest.raises(DataError, match="two curves of mine, least, none, 0"):
        PruningCurves.joined([first, first])
    with pytest.raises(DataError, match="no pruning curves to join"):
        PruningCurves.joined([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": (0.0, 0.5, 0.25, 0.75)}, "ascending shares from 0 to 1"),
        ({"rates": (0.0, 0.5, 0.75, 1.5)}, "ascending shares from 0 to 1"),
        (
            {"removed": (0.0,)},
            "a curve of 4 rates needs as many of each, received {'removed': 1, 'params': 4",
        ),
        ({"right": torch.ones(4)}, r"right must be \(rates, examples\), received \(4,\)"),
        ({"right": torch.ones(3, 5)}, "'right': 3"),
    ],
)
def test_curves_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        curve([20, 20, 19, 10], **options)


def test_curves_of_other_examples() -> None:
    with pytest.raises(DataError, match="'other' has 4 rates on 5 examples, that of 'mine' 4 on 20"):
        PruningCurves(curves=(curve([20, 20, 19, 10]), curve([5, 5, 5, 5], of=5, criterion="other")))

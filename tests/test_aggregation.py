"""Aggregations: against NumPy in one piece, however the data were cut, and with honest errors."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shapleaf.aggregation import AbsMean, AbsOfMean, Aggregation, Mean, MeanPlusStd, Quantile, State
from shapleaf.errors import CriterionError, DataError

ALL = [Mean(), AbsMean(), AbsOfMean(), MeanPlusStd(), MeanPlusStd(-1.5), Quantile(0.5), Quantile(0.9)]


def reference(aggregation, values):
    if isinstance(aggregation, Mean):
        return values.mean(0)
    if isinstance(aggregation, AbsOfMean):
        return np.abs(values.mean(0))
    if isinstance(aggregation, AbsMean):
        return np.abs(values).mean(0)
    if isinstance(aggregation, Quantile):
        return np.quantile(values, aggregation.q, axis=0)
    return values.mean(0) + aggregation.k * values.std(0)


def run(aggregation, values, cuts=()):
    state = aggregation.start(values.shape[1])
    for part in np.split(values, list(cuts)):
        state.update(torch.from_numpy(part))
    return state


def skewed(examples=1000, units=4, seed=0):
    return np.random.default_rng(seed).gamma(2.0, size=(examples, units)) - 1


@pytest.mark.parametrize("aggregation", ALL, ids=repr)
def test_agrees_with_numpy(aggregation):
    values = skewed(101)
    value, stderr = run(aggregation, values).result()
    assert value.numpy() == pytest.approx(reference(aggregation, values), abs=1e-13)
    assert value.dtype == stderr.dtype == torch.float64
    assert value.shape == stderr.shape == (4,)
    assert isinstance(aggregation, Aggregation)
    assert isinstance(aggregation.start(2), State)


@pytest.mark.parametrize("aggregation", ALL, ids=repr)
@settings(deadline=None)  # the first call loads kernels
@given(
    values=arrays.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(2)), elements=st.floats(-9, 9)),
    cuts=st.lists(st.integers(0, 30), max_size=4).map(sorted),
    split=st.integers(0, 30),
)
def test_cuts_and_merges_change_nothing(aggregation, values, cuts, split):
    whole, whole_error = run(aggregation, values).result()
    pieces = run(aggregation, values, cuts).result()[0]
    torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=1e-12 if constant_free(values) else 1e-7)
    merged = run(aggregation, values[split:])
    merged.merge(run(aggregation, values[:split], cuts))
    value, error = merged.result()
    torch.testing.assert_close(value, whole, rtol=1e-12, atol=1e-12 if constant_free(values) else 1e-7)
    assert (error is None) == (whole_error is None)


def constant_free(values):
    """Whether a standard deviation is far enough from 0 to be known to 1e-12."""
    return bool((values.std(0) > 1e-3).all())


@pytest.mark.parametrize("aggregation", ALL, ids=repr)
def test_merged_ranks_equal_one_pass_in_value_and_error(aggregation):
    values = 1e4 + skewed(997)
    whole = run(aggregation, values).result()
    ranks = [run(aggregation, part, (7, 8)) for part in np.array_split(values, 5)]
    merged = aggregation.start(4)
    for rank in ranks:
        merged.merge(pickle.loads(pickle.dumps(rank)))
    for got, expected in zip(merged.result(), whole, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(merged.result()[0], whole[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("exponent", [2, 3, 4])
def test_central_moments_agree_with_two_passes(exponent):
    values = skewed(500)
    state = run(MeanPlusStd(), values, (1, 2, 3, 50, 333))
    power = getattr(state, f"power{exponent}").numpy()
    assert power == pytest.approx(((values - values.mean(0)) ** exponent).sum(0), rel=1e-12)


@pytest.mark.parametrize("aggregation", ALL, ids=repr)
def test_standard_error_is_the_spread_over_samples(aggregation):
    # 4000 samples of 400 examples each, one per unit.
    value, stderr = run(aggregation, skewed(400, 4000)).result()
    assert stderr.mean().item() == pytest.approx(value.std().item(), rel=0.05)
    truth = run(aggregation, skewed(1_000_000, 1, seed=1)).result()[0]
    covered = ((value - truth).abs() <= stderr).double().mean().item()
    assert covered == pytest.approx(0.68, abs=0.04)


def test_delta_method_written_out():
    values = skewed(60, 1)
    _, stderr = run(MeanPlusStd(3), values).result()
    deviation = values - values.mean()
    # Influence of each example on mean + 3 std.
    influence = deviation + 3 * (deviation**2 - values.var()) / (2 * values.std())
    assert stderr.item() == pytest.approx((influence.var() / 60) ** 0.5, rel=1e-12)


def test_standard_error_of_the_mean_by_hand():
    value, stderr = run(Mean(), np.array([[1.0], [2.0], [6.0]])).result()
    assert (value.item(), stderr.item()) == (3.0, pytest.approx((7 / 3) ** 0.5, rel=1e-15))


def test_equal_scores_have_no_error():
    value, stderr = run(MeanPlusStd(), np.zeros((10, 3))).result()
    assert value.tolist() == stderr.tolist() == [0, 0, 0]


@pytest.mark.parametrize("aggregation", ALL, ids=repr)
@pytest.mark.parametrize("where", [0, 3, 39])
def test_nan_reaches_its_unit_and_no_other(aggregation, where):
    values = skewed(40, 3)
    values[where, 1] = np.nan
    value, stderr = run(aggregation, values, (10, 11)).result()
    assert value.isnan().tolist() == stderr.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("aggregation", ALL, ids=repr)
def test_one_example_has_no_standard_error(aggregation):
    value, stderr = run(aggregation, np.array([[2.0, 3.0]])).result()
    assert value.tolist() == [2.0, 3.0]
    assert stderr is None


@pytest.mark.parametrize("q", [0.0, 1.0])
def test_extremes_have_no_standard_error(q):
    values = skewed(200, 2)
    value, stderr = run(Quantile(q), values).result()
    assert value.tolist() == np.quantile(values, q, axis=0).tolist()
    assert stderr is None


@pytest.mark.parametrize("aggregation", ALL, ids=repr)
def test_scores_given_are_not_kept_by_reference(aggregation):
    values = torch.ones(2, 1, dtype=torch.float64)
    state = aggregation.start(1)
    state.update(values)
    values.zero_()
    assert state.result()[0].item() == 1


@pytest.mark.parametrize("aggregation", ALL, ids=repr)
def test_no_example_is_an_error(aggregation):
    state = aggregation.start(2)
    state.update(torch.zeros(0, 2))
    state.merge(aggregation.start(2))
    with pytest.raises(DataError, match="no example was seen"):
        state.result()


@pytest.mark.parametrize("aggregation", ALL, ids=repr)
def test_wrong_shapes_and_foreign_states_are_named(aggregation):
    state = aggregation.start(3)
    with pytest.raises(CriterionError, match=r"= \(…, 3\), received \(5, 2\)"):
        state.update(torch.zeros(5, 2))
    with pytest.raises(CriterionError, match=r"received \(3,\)"):
        state.update(torch.zeros(3))
    with pytest.raises(CriterionError, match=r"of 2 units into .* of 3"):
        state.merge(aggregation.start(2))
    with pytest.raises(CriterionError, match=r"cannot merge MeanPlusStd\(k=7\)"):
        state.merge(MeanPlusStd(7).start(3))


@pytest.mark.parametrize("make", [lambda: Quantile(1.5), lambda: Quantile(-0.1), lambda: Quantile(np.nan)])
def test_quantile_out_of_range(make):
    with pytest.raises(CriterionError, match="0 <= q <= 1"):
        make()


@pytest.mark.parametrize("k", [np.inf, np.nan])
def test_k_must_be_finite(k):
    with pytest.raises(CriterionError, match="finite k"):
        MeanPlusStd(k)

"""Prune potential: the paper's definition on counts, its interval, and what may not matter to it."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measured import chain, joined, masks, seen
from shapleaf import prune_potential
from shapleaf.errors import CriterionError, DataError
from shapleaf.records import Outcomes, Subject

O18 = (0.15, 0.46, 0.69, 0.85, 0.90), (164, 168, 182, 179, 240)  # of 2,000 examples; the reference: 170


def o18(order: tuple[int, ...] = (0, 1, 2, 3, 4)) -> Outcomes:
    removed, wrong = ([column[k] for k in order] for column in O18)
    return chain(removed, [seen("clean", [170, *wrong], 2000, nominal=True)])


@pytest.mark.parametrize(("delta", "expected"), [(0.005, 0.85), (0.0, 0.46), (0.1, 0.90), (-0.05, 0.0)])
def test_o18_potential(delta: float, expected: float) -> None:
    found = prune_potential(o18(), delta=delta, resamples=20)
    assert found.over("WT").mean == found.over("WT").worst == expected
    assert found.limits[0].value == expected


def test_o18_order_does_not_matter() -> None:
    first = prune_potential(o18(), resamples=20)
    for order in itertools.islice(itertools.permutations(range(5)), 1, 120, 17):
        assert prune_potential(o18(order), resamples=20) == first


def test_o18_equality_counts() -> None:
    # 45 of 500 against 40 of 500 + 0.01, and others that floats get wrong: 0.018 + 0.01 < 0.028.
    for reference, wrong, delta in ((40, 45, 0.01), (9, 14, 0.01), (43, 48, 0.01), (11, 14, 0.006)):
        both = chain([0.5], [seen("clean", [reference, wrong], 500, nominal=True)])
        assert prune_potential(both, delta=delta, resamples=5).over("WT").mean == 0.5, (reference, wrong)
        less = chain([0.5], [seen("clean", [reference, wrong + 1], 500, nominal=True)])
        assert prune_potential(less, delta=delta, resamples=5).over("WT").mean == 0.0, (reference, wrong)


def test_o18_all_worse_is_zero() -> None:
    found = prune_potential(chain([0.2, 0.5], [seen("clean", [0, 50, 60], 100, nominal=True)]), resamples=20)
    limit = found.limits[0]
    assert (limit.value, limit.low, limit.high, limit.probability) == (0, 0, 0, 1)
    assert (limit.below, limit.above) == (0, 0.2)


def test_the_grid_is_told() -> None:
    limit = prune_potential(o18(), resamples=20).limits[0]
    assert (limit.below, limit.value, limit.above) == (0.69, 0.85, 0.90)
    assert prune_potential(o18(), delta=0.1, resamples=20).limits[0].above is None


def test_probability_and_interval_of_two_models_by_hand() -> None:
    # Of 400 the reference is always right, the pruned model wrong on 2: within 0.5 % if at most 2 are drawn.
    # Their number is binomial(400, 1/200): P(at most 2) = .67668 (Poisson .67667).
    found = prune_potential(chain([0.5], [seen("clean", [0, 2], 400, nominal=True)]), resamples=4000).limits[
        0
    ]
    assert (found.value, found.low, found.high) == (0.5, 0, 0.5)
    assert found.probability == pytest.approx(0.67668, abs=3 * (0.67668 * 0.32332 / 4000) ** 0.5)


def test_the_bootstrap_is_paired() -> None:
    # Wrong on the same half of the examples: no resample tells them apart. On different halves, many do.
    same = prune_potential(chain([0.5], [seen("clean", [50, 50], 100, nominal=True)])).limits[0]
    assert (same.low, same.probability) == (0.5, 1)
    other = [list(range(50)), list(range(50, 100))]
    apart = prune_potential(chain([0.5], [seen("clean", other, 100, nominal=True)])).limits[0]
    assert apart.value == 0.5
    assert apart.low == 0
    assert 0.3 < apart.probability < 0.7


def test_resamples_depend_on_the_seed_and_nothing_else() -> None:
    observed = [seen("clean", [8, 9, 12], 200, nominal=True), seen("fog", [range(20), range(9, 29), 26], 150)]
    both = chain([0.3, 0.6], observed)
    alone = chain([0.3, 0.6], observed[1:])
    first = prune_potential(both, resamples=200)
    assert prune_potential(both, resamples=200) == first
    assert prune_potential(alone, resamples=200).limits[0] == first.limits[1]
    probabilities = {prune_potential(alone, resamples=200, seed=s).limits[0].probability for s in range(5)}
    assert len(probabilities) > 1


def test_over_nets_and_distributions() -> None:
    # Net a: .6 clean, .3 fog, .3 frost. Net b: .3 clean, .6 fog, 0 frost.
    grids = {"a": ([0, 0, 0], [0, 0, 90], [0, 0, 90]), "b": ([0, 0, 90], [0, 0, 0], [0, 90, 90])}
    names = [("clean", True, ""), ("fog", False, "weather"), ("frost", False, "weather")]
    nets = [
        chain(
            [0.3, 0.6],
            [seen(n, g, 100, nominal=k, family=f) for (n, k, f), g in zip(names, wrong, strict=True)],
            net=net,
        )
        for net, wrong in grids.items()
    ]
    found = prune_potential(joined(*nets), resamples=20)
    assert [limit.value for limit in found.limits] == [0.6, 0.3, 0.3, 0.6, 0.3, 0.0]
    weather = found.over("WT", "family", "weather")
    assert (weather.mean, weather.worst) == (pytest.approx(0.3), pytest.approx(0.15))
    assert (weather.nets, weather.distributions, weather.weakest) == (2, 2, "frost")
    assert (weather.mean_std, weather.worst_std) == (pytest.approx(0), pytest.approx(0.3 / 2**0.5))
    assert (weather.mean_low, weather.worst_high) == (weather.mean, weather.worst)  # nothing to resample
    assert found.over("WT").mean_std == pytest.approx(0.3 / 2**0.5)


def test_one_net_has_no_spread() -> None:
    assert prune_potential(o18(), resamples=5).over("WT").mean_std is None


def test_segmentations_lose_intersection_over_union() -> None:
    # IoU of class 1: 40 of 100 for the reference, 39 of 100 and 41 of 100 pruned.
    counts = [[[40, 30, 30]], [[39, 31, 30]], [[41, 29, 30]]]
    outcomes = Outcomes(
        subjects=(
            Subject(name="dense", role="reference"),
            Subject(name="a", method="WT", removed=0.5),
            Subject(name="b", method="WT", removed=0.2),
        ),
        observed=(masks(counts),),
    )
    values = [prune_potential(outcomes, delta=d, resamples=5).limits[0].value for d in (0.0, 0.0099, 0.01)]
    assert values == [0.2, 0.2, 0.5]


def test_other_roles_are_no_points_of_a_curve() -> None:
    extra = (Subject(name="again", role="control"), Subject(name="other", role="separate", net="1"))
    subjects = (Subject(name="dense", role="reference"), Subject(name="a", method="WT", removed=0.5), *extra)
    found = prune_potential(
        Outcomes(subjects=subjects, observed=(seen("clean", [1, 1, 9, 9], 20, nominal=True),)), resamples=5
    )
    assert [limit.value for limit in found.limits] == [0.5]


@given(
    counts=st.lists(st.integers(0, 20), min_size=2, max_size=6),
    deltas=st.lists(st.sampled_from([-0.1, 0, 0.05, 0.1, 0.15, 0.5]), min_size=2, max_size=3, unique=True),
)
@settings(max_examples=40, deadline=None)
def test_potential_rises_with_delta_and_follows_the_definition(
    counts: list[int], deltas: list[float]
) -> None:
    removed = [0.1 * (k + 1) for k in range(len(counts) - 1)]
    outcomes = chain(removed, [seen("clean", counts, 20, nominal=True)])
    found = prune_potential(outcomes, delta=sorted(deltas), resamples=8)
    values = [limit.value for limit in found.limits]
    assert values == sorted(values)
    assert [limit.low for limit in found.limits] == sorted(limit.low for limit in found.limits)
    for limit in found.limits:
        allowed = counts[0] + Fraction(str(limit.delta)) * 20
        inside = [r for r, count in zip(removed, counts[1:], strict=True) if count <= allowed]
        assert limit.value == max(inside, default=0)
        assert limit.low <= limit.high
        assert 0 <= limit.probability <= 1


def test_what_is_missing_is_said() -> None:
    both = o18()
    with pytest.raises(DataError, match="none of the models is pruned"):
        prune_potential(Outcomes(subjects=(both.subjects[0],), observed=()))
    headless = Outcomes(
        subjects=tuple(one for one in both.subjects[1:]),
        observed=(seen("clean", [1] * 5, 10),),
    )
    with pytest.raises(DataError, match="net '0' has 0 models of role 'reference'"):
        prune_potential(headless)
    for delta in ([], 2.0, float("nan"), [0.005, -3]):
        with pytest.raises(CriterionError, match="delta must be a share"):
            prune_potential(both, delta=delta)
    with pytest.raises(CriterionError, match="resamples must be at least 1, received 0"):
        prune_potential(both, resamples=0)

"""The verdict: which numbers lead to which advice, and when it says that it is not sure."""

from __future__ import annotations

import pytest

from measured import chain, joined, seen
from shapleaf import excess_error, prune_potential, verdict
from shapleaf.errors import CriterionError, DataError
from shapleaf.evaluation import Rules
from shapleaf.records import ExcessError, Pooled, Potential, Slope


def pooled(scope: str, name: str, worst: float, **changes: object) -> Pooled:
    numbers: dict[str, object] = {
        "mean": worst, "mean_low": worst, "mean_high": worst,
        "worst": worst, "worst_low": worst, "worst_high": worst,
        "method": "WT", "delta": 0.005, "distributions": 2, "nets": 3, "weakest": f"{name} 3",
    }  # fmt: skip
    return Pooled(scope=scope, name=name, **(numbers | changes))  # type: ignore[arg-type]


def potential(*shifted: Pooled, nominal: float = 0.8) -> Potential:
    return Potential(limits=(), pooled=(pooled("nominal", "nominal", nominal), *shifted))


@pytest.mark.parametrize(
    ("worst", "extent", "remove"),
    [
        (0.9, "fully", 0.8),  # no more than nominal data allow
        (0.8, "fully", 0.8),
        (0.72, "fully", 0.72),
        (0.71, "moderately", 0.71),
        (0.1, "moderately", 0.1),
        (0.09, "not at all", 0.0),
        (0.0, "not at all", 0.0),
    ],
)
def test_the_worst_shift_decides(worst: float, extent: str, remove: float) -> None:
    nominal, shifted = verdict(potential(pooled("shifted", "shifted", worst))).advice
    assert (shifted.extent, shifted.remove, shifted.worst, shifted.nominal) == (extent, remove, worst, 0.8)
    assert (nominal.extent, nominal.remove) == ("fully", 0.8)
    assert shifted.certain
    assert nominal.certain


def test_where_nothing_may_be_removed_of_nominal_data_either() -> None:
    found = verdict(potential(pooled("shifted", "shifted", 0.0), nominal=0.0))
    assert [one.extent for one in found.advice] == ["not at all", "not at all"]
    refused = "do not prune at all; on {} 3 nothing may be removed (95 % interval 0 to 0 %)"
    mean = "0 % on average over the shifts, 0 % on nominal data"
    assert found.sentences == (
        f"WT, data as in training only: {refused.format('nominal')}.",
        f"WT, all shifts measured: {refused.format('shifted')}, {mean}.",
        (
            "Even nominal data allow WT next to nothing. Measure models that are pruned less or trained "
            "again afterwards, or allow more error (delta)."
        ),
    )


def test_shifts_that_allow_more_than_nominal_data_do_not_make_it_worth_while() -> None:
    found = verdict(potential(pooled("shifted", "shifted", 0.3), nominal=0.05)).advice[1]
    assert (found.extent, found.remove) == ("not at all", 0.0)
    assert "nominal data allow only 5 % of the parameters to be removed, where shifted 3 allows 30 %" in (
        found.sentence
    )


def test_where_a_shift_allows_more_than_nominal_data() -> None:
    assert verdict(potential(pooled("shifted", "shifted", 0.9))).sentences[1] == (
        "WT, all shifts measured: prune fully; you may remove 80 % of the parameters, no more than nominal "
        "data allow; shifted 3 allows 90 % (95 % interval 90 to 90 %; no more was measured), 90 % on average "
        "over the shifts, 80 % on nominal data."
    )


def test_the_evidence_is_of_the_method_that_loses_most() -> None:
    """FT may remove least under shifts, but no less than of nominal data: that is no reason not to prune."""
    nets = [
        pooled(scope, scope, share, method=method, weakest="fog 3" if scope == "shifted" else "clean")
        for method, nominal, shifted in (("FT", 0.4, 0.4), ("WT", 0.85, 0.5))
        for scope, share in (("nominal", nominal), ("shifted", shifted))
    ]
    (said,) = verdict(Potential(limits=(), pooled=tuple(nets))).notes
    assert said.endswith("do not prune: nominal data allow WT to remove 85 %, fog 3 only 50 %.")


def test_rules_are_parameters() -> None:
    measured = potential(pooled("shifted", "shifted", 0.5))
    for rules, extent in (
        (Rules(full=0.6), "fully"),
        (Rules(least=0.6), "not at all"),
        (Rules(full=1, least=0), "moderately"),
    ):
        found = verdict(measured, rules=rules)
        assert found.advice[1].extent == extent
        assert found.settings["full"] == f"{rules.full:g}"
    for name in ("full", "least", "wide"):
        with pytest.raises(CriterionError, match=f"Rules: {name} is a share, 0 to 1; received 1.5"):
            Rules(**{name: 1.5})


def test_it_says_when_the_interval_allows_for_another_answer() -> None:
    wide = pooled("shifted", "shifted", 0.3, worst_low=0.0, worst_high=0.35)
    found = verdict(potential(wide))
    assert not found.advice[1].certain
    assert found.advice[1].sentence.endswith(
        "This is not certain: the interval also allows for 'not at all'."
    )
    assert (
        "Not certain: WT (shifted). More test examples narrow the intervals, four times as many by half."
        in (found.notes)
    )


def test_nominal_data_are_compared_with_themselves() -> None:
    wide = pooled("nominal", "nominal", 0.5, worst_low=0.2, worst_high=0.6)
    found = verdict(Potential(limits=(), pooled=(wide,))).advice[0]
    assert found.extent == "fully"
    assert found.sentence.endswith("This is not precise: the interval is wider than 10 %.")
    none = pooled("nominal", "nominal", 0.5, worst_low=0.0, worst_high=0.6)
    assert "also allows for 'not at all'" in verdict(Potential(limits=(), pooled=(none,))).sentences[0]


def test_it_says_all_that_the_interval_allows_for() -> None:
    wide = pooled("shifted", "shifted", 0.3, worst_low=0.0, worst_high=0.8)
    assert "allows for 'fully' or 'not at all'." in verdict(potential(wide)).advice[1].sentence


def test_it_says_when_the_interval_is_wide() -> None:
    wide = pooled("shifted", "shifted", 0.3, worst_low=0.2, worst_high=0.35)
    found = verdict(potential(wide)).advice[1]
    assert not found.certain
    assert found.sentence.endswith("This is not precise: the interval is wider than 10 %.")
    assert verdict(potential(wide), rules=Rules(wide=0.16)).advice[1].certain


def test_families_have_advice_of_their_own_and_are_named_for_training() -> None:
    found = verdict(
        potential(
            pooled("shifted", "shifted", 0.05),
            pooled("family", "noise", 0.05),
            pooled("family", "blur", 0.78),
        )
    )
    assert [(one.expected, one.extent) for one in found.advice] == [
        ("nominal", "fully"), ("shifted", "not at all"), ("noise", "not at all"), ("blur", "fully"),
    ]  # fmt: skip
    assert found.advice[3].sentence == (
        "WT, shifts of blur: prune fully; you may remove 78 % of the parameters (95 % interval 78 to 78 %; "
        "no more was measured), which is what blur 3 allows, 78 % on average over the shifts, 80 % on "
        "nominal data."
    )
    assert found.notes[0] == (
        "If unexpected shifts may occur, do not prune: nominal data allow WT to remove 80 %, shifted 3 only "
        "5 %."
    )
    assert found.notes[1] == (
        "To be able to remove more, include shifts of noise in training, and measure again on others that "
        "are held out."
    )


def test_it_claims_nothing_about_what_was_not_measured() -> None:
    assert verdict(potential()).notes == (
        "No shifts were measured, so nothing is known about data unlike those of training.",
    )
    same = verdict(potential(pooled("shifted", "shifted", 0.8)))
    assert same.notes == (
        "The shifts measured hardly lower the potential; of other shifts this says nothing.",
    )
    one = Potential(limits=(), pooled=(pooled("nominal", "nominal", 0.8, nets=1),))
    assert verdict(one).notes[-1].startswith("One network was measured")


def test_excess_error_is_told_with_its_interval() -> None:
    slopes = (
        Slope(method="WT", value=0.02, low=0.01, high=0.03, points=5),
        Slope(method="FT", value=-0.02, low=-0.03, high=0.01, points=5),
    )
    notes = verdict(potential(), ExcessError(slopes=slopes)).notes
    assert notes[1] == (
        "WT: for every tenth of the parameters removed, shifts add 0.20 points of error more than without "
        "pruning (95 % interval of the difference +0.10 to +0.30)."
    )
    assert "shifts add 0.20 points of error less than without" in notes[2]
    assert notes[2].endswith("which cannot be told from 0.")
    few = Slope(method="WT", value=0.02, low=0.02, high=0.02, points=2)
    said = verdict(potential(), ExcessError(slopes=(few,))).notes[1]
    assert said.endswith("(95 % interval of the difference +0.20 to +0.20, of only 2 models).")


def test_from_measurements_to_sentences() -> None:
    # 85 % may go on clean data, 46 % in fog, nothing in noise; two nets alike.
    observed = [
        ("clean", [10, 10, 10, 80], True, ""),
        ("fog 3", [20, 20, 90, 90], False, "weather"),
        ("shot 3", [30, 90, 90, 90], False, "noise"),
    ]
    nets = [
        chain([0.46, 0.85, 0.9], [seen(n, w, 100, nominal=k, family=f) for n, w, k, f in observed], net=net)
        for net in "ab"
    ]
    outcomes = joined(*nets)
    found = verdict(prune_potential(outcomes, resamples=100), excess_error(outcomes, resamples=100))
    rows = {one.expected: (one.extent, one.remove, one.weakest) for one in found.advice}
    assert rows == {
        "nominal": ("fully", 0.85, "clean"),
        "shifted": ("not at all", 0, "shot 3"),
        "weather": ("moderately", 0.46, "fog 3"),
        "noise": ("not at all", 0, "shot 3"),
    }
    assert [(one.below, one.above) for one in found.advice[:2]] == [(0.46, 0.9), (0.0, 0.46)]
    assert found.sentences[0].startswith(
        "WT, data as in training only: prune fully; you may remove 85 % of the parameters "
    )
    assert "the next size measured, 90 %, was too much" in found.sentences[0]
    assert found.delta == 0.005


def test_delta_is_the_first_unless_asked() -> None:
    both = prune_potential(
        chain([0.5, 0.9], [seen("clean", [0, 0, 20], 100, nominal=True)]), delta=[0.005, 0.5], resamples=20
    )
    assert (verdict(both).delta, verdict(both).advice[0].remove) == (0.005, 0.5)
    assert (verdict(both, delta=0.5).delta, verdict(both, delta=0.5).advice[0].remove) == (0.5, 0.9)
    with pytest.raises(DataError, match=r"not worked out for delta 0.1; it was for 0.005, 0.5"):
        verdict(both, delta=0.1)
    with pytest.raises(DataError, match="it was for none"):
        verdict(Potential(limits=()))


def test_nominal_data_are_needed() -> None:
    with pytest.raises(DataError, match="no potential of method 'WT' over nominal"):
        verdict(Potential(limits=(), pooled=(pooled("shifted", "shifted", 0.5),)))

"""Accuracy with its interval, and agreement with its yardstick."""

from __future__ import annotations

import pytest

from measured import chain, joined, masks, seen
from shapleaf.errors import DataError
from shapleaf.evaluation import accuracies, agreements
from shapleaf.evaluation.metrics import wilson
from shapleaf.records import Outcomes, Subject


def test_accuracies_have_wilsons_interval() -> None:
    outcomes = chain([0.5], [seen("clean", [10, 0], 100, nominal=True), seen("fog", [5, 8], 10, family="w")])
    found = accuracies(outcomes)
    assert [one.value for one in found] == [90, 100, 50, 20]
    assert (found[0].low, found[0].high) == wilson(0.9, 100)[1:]
    assert found[1].low < 100 == found[1].high
    assert [(one.distribution, one.nominal, one.family) for one in found[1:3]] == [
        ("clean", True, ""),
        ("fog", False, "w"),
    ]
    assert {(one.metric, one.unit, one.better) for one in found} == {("accuracy", "%", "higher")}


def test_o25_segmentations_have_intersection_over_union() -> None:
    one = masks([[[1, 0, 0], [1, 1, 2]]])
    found = accuracies(Outcomes(subjects=(Subject(name="a"),), observed=(one,)), resamples=200)[0]
    assert (found.metric, found.value) == ("mean IoU", pytest.approx(40))
    assert (found.low, found.high) == (pytest.approx(25), pytest.approx(100))  # of two examples, either twice


def test_models_agree_with_their_reference_and_independent_ones() -> None:
    wrong = {"a": [[0], [1]], "b": [[0, 1], [0]]}
    nets = [chain([0.5], [seen("clean", which, 4)], net=net) for net, which in wrong.items()]
    both = joined(*nets)
    outcomes = Outcomes(
        subjects=(*both.subjects, Subject(name="apart", role="separate", net="c")),
        observed=(seen("clean", [[0], [1], [0, 1], [0], [2]], 4),),
    )
    found = {(one.subject, one.other): one.value for one in agreements(outcomes)}
    assert found == {
        ("dense a", "dense b"): 75,
        ("dense a", "apart"): 50,
        ("WT a 0.5", "dense a"): 50,
        ("WT a 0.5", "apart"): 50,
        ("dense b", "apart"): 25,
        ("WT b 0.5", "dense b"): 75,
        ("WT b 0.5", "apart"): 50,
    }
    one = agreements(outcomes)[0]
    assert (one.low, one.high) == wilson(0.75, 4)[1:]
    assert one.metric == "agreement"


def test_agreement_is_not_only_being_right() -> None:
    outcomes = chain([0.5], [seen("clean", [[0, 1], [2, 3]], 4)])
    assert agreements(outcomes)[0].value == 0  # of two classes, both with half of the examples right


def test_segmentations_have_no_class_to_agree_on() -> None:
    one = masks([[[1, 0, 0]]] * 2)
    both = Subject(name="dense", role="reference"), Subject(name="a", method="WT", removed=0.5)
    with pytest.raises(DataError, match="holds segmentations"):
        agreements(Outcomes(subjects=both, observed=(one,)))

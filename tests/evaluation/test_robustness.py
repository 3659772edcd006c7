"""All measures in one record: what is in it, and what is not where it cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from measured import chain, masks, seen
from shapleaf import excess_error, prune_potential, robustness, verdict
from shapleaf.errors import DataError
from shapleaf.evaluation import Rules, accuracies, agreements, calibration, class_counts
from shapleaf.records import HeatMap, Outcomes, Subject

OBSERVED = [seen("clean", [8, 9, 40], 100, nominal=True), seen("fog 3", [20, 26, 60], 100, family="weather")]


def test_it_is_what_its_parts_are() -> None:
    outcomes = chain([0.5, 0.9], OBSERVED)
    found = robustness(outcomes, delta=[0.01, 0.5], resamples=60, seed=3, rules=Rules(least=0.2))
    same = {"resamples": 60, "seed": 3}
    assert found.potential == prune_potential(outcomes, delta=[0.01, 0.5], **same)  # type: ignore[arg-type]
    assert found.excess == excess_error(outcomes, resamples=60, seed=3)
    assert found.verdict == verdict(found.potential, found.excess, rules=Rules(least=0.2))
    assert found.verdict.delta == 0.01
    assert found.curves == accuracies(outcomes) + agreements(outcomes) + calibration(outcomes, **same)
    assert found.classes == class_counts(outcomes)
    assert (found.subjects, found.class_names) == (outcomes.subjects, ("right", "wrong"))
    assert found.settings["resamples"] == "60"
    assert (found.similarity, found.features) == (None, None)


def test_classes_without_names_are_numbered() -> None:
    outcomes = chain([0.5, 0.9], OBSERVED)
    found = robustness(replace(outcomes, classes=()), resamples=20)
    assert found.class_names == ("0", "1")
    assert found.classes == class_counts(outcomes)


def test_nominal_data_alone_have_no_excess_error() -> None:
    found = robustness(chain([0.5, 0.9], OBSERVED[:1]), resamples=20)
    assert found.excess is None
    assert found.verdict.notes[0].startswith("No shifts were measured")


def test_segmentations_have_curves_and_potential_only() -> None:
    subjects = Subject(name="dense", role="reference"), Subject(name="a", method="WT", removed=0.5)
    one = masks([[[8, 1, 1], [5, 5, 0]], [[8, 1, 1], [4, 6, 0]]])
    found = robustness(Outcomes(subjects=subjects, observed=(one,)), resamples=20)
    assert {curve.metric for curve in found.curves} == {"mean IoU"}
    assert found.classes == ()
    assert found.potential.over("WT").mean == 0
    assert "mean IoU: nominal" in str(found)


def test_other_measures_are_kept_beside_it() -> None:
    outcomes = chain([0.5, 0.9], OBSERVED)
    heat = HeatMap(
        subjects=outcomes.subjects,
        confidence=torch.ones(3, 3),
        interval=torch.ones(3, 3, 2),
        whole=torch.ones(3),
        examples=4,
        kept=2,
        features=20,
    )
    assert robustness(outcomes, features=heat, resamples=10).features == heat


def test_nominal_data_and_pruned_models_are_needed() -> None:
    with pytest.raises(DataError, match="none is nominal"):
        robustness(chain([0.5, 0.9], OBSERVED[1:]), resamples=10)
    with pytest.raises(DataError, match="none of the models is pruned"):
        robustness(Outcomes(subjects=(Subject(name="a", role="reference"),), observed=()))

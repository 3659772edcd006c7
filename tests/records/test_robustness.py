"""Robustness: curves, counts by class, flips, printing, and its place in a report."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from measured import chain, seen
from shapleaf import robustness
from shapleaf.errors import DataError
from shapleaf.evaluation import flips
from shapleaf.records import ClassCounts, Flips, Measurement, Outcomes, Report, Robustness


def outcomes() -> Outcomes:
    observed = [
        seen("clean", [8, 9, 40], 100, nominal=True),
        seen("fog 3", [20, 26, 60], 100, family="weather"),
    ]
    return chain([0.5, 0.9], observed)


def found() -> Robustness:
    return robustness(outcomes(), resamples=50)


def test_curves_by_metric_and_distribution() -> None:
    assert [one.value for one in found().curve("accuracy", "fog 3")] == pytest.approx([80, 74, 40], abs=1e-12)
    with pytest.raises(DataError, match="no 'mean IoU' on 'clean'; metrics: accuracy, agreement"):
        found().curve("mean IoU", "clean")


def test_a_row_for_each_model() -> None:
    lines = str(found()).splitlines()
    assert lines[0] == "Robustness of 3 models, in %"
    assert lines[4].split()[:9] == ["WT", "0", "0.5", "WT", "50", "91", "74", "74", "fog"]
    assert len(lines) == 6 + len(found().verdict.sentences)


def test_it_comes_back_from_a_file_also_within_a_report(tmp_path: Path) -> None:
    robust = found()
    robust.save(tmp_path / "robustness")
    assert Robustness.load(tmp_path / "robustness") == robust
    report = Report(title="both", rows=(Measurement(metric="loss", value=1.0),), robustness=robust)
    report.save(tmp_path / "report")
    assert Report.load(tmp_path / "report") == report


def test_a_class_without_examples_has_no_accuracy() -> None:
    counts = ClassCounts(
        distribution="clean",
        examples=torch.tensor([4, 0]),
        right=torch.tensor([[3, 0]]),
        lost=torch.tensor([[0, 0]]),
        won=torch.tensor([[0, 0]]),
    )
    assert counts.accuracy[0, 0] == 0.75
    assert bool(counts.accuracy[0, 1].isnan())
    low, high = counts.interval[0, 0].tolist()
    assert 0.3 < low < 0.75 < high < 0.96
    assert bool(counts.interval[0, 1].isnan().all())


def test_flips_come_back_from_a_file(tmp_path: Path) -> None:
    one = flips(outcomes(), "WT 0 0.5")
    one.save(tmp_path / "flips")
    assert Flips.load(tmp_path / "flips") == one

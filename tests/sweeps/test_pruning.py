"""Pruning studies: real networks on real (small) images, through to the verdict."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import shapleaf as sl
from shapleaf.demo import train
from shapleaf.integrations.datasets import load_data
from shapleaf.retraining import preset
from shapleaf.sweeps.pruning import Schedule, Shifts, run


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> sl.Study:
    """Two methods on a small network that knows the digits a little."""
    folder = tmp_path_factory.mktemp("study")
    model = train(load_data("digits", split="train").sample(400, seed=0), epochs=1)
    save_file(model.state_dict(), folder / "w.safetensors")
    (folder / "study.toml").write_text(
        f"""
        name = "digits"
        methods = ["FT", "control"]
        threads = 1
        [[networks]]
        name = "a"
        model = "shapleaf.demo:network"
        weights = "{folder}/w.safetensors"
        [data]
        spec = "digits"
        train = 100
        sample = 20
        test = 60
        [shifts]
        corruptions = ["contrast"]
        severities = [2, 4]
        uniform = [0.2]
        [retraining]
        keeps = [0.7, 0.4]
        epochs = 1
        batch = 50
        """
    )
    return sl.Study.read(folder / "study.toml")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="session")
def found(study: sl.Study, folder: Path) -> sl.Sweep:
    return sl.sweep(study, folder)


def test_the_table_has_a_row_for_each_model_and_distribution(found: sl.Sweep) -> None:
    assert found.failed == ()
    assert len(found.rows) == (1 + 2 + 2) * 4
    assert set(found.column("distribution")) == {"clean", "contrast 2", "contrast 4", "uniform noise 0.2"}
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    assert [(row["method"], row["keep"]) for row in rows if row["distribution"] == "clean"] == [
        ("unpruned", 1.0), ("FT", 0.7), ("FT", 0.4), ("control", 0.7), ("control", 0.4)]  # fmt: skip
    for row in rows:
        assert (row["network"], row["seed"], row["examples"]) == ("a", 0, 60)
        assert row["nominal"] is (row["distribution"] == "clean")
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 100
    removed = {(row["method"], row["keep"]): row["removed"] for row in rows}
    assert removed["FT", 0.4] == pytest.approx(0.6, abs=0.05)
    assert removed["unpruned", 1.0] == 0
    assert removed["control", 0.4] == 0


def test_the_rows_are_what_the_outcomes_say(found: sl.Sweep) -> None:
    assert found.outcomes is not None
    assert [one.role for one in found.outcomes.subjects] == [
        "reference",
        "pruned",
        "pruned",
        "control",
        "control",
    ]
    assert {one.net for one in found.outcomes.subjects} == {"a, seed 0"}
    seen = found.outcomes["contrast 4"]
    right = (seen.predicted[2] == seen.labels).double().mean()
    (row,) = (dict(zip(found.columns, row, strict=True)) for row in found.rows
              if row[:2] == ("a", "FT") and 0.4 in row and "contrast 4" in row)  # fmt: skip
    assert row["accuracy"] == pytest.approx(100 * float(right))


def test_the_outcomes_lead_to_a_verdict(found: sl.Sweep) -> None:
    record = sl.robustness(found.outcomes, resamples=50)
    assert {one.method for one in record.verdict.advice} == {"FT"}
    assert record.excess is not None


def test_a_second_call_runs_nothing_and_gives_the_same(
    study: sl.Study, folder: Path, found: sl.Sweep
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "trials").rglob("*.safetensors")}
    assert before
    assert sl.sweep(study, folder) == found
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "trials").rglob("*.safetensors")}


def test_a_trial_goes_on_in_its_folder_and_leaves_the_threads_alone(
    study: sl.Study, folder: Path, found: sl.Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it was trained again")

    monkeypatch.setattr("shapleaf.retraining.cycles.train", refuse)
    place = folder / "trials" / study.keys[1]
    before = torch.get_num_threads()
    again = run(study.trials[1], place, **{**study.settings, "threads": before + 1})
    assert torch.get_num_threads() == before
    assert again.rows == found.rows[4:12]


def test_a_schedule_is_a_preset_with_differences() -> None:
    assert Schedule().settings(None).parts == preset("minutes").parts
    assert len(Schedule(preset="paper").settings(None).parts) == 23
    changed = Schedule(preset="hours", epochs=3, lr=0.01, batch=7).settings(None)
    assert (changed.recipe.epochs, changed.recipe.lr, changed.recipe.batch) == (3, 0.01, 7)
    assert changed.parts == preset("hours").parts
    assert changed.recipe.augment == preset("hours").recipe.augment
    assert Schedule(keeps=[0.8, 0.6, 0.2]).settings(None).parts == ((0.8,), (0.6,), (0.2,))
    assert Schedule(keeps=[0.8, 0.6, 0.2], retrains=1).settings(None).parts == ((0.8, 0.6, 0.2),)


def test_shifts_become_distributions() -> None:
    images = load_data("digits", split="test").sample(3, 0)
    shifts = Shifts(corruptions=["fog"], severities=[1, 5], gaussian=[0.1], uniform=[0.2])
    assert [one.name for one in shifts.of(images)] == [
        "clean", "fog 1", "fog 5", "Gaussian noise 0.1", "uniform noise 0.2"]  # fmt: skip


def test_networks_that_cannot_be_measured_fail_alone(
    study: sl.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too few classes for the data, and weights that are not finite: the others' results stay."""
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def few():\n    return nn.Sequential(nn.Flatten(), nn.Linear(256, 5))\n"
        "def good():\n    return nn.Sequential(nn.Flatten(), nn.Linear(256, 10))\n"
        "def nan():\n    model = good()\n    model[1].bias.data.fill_(float('nan'))\n    return model\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    networks = [{"name": name, "model": f"mine:{name}"} for name in ("few", "good", "nan")]
    trials = tuple({"network": network, "method": "unpruned", "seed": 0} for network in networks)
    found = sl.sweep(replace(study, trials=trials), tmp_path / "out")
    assert set(found.column("network")) == {"good"}
    few, nan = found.failed
    assert few.trial.startswith("few")
    assert "'clean': model 'unpruned net few, seed 0': it predicts 5 classes, expected 10" in few.error
    assert "is NaN" in nan.error
    assert sl.Sweep.load(tmp_path / "out" / "sweep.safetensors") == found

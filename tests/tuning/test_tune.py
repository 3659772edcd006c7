"""tune: what is best is found and tested elsewhere, whoever runs it and however often it is stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import shapleaf as sl
from harmed import PARTS, RATES, harmed, tuned
from shapleaf.errors import CriterionError, DataError
from shapleaf.sweeps import Study, leases, working
from shapleaf.sweeps.journal import Journal
from shapleaf.sweeps.working import Book
from shapleaf.tuning.objective import Objective
from shapleaf.tuning.tune import _complete

EPSILON, ZPLUS = 0.0, 0.5
"""A_PR by hand: epsilon takes the units away that are right; z+ those that are wrong, one class at a time."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "_POLL", 0.01)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The last layer's rule of every criterion whose area was measured, in order."""
    found: list[str] = []
    area = Objective.area

    def noted(self: Objective, criterion: sl.LRP) -> float:
        found.append(repr(criterion))
        return area(self, criterion)

    monkeypatch.setattr(Objective, "area", noted)
    return found


def test_the_rule_that_is_known_to_be_best_is_found_and_tested() -> None:
    found = tuned(trials=8)
    assert found.trials[0].choices == {"last": "Epsilon", "0-0.3": "Epsilon", "absolute": "sample"}
    assert found.trials[0].area == EPSILON
    assert found.best.choices["last"] == "ZPlus"
    assert found.best.area == ZPLUS
    parts = ("reference", "selection", "test")
    assert found.areas == {"tuned": dict.fromkeys(parts, ZPLUS), "epsilon": dict.fromkeys(parts, EPSILON)}
    mean, low, high = found.gain
    assert mean == 0.5
    assert 0 < low <= mean <= high
    assert "the gain of 0.500 over epsilon everywhere on the selection is 0.500 (" in str(found)
    assert str(found).endswith("on the test: it holds")


def test_the_preset_makes_the_scores_that_were_best(tmp_path: Path) -> None:
    """By file, and as attribute aggregates unless told otherwise."""
    found = tuned(folder=tmp_path)
    lrp = sl.LRP.preset(tmp_path / "preset.json")
    assert lrp == sl.LRP.from_json(found.preset)
    model = harmed()
    scores = sl.attribute(model, sl.trace(model, PARTS[0][0][:1]), PARTS[0], lrp)
    assert sl.pruning_curves(model, scores, PARTS[1], rates=RATES).curves[0].area == found.best.area
    assert sl.Tuned.load(tmp_path / "tuned.safetensors") == found


def test_epsilon_everywhere_is_never_beaten_by_what_is_chosen_instead() -> None:
    """Where nothing is better it stays, and gains exactly nothing."""
    found = tuned(rules=(sl.Epsilon(), sl.Gamma()))
    assert found.best.number == 0
    assert found.gain == (0, 0, 0)
    assert not found.holds
    assert str(found).endswith("nothing that was tried is better on the selection than epsilon everywhere")


def test_the_default_is_tested_too_where_it_is_another() -> None:
    found = tuned(target=sl.Relative(sl.Logit()), trials=1)
    assert [*found.areas] == ["tuned", "epsilon", "default"]
    assert "default" not in tuned(trials=1).areas


def test_stopped_and_gone_on_with_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped within trials 3 and 6, and in the test; then gone on with, and extended."""
    whole = tuned(trials=9)
    draws, area, curves = Counter[int](), Objective.area, Objective.curves

    def stopped(self: Objective, criterion: sl.LRP) -> float:
        draws[0] += 1
        if draws[0] in (4, 8):
            raise KeyboardInterrupt
        return area(self, criterion)

    def untested(self: Objective, *given: Any) -> Any:
        draws[1] += 1
        if draws[1] == 2:
            raise KeyboardInterrupt
        return curves(self, *given)

    monkeypatch.setattr(Objective, "area", stopped)
    monkeypatch.setattr(Objective, "curves", untested)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            tuned(trials=7, folder=tmp_path)
    tuned(trials=7, folder=tmp_path)
    assert tuned(trials=9, folder=tmp_path) == whole


def test_what_was_tried_is_not_run_again(tmp_path: Path, ran: list[str]) -> None:
    found = tuned(trials=30, rules=(sl.Epsilon(), sl.ZPlus()), folder=tmp_path)
    assert len(ran) == len(set(ran)) <= 4 < len(found.trials)
    tuned(trials=30, rules=(sl.Epsilon(), sl.ZPlus()), folder=tmp_path)
    assert len(ran) == len(set(ran))


CODE = "import sys; sys.path[:0] = sys.argv[1:3]; import harmed; harmed.tuned(trials=24, folder=sys.argv[3])"


def process(folder: Path) -> subprocess.Popen[bytes]:
    tests = Path(__file__).resolve().parents[1]
    words = [sys.executable, "-c", CODE, str(tests), str(tests.parent / "src"), str(folder)]
    return subprocess.Popen(
        words,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_two_processes_share_the_trials(tmp_path: Path) -> None:
    """Each trial runs once, whoever runs it, and both find the same."""
    other = process(tmp_path)
    while not (tmp_path / "trials").exists():
        assert other.poll() is None
    found = tuned(trials=24, folder=tmp_path)
    assert other.wait(60) == 0
    assert [trial.number for trial in found.trials] == [*range(24)]
    assert sl.Tuned.load(tmp_path / "tuned.safetensors") == found
    entries = Journal(tmp_path, "tune").entries()
    assert [entry.state for entry in entries] == ["done"] * 24
    assert len({entry.worker for entry in entries}) == 2


def test_the_trial_of_a_killed_process_is_begun_again(tmp_path: Path) -> None:
    """Before those that wait, so that the rest is as if nothing had happened."""
    tuned(trials=5, folder=tmp_path)
    keys = Study(name="tune", run="", trials=tuple({"trial": n} for n in range(9))).keys
    journal = Journal(tmp_path, "tune")
    journal.add(keys[5:])
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lease = {"place": leases.place(), "pid": ended.pid, "beat": 0}
    (tmp_path / "workers" / "dead").write_text(json.dumps(lease))
    assert journal.claim("dead", keys).key == keys[5]
    assert tuned(trials=9, folder=tmp_path) == tuned(trials=9)
    assert [entry.state for entry in journal.entries()].count("lost") == 1


def test_trials_that_failed_in_other_processes_are_told(tmp_path: Path) -> None:
    book = Book(Study(name="tune", run="", trials=({"trial": 0}, {"trial": 1})), tmp_path)
    book.enrol()
    book.journal.fail(book.journal.claim("other", book.trials), "DataError: no")
    with pytest.raises(DataError, match="2 of 2 trials of .* have no result, 0 for DataError: no. The same"):
        _complete(book)


def test_errors_come_through_and_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Objective, "area", lambda self, criterion: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tuned(folder=tmp_path)
    assert tuned(folder=tmp_path) == tuned()


@pytest.mark.parametrize("change", ["seed", "rates", "weights", "test"])
def test_a_folder_is_of_one_tuning(tmp_path: Path, change: str) -> None:
    tuned(trials=1, folder=tmp_path)
    model, parts, settings = harmed(), [*PARTS], {"rates": RATES, "absolute": ("sample",), "trials": 1}
    if change == "weights":
        torch.nn.init.ones_(model[2].weight)
    elif change == "test":
        parts[2] = PARTS[2][0], 1 - PARTS[2][1]
    else:
        settings[change] = {"seed": 1, "rates": (0.0, 0.5)}[change]
    graph = sl.trace(model, PARTS[0][0][:1])
    with pytest.raises(DataError, match=f"holds another study; there {change} is .* Choose another folder"):
        sl.tune(model, graph, *parts, settings=sl.Tuning(**settings), folder=tmp_path)  # type: ignore[arg-type]


def test_examples_must_be_apart() -> None:
    model = harmed()
    graph = sl.trace(model, PARTS[0][0][:1])
    with pytest.raises(DataError, match="the selection and the test examples share 4 of 4"):
        sl.tune(model, graph, PARTS[0], PARTS[1], PARTS[1])


def test_restricted_to_some_classes() -> None:
    """The model has a third class whose score is always highest."""
    model = harmed()
    wider = torch.cat([model[2].weight.detach(), torch.full((1, 4), 9.0, dtype=torch.float64)])
    model[2] = torch.nn.Linear(4, 3, bias=False).double()
    model[2].weight.data.copy_(wider)
    graph = sl.trace(model, PARTS[0][0][:1])
    options: dict[str, Any] = {"rates": RATES, "absolute": ("sample",), "trials": 3}
    restricted = sl.Tuning(restricted=sl.Restricted((0, 1)), **options)
    assert sl.tune(model, graph, *PARTS, settings=restricted).best.area == ZPLUS
    assert sl.tune(model, graph, *PARTS, settings=sl.Tuning(**options)).best.area == 0


def test_without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(sl.MissingExtraError, match=r"shapleaf\[search\]"):
        tuned()


def test_the_graph_of_another_model() -> None:
    other = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)).double()
    with pytest.raises(sl.StaleGraphError):
        sl.tune(harmed(), sl.trace(other, PARTS[0][0][:1]), *PARTS)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot make the folder"):
        tuned(folder=tmp_path / "file" / "folder")


def test_scores_that_are_unusable() -> None:
    """Relative to a logit that is zero, nothing is known."""
    model = harmed()
    torch.nn.init.zeros_(model[2].weight)
    settings = sl.Tuning(target=sl.Relative(sl.Logit()), trials=2)
    with pytest.raises(CriterionError, match="is zero"):
        sl.tune(model, sl.trace(model, PARTS[0][0][:1]), *PARTS, settings=settings)

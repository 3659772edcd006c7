"""A worker: what it runs, what it leaves to others, and what it takes over."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shapleaf.errors import DataError
from shapleaf.records import Sweep
from shapleaf.sweeps import Study, leases, working
from shapleaf.sweeps.working import Book, work


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "_POLL", 0.01)


def runs(folder: Path, study: Study) -> list[int]:
    """How often each trial was begun."""
    files = [folder / "trials" / key / "runs.txt" for key in study.keys]
    return [len(file.read_text().splitlines()) if file.exists() else 0 for file in files]


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_worker_runs_everything_once_and_then_nothing(study: Study, tmp_path: Path) -> None:
    work(study, tmp_path, patience=60)
    work(study, tmp_path, patience=60)
    assert runs(tmp_path, study) == [1] * 6
    found = Book(study, tmp_path).gather()
    assert found.columns == ("x", "step", "value")
    assert found.column("value") == (0, 0, 1, 1, 2, 4, 3, 9, 4, 16, 5, 25)
    assert found.failed == ()


def test_a_study_that_has_grown_runs_the_new_trials_alone(study: Study, tmp_path: Path) -> None:
    work(study, tmp_path, patience=60)
    grown = replace(study, trials=({"x": 9}, *study.trials))
    work(grown, tmp_path, patience=60)
    assert runs(tmp_path, grown) == [1] * 7
    assert Book(grown, tmp_path).gather().column("x")[:3] == (9, 9, 0)
    assert len(Book(study, tmp_path).gather().rows) == 12  # and the small one is as before


def test_the_trial_of_a_dead_worker_goes_on_in_its_folder(study: Study, tmp_path: Path) -> None:
    book = Book(study, tmp_path)
    book.enrol()
    claimed = book.journal.claim("dead", study.keys)
    lease = tmp_path / "workers" / "dead"
    lease.parent.mkdir()
    lease.write_text(json.dumps({"place": leases.place(), "pid": gone(), "beat": 0}))
    book.place(claimed.key).mkdir(parents=True)
    (book.place(claimed.key) / "half").write_text("kept")
    work(study, tmp_path, patience=1e6)
    assert (book.place(claimed.key) / "half").read_text() == "kept"
    assert len(book.gather().rows) == 12
    assert [entry.state for entry in book.journal.entries()].count("lost") == 1


def test_a_result_whose_worker_died_before_it_could_say_so_is_not_made_again(
    study: Study, tmp_path: Path
) -> None:
    book = Book(study, tmp_path)
    work(study, tmp_path, patience=60)
    (tmp_path / "journal.log").unlink()
    work(study, tmp_path, patience=60)
    assert runs(tmp_path, study) == [1] * 6
    (book.result(study.keys[2])).unlink()
    work(study, tmp_path, patience=60)
    assert runs(tmp_path, study) == [1, 1, 2, 1, 1, 1]


def test_errors_are_kept_the_others_go_on_and_the_next_call_tries_again(toys: Path, tmp_path: Path) -> None:
    trials = tuple({"x": x} for x in range(3))
    study = Study(name="toy", run="sweeptoys:picky", trials=trials, settings={"bad": [1]})
    work(study, tmp_path, patience=60)
    found = Book(study, tmp_path).gather()
    assert found.column("x") == (0, 2)
    assert [(failure.trial, failure.error) for failure in found.failed] == [("1", "RuntimeError: 1 is bad")]
    assert "failed: 1: RuntimeError: 1 is bad" in str(found)
    assert "1 is bad" in (Book(study, tmp_path).place(study.keys[1]) / "error.txt").read_text()
    (tmp_path / "trials" / "mended").touch()
    work(study, tmp_path, patience=60)
    assert Book(study, tmp_path).gather().column("x") == (0, 1, 2)


def test_what_is_no_sweep_is_an_error_of_the_trial(toys: Path, tmp_path: Path) -> None:
    study = Study(name="toy", run="sweeptoys:wrong", trials=({"x": 1},))
    work(study, tmp_path, patience=60)
    failure = Book(study, tmp_path).gather().failed[0]
    assert failure.error == "DataError: sweeptoys:wrong returned a int, expected a Sweep."


def test_an_interrupted_trial_waits_for_the_next_worker(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(trial: object, folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Study, "function", lambda self: interrupted)
    with pytest.raises(KeyboardInterrupt):
        work(study, tmp_path, patience=60)
    assert [entry.state for entry in Book(study, tmp_path).journal.entries()] == ["lost"] + ["waiting"] * 5
    monkeypatch.undo()
    work(study, tmp_path, patience=60)
    assert len(Book(study, tmp_path).gather().rows) == 12


def test_a_trial_that_kills_its_workers_is_given_up(toys: Path, tmp_path: Path) -> None:
    study = Study(name="toy", run="sweeptoys:deadly", trials=({"x": 0}, {"x": 1}))
    book = Book(study, tmp_path)
    for _ in range(working.ATTEMPTS):
        book.enrol()
        while (entry := book.journal.claim("w", study.keys)) is not None:
            book.journal.fail(entry)
    book.enrol()
    assert list(book.states().values()) == ["failed", "failed"]
    assert book.gather().failed[0].error == "the workers that ran it died"


def test_a_running_trial_of_a_living_worker_is_waited_for(study: Study, tmp_path: Path) -> None:
    book = Book(study, tmp_path)
    book.enrol()
    with leases.lease(tmp_path / "workers", 60) as name:
        entry = book.journal.claim(name, study.keys)
        looks = 0

        def seen() -> None:
            nonlocal looks
            looks += 1
            if looks == 8:  # five trials of its own, then it has waited
                assert book.states()[entry.key] == "running"
                working._run(book, entry, study.function())

        work(study, tmp_path, patience=60, seen=seen)
    assert runs(tmp_path, study) == [1] * 6
    assert looks > 8


def test_an_unwritable_folder(study: Study, tmp_path: Path) -> None:
    (tmp_path / "workers").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="cannot write"):
        work(study, tmp_path, patience=60)


def test_a_function_of_the_caller_and_its_errors(study: Study, tmp_path: Path) -> None:
    """Raised as they are, once the journal has them; the next call tries again."""

    def once(trial: Any, folder: Path) -> Sweep:
        if trial["x"] == 1 and not (tmp_path / "mended").exists():
            raise KeyError("one")
        return Sweep.of("toy", [{"x": trial["x"]}])

    with pytest.raises(KeyError, match="one"):
        work(study, tmp_path, patience=60, function=once, strict=True)
    states = [entry.state for entry in Book(study, tmp_path).journal.entries()]
    assert states == ["done", "failed", *["waiting"] * 4]
    (tmp_path / "mended").touch()
    work(study, tmp_path, patience=60, function=once, strict=True)
    assert Book(study, tmp_path).gather().column("x") == (0, 1, 2, 3, 4, 5)

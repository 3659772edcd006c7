"""Worker processes: one is killed half-way, and the table is the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from shapleaf.errors import DataError
from shapleaf.sweeps import Study, sweep
from shapleaf.sweeps.processes import _started, spawn
from shapleaf.sweeps.study import bind
from shapleaf.sweeps.working import Book


def start(study: Study, folder: Path) -> subprocess.Popen[bytes]:
    return _started([str(folder), "60"], study, dict(os.environ), folder / "log")


def test_two_workers_one_killed_half_way_make_the_table_of_one(study: Study, tmp_path: Path) -> None:
    study = replace(study, settings={"seconds": 0.4})
    folder = tmp_path / "two"
    folder.mkdir()
    bind(study, folder)
    victim, other = start(study, folder), start(study, folder)
    book = Book(study, folder)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # until the victim has finished something and is within something
        mine = [entry for entry in book.journal.entries() if f"-{victim.pid}-" in entry.worker]
        running = [book.place(entry.key) for entry in mine if entry.state == "running"]
        if len(mine) > len(running) and any((place / "runs.txt").exists() for place in running):
            break
        time.sleep(0.01)
    victim.kill()
    victim.wait()
    assert other.wait(timeout=300) == 0  # two minutes more if the victim had the journal's lock
    for process in (victim, other):
        assert process.stdin is not None
        process.stdin.close()
    entries = book.journal.entries()
    assert len(entries) == 7  # both enrolled the trials, each of them once, and one again
    assert [entry.state for entry in entries].count("lost") == 1
    assert [entry.state for entry in entries].count("done") == 6
    assert sorted(entry.key for entry in entries if entry.state == "done") == sorted(study.keys)
    one = sweep(replace(study, settings={"seconds": 0.4}), folder)
    assert len([*folder.glob("trials/*/runs.txt")]) == 6
    begun = [len(path.read_text().splitlines()) for path in folder.glob("trials/*/runs.txt")]
    assert sorted(begun) == [1, 1, 1, 1, 1, 2]  # the one that was lost, and no other
    alone = tmp_path / "one"
    assert sweep(replace(study, settings={"seconds": 0.0}), alone) == one
    for name in ("sweep.csv", "sweep.json"):
        assert (folder / name).read_bytes() == (alone / name).read_bytes()


def test_spawned_workers_share_the_work_and_tidy_up(study: Study, tmp_path: Path) -> None:
    study = replace(study, settings={"seconds": 0.3})
    found = sweep(study, tmp_path, workers=2)
    assert found.column("x") == tuple(x for x in range(6) for _ in range(2))
    workers = {entry.worker for entry in Book(study, tmp_path).journal.entries()}
    assert len(workers) == 2
    assert list((tmp_path / "workers").iterdir()) == []


def test_when_all_workers_die_it_says_what_the_last_one_said(study: Study, tmp_path: Path) -> None:
    broken = replace(study, run="nowhere:f")
    with pytest.raises(DataError, match=r"all 1 workers died: .*cannot import nowhere.* See .*\.log"):
        spawn(broken, tmp_path, 1, patience=60)


def test_a_worker_that_dies_before_it_is_told_what_to_do(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a pipe holds is written to a process that never reads."""
    long = replace(study, settings={"seconds": 0.0, "unused": "x" * 2**20})
    monkeypatch.setattr(sys.modules[spawn.__module__], "_CODE", "raise SystemExit('out of order')")
    with pytest.raises(DataError, match="all 2 workers died: out of order"):
        spawn(long, tmp_path, 2, patience=60)


def test_when_one_cannot_be_started_the_others_are_stopped(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, begun = sys.modules[spawn.__module__], list[subprocess.Popen[bytes]]()
    started = module._started

    def start_one(*arguments: object) -> subprocess.Popen[bytes]:
        if begun:
            raise OSError("no more processes")
        begun.append(started(*arguments))
        return begun[0]

    monkeypatch.setattr(module, "_started", start_one)
    bind(study, tmp_path)
    with pytest.raises(OSError, match="no more processes"):
        spawn(study, tmp_path, 2, patience=60)
    assert begun[0].poll() is not None


def test_an_interruption_stops_the_workers(study: Study, tmp_path: Path) -> None:
    study = replace(study, settings={"seconds": 60.0})
    bind(study, tmp_path)

    def seen() -> None:
        if any((tmp_path / "trials").glob("*/runs.txt")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spawn(study, tmp_path, 1, patience=60, seen=seen)
    pid = int(next((tmp_path / "trials").glob("*/runs.txt")).read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)


def test_a_worker_ends_with_the_process_that_started_it(study: Study, tmp_path: Path) -> None:
    study = replace(study, settings={"seconds": 60.0})
    bind(study, tmp_path)
    worker = start(study, tmp_path)
    assert worker.stdin is not None
    while not any((tmp_path / "trials").glob("*/runs.txt")) and worker.poll() is None:
        time.sleep(0.01)
    worker.stdin.close()  # as the system does when that process dies
    assert worker.wait(timeout=60) == -signal.SIGTERM

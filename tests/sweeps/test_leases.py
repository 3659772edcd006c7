"""Leases: the living are left alone, the dead found."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shapleaf.sweeps import leases
from shapleaf.sweeps.leases import Watch, lease, place


def test_a_lease_is_renewed_while_its_block_runs_and_gone_afterwards(tmp_path: Path) -> None:
    with lease(tmp_path, patience=0.06) as name:
        first = (tmp_path / name).read_text()
        deadline = time.monotonic() + 10
        while (tmp_path / name).read_text() == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / name).read_text() != first
    assert list(tmp_path.iterdir()) == []


def test_a_process_of_this_machine_that_ended_is_dead_at_once(tmp_path: Path) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    (tmp_path / "w").write_text(json.dumps({"place": place(), "pid": done.pid, "beat": 3}))
    assert Watch(tmp_path, patience=1e6).dead("w")


def test_one_on_another_machine_is_dead_only_when_its_lease_has_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 100.0
    monkeypatch.setattr(leases.time, "monotonic", lambda: clock)
    watch = Watch(tmp_path, patience=10)

    def write(beat: int) -> None:
        (tmp_path / "w").write_text(json.dumps({"place": "elsewhere", "pid": 1, "beat": beat}))

    write(0)
    assert not watch.dead("w")
    clock += 9
    assert not watch.dead("w")
    write(1)
    clock += 9
    assert not watch.dead("w")
    clock += 11
    assert watch.dead("w")


@pytest.mark.parametrize("content", [None, "", "{", "[1]", '{"place": 3}'])
def test_no_lease_or_none_that_can_be_read_is_waited_for(
    tmp_path: Path, content: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr(leases.time, "monotonic", lambda: clock)
    if content is not None:
        (tmp_path / "w").write_text(content)
    watch = Watch(tmp_path, patience=10)
    assert not watch.dead("w")
    clock = 9
    assert not watch.dead("w")
    clock = 11
    assert watch.dead("w")

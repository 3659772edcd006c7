"""The journal: one of many claims a trial, and nothing is lost that was written."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from shapleaf.errors import DataError, MissingExtraError
from shapleaf.sweeps.journal import Journal, locked


def test_every_trial_is_claimed_once_in_order(tmp_path: Path) -> None:
    first, second = Journal(tmp_path, "s"), Journal(tmp_path, "s")
    first.add(["a", "b", "c"])
    assert [first.claim("1", "abc").key, second.claim("2", "abc").key, first.claim("1", "abc").key] == [
        *"abc"
    ]
    assert second.claim("2", "abc") is None
    assert [(entry.key, entry.state, entry.worker) for entry in second.entries()] == [
        ("a", "running", "1"), ("b", "running", "2"), ("c", "running", "1")]  # fmt: skip


def test_claims_at_the_same_time_share_the_trials(tmp_path: Path) -> None:
    Journal(tmp_path, "s").add([str(i) for i in range(12)])
    keys = {str(i) for i in range(12)}
    claimed: list[str] = []

    def claim(worker: str) -> None:
        journal = Journal(tmp_path, "s")
        while (entry := journal.claim(worker, keys)) is not None:
            claimed.append(entry.key)

    threads = [threading.Thread(target=claim, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed, key=int) == [str(i) for i in range(12)]


def test_only_known_trials_are_claimed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "s")
    journal.add(["new", "old"])
    assert journal.claim("1", {"old"}).key == "old"
    assert journal.claim("1", {"old"}) is None


def test_who_comes_too_late_changes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "s")
    journal.add(["a", "b"])
    a, b = journal.claim("1", "ab"), journal.claim("1", "ab")
    journal.fail(a)
    journal.done(a)
    journal.done(b)
    journal.fail(b, "too late")
    assert [(entry.state, entry.error) for entry in journal.entries()] == [("lost", ""), ("done", "")]


def test_a_crash_in_the_middle_of_a_line_is_mended(tmp_path: Path) -> None:
    Journal(tmp_path, "s").add(["a"])
    path = tmp_path / "journal.log"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code": 4, "wor')
    journal = Journal(tmp_path, "s")
    assert path.read_bytes() == whole
    journal.add(["b"])
    assert [entry.key for entry in Journal(tmp_path, "s").entries()] == ["a", "b"]


def test_a_damaged_journal_says_that_nothing_is_lost_without_it(tmp_path: Path) -> None:
    Journal(tmp_path, "s").add(["a"])
    with (tmp_path / "journal.log").open("a") as file:
        file.write("nonsense\n{}\n")
    with pytest.raises(DataError, match=r"journal.log is damaged .* Delete it"):
        Journal(tmp_path, "s")


def test_without_optuna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"shapleaf\[search\]"):
        Journal(tmp_path, "s")


def test_only_one_holds_the_folder(tmp_path: Path) -> None:
    order: list[str] = []

    def other() -> None:
        with locked(tmp_path):
            order.append("second")

    with locked(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot write the sweep's folder"), locked(tmp_path / "missing"):
        pass


def test_trials_are_claimed_in_the_order_of_their_keys(tmp_path: Path) -> None:
    """One that was lost and waits again comes before those behind it."""
    journal = Journal(tmp_path, "s")
    journal.add(["a", "b", "c"])
    journal.fail(journal.claim("1", "abc"))
    journal.add(["a"])
    assert [journal.claim("2", "abc").key for _ in "abc"] == ["a", "b", "c"]

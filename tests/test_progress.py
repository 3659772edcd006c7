"""Bars in terminals only, and none where the user asked for quiet."""

import sys

import pytest

import shapleaf as sl
from shapleaf import _progress
from shapleaf._progress import progress


@pytest.fixture(autouse=True)
def loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "_quiet", False)
    monkeypatch.delenv("SHAPLEAF_QUIET", raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


def terminal(monkeypatch: pytest.MonkeyPatch, value: bool) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: value, raising=False)


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    with progress("attribute", total=2) as step:
        step("conv1")
        step("conv2")
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_scripts_and_logs_see_nothing(monkeypatch, capsys) -> None:
    terminal(monkeypatch, False)
    assert shown(capsys) == ""


def test_terminals_see_title_step_and_count(monkeypatch, capsys) -> None:
    terminal(monkeypatch, True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    bar = shown(capsys)
    assert "attribute conv2" in bar
    assert "2/2" in bar


def test_notebooks_see_it(monkeypatch) -> None:
    terminal(monkeypatch, False)
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert _progress._visible()


def test_the_variable_switches_it_off(monkeypatch, capsys) -> None:
    terminal(monkeypatch, True)
    monkeypatch.setenv("SHAPLEAF_QUIET", "1")
    assert shown(capsys) == ""


def test_quiet_switches_it_off_and_on_again(monkeypatch, capsys) -> None:
    terminal(monkeypatch, True)
    sl.quiet()
    assert shown(capsys) == ""
    sl.quiet(False)
    assert _progress._visible()


def test_an_exception_passes_through_and_ends_the_bar(monkeypatch, capsys) -> None:
    terminal(monkeypatch, True)
    with pytest.raises(KeyboardInterrupt), progress("attribute"):
        raise KeyboardInterrupt
    with progress("another") as step:  # rich refuses a second live display while one is open
        step("")


def test_bars_within_bars_stand_below_each_other_and_go_when_they_are_done(monkeypatch, capsys) -> None:
    terminal(monkeypatch, True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with progress("sweep", 2) as outer:
        outer("first")
        with progress("train", 5) as inner:
            inner("epoch")
            assert [task.description for task in _progress._display.tasks] == ["sweep first", "train epoch"]
        assert [task.description for task in _progress._display.tasks] == ["sweep first"]
    assert _progress._display is None
    bars = capsys.readouterr().err
    assert bars.index("sweep") < bars.index("train epoch") < bars.rindex("sweep first")

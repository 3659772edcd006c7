"""sweep: the table, the files beside it, and what it refuses."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import shapleaf as sl
from shapleaf.errors import DataError, MissingExtraError
from shapleaf.sweeps import Study, sweep


def test_the_files_hold_the_table(study: Study, tmp_path: Path) -> None:
    found = sweep(study, tmp_path / "new" / "folder")
    home = tmp_path / "new" / "folder"
    assert sl.Sweep.load(home / "sweep.safetensors") == found
    assert (home / "sweep.csv").read_text().splitlines()[:3] == ["x,step,value", "0,1,0", "0,2,0"]
    told = json.loads((home / "sweep.json").read_text())
    assert told["rows"][5] == {"x": 2, "step": 2, "value": 4}
    assert told["failed"] == []
    assert str(found).startswith("Sweep toy: 12 rows\nx  step  value")


def test_another_study_in_the_folder(study: Study, tmp_path: Path) -> None:
    sweep(study, tmp_path)
    with pytest.raises(DataError, match="holds another study"):
        sweep(replace(study, name="other"), tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [({"workers": 0}, "workers must be at least 1, received 0"),
     ({"patience": 0.0}, "patience must be above 0 seconds, received 0.0"),
     ({"patience": float("nan")}, "patience must be above")],
)  # fmt: skip
def test_what_it_refuses(study: Study, tmp_path: Path, given: dict, said: str) -> None:
    with pytest.raises(DataError, match=said):
        sweep(study, tmp_path / "none", **given)
    assert not (tmp_path / "none").exists()


def test_a_function_that_is_not_there_leaves_no_folder(study: Study, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot import nowhere"):
        sweep(replace(study, run="nowhere:f"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_file_where_the_folder_should_be(study: Study, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot make the folder"):
        sweep(study, tmp_path / "file")


def test_without_optuna(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "optuna"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'shapleaf\[search\]'"):
        sweep(study, tmp_path)


def test_every_result_moves_the_bar_once(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    class Bar:
        def __enter__(self) -> object:
            return steps.append

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("shapleaf._progress.progress", lambda title, total: Bar())
    sweep(study, tmp_path)
    assert steps == [*"012345"]

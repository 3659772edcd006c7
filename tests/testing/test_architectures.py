"""The command: one process for each model, a limit, resuming, and clear words for every mishap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shapleaf.errors import DataError
from shapleaf.testing import architectures, catalogue
from shapleaf.testing.architectures import app, chosen, examine_apart, examine_spec, load, main

MINE = """
import os
import torch
from torch import nn

def good():
    print("noise")
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 3)

def dies():
    os._exit(7)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own, in the current folder."""
    (tmp_path / "my_zoo.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return "my_zoo"


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments], catch_exceptions=False)


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "architectures.json").read_text())["models"]
    return found


def test_each_model_in_a_process_of_its_own(mine: str, tmp_path: Path) -> None:
    specs = [f"{mine}:good", f"{mine}:dies"]
    done = run(*specs, "--results", "out", "--jobs", "2")
    assert done.exit_code == 0
    assert done.stdout.strip() == "out/architectures.md"
    assert "2/2" in done.stderr
    rows = results(tmp_path / "out")
    assert {*rows} == {*specs}
    assert (rows[specs[0]]["groups"], rows[specs[0]]["wrong"]) == (1, [])
    assert rows[specs[1]] == {"failure": "the process ended with exit code 7, out of memory perhaps"}
    page = (tmp_path / "out" / "architectures.md").read_text()
    assert f"| {specs[0]} | proven | 1 | 8 |" in page
    assert f"- `{specs[1]}` failed: the process ended with exit code 7" in page


def test_a_limit_ends_the_process(mine: str) -> None:
    assert examine_apart(f"{mine}:good", limit=0.01) == {"failure": "more than 0.01 s"}


def test_whatever_a_model_does_is_a_row(mine: str) -> None:
    assert examine_spec(f"{mine}:absent")["failure"].startswith("DataError: my_zoo has no 'absent'")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is examined, without examining anything."""
    seen: list[str] = []

    def apart(spec: str, limit: float) -> dict[str, Any]:
        seen.append(f"{spec} {limit:g}")
        return {"failure": "as planned"}

    monkeypatch.setattr(architectures, "examine_apart", apart)
    return seen


def test_a_run_is_resumed_and_what_was_not_proven_examined_again(tmp_path: Path, calls: list[str]) -> None:
    out = ("--results", str(tmp_path))
    run("a.b:first", *out, "--limit", "5")
    run("a.b:second", "a.b:first", *out)
    assert calls == ["a.b:first 5", "a.b:second 240"]
    assert "1/1 a.b:first: failed" in run("a.b:first", *out, "--again").stderr
    assert calls[2:] == ["a.b:first 240"]
    assert [*results(tmp_path)] == ["a.b:first", "a.b:second"]


def test_rows_are_kept_in_the_order_of_the_list(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "missing", lambda spec: "")
    run("a.b:mine", "hf:bert", "torchvision:alexnet", "--results", str(tmp_path))
    assert [*results(tmp_path)] == ["torchvision:alexnet", "hf:bert", "a.b:mine"]


def test_what_is_not_installed_is_said_and_not_examined(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "missing", lambda spec: "pip install 'it'" if spec[0] == "h" else "")
    done = run("hf:b*", "a.b:mine", "--results", str(tmp_path))
    count = sum(spec.startswith("hf:b") for spec in catalogue.SPECS)
    assert f"{count} of {count + 1} models are not installed: pip install 'it'" in done.stderr
    assert calls == ["a.b:mine 240"]
    assert "`hf:bert`" in (tmp_path / "architectures.md").read_text().partition("Not examined:")[2]


def test_patterns() -> None:
    assert [spec.partition(":")[0] for spec in chosen(["detection:*"])] == ["detection"] * 5
    assert chosen(["*"]) == [*catalogue.SPECS]
    for wrong in ("timm:nothing*", "resnet18"):
        with pytest.raises(DataError, match="no listed architecture matches"):
            chosen([wrong])


def test_results_of_other_versions_are_not_mixed(tmp_path: Path, calls: list[str]) -> None:
    run("a.b:mine", "--results", str(tmp_path))
    path = tmp_path / "architectures.json"
    found = json.loads(path.read_text())
    found["environment"]["torch"] = "1.0"
    path.write_text(json.dumps(found))
    with pytest.raises(DataError, match=r"made with .*torch 1\.0.*not mixed"):
        load(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="holds no results of this command"):
        load(path)


def test_a_mistake_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["architectures", "resnet18"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("Error: no listed architecture matches 'resnet18'")

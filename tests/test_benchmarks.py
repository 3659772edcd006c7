"""The benchmarks run, at toy size, and their committed results hold what the documentation says."""

from __future__ import annotations

import doctest
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from scipy import stats

from shapleaf.testing.catalogue import SPECS
from shapleaf.testing.coverage import page, verdict

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_spearman_shares_ranks_among_ties(script: Callable[[str], ModuleType]) -> None:
    common = script("common")
    a, b = [1.0, 2.0, 2.0, 4.0, 0.0], [2.0, 2.0, 3.0, 5.0, 1.0]
    assert common.spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert doctest.testmod(common).failed == 0


@pytest.mark.data
def test_estimators_at_toy_size(
    script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, shared: Path, tmp_path: Path
) -> None:
    estimators, line = script("estimators"), "path, line, 16 points"
    monkeypatch.setattr(estimators, "ESTIMATORS", {line: estimators.ESTIMATORS[line]})
    few = ["--layers", "resnet20:layer3.2.conv1", "--images", "2", "--orders", "4", "--seeds", "1"]
    places = ["--data", str(shared), "--out", str(tmp_path), "--cache", str(tmp_path / "cache")]
    estimators.main([*few, *places])
    found = json.loads((tmp_path / "estimators.json").read_text())["layers"]["resnet20:layer3.2.conv1"]
    assert found["units"] == 64
    assert found["estimators"][line]["evaluations"] == 16 * 3 + 2
    assert 0 < found["estimators"][line]["mean"] <= 1
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_tracing_at_toy_size(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning")
    pytest.importorskip("torchvision")
    script("tracing").main(
        ["--models", "resnet18", "--repeats", "1", "--image-size", "32", "--out", str(tmp_path)]
    )
    row = json.loads((tmp_path / "tracing.json").read_text())["models"]["resnet18"]
    assert min(row.values()) > 0


@pytest.mark.parametrize("layer", ["vgg16:features.40", "vgg16:classifier.1"])
@pytest.mark.parametrize("aggregation", ["mean", "mean + 2 std"])
def test_committed_paths_come_closer_than_the_papers_sampler(layer: str, aggregation: str) -> None:
    found = json.loads((BENCHMARKS / "results" / "estimators.json").read_text())["layers"][layer]
    rows = found["estimators"]
    paper = rows["5 orders, shared (the paper's)"]
    paths = [row for name, row in rows.items() if name.startswith("path") and row["evaluations"] <= 200]
    assert found["units"] == 512
    assert paper["evaluations"] > 2500
    assert rows["path, gaussian, 4 points x 4"] in paths
    assert all(row["lowest"][aggregation] > paper[aggregation] for row in paths)


def test_the_page_on_architectures_is_what_was_found() -> None:
    found = json.loads((ROOT / "docs" / "architectures.json").read_text())
    assert (ROOT / "docs" / "architectures.md").read_text() == page(found, SPECS)
    words = [verdict(row) for row in found["models"].values()]
    assert words.count("proven") >= 0.98 * len(words)
    assert "wrong" not in words


def test_architectures_at_toy_size(tmp_path: Path) -> None:
    """Also in the processes that it starts, torchvision can be imported beside any torch."""
    pytest.importorskip("torchvision")
    (tmp_path / "toy.py").write_text(
        "import torch, torchvision\n\n\ndef build():\n"
        "    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Linear(8, 2)), torch.ones(1, 3)\n"
    )
    command = [sys.executable, str(BENCHMARKS / "architectures.py"), "toy:build", "--results", "out"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    found = json.loads((tmp_path / "out" / "architectures.json").read_text())["models"]["toy:build"]
    assert (verdict(found), found["units"]) == ("proven", 8)

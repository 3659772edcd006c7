"""The benchmarks run, at toy size, and their committed results hold what the documentation says."""

from __future__ import annotations

import doctest
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"


def run(script: str, *arguments: object) -> None:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def common() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_common", BENCHMARKS / "common.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_spearman_shares_ranks_among_ties(common: ModuleType) -> None:
    a, b = [1.0, 2.0, 2.0, 4.0, 0.0], [2.0, 2.0, 3.0, 5.0, 1.0]
    assert common.spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert doctest.testmod(common).failed == 0


@pytest.mark.data
def test_estimators_at_toy_size(shared: Path, tmp_path: Path) -> None:
    few = ("--layers", "resnet20:layer3.2.conv1", "--images", 2, "--orders", 4, "--seeds", 1)
    run("estimators.py", *few, "--data", shared, "--out", tmp_path, "--cache", tmp_path / "cache")
    found = json.loads((tmp_path / "estimators.json").read_text())["layers"]["resnet20:layer3.2.conv1"]
    assert found["units"] == 64
    assert found["estimators"]["path, line, 16 points"]["evaluations"] == 16 * 3 + 2
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_tracing_at_toy_size(tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning")
    pytest.importorskip("torchvision")
    run("tracing.py", "--models", "resnet18", "--repeats", 1, "--image-size", 32, "--out", tmp_path)
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

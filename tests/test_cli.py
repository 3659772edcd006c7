"""The command line as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import shapleaf as sl
from commands import MODEL, run
from shapleaf.demo import train
from shapleaf.integrations.datasets import load_data


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "dense.safetensors"
    save_file(train(load_data("digits", split="train").sample(1500, seed=0), epochs=2).state_dict(), path)
    return path


def test_help_is_instant_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from shapleaf import cli\n"
        "try: cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'torchvision', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in (
        "demo",
        "slim",
        "trace",
        "attribute",
        "profile",
        "allocate",
        "prune",
        "evaluate",
        "report",
        "assess",
        "sweep",
    ):
        assert verb in done.stdout


def test_version() -> None:
    assert run("--version").strip() == f"shapleaf {sl.__version__}"


def test_the_verbs_over_saved_records(weights: Path, tmp_path: Path) -> None:
    graph, scores, plan = (tmp_path / f"{name}.safetensors" for name in ("graph", "scores", "plan"))
    out, page = tmp_path / "pruned", tmp_path / "page.html"
    assert "0         32" in run("trace", MODEL, "--shape", "1,16,16", "-o", graph)
    data = ("--data", "digits", "--weights", weights)
    run("attribute", MODEL, graph, *data, "--calibration", 40, "--criterion", "taylor", "-o", scores, "-q")
    assert sl.Scores.load(scores).curves.keys() == {"0", "3", "7"}
    run("allocate", scores, "--keep", "0.6", "-o", plan, "-q")
    run("prune", MODEL, plan, *data, "-o", out, "-q")
    receipt = sl.Receipt.load(out / "receipt.safetensors")
    assert receipt.compensation.startswith("LeastSquares() + Distill(steps=200")
    assert receipt.effects[-1].error < receipt.effects[0].error
    assert sum(t.numel() for n, t in load_file(out / "weights.safetensors").items() if "running" not in n) > 0
    said = run("evaluate", MODEL, out, *data, "--test", 60, "-o", tmp_path / "report", "--json")
    rows = {row["metric"]: row for row in json.loads(said)["rows"]}
    assert rows["params"]["value"] == receipt.plan.after.params
    assert rows["MACs"]["value"] == receipt.plan.after.macs <= 0.6 * rows["MACs"]["reference"]
    run("report", tmp_path / "report", "-o", page, "-q")
    assert page.read_text().startswith("<!doctype html>") or page.read_text().startswith("<!DOCTYPE html>")


def test_a_latency_budget_takes_what_profile_wrote(weights: Path, tmp_path: Path) -> None:
    graph, scores, plan, table = (tmp_path / name for name in ("graph", "scores", "plan", "table"))
    run("trace", MODEL, "--shape", "1,16,16", "-o", graph, "-q")
    run("attribute", MODEL, graph, "--data", "digits", "--criterion", "weight-norm", "-o", scores, "-q")
    words = ("profile", MODEL, graph, "--batch-size", 16, "--threads", 1, "--runs", 12, "-o", table)
    said = json.loads(run(*words, "--json"))
    assert said["kind"] == "LatencyTable"
    assert "3:conv2d#0" in {row["call"] for row in said["rows"]}
    found = sl.LatencyTable.load(table)
    assert found.settings["inputs"] == "(16, 1, 16, 16) float32"
    assert run(*words, "-q") == ""
    assert sl.LatencyTable.load(table) == found  # nothing was measured again
    budget = ("--budget", "latency", "--table", table)
    run("allocate", scores, *budget, "--keep", 0.9, "-o", plan, "-q")
    assert found.predict(sl.Plan.load(plan)) <= 0.9 * found.dense + 1e-3
    data = ("--data", "digits", "--weights", weights, "--calibration", 20, "--test", 20)
    run("slim", MODEL, *data, *budget, "--keep", 0.9, "-o", tmp_path / "slim", "--criterion", "taylor", "-q")
    receipt = sl.Receipt.load(tmp_path / "slim" / "receipt.safetensors")
    assert receipt.plan.made_by["budget"] == "Latency(keep=0.9)"


def test_attribution_goes_on_from_its_journal_and_runs_in_bfloat16(weights: Path, tmp_path: Path) -> None:
    run("trace", MODEL, "--shape", "1,16,16", "-o", tmp_path / "graph", "-q")
    words = ("attribute", MODEL, tmp_path / "graph", "--data", "digits", "--weights", weights)
    words = (*words, "--calibration", 20, "--no-curves", "-o", tmp_path / "scores")
    run(*words, "--evaluations", 80, "--journal", tmp_path / "kept", "-q")
    first = sl.Scores.load(tmp_path / "scores")
    assert set(first.stopped.values()) == {"evaluations"}
    assert len(list((tmp_path / "kept").iterdir())) == 3
    said = json.loads(run(*words, "--evaluations", 140, "--journal", tmp_path / "kept", "--json"))
    assert {(row["stopped"], row["evaluations"]) for row in said["rows"]} == {("evaluations", 2 + 4 * 30)}
    run(*words, "--bf16", "--memory", "64MiB", "-q")
    coarse = sl.Scores.load(tmp_path / "scores")
    for name, values in first.values.items():
        both = torch.stack([values.argsort().argsort(), coarse.values[name].argsort().argsort()]).double()
        assert torch.corrcoef(both)[0, 1] > 0.9


def test_allocate_without_curves_says_what_to_do(weights: Path, tmp_path: Path) -> None:
    run("trace", MODEL, "--shape", "1,16,16", "-o", tmp_path / "graph", "-q")
    data = ("--data", "digits", "--weights", weights, "--calibration", 10, "--no-curves", "--groups", "[03]")
    run("attribute", MODEL, tmp_path / "graph", *data, "--criterion", "apoz", "-o", tmp_path / "scores", "-q")
    assert sl.Scores.load(tmp_path / "scores").values.keys() == {"0", "3"}
    with pytest.raises(sl.PlanError, match="Tradeoff needs the loss curve"):
        run("allocate", tmp_path / "scores", "--keep", "0.6")
    run(
        "allocate",
        tmp_path / "scores",
        "--keep",
        "0.6",
        "--strategy",
        "uniform",
        "-o",
        tmp_path / "plan",
        "-q",
    )
    assert sl.Plan.load(tmp_path / "plan").made_by["strategy"] == "Uniform"


def test_slim_writes_everything_and_prints_json(weights: Path, tmp_path: Path) -> None:
    words = ("slim", MODEL, "--data", "digits", "--weights", weights, "--calibration", 50, "--test", 100)
    said = json.loads(
        run(*words, "--criterion", "taylor", "--remove", "30%", "-o", tmp_path / "out", "--json")
    )
    assert said["kind"] == "Report"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "weights.safetensors",
        "receipt.safetensors",
        "report.safetensors",
        "report.html",
    }
    rebuilt = sl.replay(
        train(load_data("digits", split="train").sample(10, seed=0), epochs=1),
        sl.Receipt.load(tmp_path / "out" / "receipt.safetensors"),
    )
    rebuilt.load_state_dict(load_file(tmp_path / "out" / "weights.safetensors"))
    report = sl.Report.load(tmp_path / "out" / "report.safetensors")
    assert report["accuracy"].reference is not None
    assert (tmp_path / "out" / "report.html").stat().st_size < 300_000


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = run("demo")
    assert "written to shapleaf-demo/report.html" in said
    report = sl.Report.load("shapleaf-demo/report.safetensors")
    assert report["accuracy"].reference > 95
    assert report["accuracy"].value > report["accuracy"].reference - 15
    assert report["MACs"].value <= 0.5 * report["MACs"].reference


def test_quiet_prints_nothing(weights: Path, tmp_path: Path) -> None:
    assert run("trace", MODEL, "--shape", "1,16,16", "-o", tmp_path / "graph", "--quiet") == ""


def test_a_mistake_is_one_line_on_stderr(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['shapleaf', *sys.argv[1:]]; from shapleaf.cli import main; main()"

    def shell(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    missing = shell("allocate", "nothing.safetensors", "--keep", "0.5")
    assert missing.returncode == 1
    assert missing.stdout == ""
    assert missing.stderr == "Error: nothing.safetensors does not exist.\n"
    (tmp_path / "blocked").write_text("a file where a folder should be")
    unwritable = shell("trace", MODEL, "--shape", "1,16,16", "-o", "blocked/graph")
    assert unwritable.returncode == 1
    assert unwritable.stderr.startswith("Error: cannot write blocked/graph")
    assert [path.name for path in tmp_path.iterdir()] == ["blocked"]


@pytest.mark.filterwarnings("ignore:.*below what compensation can save")  # nothing is trained here
def test_the_users_own_model_and_criterion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_own.py").write_text(
        "from dataclasses import dataclass\nimport torch\nfrom torch import nn\nimport shapleaf as sl\n\n"
        "def build():\n    return nn.Sequential(nn.Flatten(),"
        "nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10))\n\n"
        "@dataclass(frozen=True)\nclass Last:\n    needs = sl.Needs.NOTHING\n"
        "    def score(self, probe):\n        return torch.arange(probe.group.size, dtype=torch.float64)\n"
    )
    monkeypatch.chdir(tmp_path)
    words = (
        "slim",
        "users_own:build",
        "--data",
        "digits",
        "--criterion",
        "users_own:Last",
        "--strategy",
        "uniform",
    )
    run(*words, "--budget", "units", "--keep", "0.25", "--test", 20, "-q")
    plan = sl.Receipt.load("shapleaf-slim/receipt.safetensors").plan
    assert plan.keep == {"1": tuple(range(24, 32))}

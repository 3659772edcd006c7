"""assess and sweep as a user types them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import shapleaf as sl
from commands import MODEL, run
from shapleaf import _commands
from shapleaf.demo import network, train
from shapleaf.errors import DataError
from shapleaf.integrations.datasets import load_data
from shapleaf.retraining import Recipe, Retraining


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of two networks, and of the first a folder pruned by prune and one of a cycle."""
    folder = tmp_path_factory.mktemp("assess")
    images = load_data("digits", split="train")
    for seed in (0, 1):
        model = train(images.sample(500, seed=seed), epochs=1, seed=seed)
        save_file(model.state_dict(), folder / f"{seed}.safetensors")
    data = ("--data", "digits", "--weights", folder / "0.safetensors", "--calibration", 30)
    run("trace", MODEL, "--shape", "1,16,16", "-o", folder / "graph", "-q")
    run(
        "attribute",
        MODEL,
        folder / "graph",
        *data,
        "--criterion",
        "weight-norm",
        "-o",
        folder / "scores",
        "-q",
    )
    for keep in (0.8, 0.5):
        run("allocate", folder / "scores", "--budget", "params", "--keep", keep, "-o", folder / "plan", "-q")
        words = (MODEL, folder / "plan", *data, "--effort", "fast", "-o", folder / f"keep{keep}", "-q")
        run("prune", *words)
    dense = network()
    dense.load_state_dict(sl.retraining.checkpoints.read(folder / "0.safetensors"))
    settings = Retraining(keeps=(0.6,), recipe=Recipe(epochs=1, batch=50))
    sample = images.sample(40, 0)
    sl.cycle(dense, "FT", settings, sample.tensors(), sample=sample.batches(), path=folder / "cycle")
    return folder


def words(home: Path, out: Path, *more: object) -> tuple[object, ...]:
    pruned = (f"norm={home / 'keep0.8'}", f"norm={home / 'keep0.5'}")
    data = ("--data", "digits", "--weights", home / "0.safetensors", "--calibration", 30, "--test", 50)
    return ("assess", MODEL, *pruned, *data, "--corruption", "contrast", "-o", out, *more)


def test_assess_writes_outcomes_report_and_page_and_prints_the_verdict(home: Path, tmp_path: Path) -> None:
    more = (
        home / "cycle",
        "--separate",
        home / "1.safetensors",
        "--noise",
        0.1,
        "--draws",
        2,
        "--features",
        2,
        "--plots",
        "--json",
    )
    said = json.loads(run(*words(home, tmp_path / "out"), *more))
    assert said["kind"] == "Verdict"
    assert {(row["method"], row["expected"]) for row in said["rows"]} >= {
        ("norm", "nominal"),
        ("FT", "shifted"),
    }
    outcomes = sl.Outcomes.load(tmp_path / "out" / "outcomes.safetensors")
    assert [one.role for one in outcomes.subjects] == ["reference", *["pruned"] * 3, "separate"]
    assert [one.method for one in outcomes.subjects] == ["", "norm", "norm", "FT", ""]
    assert [one.distribution for one in outcomes.observed] == ["clean", "contrast 3", "Gaussian noise 0.1"]
    assert outcomes.subjects[2].removed == pytest.approx(0.5, abs=0.05)
    report = sl.Report.load(tmp_path / "out" / "report.safetensors")
    assert report.robustness is not None
    assert report.robustness.similarity is not None
    assert report.robustness.features is not None
    assert report.robustness.features.examples == 2
    page = (tmp_path / "out" / "report.html").read_text()
    assert "How far to prune" in page
    assert len(page) < 300_000
    assert (tmp_path / "out" / "plots" / "noise.svg").exists()


def test_assess_goes_on_but_not_with_other_images_or_models(home: Path, tmp_path: Path) -> None:
    run(*words(home, tmp_path, "--draws", 0, "-q"))
    path = tmp_path / "outcomes.safetensors"
    before = path.stat().st_mtime_ns
    run(*words(home, tmp_path, "--draws", 0, "-q"))
    assert path.stat().st_mtime_ns == before  # nothing was measured again
    run(*words(home, tmp_path, "--draws", 0, "--corruption", "fog", "-q"))
    run(*words(home, tmp_path, "--draws", 0, "-q"))  # fewer than are there: what is asked for is told
    assert "fog 3" in {one.distribution for one in sl.Outcomes.load(path).observed}
    told = sl.Report.load(tmp_path / "report.safetensors").robustness
    assert told is not None
    assert {one.distribution for one in told.curves} == {"clean", "contrast 3"}
    run(*words(home, tmp_path, "--draws", 0, "--normalise", "0.1/0.5", "-q"))
    assert {one.distribution for one in sl.Outcomes.load(path).observed} == {"clean", "contrast 3"}
    run(*words(home, tmp_path, "--draws", 0, "--seed", 1, "-q"))
    first = sl.Outcomes.load(path)
    run(*words(home, tmp_path, "--draws", 0, "--seed", 1, "--weights", home / "1.safetensors", "-q"))
    assert not torch.equal(sl.Outcomes.load(path)["clean"].predicted[0], first["clean"].predicted[0])


def test_the_pruned_models_are_what_evaluate_measures(home: Path, tmp_path: Path) -> None:
    run(*words(home, tmp_path / "out", "--draws", 0, "-q"))
    data = ("--data", "digits", "--weights", home / "0.safetensors", "--calibration", 30, "--test", 50)
    run("evaluate", MODEL, home / "keep0.5", *data, "-o", tmp_path / "report", "-q")
    record = sl.Report.load(tmp_path / "out" / "report.safetensors").robustness
    assert record is not None
    dense, _, half = record.curve("accuracy", "clean")
    row = sl.Report.load(tmp_path / "report")["accuracy"]
    assert (dense.value, half.value) == (row.reference, row.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("nowhere",), "nowhere holds neither receipt.safetensors nor cycle.safetensors"),
        (("--corruption", "fogg"), "fogg"),
        (("--severity", "9"), "9"),
    ],
)
def test_mistakes_of_assess(home: Path, tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    with pytest.raises(DataError, match=said):
        run(*words(home, tmp_path, *more))


def test_a_cycle_of_a_net_by_another_name(home: Path, tmp_path: Path) -> None:
    """As those of a sweep are called; there is one reference, so what is pruned is pruned from it."""
    shutil.copytree(home / "cycle", tmp_path / "cycle")
    found = sl.Cycle.load(tmp_path / "cycle" / "cycle.safetensors")
    replace(found, net="a, seed 0").save(tmp_path / "cycle" / "cycle.safetensors")
    data = ("--data", "digits", "--weights", home / "0.safetensors", "--test", 30)
    more = ("--corruption", "none", "--draws", 0, "-q", "-o", tmp_path / "out")
    run("assess", MODEL, tmp_path / "cycle", *data, *more)
    assert {one.net for one in sl.Outcomes.load(tmp_path / "out" / "outcomes.safetensors").subjects} == {"0"}
    with pytest.raises(DataError, match=r"several networks \(0, a, seed 0\); measure each on its own"):
        run("assess", MODEL, tmp_path / "cycle", home / "cycle", *data, *more)


def test_a_sweep_whose_unpruned_trial_failed_has_no_report(tmp_path: Path) -> None:
    """Its table is there; there is nothing to compare with."""
    labels = torch.zeros(4, dtype=torch.int64)
    subjects = [("dense", "a", "reference"), ("half", "a", "pruned"), ("other", "b", "pruned")]
    seen = sl.records.Observed(
        distribution="clean", nominal=True, labels=labels, predicted=labels.expand(3, 4).clone(),
        confidence=torch.ones(3, 4),
    )  # fmt: skip
    made = [sl.records.Subject(name=n, net=net, role=role, removed=0.5) for n, net, role in subjects]
    outcomes = sl.Outcomes(subjects=tuple(made), observed=(seen,))
    found = sl.Sweep.of("t", [{"x": 1}], outcomes)
    assert _commands._reported(found, tmp_path) == tmp_path / "sweep.csv"
    kept = sl.Outcomes(subjects=tuple(made[:2]), observed=(replace(seen, predicted=seen.predicted[:2],
                       confidence=seen.confidence[:2]),))  # fmt: skip
    assert _commands._reported(sl.Sweep.of("t", [{"x": 1}], kept), tmp_path) == tmp_path / "report.html"


def test_what_assess_measured_before_a_mistake_is_kept(home: Path, tmp_path: Path) -> None:
    """Saturation is for colours; the distributions before it are not measured again."""
    path = tmp_path / "outcomes.safetensors"
    with pytest.raises(DataError, match="distribution 'saturate 3': saturate changes colours"):
        run(*words(home, tmp_path, "--draws", 0, "--corruption", "saturate", "-q"))
    kept = sl.Outcomes.load(path)
    assert [one.distribution for one in kept.observed] == ["clean", "contrast 3"]
    before = path.stat().st_mtime_ns
    run(*words(home, tmp_path, "--draws", 0, "-q"))
    assert path.stat().st_mtime_ns == before
    assert sl.Report.load(tmp_path / "report.safetensors").robustness is not None


def test_assess_of_networks_that_cannot_be_measured(home: Path, tmp_path: Path) -> None:
    sick = sl.retraining.checkpoints.read(home / "1.safetensors")
    sick["0.weight"].fill_(float("nan"))
    save_file(sick, tmp_path / "nan.safetensors")
    with pytest.raises(DataError, match="'clean': model 'separate': the output for example 0 is NaN"):
        run(*words(home, tmp_path / "out", "--separate", tmp_path / "nan.safetensors", "-q"))
    sick["13.weight"], sick["13.bias"] = sick["13.weight"][:5].clone(), sick["13.bias"][:5].clone()
    save_file(sick, tmp_path / "few.safetensors")
    with pytest.raises(DataError, match="does not fit the model: 13.bias is .* num_classes=5"):
        run(*words(home, tmp_path / "out", "--separate", tmp_path / "few.safetensors", "-q"))


@pytest.mark.filterwarnings("ignore:compensation made the loss")
def test_compare_writes_record_report_page_and_figure(home: Path, tmp_path: Path) -> None:
    criteria = ("--criterion", "weight-norm", "--criterion", "mine=taylor")
    data = ("--data", "digits", "--weights", home / "0.safetensors", "--calibration", 30, "--test", 40)
    few = ("--rates", 3, "--groups", "3", "--samples", 10, "--refit", "--plots")
    said = json.loads(run("compare", MODEL, *data, *criteria, *few, "-o", tmp_path, "--json"))
    assert (said["kind"], said["file"]) == ("Comparison", str(tmp_path / "report.html"))
    assert [row["criterion"] for row in said["rows"]] == ["weight-norm", "mine"]
    assert said["rows"][0]["stability at 10"] is None
    found = sl.Comparison.load(tmp_path / "comparison.safetensors")
    assert found.curves is not None
    assert found.curves.curves[0].rates == (0.0, 1 / 3, 2 / 3)
    assert found.compensations == ("LeastSquares()",)
    assert list(found.scores["mine"]) == ["3"]
    assert sl.Report.load(tmp_path / "report.safetensors").comparison == found
    assert "Which criteria agree" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "comparison.svg").exists()
    few = ("--data", "digits", "--weights", home / "0.safetensors", "--calibration", 20, "--test", 40)
    said = run("compare", MODEL, *few, *criteria, "--rates", 0, "--groups", "3", "-o", tmp_path / "few")
    assert "stability at 10" in said
    assert "stability at 30" not in said
    bare = ("--rates", 0, "--samples", 0, "--groups", "3")
    assert "A_PR" not in run("compare", MODEL, *data, *criteria, *bare, "-o", tmp_path / "bare")


def test_sweep_runs_a_study_and_runs_nothing_the_second_time(home: Path, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        f"""
        name = "small"
        methods = ["random"]
        [[networks]]
        name = "a"
        model = "{MODEL}"
        weights = "{home}/0.safetensors"
        [data]
        spec = "digits"
        train = 60
        sample = 20
        test = 40
        [shifts]
        corruptions = ["contrast"]
        [retraining]
        keeps = [0.5]
        epochs = 1
        """
    )
    said = json.loads(run("sweep", tmp_path / "study.toml", "-o", tmp_path / "out", "--json"))
    assert said["kind"] == "Sweep"
    assert [(row["method"], row["distribution"]) for row in said["rows"]] == [
        (method, name) for method in ("unpruned", "random") for name in ("clean", "contrast 3")]  # fmt: skip
    assert said["file"].endswith("report.html")
    assert sl.Report.load(tmp_path / "out" / "report.safetensors").robustness is not None
    table = (tmp_path / "out" / "sweep.csv").read_text()
    assert run("sweep", tmp_path / "study.toml", "-o", tmp_path / "out", "-q") == ""
    assert (tmp_path / "out" / "sweep.csv").read_text() == table


def test_a_sweep_with_failures_shows_the_rest_and_ends_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from shapleaf.records import Sweep\n\n"
        "def f(trial, folder):\n    return Sweep.of('', [{'x': 1 // trial['x']}])\n"
    )
    described = {"name": "t", "run": "mine:f", "trials": [{"x": 1}, {"x": 0}]}
    (tmp_path / "study.json").write_text(json.dumps(described))
    code = "import sys; sys.argv = ['shapleaf', *sys.argv[1:]]; from shapleaf.cli import main; main()"
    command = [sys.executable, "-c", code, "sweep", "study.json", "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("Sweep t: 1 row\nx\n─\n1\nfailed: 0: ZeroDivisionError")
    assert done.stdout.endswith("written to out/sweep.csv\n")
    assert done.stderr.startswith("Error: 1 of 2 trials failed, 0 with ZeroDivisionError")


def test_a_study_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        run("sweep", tmp_path / "none.toml")


def test_tune_writes_a_preset_that_attribute_takes(home: Path, tmp_path: Path) -> None:
    data = ("--data", "digits", "--weights", home / "0.safetensors")
    parts = ("--per-class", 2, "--selection", 40, "--test", 60, "--trials", 2, "--bands", "0.5")
    words = ("tune", MODEL, *data, *parts, "--folder", tmp_path / "kept", "-o", tmp_path / "preset.json")
    said = json.loads(run(*words, "--json"))
    assert said["kind"] == "Tuned"
    assert [row["A_PR"] for row in said["rows"]] == ["tuned", "epsilon"]
    assert said["file"] == str(tmp_path / "preset.json")
    assert (tmp_path / "preset.json").read_text() == (tmp_path / "kept" / "preset.json").read_text()
    criterion = ("--criterion", f"lrp:{tmp_path / 'preset.json'}", "--calibration", 20)
    run("attribute", MODEL, home / "graph", *data, *criterion, "--no-curves", "-o", tmp_path / "scores", "-q")
    preset = sl.LRP.preset(tmp_path / "preset.json")
    assert sl.Scores.load(tmp_path / "scores").criterion == repr(preset)

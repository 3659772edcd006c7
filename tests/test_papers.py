"""The recipes of papers/ run, at toy size, and their committed tables hold what their READMEs say."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import doctest
import importlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import shapleaf as sl

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "papers" / "shapley-pruning"
LOST = ROOT / "papers" / "lost-in-pruning"


def script(name: str, study: Path = STUDY) -> Any:
    """A fixture of that name: the module of the study."""

    @pytest.fixture(name=name)
    def load(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        monkeypatch.syspath_prepend(str(study))
        return importlib.import_module(name)

    return load


models, toy, low_data, layerwise = map(script, ("models", "toy", "low_data", "layerwise"))
untrained, finetuning = map(script, ("untrained", "finetuning"))
networks, cifar10, segmentation = (script(name, LOST) for name in ("networks", "cifar10", "segmentation"))


def test_scripts_that_one_session_may_import_have_names_of_their_own() -> None:
    names = [path.stem for folder in ("papers/*", "benchmarks") for path in ROOT.glob(f"{folder}/*.py")]
    assert sorted(names) == sorted({*names})


@pytest.mark.parametrize(
    ("name", "layers", "parameters"),
    [
        ("vgg16", 11, 15_253_578),
        ("resnet20", 9, 269_722),
        ("resnet56", 27, 853_018),
        ("mnist", 3, 12_909_450),
    ],
)
def test_networks_have_the_published_sizes(
    models: ModuleType, name: str, layers: int, parameters: int
) -> None:
    network = models.build(name)
    assert len(network.layers) == layers
    assert sum(p.numel() for p in network.model.parameters()) == parameters


def test_the_first_four_convolutions_of_vgg16_are_left_alone(models: ModuleType) -> None:
    layers = models.build("vgg16").layers
    assert (layers[0], layers[-1]) == ("classifier.4", "features.14")


def test_unknown_networks_are_refused(models: ModuleType) -> None:
    with pytest.raises(ValueError, match="'resnet18' is no network of this study"):
        models.build("resnet18")


@pytest.mark.data
def test_trained_weights_fit_and_recognise_images(models: ModuleType, shared: Path) -> None:
    from shapleaf.integrations.datasets import load_data

    network = models.load("resnet20", shared)
    data = load_data(f"cifar10:{shared}", split="test", mean=network.mean, std=network.std)
    images, labels = data.sample(200, seed=0).tensors()
    with torch.no_grad():
        accuracy = (network.model(images).argmax(1) == labels).double().mean()
    assert 0.7 < accuracy < 0.9


def test_weights_that_are_not_there_are_named_with_what_makes_them(
    models: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(models, "CACHE", tmp_path / "cache")
    with pytest.raises(
        SystemExit, match=r"mnist-\w{12}.safetensors do not exist. `python \S+train.py` makes"
    ):
        models.load("mnist", tmp_path)
    with pytest.raises(SystemExit, match=r"cifar10-vgg16.safetensors do not exist\.$"):
        models.load("vgg16", tmp_path)


@pytest.mark.data
def test_the_network_for_mnist_is_trained_once(
    models: ModuleType, shared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train = importlib.import_module("train")
    monkeypatch.setattr(models, "CACHE", tmp_path / "cache")
    monkeypatch.setitem(models.RECIPE, "images", 300)
    monkeypatch.setitem(models.RECIPE, "epochs", 1)
    command = ["--data", str(shared), "--test-images", "100"]

    train.main(command)
    (written,) = (tmp_path / "cache").iterdir()
    trained = models.load("mnist", tmp_path).model
    torch.manual_seed(models.RECIPE["seed"])
    assert not torch.equal(trained.fc2.weight, models.build("mnist").model.fc2.weight)

    before = written.stat().st_mtime_ns
    train.main(command)
    assert written.stat().st_mtime_ns == before


def test_the_toy_network_is_scored_as_its_closed_forms_say(toy: ModuleType, tmp_path: Path) -> None:
    toy.main(["--out", str(tmp_path)])
    text = (tmp_path / "TOY.md").read_text()
    assert "| Shapley, exact | 6.25 | 6.25 | 37.5 | 0 | 25/4, 25/4, 75/2, 0 | rounding | - |" in text
    off = {line.split(" | ")[0][2:] for line in text.splitlines() if line.startswith("| ")}
    off -= {line.split(" | ")[0][2:] for line in text.splitlines() if "| rounding |" in line}
    # What has no closed form, and the one sampler without antithetic orders.
    assert off == {"criterion", "random", "Shapley, paper's sampler", "Shapley, exact, mean + 2 std"}
    assert (STUDY / "TOY.md").read_text().partition("##")[2] == text.partition("##")[2]


def compared(criteria: ModuleType) -> set[type]:
    """All criteria but those that rank for a refit, belong to another paper, or have a twin."""
    others = "Conductance Criterion DeepLIFT IntegratedGradients LRP Occlusion OptimalBrainSurgeon PFP ThiNet"
    no_rows = set(others.split())
    found = {getattr(criteria, name) for name in {*criteria.__all__} - no_rows}
    return {one for one in found if isinstance(one, type) and hasattr(one, "score")}


def test_the_toy_network_has_a_row_for_every_criterion(toy: ModuleType) -> None:
    from shapleaf import criteria

    kinds = {type(criterion) for criterion in {**toy.LOCAL, **toy.SHAPLEY}.values()}
    assert kinds == compared(criteria)
    for case in toy.CASES:
        assert set(case.expected) == {*toy.LOCAL, "Shapley"} - {"random"}
        assert set(case.theirs) <= {*toy.LOCAL, *toy.SHAPLEY}


@pytest.mark.data
def test_low_data_prunes_a_quarter_of_each_layer_and_resumes(
    low_data: ModuleType, shared: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    few = [
        "--networks",
        "resnet20",
        "--remove",
        "0.25",
        "--images",
        "4",
        "--test-images",
        "20",
        "--seeds",
        "0",
    ]
    command = [*few, "--data", str(shared), "--out", str(tmp_path), "--methods"]
    results, key = tmp_path / "results.json", "resnet20 | weight norm | 0.25 | 0"

    low_data.main([*command, "weight norm"])
    found = json.loads(results.read_text())
    # Inner channels go from 16, 32, 64 to 12, 24, 48: a quarter of the weights of every block.
    assert found["cells"][key]["params"] == 202_738
    assert "| weight norm | " in (tmp_path / "RESULTS.md").read_text()
    # After each of the nine layers, by the same images as at the end: these are fewer than 2,000.
    assert len(found["cells"][key]["curve"]) == 10
    assert found["cells"][key]["curve"][-1] == found["cells"][key]["accuracy"]
    picture = (tmp_path / "low-data-resnet20.svg").read_text()
    assert all(text in picture for text in ("weight norm", "25% of each layer removed", "layer3.2.conv1"))

    # A cell is run again only where its curve is missing, and only if that was asked for.
    found["cells"][key]["accuracy"] = -1.0
    bare = "resnet20 | Taylor signed, mean + 2 std | 0.25 | 0"
    found["cells"][bare] = {name: value for name, value in found["cells"][key].items() if name != "curve"}
    results.write_text(json.dumps(found))
    low_data.main([*command, "weight norm", "Taylor signed, mean + 2 std", "--curves"])
    cells = json.loads(results.read_text())["cells"]
    assert cells[key]["accuracy"] == -1.0
    assert cells[bare]["accuracy"] == cells[bare]["curve"][-1]

    with pytest.raises(SystemExit, match="was made with"):
        low_data.main([*command, "weight norm", "--images", "5"])


def test_the_area_of_a_curve_with_a_point_for_every_unit_is_the_paper_s_sum(layerwise: ModuleType) -> None:
    # Equation 6: (1 + 4 + 9 + 16) / 4; on a straight line, points in between make no difference.
    assert layerwise.area({"a": [0, 1, 2, 3, 4]}, {"a": [0.0, 1.0, 4.0, 9.0, 16.0]}) == 7.5
    assert layerwise.area({"a": [0, 1, 2, 3, 4]}, {"a": [0.0, 2.0, 4.0, 6.0, 8.0]}) == 5.0
    assert layerwise.area({"a": [0, 4]}, {"a": [0.0, 8.0]}) == 5.0
    # Layers are weighted by their units: (1 + 1 + 1 + 3) / 4.
    assert layerwise.area({"a": [0, 3], "b": [0, 1]}, {"a": [0.5, 1.25], "b": [0.0, 3.0]}) == 1.5


def test_layerwise_has_a_row_for_every_criterion_and_knows_what_each_costs(layerwise: ModuleType) -> None:
    import shapleaf as sl
    from shapleaf import criteria

    rows = [row.method for row in layerwise.ROWS]
    assert {type(row.criterion) for row in rows} == compared(criteria)
    assert len({row.name for row in rows}) == len(rows) == 20
    assert set(layerwise.DRAWN) <= {row.name for row in rows}

    model = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    graph, data = sl.trace(model, torch.zeros(1, 3)), (torch.randn(4, 3), torch.tensor([0, 1, 1, 0]))
    for row in rows:
        spent = sl.attribute(model, graph, data, row.criterion, aggregate=row.aggregate).evaluations
        assert layerwise.evaluations(row, 6) == spent.get("0", 0)


@pytest.mark.data
def test_layerwise_takes_the_loss_as_units_leave_and_resumes(
    layerwise: ModuleType, models: ModuleType, shared: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    command = (
        "--networks vgg16 --layers classifier.4 --points 3 --images 4 --test-images 8 --seeds 0 1".split()
    )
    command += ["--data", str(shared), "--out", str(tmp_path), "--methods"]
    results, key = tmp_path / "layerwise-vgg16.json", "vgg16 | weight norm | 0"

    layerwise.main([*command, "weight norm"])
    found = json.loads(results.read_text())
    cell, intact = found["cells"][key], found["intact"]["vgg16"]
    assert cell["removed"] == {"classifier.4": [0, 171, 342, 512]}
    assert cell["auc"] == pytest.approx(layerwise.area(cell["removed"], cell["rises"]), abs=1e-5)
    # Without any unit, every image has the biases of the output as its logits.
    study = layerwise.Study("vgg16", layerwise.parse([*command, ""]))
    bias = models.load("vgg16", shared).model.classifier[6].bias.detach().expand(8, -1)
    alone = torch.nn.functional.cross_entropy(bias, study.test[1]).item()
    assert cell["rises"]["classifier.4"][-1] == pytest.approx(alone - intact["loss"], rel=1e-3)
    assert "| weight norm | **" in (tmp_path / "LAYERWISE-vgg16.md").read_text()
    assert "weight norm" in (tmp_path / "layerwise-vgg16.svg").read_text()

    found["cells"][key]["auc"] = -1.0
    results.write_text(json.dumps(found))
    layerwise.main([*command, "weight norm", "random"])
    cells = json.loads(results.read_text())["cells"]
    # Only what draws is run with every seed.
    assert {name: cell["auc"] == -1.0 for name, cell in cells.items()} == {
        key: True,
        "vgg16 | random | 0": False,
        "vgg16 | random | 1": False,
    }

    with pytest.raises(SystemExit, match="was made with"):
        layerwise.main([*command, "weight norm", "--points", "2"])


def test_an_untrained_network_is_drawn_by_its_seed_alone(untrained: ModuleType) -> None:
    state = torch.get_rng_state()
    first, again, other = (untrained.build(9, 5, seed)[1].weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.data
def test_untrained_removes_the_units_that_score_below_zero(
    untrained: ModuleType, shared: Path, tmp_path: Path
) -> None:
    command = "--networks mnist --width 12 --images 20 --test-images 40 --seeds 3 --rounds 2".split()
    command += ["--data", str(shared), "--out", str(tmp_path), "--methods"]
    results, key = tmp_path / "untrained.json", "mnist | Taylor signed | 3"

    untrained.main([*command, "Taylor"])
    found = json.loads(results.read_text())
    cell = found["cells"][key]
    assert len(cell["accuracy"]) == len(cell["units"]) == len(cell["params"]) == 5
    outer, inner = 12 - (24 - cell["units"][1]), 12 - (cell["units"][1] - cell["units"][2])
    assert cell["units"][0] == 24
    assert 0 < outer < 12
    assert cell["params"][2] == 785 * inner + (inner + 1) * outer + (outer + 1) * 10
    assert "| Taylor signed | " in (tmp_path / "UNTRAINED.md").read_text()

    found["cells"][key]["params"] = [-1] * 5
    results.write_text(json.dumps(found))
    untrained.main([*command, "Taylor", "leave one out"])
    cells = json.loads(results.read_text())["cells"]
    assert cells[key]["params"] == [-1] * 5
    assert len(cells["mnist | leave one out | 3"]["accuracy"]) == 3


def test_what_the_readme_says_of_untrained_networks_is_in_the_results(untrained: ModuleType) -> None:
    found = json.loads((STUDY / "untrained.json").read_text())
    assert (STUDY / "UNTRAINED.md").read_text() == untrained.markdown(found) + "\n"

    def both(network: str, method: str) -> list[float]:
        return [found["cells"][f"{network} | {method} | {seed}"]["accuracy"][2] for seed in range(5)]

    shapley = both("mnist", "Shapley, line path"), both("cifar10", "Shapley, line path")
    taylor = both("mnist", "Taylor signed"), both("cifar10", "Taylor signed")
    assert [round(100 * max(values), 2) for values in shapley] == [52.72, 23.24]
    assert [round(100 * sum(values) / 5, 1) for values in shapley] == [43.9, 19.1]
    gains = [
        [100 * (b - a) for a, b in zip(*pair, strict=True)] for pair in zip(shapley, taylor, strict=True)
    ]
    assert min(min(values) for values in gains) > 0
    assert [round(sum(values) / 5, 2) for values in gains] == [5.3, 1.95]


@pytest.mark.data
def test_finetuning_trains_what_was_pruned_and_resumes(
    finetuning: ModuleType, shared: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    command = "--networks resnet20 --remove 0.5 --images 4 8 --test-images 20 --seeds 0 --steps 2".split()
    command += ["--data", str(shared), "--out", str(tmp_path), "--rows"]
    results, key = tmp_path / "finetuning.json", "resnet20 | weight norm | 0.5 | 8 | 0"

    finetuning.main([*command, "weight norm"])
    found = json.loads(results.read_text())
    assert set(found["cells"]) == {key, "resnet20 | weight norm | 0.5 | 4 | 0"}
    assert len({cell["before"] for cell in found["cells"].values()}) == 1
    assert "| weight norm | " in (tmp_path / "FINETUNING.md").read_text()
    assert "weight norm" in (tmp_path / "finetuning-resnet20.svg").read_text()

    found["cells"][key]["accuracy"] = -1.0
    results.write_text(json.dumps(found))
    finetuning.main([*command, "weight norm", "nothing"])
    cells = json.loads(results.read_text())["cells"]
    assert cells[key]["accuracy"] == -1.0
    assert cells["resnet20 | nothing removed | 0 | 8 | 0"]["before"] > 0.5

    with pytest.raises(SystemExit, match="was made with"):
        finetuning.main([*command, "weight norm", "--steps", "1"])


def test_fine_tuning_is_drawn_by_its_seed_alone_and_moves_images_by_the_margin_at_most(
    finetuning: ModuleType,
) -> None:
    images = torch.zeros(3, 1, 9, 9)
    images[:, :, 4, 4] = 1
    moved = torch.cat([finetuning.jittered(images) for _ in range(30)])
    assert moved.shape == (90, 1, 9, 9)
    assert moved.sum((1, 2, 3)).tolist() == [1] * 90  # a point in the middle never leaves
    assert len(moved.flatten(1).argmax(1).unique()) > 30

    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 9), torch.nn.Flatten(), torch.nn.Dropout())
    noisy, labels = images + torch.randn(3, 1, 9, 9), torch.tensor([0, 1, 0])
    state = torch.get_rng_state()
    first, again, other = (copy.deepcopy(model) for _ in range(3))
    for tuned, seed in ((first, 0), (again, 0), (other, 1)):
        finetuning.tune(tuned, noisy, labels, 4, seed)
        assert not tuned.training
    assert torch.equal(state, torch.get_rng_state())
    first, again, other = (tuned[0].weight for tuned in (first, again, other))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("name", "json_", "text"),
    [
        ("low_data", "results.json", "RESULTS.md"),
        ("finetuning", "finetuning.json", "FINETUNING.md"),
    ],
)
def test_committed_tables_are_of_the_committed_results(
    monkeypatch: pytest.MonkeyPatch, name: str, json_: str, text: str
) -> None:
    monkeypatch.syspath_prepend(str(STUDY))
    found = json.loads((STUDY / json_).read_text())
    assert (STUDY / text).read_text() == importlib.import_module(name).markdown(found) + "\n"


def tiny(networks: ModuleType) -> Any:
    """A preset that is over in seconds."""
    from shapleaf.evaluation import Fast
    from shapleaf.retraining import Retraining

    small = networks.presets("resnet20")["minutes"]
    short = dataclasses.replace(small.settle, epochs=1, batch=8)
    return dataclasses.replace(
        small,
        images=8,
        settle=short,
        scratch=short,
        retraining=Retraining(keeps=(0.6,), recipe=short),
        test_images=16,
        noise_images=4,
        draws=1,
        epsilons=(0.0, 0.2),
        feature_images=1,
        ordering=Fast(256, 0),
    )


def no_step(*_: Any, **__: Any) -> None:
    raise AssertionError("nothing should be trained")


@pytest.mark.data
def test_pruned_networks_are_measured_beside_the_paper_and_chains_are_resumed(
    networks: ModuleType,
    cifar10: ModuleType,
    shared: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(cifar10, "presets", lambda _: {"minutes": tiny(networks)})
    command = ["--preset", "minutes", "--methods", "FT", "control", "--corruptions", "fog", "contrast"]
    command += ["--data", str(shared), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]

    cifar10.main(command)
    page = (tmp_path / "out" / "RESULTS-resnet20-minutes.md").read_text()
    assert "cifar10.py --preset minutes --methods FT control --corruptions fog contrast`" in page
    rows = [line for line in page.splitlines() if line.startswith("| FT | ")]
    assert rows[0].endswith(" | 52.1 |")  # the talk's
    assert any(row.endswith(" at 40.1 |") for row in rows)  # an accuracy, and how much was removed
    assert {"| clean | ", "| fog 3 | ", "| separate | ", "| control | "} <= {
        line[: line.index(" | ") + 3] for line in page.splitlines() if line.startswith("| ")
    }
    assert "102 of 1024 pixels are left, mean of 1 images" in page
    for figure in re.findall(r"\]\((.*svg)\)", page):
        assert "<svg" in (tmp_path / "out" / figure).read_text()
    large = {path.name for path in (tmp_path / "cache" / "minutes").glob("r*.*")}
    assert large == {"report-resnet20-minutes.html", "robustness-resnet20-minutes.safetensors"}

    # Nothing is trained again, though a distribution is added; what was measured is read.
    monkeypatch.setattr(torch.optim.SGD, "step", no_step)
    study = cifar10.Study(cifar10.parse(command))
    kept = [one.removed for one in study.pruned()]
    assert kept == [pytest.approx(0.4, abs=0.005), 0.0]
    assert [one.role for one in study.others()] == ["reference", "separate"]
    assert [one.name for one in study.shown(("FT", "control"))] == ["FT 0.6 net 0", "control 0.6 net 0"]


@pytest.mark.data
def test_no_image_decides_and_trains_and_tests(networks: ModuleType, shared: Path) -> None:
    data = networks.data("resnet20", shared, tiny(networks))
    assert [len(part) for part in (data.train, data.sample, data.test)] == [8, 183, 16]
    assert not {*data.train.ids.tolist()} & {*data.sample.ids.tolist()}


def test_presets_differ_in_how_much_is_done_alone(networks: ModuleType) -> None:
    assert doctest.testmod(networks).failed == 0
    for name, retrains in (("resnet20", 23), ("vgg16", 20)):
        found = networks.presets(name)
        assert [len(one.retraining.parts) for one in found.values()] == [3, 10, retrains]
        made = networks.build(name)
        fills = {recipe.augment.fill for one in found.values() for recipe in (one.settle, one.scratch)}
        assert fills == {tuple(-mean / std for mean, std in zip(made.mean, made.std, strict=True))}
    with pytest.raises(argparse.ArgumentTypeError, match="'0' is not a whole number above zero"):
        networks.positive("0")


def test_the_yardstick_sees_images_normalised_as_it_was_trained(networks: ModuleType) -> None:
    given, wanted = networks.build("resnet20"), networks.build("resnet56")
    wanted = dataclasses.replace(wanted, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    black = torch.tensor([-mean / std for mean, std in zip(given.mean, given.std, strict=True)])
    seen = networks.Renormalised(torch.nn.Identity(), given, wanted)(black.view(1, 3, 1, 1))
    torch.testing.assert_close(seen.flatten(), torch.tensor([-0.1, -0.1, -0.075]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("option", ["--threads=0", "--corruptions=rain", "--methods=ThiNet"])
def test_bad_options_are_refused_before_anything_runs(
    cifar10: ModuleType, segmentation: ModuleType, option: str
) -> None:
    for module in (cifar10, segmentation):
        with pytest.raises(SystemExit, match="2"):
            module.main([option])


def test_the_loss_of_pixels_is_torchs_on_those_that_count(segmentation: ModuleType) -> None:
    scores, aux = torch.randn(3, 5, 4, 6), torch.randn(3, 5, 4, 6)
    target = torch.randint(0, 5, (3, 4, 6))
    target[0, 0], target[1, 2:] = segmentation.IGNORE, segmentation.IGNORE
    plain, helped = (
        torch.stack(
            [functional.cross_entropy(s[i : i + 1], target[i : i + 1], ignore_index=255) for i in range(3)]
        )
        for s in (scores, aux)
    )
    torch.testing.assert_close(segmentation.pixel_loss(scores, target), plain)
    torch.testing.assert_close(segmentation.pixel_loss({"out": scores}, target), plain)
    both = segmentation.pixel_loss({"out": scores, "aux": aux}, target)
    torch.testing.assert_close(both, plain + helped / 2)
    target[2] = segmentation.IGNORE
    assert segmentation.pixel_loss(scores, target)[2] == 0


def test_shapes_are_drawn_by_their_number_and_labelled_where_they_are(segmentation: ModuleType) -> None:
    images, labels = segmentation.drawn("train", 40)
    again, few = segmentation.drawn("train", 3)
    assert (images.shape, labels.shape, labels.dtype) == ((40, 3, 32, 32), (40, 32, 32), torch.int64)
    assert torch.equal(images[:3], again)
    assert torch.equal(labels[:3], few)
    assert not torch.equal(images[:3], segmentation.drawn("test", 3)[0])
    assert labels.unique().tolist() == [0, 1, 2, 3, segmentation.IGNORE]
    assert -2 <= images.min() < images.max() <= 2  # [0, 1], normalised
    # The ground has one colour but for noise; a shape has another.
    ground = torch.stack([image[:, label == 0].mean(1) for image, label in zip(images, labels, strict=True)])
    far = (images - ground[:, :, None, None]).abs().amax(1)
    assert far[labels == 0].quantile(0.99) < 0.9 < far[(labels > 0) & (labels < 255)].median()

    disc, square, triangle = (segmentation._DISTANCES[kind] for kind in (1, 2, 3))
    assert disc(3.0, 4.0) == 5
    assert square(-3.0, 4.0) == square(4.0, 0.0) == 4
    corners = [triangle(down, right) for down, right in ((-2.0, 0.0), (1.0, 1.0), (1.0, -1.0))]
    assert corners == [1, 1, 1]


def test_shapes_are_pruned_measured_and_resumed(
    segmentation: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    command = "--images 32 --test-images 10 --epochs 1 --width 4 --keeps 0.5 --methods WT FT control".split()
    command += ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out"), "--corruptions", "fog"]
    segmentation.main(command)
    page = (tmp_path / "out" / "RESULTS-shapes.md").read_text()
    record = sl.Robustness.load(tmp_path / "cache" / "shapes" / "robustness-shapes.safetensors")
    assert [one.role for one in record.subjects] == ["reference", "pruned", "pruned", "control"]
    assert 0.5 <= record.subjects[1].removed < 0.51
    dense, _, _, control = (one.value for one in record.curve("mean IoU", "fog 3"))
    (fog,) = (line for line in page.splitlines() if line.startswith("| fog 3 | "))
    assert fog.endswith(f" | {control - dense:+.1f} |")  # what retraining alone does
    assert page.count("mean IoU in % at % of the parameters removed") == 2
    assert f"| control | {control:.1f} at 0.0 |" in page.partition("## Shifted data")[2]

    monkeypatch.setattr(torch.optim.SGD, "step", no_step)
    segmentation.main([*command, "contrast"])
    assert "| contrast 3 | " in (tmp_path / "out" / "RESULTS-shapes.md").read_text()
    assert len([*(tmp_path / "cache" / "shapes").glob("outcomes-*")]) == 2


class Heads(torch.nn.Module):
    """As DeepLabV3 answers, from a network of three convolutions."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        assert options == {"weights": None, "weights_backbone": None, "num_classes": 21, "aux_loss": True}
        self.backbone = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, 4, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
        )
        self.classifier, self.aux = torch.nn.Conv2d(8, 21, 1), torch.nn.Conv2d(8, 21, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = self.backbone(x)
        heads = {"out": self.classifier(seen), "aux": self.aux(seen)}
        return {name: functional.interpolate(head, size=x.shape[2:]) for name, head in heads.items()}


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """VOC's folders with eight small photographs; their label maps have palettes, and borders of 255."""
    image = pytest.importorskip("PIL.Image")
    folder, rng = tmp_path / "VOC2012", np.random.default_rng(0)
    for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (folder / name).mkdir(parents=True)
    names = [f"2007_{number:06d}" for number in range(8)]
    for split, part in (("train", names[:6]), ("val", names[6:])):
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(part) + "\n")
    for name in names:
        photo = image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8))
        photo.save(folder / "JPEGImages" / f"{name}.jpg")
        classes = np.zeros((64, 96), np.uint8)
        classes[:, 30:50], classes[:, 50:52], classes[:, 52:] = 15, 255, 20
        labels = image.fromarray(classes, "P")
        labels.putpalette([value for k in range(256) for value in (k, 255 - k, 7 * k % 256)])
        labels.save(folder / "SegmentationClass" / f"{name}.png")
    return folder


def test_label_maps_of_voc_are_read_as_numbers_of_classes(segmentation: ModuleType, devkit: Path) -> None:
    inputs, labels = segmentation.Voc(devkit, "val", 64)[1]
    assert (inputs.shape, labels.shape, labels.dtype) == ((3, 64, 64), (64, 64), torch.int64)
    # The centre: 16 columns on either side are gone.
    assert labels[5].tolist() == [0] * 14 + [15] * 20 + [255] * 2 + [20] * 28
    half = segmentation.Voc(devkit, "val", 32)[1][1]
    assert {*half.unique().tolist()} == {0, 15, 20, 255}  # nothing in between, as colours would have
    with pytest.raises(SystemExit, match="takes the folder VOC2012 of the devkit"):
        segmentation.Voc(devkit, "test", 64)
    with pytest.raises(SystemExit, match="--voc needs --weights"):
        segmentation.main(["--voc", str(devkit)])


def voc(segmentation: ModuleType, devkit: Path, model: torch.nn.Module, methods: list[str]) -> str:
    """The page of a run on the devkit, from the weights that the model has."""
    torch.save(model.state_dict(), devkit / "weights.pth")
    command = ["--voc", str(devkit), "--weights", str(devkit / "weights.pth"), "--size", "64"]
    command += ["--cache", str(devkit / "cache"), "--out", str(devkit / "out")]
    segmentation.main([*command, "--corruptions", "fog", "--keeps", "0.8", "--methods", *methods])
    return (devkit / "out" / "RESULTS-voc.md").read_text()


def short_preset(*_: str) -> Any:
    return sl.Retraining(keeps=(0.5,), retrains=1, recipe=sl.Recipe(epochs=1, batch=3, lr=0.01))


def test_voc_is_pruned_and_measured_beside_the_paper(
    segmentation: ModuleType, devkit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for extra in ("matplotlib", "torchvision"):
        pytest.importorskip(extra)
    monkeypatch.setattr("torchvision.models.segmentation.deeplabv3_resnet50", Heads)
    monkeypatch.setattr(segmentation, "preset", short_preset)
    model = Heads(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    page = voc(segmentation, devkit, model, ["WT", "FT"])
    assert "segmentation.py --voc VOC --weights WEIGHTS --size 64 --keeps 0.8 " in page
    rows = [line for line in page.splitlines() if line.startswith(("| WT | ", "| FT | "))]
    assert [row.rpartition(" | ")[2] for row in rows[:2]] == ["58.9 |", "0.0 |"]


def test_deeplab_itself_takes_the_weights_and_learns_from_both_heads(
    segmentation: ModuleType, devkit: Path
) -> None:
    models = pytest.importorskip("torchvision.models.segmentation")
    model = models.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    torch.save(model.state_dict(), devkit / "weights.pth")
    command = ["--voc", str(devkit), "--weights", str(devkit / "weights.pth"), "--size", "64"]
    study = segmentation.voc(segmentation.parse(command))
    assert [len(part) for part in (study.train, study.sample, study.test.dataset)] == [3, 1, 2]
    assert len(study.retraining.parts) == 15
    inputs, labels = study.sample[0]
    assert study.retraining.recipe.loss is segmentation.pixel_loss
    segmentation.pixel_loss(study.model(inputs), labels).mean().backward()
    for head in (study.model.classifier, study.model.aux_classifier):
        assert all(parameter.grad.abs().sum() > 0 for parameter in head[-1].parameters())


def test_what_the_readme_says_of_shapes_is_in_the_results() -> None:
    page, readme = ((LOST / name).read_text() for name in ("RESULTS-shapes.md", "README.md"))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if "|" in line]
    told = [[cell.strip() for cell in line.split("|")[1:-1]] for line in readme.splitlines() if "|" in line]

    def found(name: str) -> list[list[str]]:
        return [cells[1:] for cells in lines if cells[0] == name]

    methods = ("WT", "SiPP", "FT", "PFP")
    first = [found(method)[0] for method in methods]
    slopes = [next(row for row in found(method) if len(row) == 3) for method in methods]
    said = {cells[0]: cells[1:] for cells in told}
    assert said["potential, nominal"] == [row[0] for row in first]
    assert said["potential, mean over the shifts"] == [row[1].partition(" ")[0] for row in first]
    assert {row[2] for row in first} == {"0.0 (spatter 3)"}
    assert [float(cell.split()[0]) for cell in said["excess error's slope, points"]] == [
        round(float(row[0]), 1) for row in slopes
    ]
    assert found("dense")[0] == ["88.2 at 0.0"]
    control = {name: found(f"{name} 3")[0][-1] for name in ("spatter", "brightness", "frost", "snow")}
    assert control == {"spatter": "-2.0", "brightness": "-2.6", "frost": "-2.6", "snow": "-1.7"}
    assert found("gaussian_noise 3")[0] == ["75.0", "30.0", "30.2", "50.1", "-0.2"]

    figures = [LOST / name for name in re.findall(r"\]\((.*svg)\)", page)]
    assert sorted(figures) == sorted((LOST / "figures-shapes").glob("*"))
    assert sum(path.stat().st_size for path in figures) < 400_000

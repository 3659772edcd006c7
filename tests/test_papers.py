"""The recipes of papers/ run, at toy size, and their committed tables hold what their READMEs say."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "papers" / "shapley-pruning"


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDY))
    return importlib.import_module("models")


@pytest.fixture
def low_data(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDY))
    return importlib.import_module("low_data")


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

    train.main(["--data", str(shared)])
    (written,) = (tmp_path / "cache").iterdir()
    trained = models.load("mnist", tmp_path).model
    torch.manual_seed(models.RECIPE["seed"])
    assert not torch.equal(trained.fc2.weight, models.build("mnist").model.fc2.weight)

    before = written.stat().st_mtime_ns
    train.main(["--data", str(shared)])
    assert written.stat().st_mtime_ns == before


@pytest.mark.data
def test_low_data_prunes_a_quarter_of_each_layer_and_resumes(
    low_data: ModuleType, shared: Path, tmp_path: Path
) -> None:
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

    found["cells"][key]["accuracy"] = -1.0
    results.write_text(json.dumps(found))
    low_data.main([*command, "weight norm", "Taylor signed, mean + 2 std"])
    cells = json.loads(results.read_text())["cells"]
    assert cells[key]["accuracy"] == -1.0
    assert "resnet20 | Taylor signed, mean + 2 std | 0.25 | 0" in cells

    with pytest.raises(SystemExit, match="was made with"):
        low_data.main([*command, "weight norm", "--images", "5"])

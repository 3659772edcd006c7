"""The recipes of papers/ run, at toy size, and their committed tables hold what their READMEs say."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "papers" / "shapley-pruning"


@pytest.fixture(scope="module")
def models() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shapley_pruning_models", STUDY / "models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "layers", "parameters"),
    [("vgg16", 11, 15_253_578), ("resnet20", 9, 269_722), ("resnet56", 27, 853_018)],
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


def run(shared: Path, out: Path, *methods: str) -> dict[str, dict[str, float]]:
    script = [sys.executable, str(STUDY / "low_data.py"), "--data", str(shared), "--out", str(out)]
    few = ["--networks", "resnet20", "--remove", "0.25", "--images", "4", "--test-images", "20"]
    subprocess.run([*script, *few, "--methods", *methods], check=True, capture_output=True)
    return json.loads((out / "results.json").read_text())["cells"]


@pytest.mark.data
def test_low_data_prunes_a_quarter_of_each_layer_and_resumes(shared: Path, tmp_path: Path) -> None:
    cells = run(shared, tmp_path, "weight norm")
    cell = cells["resnet20 | weight norm | 0.25 | 0"]
    # Inner channels go from 16, 32, 64 to 12, 24, 48: a quarter of the weights of every block.
    assert cell["params"] == 202_738
    assert "| weight norm | " in (tmp_path / "RESULTS.md").read_text()

    marked = json.loads((tmp_path / "results.json").read_text())
    marked["cells"]["resnet20 | weight norm | 0.25 | 0"]["accuracy"] = -1.0
    (tmp_path / "results.json").write_text(json.dumps(marked))
    again = run(shared, tmp_path, "weight norm", "Taylor signed, mean + 2 std")
    assert again["resnet20 | weight norm | 0.25 | 0"]["accuracy"] == -1.0
    assert "resnet20 | Taylor signed, mean + 2 std | 0.25 | 0" in again

"""The list holds what it must, every name of it exists, and models come settled and in double precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from shapleaf.errors import DataError, MissingExtraError
from shapleaf.testing import catalogue, configurations

MINE = """
import torch
from torch import nn

def build():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 3))
    nn.init.zeros_(model[3].weight)
    return model.train(), {"input": torch.randn(1, 3, 8, 8), "n": torch.tensor([1])}
"""


def test_the_list_is_as_long_as_it_must_be() -> None:
    assert len(set(catalogue.SPECS)) == len(catalogue.SPECS) >= 140
    assert len(catalogue.TIMM) >= 60
    assert len(configurations.CONFIGURATIONS) >= 40


def test_every_family_of_torchvision_is_in_the_list() -> None:
    models = pytest.importorskip("torchvision.models")
    for listed, package in (
        (catalogue.TORCHVISION, models),
        (catalogue.SEGMENTATION, models.segmentation),
        (catalogue.DETECTION, models.detection),
    ):
        kinds = {name: models.get_model_builder(name).__module__ for name in models.list_models(package)}
        assert {*kinds.values()} == {kinds[name] for name in listed} | (
            # Two detectors on a backbone that Faster R-CNN has as well.
            {f"{package.__name__}.{name}" for name in ("keypoint_rcnn", "mask_rcnn")}
            if package is models.detection
            else set()
        )


def test_every_name_of_timm_exists() -> None:
    timm = pytest.importorskip("timm")
    assert {*catalogue.TIMM} <= {*timm.list_models()}


@pytest.mark.parametrize(
    ("spec", "shape", "outputs"),
    [("torchvision:squeezenet1_0", (1, 3, 224, 224), None), ("detection:ssdlite320_mobilenet_v3_large",
     (1, 3, 320, 320), 6), ("segmentation:lraspp_mobilenet_v3_large", (1, 3, 64, 64), 1)],
)  # fmt: skip
def test_models_of_torchvision(spec: str, shape: tuple[int, ...], outputs: int | None) -> None:
    pytest.importorskip("torchvision")
    model, inputs = catalogue.build(spec)
    assert tuple(inputs.shape) == shape
    with torch.no_grad():
        found = model(inputs)
    assert (len(found) if isinstance(found, dict) else None) == outputs


def test_your_own_are_settled_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_networks.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    model, inputs = catalogue.build("my_networks:build")
    assert (inputs["input"].dtype, inputs["n"].dtype) == (torch.float64, torch.int64)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert not any(module.training for module in model.modules())
    for tensor in (*model.parameters(), *model[1].buffers()):  # type: ignore[index]
        assert tensor.ndim == 0 or tensor.detach().std().item() > 0.01


def test_a_spec_that_names_nothing() -> None:
    with pytest.raises(DataError, match=r"cannot import nowhere\.at_all"):
        catalogue.build("nowhere.at_all:build")


def test_what_is_not_installed_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    assert catalogue.missing("detection:ssd300_vgg16") == "pip install 'shapleaf[vision]'"
    assert catalogue.missing("hf:bert") == "pip install 'shapleaf[huggingface]'"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        MissingExtraError, match=r"timm cannot be imported .* pip install 'shapleaf\[vision\]'"
    ):
        catalogue.build("timm:lcnet_050")

"""The examples run, and what they train ends within its budget and knows the digits."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

import shapleaf as sl
from shapleaf.integrations.datasets import load_data

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
NEEDS = {"lightning_trainer": "lightning", "huggingface_trainer": "transformers"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_examples_stop_resume_and_end_at_half_of_the_macs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.syspath_prepend(str(EXAMPLES))
    model = importlib.import_module(name).main(tmp_path).eval()
    images, labels = load_data("digits", split="test").tensors()
    with torch.no_grad():
        found = model(images)
    accuracy = (getattr(found, "logits", found).argmax(1) == labels).double().mean()
    assert accuracy > 0.9
    steps = 4 if name == "huggingface_trainer" else 5
    assert f"{steps} of {steps} steps" in capsys.readouterr().out
    before = sl.cost(sl.trace(built(name), images[:1]))
    assert 0.3 < sl.cost(sl.trace(model, images[:1])).macs / before.macs <= 0.5


def built(name: str) -> torch.nn.Module:
    """The example's model as it was before."""
    module = importlib.import_module(name)
    if name == "huggingface_trainer":
        return module.ResNetForImageClassification(module.ResNetConfig(**module.SIZES))
    return module.network()

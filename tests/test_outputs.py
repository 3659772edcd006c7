"""What the command line writes and prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import shapleaf as sl
from shapleaf import _outputs


@pytest.fixture
def graph() -> sl.Graph:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    return sl.trace(model, torch.zeros(1, 3))


def test_a_record_as_a_table_as_json_or_not_at_all(
    graph: sl.Graph, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("graph.safetensors")
    _outputs.show(graph, path, as_json=False, quiet=False)
    assert capsys.readouterr().out == f"{graph}\n\nwritten to graph.safetensors\n"
    _outputs.show(graph, path, as_json=True, quiet=True)
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["file"]) == ("Graph", "graph.safetensors")
    assert said["rows"] == [{"group": "0", "units": 8, "tensors": 3, "sites": 1, "exact": "yes"}]
    _outputs.show(graph, path, as_json=False, quiet=True)
    assert capsys.readouterr().out == ""


def test_weights_are_those_of_the_model(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    _outputs.save_weights(model, tmp_path / "deeper" / "weights.safetensors")
    found = load_file(tmp_path / "deeper" / "weights.safetensors")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name: tensor.tolist() for name, tensor in model.state_dict().items()
    }


def test_a_slimmed_model_fills_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
    data = [(torch.randn(20, 3), torch.randint(2, (20,)))]
    slimmed = sl.slim(model, data, sl.Units(keep=0.5), criterion=sl.Taylor())
    _outputs.write_folder(slimmed, tmp_path, as_json=False, quiet=False)
    names = {"weights.safetensors", "receipt.safetensors", "report.safetensors", "report.html"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert capsys.readouterr().out.startswith(str(slimmed.receipt.plan))

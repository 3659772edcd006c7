"""Exported programs compute what the pruned model does, for any number of examples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import shapleaf as sl
from zoo import NETS, Apply, example, half_plan, lived_in, run, state


def pruned(name: str = "plain") -> tuple[nn.Module, torch.Tensor]:
    model, inputs = NETS[name]()
    plan = half_plan(sl.trace(model, inputs))
    return sl.prune(model, plan).model.float(), inputs.float() if inputs.is_floating_point() else inputs


def onnx_is_here() -> None:
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module)


ONNX = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
"""What the exporter warns of is between torch and onnxscript."""


@pytest.mark.parametrize("name", ["mlp", "plain", "transformer"])
@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=ONNX)])
def test_the_program_computes_what_the_model_does(name: str, suffix: str, tmp_path: Path) -> None:
    if suffix == ".onnx":
        onnx_is_here()
    model, inputs = pruned(name)
    assert 0 <= sl.export(model, inputs, tmp_path / f"model{suffix}") < 1e-5


def test_a_pt2_program_needs_no_class_and_takes_any_number_of_examples(tmp_path: Path) -> None:
    model, inputs = pruned()
    sl.export(model, inputs, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    for count in (1, 2, 7):
        x = example(count, 3, 8, 8, seed=count).float()
        assert torch.allclose(program(x), run(model, x)[0], atol=1e-6)


def test_a_fixed_batch_takes_that_batch_only(tmp_path: Path) -> None:
    model, inputs = pruned("mlp")
    assert sl.export(model, inputs, tmp_path / "model.pt2", dynamic_batch=False) < 1e-6
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert torch.allclose(program(inputs), run(model, inputs)[0], atol=1e-6)
    with pytest.raises((AssertionError, RuntimeError)):
        program(torch.cat([inputs, inputs]))


@ONNX[0]
@ONNX[1]
@ONNX[2]
def test_an_onnx_program_takes_any_number_of_examples(tmp_path: Path) -> None:
    onnx_is_here()
    import onnxruntime

    model, inputs = pruned()
    sl.export(model, torch.cat([inputs, inputs]), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    for count in (1, 5):
        x = example(count, 3, 8, 8, seed=count).float()
        (found,) = session.run(None, {given.name: x.numpy()})
        assert torch.allclose(torch.from_numpy(found), run(model, x)[0], atol=1e-5)


@pytest.mark.parametrize("name", ["model.pt", "model", "model.pt2.zip"])
def test_another_suffix_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(sl.DataError, match=r"the suffix must be \.pt2 \(torch\.export\) or \.onnx"):
        sl.export(nn.Linear(3, 4), torch.zeros(2, 3), tmp_path / name)
    assert [*tmp_path.iterdir()] == []


def test_the_model_is_untouched_also_where_it_cannot_be_exported(tmp_path: Path) -> None:
    model, inputs = NETS["plain"]()
    inputs = torch.cat([inputs, inputs])
    lived_in(model, inputs)
    before = state(model)
    sl.export(model, inputs, tmp_path / "model.pt2")
    assert state(model) == before

    branch = Apply(lambda self, x: self.a(x) if x.sum() > 0 else x, a=nn.Linear(6, 6)).double()
    before = state(branch)
    with pytest.raises(sl.PlanError, match="the model cannot be exported"):
        sl.export(branch, example(2, 6), tmp_path / "branch.pt2")
    assert state(branch) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]

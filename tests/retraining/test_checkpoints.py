"""Weights and momentum survive storage; foreign ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf import _store
from shapleaf.retraining.checkpoints import Checkpoint, digest, overwrite, read, write


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor) -> None:
    optimizer.zero_grad()
    model(inputs).square().sum().backward()
    optimizer.step()


def test_the_next_step_is_the_same_after_storage(tmp_path: Path) -> None:
    inputs = torch.randn(8, 3)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    stepped(model, optimizer, inputs)
    _store.save(Checkpoint(step=1, losses=(0.5,)).holding(model, optimizer), tmp_path / "a")

    other = net()
    second = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    found = _store.load(Checkpoint, tmp_path / "a")
    found.restore(other, second)
    assert (found.step, found.losses, len(found.momentum)) == (1, (0.5,), 6)
    for one, how in ((model, optimizer), (other, second)):
        stepped(one, how, inputs)
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


def test_a_digest_tells_values_shapes_and_order_apart() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0])
    every = [digest(a, b), digest(b, a), digest(a), digest(a[None]), digest(a.double()), digest(a, begin="x")]
    assert len(set(every)) == len(every)
    assert digest(a.clone(), b) == digest(a, b)
    assert digest(torch.zeros(2, 0)) != digest(torch.zeros(0))


def test_state_dicts_survive_storage(tmp_path: Path) -> None:
    model = net()
    write(model, tmp_path / "folder" / "weights")
    found = read(tmp_path / "folder" / "weights")
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


def test_foreign_and_damaged_weights(tmp_path: Path) -> None:
    with pytest.raises(sl.DataError, match="0.bias"):
        overwrite(
            nn.Linear(3, 4), {f"0.{name}": value for name, value in nn.Linear(3, 4).state_dict().items()}
        )
    with pytest.raises(sl.DataError, match=r"weight has shape \(4, 2\), expected \(4, 3\)"):
        overwrite(nn.Linear(3, 4), nn.Linear(2, 4).state_dict())
    with pytest.raises(sl.DataError, match="cannot read"):
        read(tmp_path / "absent")
    (tmp_path / "damaged").write_bytes(b"no weights")
    with pytest.raises(sl.DataError, match="holds no weights, or is damaged"):
        read(tmp_path / "damaged")
    with pytest.raises(sl.DataError, match="extra of the state dict is not a tensor"):
        write({"extra": "text"}, tmp_path / "a")  # type: ignore[dict-item]

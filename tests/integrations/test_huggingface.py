"""The Trainer of transformers prunes, saves and resumes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.integrations.huggingface import FILE, pruning_callback

pytestmark = pytest.mark.filterwarnings("ignore")

X = torch.randn(48, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(48) % 3
PRUNER = partial(
    sl.Pruner,
    calibration={"x": X, "labels": Y},
    budget=sl.Macs(keep=0.4),
    schedule=sl.Linear(steps=3, every=4, start=3),
    planner=sl.Planner(criterion=sl.Taylor(), multiple_of=1),
)
Fit = Callable[..., tuple[Any, Any]]


class Net(nn.Module):
    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 12, bias=bias), nn.ReLU(), nn.Linear(12, 3)
        )

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        found = {"logits": self.net(x)}
        return found if labels is None else {"loss": F.cross_entropy(found["logits"], labels)} | found


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Train a model, six steps an epoch, a checkpoint every five; returns the Trainer and the callback."""
    hf = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    def run(
        steps: int, folder: Path | None = None, *, own: bool = False, bias: bool = True
    ) -> tuple[Any, Any]:
        model, callback = Net(bias=bias), pruning_callback(PRUNER)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01) if own else None
        args = hf.TrainingArguments(
            output_dir=str(tmp_path / "out"), max_steps=steps, per_device_train_batch_size=8, save_steps=5,
            learning_rate=0.01, lr_scheduler_type="constant", report_to="none", use_cpu=True, seed=0,
            disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        data = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
        trainer = hf.Trainer(
            model, args, train_dataset=data, callbacks=[callback], optimizers=(optimizer, None)
        )
        resumed = None if folder is None else callback.resume(folder, model, optimizer)
        trainer.train(resume_from_checkpoint=resumed)
        return trainer, callback

    return run


@pytest.mark.parametrize("stop", [5, 10])  # one or two of the three times are over
@pytest.mark.parametrize("own", [False, True])
def test_a_checkpoint_is_resumed_exactly(fit: Fit, tmp_path: Path, stop: int, own: bool) -> None:
    """Also where compensation adds biases, if the optimizer is the user's own."""
    whole, callback = fit(15, own=own, bias=not own)
    assert callback.pruner.finished
    assert any(receipt.biases for receipt in callback.pruner.receipts) == own
    resumed, again = fit(15, tmp_path / "out" / f"checkpoint-{stop}", own=own, bias=not own)
    assert [r.plan.keep for r in again.pruner.receipts] == [r.plan.keep for r in callback.pruner.receipts]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_the_optimizer_that_accelerate_wraps_is_sliced(fit: Fit) -> None:
    trainer, callback = fit(4)
    assert type(trainer.optimizer).__name__ == "AcceleratedOptimizer"
    assert type(callback.pruner.optimizer) is trainer.optimizer.optimizer.__class__
    for parameter in trainer.model.parameters():
        assert trainer.optimizer.state[parameter]["exp_avg"].shape == parameter.shape
    assert trainer.model.net[2].out_features < 12


def test_the_trainers_own_optimizer_cannot_place_added_biases(fit: Fit, tmp_path: Path) -> None:
    fit(5, bias=False)
    model = Net(bias=False)
    with pytest.raises(sl.PlanError, match=r"added biases to net.2, .* pass it to resume\(\)"):
        pruning_callback(PRUNER).resume(tmp_path / "out" / "checkpoint-5", model)
    assert model.net[0].out_features == 16


def test_a_folder_without_a_pruner_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(sl.DataError, match=rf"cannot read .*{FILE}: No such file"):
        pruning_callback(PRUNER).resume(tmp_path, Net())

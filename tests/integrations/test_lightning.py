"""Lightning's Trainer prunes, saves and resumes as a plain loop would."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import shapleaf as sl
from shapleaf.integrations.lightning import pruning_callback

pytestmark = pytest.mark.filterwarnings("ignore")

X = torch.randn(60, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3
SCHEDULE = sl.Linear(steps=3, every=4, start=3)
PRUNER = partial(
    sl.Pruner,
    calibration=(X, Y),
    budget=sl.Macs(keep=0.4),
    schedule=SCHEDULE,
    planner=sl.Planner(criterion=sl.Taylor(), multiple_of=1),
)
Fit = Callable[..., tuple[Any, Any, Any]]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 12, bias=False), nn.ReLU(), nn.Linear(12, 3)
    ).double()


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Train a new module, six steps an epoch, and return it with the callback and the Trainer."""
    pl = pytest.importorskip("lightning.pytorch")

    class Module(pl.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self, optimizers: int) -> None:
            super().__init__()
            self.net, self.many = network(), optimizers
            self.automatic_optimization = optimizers == 1

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            return F.cross_entropy(self(batch[0]), batch[1])

        def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
            self.log("width", float(self.net[0].out_features))

        def configure_optimizers(self) -> Any:
            made = [torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9) for _ in range(self.many)]
            return made if self.many > 1 else made[0]

    def run(epochs: int, ckpt_path: Path | None = None, optimizers: int = 1, test: bool = False) -> Any:
        callback = pruning_callback(PRUNER)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, max_epochs=epochs, callbacks=[callback], logger=False,
            default_root_dir=tmp_path, **quiet,
        )  # fmt: skip
        module, loader = Module(optimizers), DataLoader(TensorDataset(X, Y), 10)
        if test:
            trainer.test(module, loader, ckpt_path=ckpt_path, verbose=False)
        else:
            trainer.fit(module, loader, ckpt_path=ckpt_path)
        return module, callback, trainer

    return run


def test_it_prunes_as_a_plain_loop_does(fit: Fit) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    pruner = PRUNER(model, optimizer)
    for step, first in enumerate([0, 10, 20, 30, 40, 50] * 3, start=1):
        optimizer.zero_grad()
        F.cross_entropy(model(X[first : first + 10]), Y[first : first + 10]).backward()
        optimizer.step()
        if pruner.due(step):
            pruner.step()
    module, callback, _ = fit(3)
    assert callback.pruner.finished
    assert model[0].out_features < 16
    for (name, a), b in zip(model.named_parameters(), module.net.parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("epochs", [1, 2])  # one or all three of the times are over
def test_a_checkpoint_is_resumed_exactly(fit: Fit, tmp_path: Path, epochs: int) -> None:
    whole, _, _ = fit(4)
    _, callback, trainer = fit(epochs)
    assert len(callback.pruner.receipts) > 0
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, again, _ = fit(4, tmp_path / "half.ckpt")
    assert again.pruner.receipts[: len(callback.pruner.receipts)] == callback.pruner.receipts
    assert any(receipt.biases for receipt in again.pruner.receipts)
    assert [*whole.state_dict()] == [*resumed.state_dict()]
    assert "on_load_checkpoint" not in vars(resumed)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_whole_module_is_tested_with_a_pruned_checkpoint(fit: Fit, tmp_path: Path) -> None:
    module, _, trainer = fit(2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, _, tested = fit(1, tmp_path / "half.ckpt", test=True)
    assert tested.callback_metrics["width"] == module.net[0].out_features < 16


def test_fitting_again_goes_on_with_the_same_pruner(fit: Fit) -> None:
    module, callback, trainer = fit(1)
    done = callback.pruner.receipts
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, DataLoader(TensorDataset(X, Y), 10))
    assert callback.pruner.receipts[: len(done)] == done
    assert callback.pruner.finished


def test_several_optimizers_are_refused(fit: Fit) -> None:
    with pytest.raises(sl.PlanError, match="with one optimizer; received 1 and 2"):  # devices, optimizers
        fit(1, optimizers=2)

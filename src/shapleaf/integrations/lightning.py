"""Pruning within Lightning's Trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ..errors import PlanError
from ..training import Pruner
from . import require


def pruning_callback(build: Callable[[nn.Module, Optimizer | None], Pruner]) -> Any:
    """A Lightning ``Callback`` that prunes while the Trainer trains, and is saved in its checkpoints.

    A time of the schedule is a number of optimizer steps that are done. ``fit(..., ckpt_path=...)`` goes on
    with a whole, not yet pruned module: it is given the shapes of the checkpoint before its weights are
    loaded; so do ``validate``, ``test`` and ``predict``. One device and one optimizer.

    Args:
        build: makes the pruner of a whole module; the optimizer is not there yet and follows later:
            ``functools.partial(sl.Pruner, calibration=data, budget=sl.Macs(keep=0.5), schedule=...)``.

    Returns:
        The callback; its ``pruner`` is there once a Trainer has been started.

    Raises:
        MissingExtraError: Lightning is not installed.
    """
    callback = require("lightning.pytorch", "lightning").Callback
    return type("PruningCallback", (_Hooks, callback), {})(build)


class _Hooks:
    """What the callback does, without its base class."""

    def __init__(self, build: Callable[[nn.Module, Optimizer | None], Pruner]) -> None:
        self._build = build
        self._module: nn.Module | None = None
        self.pruner: Any = None

    @property
    def state_key(self) -> str:
        return "shapleaf.Pruner"

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self._module is not pl_module:
            self._module, self.pruner = pl_module, self._build(pl_module, None)
        theirs = pl_module.on_load_checkpoint

        def on_load_checkpoint(checkpoint: dict[str, Any]) -> None:
            if self.state_key in checkpoint.get("callbacks", {}):
                self.load_state_dict(checkpoint["callbacks"][self.state_key])
            theirs(checkpoint)

        # The only place between a checkpoint and its weights; Lightning loads callbacks' states after them.
        pl_module.on_load_checkpoint = on_load_checkpoint

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        vars(pl_module).pop("on_load_checkpoint", None)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        vars(pl_module).pop("on_load_checkpoint", None)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.world_size > 1 or len(trainer.optimizers) != 1:
            raise PlanError(
                "the callback prunes on one device and with one optimizer; received "
                f"{trainer.world_size} and {len(trainer.optimizers)}. Use a Pruner in a loop of your own."
            )
        self.pruner.optimizer = trainer.optimizers[0]

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.pruner.due(trainer.global_step):
            self.pruner.step()

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = self.pruner.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.pruner.load_state_dict(state_dict)

"""Pruning within the Trainer of Hugging Face's transformers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from .._store import atomic
from ..errors import DataError, PlanError
from ..training import Pruner, saved_receipts
from . import require

FILE = "pruner.pt"
"""Name of the pruner's state in a checkpoint's folder."""


def pruning_callback(build: Callable[[nn.Module, Optimizer | None], Pruner]) -> Any:
    """A ``TrainerCallback`` that prunes while the Trainer trains, and is saved beside its checkpoints.

    A time of the schedule is a number of optimizer steps that are done. To go on from a checkpoint, give the
    whole, not yet pruned model its shapes first:
    ``trainer.train(resume_from_checkpoint=callback.resume(folder, trainer.model))``. One device.

    Args:
        build: makes the pruner of a whole model; the optimizer is None if it follows later:
            ``functools.partial(sl.Pruner, calibration=data, budget=sl.Macs(keep=0.5), schedule=...)``.

    Returns:
        The callback; its ``pruner`` is there once training has begun or is resumed.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    callback = require("transformers", "huggingface").TrainerCallback
    return type("PruningCallback", (_Hooks, callback), {})(build)


class _Hooks:
    """What the callback does, without its base class."""

    def __init__(self, build: Callable[[nn.Module, Optimizer | None], Pruner]) -> None:
        self._build = build
        self.pruner: Any = None

    def resume(
        self, folder: str | os.PathLike[str], model: nn.Module, optimizer: Optimizer | None = None
    ) -> str:
        """Give a whole model the shapes of a checkpoint, whose folder is returned.

        Raises:
            DataError: the folder has no state of a pruner.
            PlanError: it belongs to another model, or the Trainer's own optimizer would not fit.
        """
        path = Path(folder) / FILE
        try:
            state = torch.load(path, weights_only=True)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}.") from error
        added = sorted({name for receipt in saved_receipts(state) for name, _ in receipt.biases})
        if added and optimizer is None:
            raise PlanError(
                f"compensation added biases to {', '.join(added)}, which the Trainer would give other places "
                "in its optimizer than they have in the checkpoint. Build the optimizer yourself, of the "
                "whole model, and pass it to resume() and to Trainer(optimizers=(optimizer, None))."
            )
        pruner = self._build(model, optimizer)
        pruner.load_state_dict(state)
        self.pruner = pruner
        return str(folder)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.world_size > 1 or args.n_gpu > 1:
            raise PlanError(
                f"the callback prunes on one device; received {max(args.world_size, args.n_gpu)}. "
                "Use a Pruner in a loop of your own."
            )
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        while hasattr(optimizer, "optimizer"):  # as accelerate wraps it
            optimizer = optimizer.optimizer
        if self.pruner is None or self.pruner.model is not model:
            self.pruner = self._build(model, optimizer)
        else:
            self.pruner.optimizer = optimizer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.pruner.due(state.global_step):
            self.pruner.step()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if args.should_save:
            with atomic(folder / FILE) as new:
                torch.save(self.pruner.state_dict(), new)

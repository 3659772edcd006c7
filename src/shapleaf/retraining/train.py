"""train: a network, a recipe, and the same weights whether or not the process was killed on the way."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import _context, _rng, _store
from .._progress import progress
from ..errors import CriterionError, DataError
from ..records.training import Training
from . import checkpoints
from .checkpoints import Checkpoint
from .examples import Examples
from .recipes import Recipe, learning_rate

SAVE_EVERY = 60.0
"""Seconds between checkpoints within an epoch; there is one after each epoch in any case."""

FILE = "training.safetensors"


class Held(Protocol):
    """Something that holds while a network trains, and that can be let go."""

    def remove(self) -> Any: ...


Holder = Callable[[nn.Module, Optimizer], Held]
"""Called with the model and its new optimizer before training begins; removed at the end."""


def train(
    model: nn.Module,
    data: Any,
    recipe: Recipe,
    *,
    hold: Holder | None = None,
    seed: int = 0,
    path: str | os.PathLike[str] | None = None,
    snapshots: tuple[int, ...] = (),
) -> Training:
    """Train a model in place.

    The order of the examples is drawn anew in each epoch, and what is random within the model (dropout) at
    each step, both from the seed and their place alone; the optimizer is a fresh one. With ``path``, a
    process that was killed goes on from its last checkpoint when it is started again, and ends with the
    same weights to the bit as one that was not. A training that is finished is read from there.

    Args:
        model: changed in place: parameters, and buffers such as those of BatchNorm.
        data: ``(inputs, targets)`` in memory, or a map-style Dataset of such pairs, read item by item.
        recipe: how it is trained.
        hold: what keeps pruned weights at zero: ``f(model, optimizer)`` returns what has a ``remove()``.
        seed: names every random draw.
        path: a folder for the checkpoint.
        snapshots: epochs after which the weights are also written to ``path``, as ``epoch-005.safetensors``.

    Raises:
        DataError: the data are unusable, or the folder belongs to another training.
        CriterionError: the loss failed or is no longer finite; the last checkpoint is in ``path``.

    >>> model = nn.Linear(2, 2)
    >>> inputs = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(50, 1)
    >>> training = train(model, (inputs, inputs.argmax(1)), Recipe(epochs=5, batch=10))
    >>> training.losses[-1] < 0.2
    True
    """
    examples = Examples(data)
    if snapshots and path is None:
        raise DataError("snapshots need a folder to be written to: pass path=.")
    settings = {
        "recipe": repr(recipe),
        "start": str(recipe.start),
        "seed": str(seed),
        "examples": str(len(examples)),
        "data": examples.name,
        "weights": checkpoints.digest(*(tensor for _, tensor in _context.named_tensors(model))),
    }
    optimizer = torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )
    run = _Run(model, examples, recipe, seed, optimizer, Path(path) if path is not None else None)
    run.begin(settings, snapshots)
    with _context.mode(model, train=True), _context.rng(seed), _holding(hold, model, optimizer):
        run.go()
    at = run.at
    return Training(
        losses=at.losses, rates=at.rates, seconds=at.seconds, batches=at.batches, settings=at.settings
    )


@contextmanager
def _holding(hold: Holder | None, model: nn.Module, optimizer: Optimizer) -> Iterator[None]:
    held = hold(model, optimizer) if hold else None
    try:
        yield
    finally:
        optimizer.zero_grad(set_to_none=True)
        if held is not None:
            held.remove()


class _Run:
    """A training on its way: the model, and where it stands."""

    def __init__(
        self,
        model: nn.Module,
        examples: Examples,
        recipe: Recipe,
        seed: int,
        optimizer: Optimizer,
        path: Path | None,
    ) -> None:
        self.model, self.examples, self.recipe, self.seed = model, examples, recipe, seed
        self.optimizer, self.path = optimizer, path
        self.steps = -(-len(examples) // recipe.batch)
        self.at, self.snapshots = Checkpoint(), tuple[int, ...]()
        self.saved = time.monotonic()

    def begin(self, settings: dict[str, str], snapshots: tuple[int, ...]) -> None:
        """At the start, or where the folder's checkpoint says."""
        self.snapshots = snapshots
        self.at = Checkpoint(settings=settings, step=self.recipe.start * self.steps)
        if self.path is None or not (self.path / FILE).exists():
            return
        found = _store.load(Checkpoint, self.path / FILE)
        different = [name for name, value in settings.items() if found.settings.get(name) != value]
        if different:
            name = different[0]
            raise DataError(
                f"{self.path} holds a training with other settings, {name}={found.settings.get(name)}, "
                f"expected {settings[name]}. Take another folder, or give the model the same weights as then."
            )
        found.restore(self.model, self.optimizer)
        self.at = found

    def go(self) -> None:
        """Epoch by epoch to the end."""
        recipe, first = self.recipe, self.at.step // self.steps
        with progress("train", (recipe.epochs * self.steps) - self.at.step) as step:
            for epoch in range(first, recipe.epochs):
                self._epoch(epoch, step)

    def _epoch(self, epoch: int, tell: Callable[[str], None]) -> None:
        order = torch.from_numpy(_rng.stream(self.seed, "order", epoch).permutation(len(self.examples)))
        began = time.monotonic() - self.at.elapsed
        for place, ids in enumerate(order.split(self.recipe.batch)):
            if epoch * self.steps + place < self.at.step:
                continue  # done before the process was killed
            self._step(epoch, ids)
            tell(f"epoch {epoch + 1}")
            last = place + 1 == self.steps
            if not last and self.path is not None and time.monotonic() - self.saved >= SAVE_EVERY:
                self._save(time.monotonic() - began)
        at = self.at
        self.at = replace(
            at,
            losses=(*at.losses, at.total / len(self.examples)),
            rates=(*at.rates, learning_rate(self.recipe, at.step - 1, self.steps)),
            seconds=(*at.seconds, time.monotonic() - began),
            total=0.0,
        )
        if self.path is not None and epoch + 1 in self.snapshots:
            checkpoints.write(self.model, self.path / f"epoch-{epoch + 1:03d}.safetensors")
        self._save(0.0)

    def _save(self, elapsed: float) -> None:
        self.at = replace(self.at, elapsed=elapsed)
        if self.path is not None:
            _store.save(self.at.holding(self.model, self.optimizer), self.path / FILE)
        self.saved = time.monotonic()

    def _step(self, epoch: int, ids: Tensor) -> None:
        recipe, at = self.recipe, self.at
        inputs, target = self.examples.pick(ids)
        if recipe.augment is not None:
            inputs = recipe.augment(inputs, tuple(ids.tolist()), epoch)
        batches = checkpoints.digest(*_context.tensors((inputs, target)), begin=at.batches)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, at.step, self.steps)
        _context.reseed(int(_rng.stream(self.seed, "step", at.step).integers(2**63)))
        self.optimizer.zero_grad(set_to_none=True)
        output = _context.forward(self.model, _context.on_device(inputs, self.model))
        try:
            losses = _context.per_example(
                recipe.loss, output, _context.on_device(target, self.model), len(ids)
            )
        except CriterionError as error:
            kept = (
                f"The last checkpoint is in {self.path}." if self.path else "Pass path= to keep checkpoints."
            )
            raise CriterionError(
                f"training stopped in epoch {epoch + 1}, step {at.step % self.steps + 1} of {self.steps}: "
                f"{error} Lower lr={recipe.lr:g} or warm up longer. {kept}"
            ) from error
        losses.mean().backward()
        self.optimizer.step()
        total = at.total + float(losses.detach().double().sum())
        self.at = replace(at, step=at.step + 1, total=total, batches=batches)

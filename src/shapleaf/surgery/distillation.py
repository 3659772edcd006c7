"""Distill: some hundred steps towards what the intact network returns, on the calibration examples alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .. import _context, _rng
from .._calls import Calls, channel_axis
from .._progress import progress
from ..cuts import slicing
from ..data import Batch, batches, take
from ..errors import DataError, PlanError
from ..linear import reading, within
from ..records import Plan

Augment = Callable[[Any, np.random.Generator], Any]


def shift_and_flip(inputs: Any, random: np.random.Generator) -> Any:
    """Every image moved by up to an eighth of its size and mirrored or not; other inputs as they are.

    Pixels that move in repeat those at the border.

    >>> shift_and_flip(torch.ones(2, 3, 8, 8), np.random.default_rng(0)).shape
    torch.Size([2, 3, 8, 8])
    """
    if not isinstance(inputs, Tensor) or inputs.ndim != 4 or not inputs.is_floating_point():
        return inputs
    examples, _, height, width = inputs.shape
    moved = []
    for size in (height, width):
        most = size // 8
        shift = torch.from_numpy(random.integers(-most, most + 1, (examples, 1)))
        moved.append((torch.arange(size) + shift).clamp(0, size - 1))
    mirrored = torch.from_numpy(random.integers(0, 2, (examples, 1))).bool()
    rows, columns = moved[0], torch.where(mirrored, moved[1].flip(1), moved[1])
    index = torch.arange(examples)[:, None, None]
    picked = inputs.movedim(1, -1)[index, rows[:, :, None], columns[:, None]]
    return picked.movedim(-1, 1)


@dataclass(frozen=True)
class Distill:
    """The pruned network learns to return what the intact one does (Hinton et al. 2015), without labels.

    The low-data answer to fine-tuning: Adam on the squared distance of the outputs, relative to how
    the intact network's spread, and of what the layers that read removed units return. All
    parameters learn; BatchNorms keep adapting to what they read. The learning rate falls to zero along a
    cosine.

    Args:
        data: calibration batches, labelled or not.
        steps: steps of the optimizer.
        lr: its first learning rate, in units of each parameter's root mean square.
        batch: examples per step.
        augment: ``f(inputs, generator)``, new inputs of the same shapes; both networks see them.
        blocks: the weight of the layers' outputs beside that of the network's.
        seed: names the order of the examples and every augmentation.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> plan = sl.plan(sl.trace(model, torch.zeros(1, 3)), {"0": range(4)})
    >>> receipt = sl.prune(model, plan, compensate=Distill(torch.randn(50, 3), steps=20)).receipt
    >>> receipt.effects[1].error < receipt.effects[0].error
    True
    """

    data: Any = field(compare=False, repr=False)
    steps: int = 200
    lr: float = 0.01
    batch: int = 32
    augment: Augment | None = field(default=shift_and_flip, repr=False)
    blocks: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, count, least in (("steps", self.steps, 0), ("batch", self.batch, 1)):
            if not isinstance(_context.number(count), int) or count < least:
                raise PlanError(f"{name}={count!r}: expected a whole number of at least {least}.")
        for name, value in (("lr", self.lr), ("blocks", self.blocks)):
            if not 0 <= value < math.inf:
                raise PlanError(f"{name}={value!r}: expected a finite number of at least 0.")

    def compensate(self, pruned: nn.Module, reference: nn.Module, plan: Plan) -> Sequence[str]:
        """Train the pruned network in place, also under ``torch.no_grad()``.

        Raises:
            PlanError: it has nothing to learn with; its BatchNorms read too little per step; the augmentation
                returned no examples; or the distance is not finite.
        """
        match = _Match(reference, pruned, plan, self.blocks)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            _learning(pruned) as parameters,
            _context.rng(self.seed),
            progress("distill", self.steps) as step,
        ):
            examples = _examples(self.data, _context.device_of(pruned))
            # Half precision is too coarse for single steps.
            precise = [p.detach().to(torch.promote_types(p.dtype, torch.float32)) for p in parameters]
            optimizer = torch.optim.Adam([{"params": [p], "lr": self.lr * _size(p)} for p in precise])
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
            for number in range(self.steps):
                distance = _measured(match, self._inputs(examples, number))
                if not bool(distance.isfinite()):
                    raise PlanError(
                        f"distillation diverged at step {number} of {self.steps}: the distance is "
                        f"{float(distance.detach())}. Lower lr={self.lr}."
                    )
                distance.backward()
                for parameter, copy in zip(parameters, precise, strict=True):
                    copy.grad = None if parameter.grad is None else parameter.grad.to(copy.dtype)
                    parameter.grad = None
                optimizer.step()
                schedule.step()
                for parameter, copy in zip(parameters, precise, strict=True):
                    if parameter.dtype != copy.dtype:
                        parameter.data.copy_(copy)
                step("")
        return ()

    def _inputs(self, examples: Batch, number: int) -> Any:
        """The examples of a step: each of them once before any comes again."""
        size = min(self.batch, examples.examples)
        first = number * size
        order: list[int] = []
        while len(order) < size:
            place = first + len(order)
            turn, at = divmod(place, examples.examples)
            shuffled = _rng.stream(self.seed, "distill", turn).permutation(examples.examples)
            order += shuffled[at : at + size - len(order)].tolist()
        picked = _context.picked(examples.inputs, torch.tensor(order))
        if not self.augment:
            return picked
        augmented = self.augment(picked, _rng.stream(self.seed, "augment", number))
        if not Batch(augmented).examples:
            raise PlanError(f"augment returned no examples where it was given {size}.")
        return augmented


def _examples(data: Any, device: torch.device) -> Batch:
    """All of them in one batch."""
    found = list(batches(data, labelled=False))
    return take(found, sum(b.examples for b in found), batch_size=10**9, labelled=False, device=device)[0]


@contextmanager
def _learning(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """All floating-point parameters learn in the block; dropout is off, and BatchNorms see batches."""
    before = [(p, p.grad, p.requires_grad) for p in model.parameters()]
    with _context.mode(model, train=False):
        for module in model.modules():
            if isinstance(module, _NormBase) and module.running_mean is not None:
                module.training = True
        learning = [parameter for parameter, _, _ in before if parameter.is_floating_point()]
        if not learning or any(parameter.is_inference() for parameter in learning):
            raise PlanError(
                "Distill needs parameters of floating point, and none that were made in inference mode; of "
                "those prune a copy, with prune."
            )
        try:
            for parameter, _, _ in before:
                parameter.grad = None
                parameter.requires_grad_(parameter.is_floating_point())
            yield learning
        finally:
            for parameter, gradient, learns in before:
                parameter.requires_grad_(learns)
                parameter.grad = gradient


def _size(parameter: Tensor) -> float:
    """The root mean square of a parameter's elements; a thousandth for one that is nearly zero."""
    return max(float(parameter.detach().square().mean().sqrt()), 1e-3)


class _Match:
    """The distance between the networks on some inputs."""

    def __init__(self, reference: nn.Module, pruned: nn.Module, plan: Plan, blocks: float) -> None:
        self.reference, self.pruned, self.blocks = reference, pruned, blocks
        what = slicing.cuts(plan)
        sites = {site.call: site for name in plan.pruned for site in plan.graph[name].sites if site.weight}
        self.axes = {call: 1 - site.dim for call, site in sites.items()}
        self.kept = {
            call: what.get(str(sites[call].weight), {}).get(axis) for call, axis in self.axes.items()
        }
        self.calls = tuple(sites) if blocks else ()

    def __call__(self, inputs: Any) -> Tensor:
        outs = []
        for model, learns in ((self.reference, False), (self.pruned, True)):
            record = _Outputs(model, self.calls)
            with torch.set_grad_enabled(learns):
                with record:
                    if learns:
                        out = _context.forward(model, inputs)
                    else:
                        with _context.inference(model):
                            out = _context.forward(model, inputs)
                outs.append((_context.logits(out), record))
        (aim, before), (out, now) = outs
        total = _distance(out, aim)
        parts = [
            _distance(now.found[call], self._cut(call, before))
            for call in self.calls
            if call in now.found and call in before.found and now.found[call].ndim == before.found[call].ndim
        ]
        return total + self.blocks * torch.stack(parts).mean() if parts else total

    def _cut(self, call: str, record: _Outputs) -> Tensor:
        aim, weight, kept = record.found[call], record.weights.get(call), self.kept[call]
        if kept is not None and weight is not None:
            kept = within(weight, kept, self.axes[call])
        return aim if kept is None else aim.index_select(channel_axis(call), kept.to(aim.device))


class _Outputs(Calls):
    def __init__(self, model: nn.Module, calls: Sequence[str]) -> None:
        super().__init__(model)
        self.found: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor] = {}  # as the calls are given them, perhaps parts of parameters
        self._wanted = frozenset(calls)

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        if key in self._wanted:
            self.found[key] = out
            if (layer := reading(key, args, kwargs)) is not None:
                self.weights[key] = layer.weight
        return out


def _measured(match: _Match, inputs: Any) -> Tensor:
    try:
        return match(inputs)
    except DataError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise PlanError(
            "a BatchNorm cannot learn from steps in which it reads one value of each channel; give Distill "
            "more examples, and more than one of them per step (batch=)."
        ) from error


def _distance(out: Tensor, aim: Tensor) -> Tensor:
    """The squared distance relative to how the aim spreads over the examples; to its size if it does not."""
    out, aim = (value.to(torch.promote_types(value.dtype, torch.float32)) for value in (out, aim))
    spread, size = (aim - aim.mean(0, keepdim=True)).square().mean(), aim.square().mean()
    still = spread <= _STILL * size
    return (out - aim).square().mean() / torch.where(still, size, spread).clamp_min(1e-12)


_STILL = 1e-10
"""A variance that is a smaller share of the mean square is rounding."""

"""What surviving weights do to make up for removed units, and what it brought."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .. import _context
from ..cuts import attributes, slicing
from ..data import Batch, batches
from ..errors import DataError, PlanError
from ..programs import Program
from ..records import Effect, Plan


@runtime_checkable
class Compensation(Protocol):
    """How survivors make up for what a plan removed.

    ``compensate`` changes values of the pruned model, its shapes never, and may give layers biases;
    ``reference`` is the model as it was and is left alone. It returns what the user should know.
    Where it has calibration data, they are its attribute ``data``: what it brings is measured on them.
    """

    def compensate(self, pruned: nn.Module, reference: nn.Module, plan: Plan) -> Sequence[str]: ...


def carry_out(
    steps: Sequence[Compensation], pruned: nn.Module, reference: nn.Module, plan: Plan, *, measure: bool
) -> tuple[Effect, ...]:
    """Compensate step by step; if asked to, measure the outputs before and after each on calibration data.

    Warns where the pruned model ends further from the reference, by more than rounding, than without any
    compensation.

    Raises:
        PlanError: outputs are not finite afterwards.
    """
    for tensor in [*pruned.parameters(), *pruned.buffers()]:
        tensor.data = tensor.data.clone()  # the old storage may be needed again
    data = next((data for step in steps if (data := getattr(step, "data", None)) is not None), None)
    with _context.rng(0):  # the data may be shuffled
        held = _Outputs(reference, data) if measure and data is not None else None
        effects = [] if held is None else [held.effect("none", pruned)]
        for step in steps:
            notes = tuple(step.compensate(pruned, reference, plan))
            effects.append(
                held.effect(repr(step), pruned, notes) if held else Effect(step=repr(step), notes=notes)
            )
    if held:
        _compare(effects[0], effects[-1])
    return tuple(effects)


_ROUNDING = 1e-6
"""How much more than before is no harm: this share of it, of the outputs' spread, or of a nat."""


def _compare(first: Effect, last: Effect) -> None:
    for name in ("error", "loss"):
        before, after = getattr(first, name), getattr(last, name)
        if before is not None and after is not None and after > before + _ROUNDING * max(before, 1):
            warnings.warn(
                f"compensation made the {name} on the calibration data worse: {before:.4g} before, "
                f"{after:.4g} after {last.step}. Try another compensation, more examples, or none.",
                stacklevel=5,
            )


class _Outputs:
    """What the reference returns on the calibration data, to be compared with."""

    def __init__(self, reference: nn.Module, data: Any) -> None:
        device = _context.device_of(reference)
        self.batches: list[Batch] = list(batches(data, device=device, labelled=False))
        self.outputs = [self._run(reference, batch) for batch in self.batches]
        shapes: dict[torch.Size, list[Tensor]] = {}  # sequences need not be of one length
        for out in self.outputs:
            shapes.setdefault(out.shape[1:], []).append(out.double())
        alike = [torch.cat(outs) for outs in shapes.values()]
        self.spread = sum(float((outs - outs.mean(0)).square().sum()) for outs in alike)

    @staticmethod
    def _run(model: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad(), _context.inference(model):
            return _context.logits(_context.forward(model, batch.inputs))

    def effect(self, step: str, pruned: nn.Module, notes: tuple[str, ...] = ()) -> Effect:
        gap, total, examples = 0.0, 0.0, 0
        for batch, expected in zip(self.batches, self.outputs, strict=True):
            out = self._run(pruned, batch)
            if not bool(out.isfinite().all()):
                when = "before compensation" if step == "none" else f"after {step}"
                raise PlanError(
                    f"{when} the pruned model returns values that are not finite on the calibration data."
                )
            gap += float((out.double() - expected.double()).square().sum())
            loss = _loss(out, batch.target)
            total, examples = total + (float("nan") if loss is None else loss), examples + batch.examples
        return Effect(
            step=step,
            error=gap / self.spread if self.spread else None,
            loss=None if math.isnan(total) else total / examples,
            notes=notes,
        )


def _loss(out: Tensor, target: Any) -> float | None:
    """The summed cross-entropy, where the targets are labels that fit the output."""
    if not isinstance(target, Tensor) or target.is_floating_point():
        return None
    try:
        return float(_context.cross_entropy(out, target).sum())
    except (DataError, RuntimeError, ValueError):
        return None  # the data are labelled for another loss; the error of the outputs stands


def unbiased(model: nn.Module, call: str, weight: str) -> str:
    """The name of the layer without bias that can be given one.

    Raises:
        PlanError: there is none.
    """
    names = {id(tensor): name for name, tensor in _context.named_tensors(model)}
    if isinstance(model, Program):
        name, found = weight.rpartition(".")[0], bool(model.reader(weight))
    else:
        name = call.rpartition(":")[0]
        layer = model.get_submodule(name)
        own = {names.get(id(tensor)) for tensor in attributes.weights(layer)}
        found = isinstance(layer, nn.Linear | _ConvNd) and weight in own and layer.bias is None
    if not found:
        raise PlanError(
            f"there is no place for a mean behind {weight}, which {call} reads: "
            "it adds no bias of its own, and is no Linear or convolution that could be given one. Prune "
            "without FoldMean."
        )
    return name


def add_bias(model: nn.Module, name: str, value: Tensor) -> None:
    """Give a Linear or convolution without bias one.

    Raises:
        PlanError: there is no such layer of this name, or it has another number of outputs.
    """
    module: Any = dict(model.named_modules()).get(name)
    free = module is not None and module._parameters.get("bias", 0) is None
    weight = next(iter(attributes.weights(module)), None) if free else None
    if weight is None:
        raise PlanError(f"{name or 'the model'} has no place for a bias.")
    width = getattr(module, "out_features", getattr(module, "out_channels", None))
    width = len(weight) if width is None else width  # a program's modules hold nothing but their tensors
    if len(value) != width:
        raise PlanError(f"{name} has {width} outputs and cannot be given a bias of {len(value)}.")
    module.bias = nn.Parameter(value.to(weight).contiguous(), requires_grad=weight.requires_grad)


def outputs(model: nn.Module, what: slicing.Cuts, name: str) -> Tensor | None:
    """Which outputs of a layer a plan leaves; None if all."""
    module = model.get_submodule(name)
    axis = 1 if isinstance(module, _ConvTransposeNd) else 0
    names = {id(tensor): name for name, tensor in model.named_parameters()}
    kept = (what.get(names[id(tensor)], {}).get(axis) for tensor in attributes.weights(module))
    return next((positions for positions in kept if positions is not None), None)

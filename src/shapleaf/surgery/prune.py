"""prune, prune_ and replay: carry out a plan and prove the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from .. import _context
from ..cuts import attributes, slicing
from ..data import repeatable
from ..errors import PlanError
from ..programs import instead
from ..records import Plan, Receipt
from . import optimizers
from .compensation import Compensation, add_bias, carry_out
from .verification import Proof


class Pruned(NamedTuple):
    """A pruned model and the receipt of what was done."""

    model: nn.Module
    receipt: Receipt


def prune(
    model: nn.Module,
    plan: Plan,
    *,
    compensate: Compensation | Sequence[Compensation] | None = None,
    measure: bool = True,
    scale_dropout: bool = False,
) -> Pruned:
    """A pruned copy of a model; the model itself stays as it is. See :func:`prune_`.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> plan = sl.plan(sl.trace(model, torch.zeros(1, 3)), {"0": range(4)})
    >>> pruned, receipt = prune(model, plan)
    >>> pruned[0].weight.shape, model[0].weight.shape
    (torch.Size([4, 3]), torch.Size([8, 3]))
    """
    plan.graph.check(model)
    steps = _steps(compensate)
    # Gradients of the copy would double memory and belong to the original's training run.
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _ in gradients:
            parameter.grad = None
        with torch.inference_mode(False):  # whose tensors could not learn any more
            pruned = _context.copied(model)
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
    return Pruned(
        pruned, _prune(pruned, plan, model, steps, None, measure=measure, scale_dropout=scale_dropout)
    )


def prune_(
    model: nn.Module,
    plan: Plan,
    *,
    optimizer: Optimizer | None = None,
    compensate: Compensation | Sequence[Compensation] | None = None,
    measure: bool = True,
    scale_dropout: bool = False,
) -> Receipt:
    """Carry out a plan in place: slice every tensor, update the layers' sizes, verify, or roll back.

    Parameters keep their identity, so an optimizer keeps training them; pass it to have its state
    sliced too. The result is run on random inputs as traced and compared with the masked model.

    Args:
        model: the model that the plan's graph was traced from.
        plan: which units stay.
        optimizer: its state is sliced like the parameters; biases that compensation adds join the groups
            of their weights.
        compensate: what makes up for the removed units, one step or several in order; computed on the
            pruned model beside a copy of the intact one.
        measure: tell in the receipt what each step brought on its data, and warn if they end worse: two
            passes of these data and one more for each step. Without, only the notes are kept, and
            nothing checks that outputs are finite.
        scale_dropout: multiply the rate of each dropout on a pruned group by the share that stays.

    Raises:
        StaleGraphError: the plan belongs to another model.
        DataError: the data of a compensation are a generator, which one pass uses up.
        PlanError: the pruned model does not run, or computes something else than the masked one; the
            model is as it was before.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> plan = sl.plan(sl.trace(model, torch.zeros(1, 3)), {"0": range(4)})
    >>> receipt = prune_(model, plan, optimizer=optimizer)
    >>> model[2].in_features
    4
    """
    plan.graph.check(model)
    steps = _steps(compensate)
    reference = _context.copied(model) if steps else model
    return _prune(model, plan, reference, steps, optimizer, measure=measure, scale_dropout=scale_dropout)


def _steps(compensate: Compensation | Sequence[Compensation] | None) -> tuple[Compensation, ...]:
    if compensate is None:
        return ()
    steps = tuple(compensate) if isinstance(compensate, Sequence) else (compensate,)
    for step in steps:
        repeatable(getattr(step, "data", None))
    return steps


def _prune(
    model: nn.Module,
    plan: Plan,
    reference: nn.Module,
    steps: tuple[Compensation, ...],
    optimizer: Optimizer | None,
    *,
    measure: bool,
    scale_dropout: bool,
) -> Receipt:
    """Prune in place; what compensates is told by ``reference``, the model as it was."""
    for name in plan.pruned:
        if plan.graph[name].blocked:
            raise PlanError(f"group {name} cannot lose units: {plan.graph[name].blocked}.{instead(model)}")
    what = slicing.cuts(plan)
    known = {name for info in plan.graph.tensors for name in (info.name, *info.aliases)}
    frozen = torch.is_inference_mode_enabled() and any(p.is_inference() for p in model.parameters())
    with (
        torch.inference_mode(frozen),  # else tensors made in the user's could not learn any more
        optimizers.restored_on_failure(optimizer),
        slicing.restored_on_failure(model),
    ):
        proof = Proof(model, plan)
        if optimizer is not None and what:
            optimizers.slice_state(optimizer, model, what)
        slicing.slice_tensors(model, what)
        edits = [*attributes.update(model, what), *attributes.resize(model, plan)]
        if scale_dropout:
            edits += attributes.scale_dropouts(model, _dropout_factors(plan))
        error = proof.check()
        effects = carry_out(steps, model, reference, plan, measure=measure) if steps else ()
        added = [(name, bias) for name, bias in model.named_parameters() if name not in known]
        biases = tuple((name.rpartition(".")[0], len(bias)) for name, bias in added)
        if optimizer is not None:
            optimizers.adopt(optimizer, model, [name for name, _ in biases])
    return Receipt(
        plan=plan,
        edits=tuple(edits),
        biases=biases,
        compensation=" + ".join(map(repr, steps)) or "none",
        effects=effects,
        error=error,
    )


def replay(model: nn.Module, receipt: Receipt) -> nn.Module:
    """Give a fresh model of the original architecture the pruned shapes, in place.

    Follow it by an ordinary ``model.load_state_dict(...)`` of the pruned model's state.

    Raises:
        StaleGraphError: the model is not of the architecture that was pruned.
        PlanError: the receipt sets what is no size, or gives a bias to what can have none; the model is as it
            was before.

    >>> import shapleaf as sl
    >>> build = lambda: nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> model = build()
    >>> pruned, receipt = prune(model, sl.plan(sl.trace(model, torch.zeros(1, 3)), {"0": range(4)}))
    >>> replay(build(), receipt).load_state_dict(pruned.state_dict())
    <All keys matched successfully>
    """
    receipt.plan.graph.check(model)
    with slicing.restored_on_failure(model):
        slicing.slice_tensors(model, slicing.cuts(receipt.plan))
        attributes.redo(model, receipt.edits)
        for name, length in receipt.biases:
            add_bias(model, name, torch.zeros(()).expand(max(length, 0)))
    return model


def _dropout_factors(plan: Plan) -> dict[str, float]:
    return {
        module: len(plan.keep[name]) / plan.graph[name].size
        for module, name in plan.graph.dropouts
        if name in plan.pruned
    }

"""refine: which units stay, decided group by group on the network as pruned so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from . import _context
from ._progress import progress
from .allocation import plan as planned
from .attribution import attribute
from .criteria import Criterion, OptimalBrainSurgeon
from .data import batches, repeatable
from .errors import PlanError
from .records import Plan
from .surgery import Compensation, prune
from .tracing import trace


def refine(
    model: nn.Module,
    plan: Plan,
    data: Any,
    criterion: Criterion | None = None,
    *,
    first: Literal["output", "input"] = "output",
    compensate: Compensation | Sequence[Compensation] | None = None,
) -> Plan:
    """Choose the units anew, as many in every group as the plan keeps, one group after the other.

    Every group is scored on the network without the units that groups before it lost, from the output
    inwards as Ancona et al. (2020, section 4.2) do, or from the input. Tied groups go together.

    Args:
        model: the model that the plan was made for; it is left as it is.
        plan: says how many units each group keeps.
        data: calibration batches.
        criterion: how units are scored; ``OptimalBrainSurgeon(felt=True)`` by default.
        first: which end of the network goes first.
        compensate: done after every group, so that the next is scored on what compensation leaves.

    Returns:
        A plan for the same model with the same number of units in every group; prune by it at once.

    Raises:
        StaleGraphError: the plan belongs to another model.
        PlanError: ``first`` is neither end.
        DataError: the data are a generator, which one pass uses up.

    >>> import torch, shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    >>> data = [(torch.randn(40, 3), torch.randint(2, (40,)))]
    >>> first = sl.plan(sl.trace(model, torch.zeros(1, 3)), {"0": range(4), "2": range(3)})
    >>> refined = refine(model, first, data)
    >>> {name: len(units) for name, units in refined.keep.items()}
    {'0': 4, '2': 3}
    """
    plan.graph.check(model)
    if first not in ("output", "input"):
        raise PlanError(f'first={first!r}: expected "output" or "input".')
    criterion = criterion or OptimalBrainSurgeon(felt=True)
    with _context.rng(0):  # the data may be shuffled
        example = next(iter(batches(repeatable(data), limit=2, labelled=False)))
    inputs = _context.on_device(example.inputs, model)
    order = [*dict.fromkeys(plan.graph.tied(name) for name in plan.pruned)]
    chosen = planned(plan.graph, {})
    current = model
    with progress("refine", len(order)) as step:
        for names in order if first == "input" else reversed(order):
            graph = trace(current, inputs)
            scores = attribute(current, graph, data, criterion, groups=names)
            keep = {
                name: sorted(scores.values[name].argsort(stable=True)[-len(plan.keep[name]) :].tolist())
                for name in names
            }
            one = planned(graph, keep)
            chosen = chosen.compose(one)
            current = prune(current, one, compensate=compensate, measure=False).model
            step(names[0])
    made_by = {**plan.made_by, "refined": f"{criterion!r}, {first} first"}
    return planned(plan.graph, chosen.keep, made_by=made_by)

"""examine: is a model traced, pruned and run, and is what comes out right? Proved, not trusted.

``prune`` proves its own result. Here the same is shown by other means, so that a fault of the library shows
up too: on the inputs at hand, by poisoning units, and by laying them in another order.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import _context
from .._rng import stream
from .._table import count
from ..allocation import plan as make_plan
from ..errors import DataError, PlanError
from ..masking import Gate, Gates, Reader, masked
from ..records import Graph, Group, Plan
from ..records._base import Part, Record
from ..surgery import prune
from ..surgery.verification import relative_gap
from ..tracing import trace
from .attention import Products, full_width, products_in, why_held
from .checks import reordered, require

POISONED = 3
"""How many groups have a unit poisoned."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial(Part):
    """One plan carried out.

    Attributes:
        name: which plan: half of every group, or a random share of each.
        params: the share of the parameters that is left; None if ``prune`` refused.
        error: masked against pruned on the example inputs, for the groups that are exact, relative to the
            largest output; None if there are none or ``prune`` refused.
    """

    name: str
    params: float | None = None
    error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examination(Record):
    """What :func:`examine` found.

    Attributes:
        seconds: CPU time of the trace.
        groups: how many there are.
        units: how many there are in all groups.
        inexact: how many groups masking and slicing differ for.
        blocked: the groups that the model's own code holds back, with the reason.
        attention: how many modules multiply activations with activations.
        given_up: those of them that keep their full width in every plan that was carried out, with what the
            graph says of their weights.
        trials: the plans that were carried out.
        order: by how much the outputs move when the units of every group are laid in another order.
        poisoned: the groups of which a unit's weights were made NaN without a trace beyond its readers.
        refused: what ``prune`` would not do, and why.
        wrong: what must hold and does not.
        notes: what the graph says beside its groups.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    >>> found = examine(net, torch.randn(2, 4).double())
    >>> found.proven, found.groups, [trial.name for trial in found.trials]
    (True, 1, ['half', 'random'])
    """

    seconds: float
    groups: int
    units: int
    inexact: int
    blocked: dict[str, str] = field(default_factory=dict)
    attention: int = 0
    given_up: dict[str, str] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    order: float = 0.0
    poisoned: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def proven(self) -> bool:
        """Whether nothing was refused and nothing was wrong."""
        return not (self.refused or self.wrong)

    def table(self) -> dict[str, Any]:
        rows: list[list[object]] = [
            ["CPU seconds to trace", f"{self.seconds:.2f}"],
            ["groups, units", f"{self.groups:,}, {self.units:,}"],
            ["groups not exact", self.inexact],
            ["groups held back by the code", len(self.blocked)],
            ["attention modules, of full width still", f"{self.attention}, {len(self.given_up)}"],
        ]
        for trial in self.trials:
            error = "not compared" if trial.error is None else f"{trial.error:.1e}"
            left = "refused" if trial.params is None else f"{trial.params:.1%}"
            rows.append([f"{trial.name}: parameters left, error", f"{left}, {error}"])
        rows += [
            ["units in another order: error", f"{self.order:.1e}"],
            ["groups with a poisoned unit", len(self.poisoned)],
        ]
        kept = [f"{name} keeps its full width: {reason}" for name, reason in self.given_up.items()]
        faults = [*(f"REFUSED: {text}" for text in self.refused), *(f"WRONG: {text}" for text in self.wrong)]
        held = [f"{name} is held back: {reason}" for name, reason in self.blocked.items()]
        title = "proven" if self.proven else count(len(faults), "fault")
        footer = "\n".join([*faults, *held, *kept, *self.notes])
        return {"title": f"Examination: {title}", "header": ["", "found"], "rows": rows, "footer": footer}


def examine(model: nn.Module, inputs: Any, *, seed: int = 0) -> Examination:
    """Trace a model, prune it twice, and prove by three further means that the graph is right.

    Half of every group is removed, then a random share of each. Besides what ``prune`` verifies itself,

    * the masked and the pruned model are compared on ``inputs``, for the groups that are exact,
    * a NaN in all that produces a unit must end where the graph says that the unit is read,
    * the units of every group, laid in another order, must leave the function as it is.

    Args:
        model: any module that can be traced; it is left as it is. In double precision proofs are sharper.
        inputs: what it is traced with and compared on; a tuple is positional arguments, a mapping keywords.
        seed: names what is drawn.

    Raises:
        TraceError: the forward pass failed, or nothing can be removed.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    >>> print(examine(net, torch.randn(2, 4).double()))
    Examination: proven
    ...
    """
    started = time.process_time()
    graph = trace(model, inputs)
    seconds = time.process_time() - started
    whole = products_in(model, inputs, graph)
    given_up, trials = {*whole}, []
    refused: list[str] = []
    wrong: list[str] = []
    for name, share in (("half", _half), ("random", _random_share)):
        try:
            trial, left = _carry_out(model, inputs, _plan(graph, share, seed), name, wrong)
            given_up &= full_width(whole, left)
        except PlanError as error:
            refused.append(f"{name}: {error}")
            trial = Trial(name=name)
        except DataError as error:
            wrong.append(f"{name}: prune let pass what does not run: {error}")
            trial = Trial(name=name)
        trials.append(trial)
    poisoned = [group.name for group in _few(graph) if _poison(model, inputs, group, seed, wrong)]
    return Examination(
        seconds=seconds,
        groups=len(graph),
        units=sum(group.size for group in graph),
        inexact=sum(not group.exact for group in graph),
        blocked={group.name: group.blocked for group in graph if group.blocked},
        attention=len(whole),
        given_up={module: why_held(graph, module) for module in whole if module in given_up},
        trials=tuple(trials),
        order=_order(model, inputs, graph, seed, wrong),
        poisoned=tuple(poisoned),
        refused=tuple(refused),
        wrong=tuple(wrong),
        notes=graph.notes,
    )


def assert_prunable(model: nn.Module, inputs: Any, *, seed: int = 0) -> None:
    """A model is traced, pruned and run, and what comes out is right, as :func:`examine` finds it.

    Groups that the model's own code holds back are no fault: the graph names them, and ``prune`` leaves
    them whole.

    Raises:
        AssertionError: something was refused or is wrong; the message names the groups.
        TraceError: the forward pass failed, or nothing can be removed.

    >>> assert_prunable(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 4))
    """
    found = examine(model, inputs, seed=seed)
    require(found.proven, "\n".join([*found.refused, *found.wrong]))


def _outputs(function: nn.Module, model: nn.Module, inputs: Any) -> list[Tensor]:
    """The output's tensors in eval mode, whatever runs: the model itself, a pruned or a masked one."""
    with torch.no_grad(), _context.inference(model):
        return _context.tensors(_context.forward(function, inputs))


# Plans


def _half(graph: Graph, name: str, seed: int) -> float:
    return 0.5


def _random_share(graph: Graph, name: str, seed: int) -> float:
    return float(stream(seed, "share", graph.tied(name)[0]).uniform(0.2, 0.8))


def _plan(graph: Graph, share: Callable[[Graph, str, int], float], seed: int) -> Plan:
    """Units drawn from every group that can lose some; the share is what stays."""
    keep = {}
    for group in graph:
        if not any(graph[name].blocked for name in graph.tied(group.name)):
            kept = max(1, round(graph.portions(group.name) * share(graph, group.name, seed)))
            order = stream(seed, "units", group.name).permutation(group.size)
            keep[group.name] = sorted(order[: graph.units(group.name, kept)].tolist())
    return make_plan(graph, keep)


def _exact_part(plan: Plan) -> Plan:
    """What a plan does to exact groups; those tied to one that is not exact stay whole."""
    graph = plan.graph
    exact = [g.name for g in graph if all(graph[name].exact for name in graph.tied(g.name))]
    return make_plan(graph, {name: plan.keep[name] for name in exact})


def _carry_out(
    model: nn.Module, inputs: Any, plan: Plan, name: str, wrong: list[str]
) -> tuple[Trial, Products]:
    """What becomes of a plan, and of its part for exact groups, on the inputs at hand.

    Raises:
        PlanError: ``prune`` refused.
        DataError: what it left does not run.
    """
    pruned = prune(model, plan).model
    left = products_in(pruned, inputs, plan.graph)
    params = sum(parameter.numel() for parameter in pruned.parameters())
    if params != plan.after.params:
        wrong.append(f"{name}: {params:,} parameters are left, planned were {plan.after.params:,}")
    exact, error = _exact_part(plan), None
    if exact.pruned:
        # Not as prune compared them, on inputs that it made up.
        pruned = prune(model, exact).model
        expected, received = _outputs(masked(model, exact), model, inputs), _outputs(pruned, pruned, inputs)
        error, tolerance = _gap(expected, received)
        if error > tolerance:
            wrong.append(f"{name}: masked and pruned outputs differ by {error:.1e}, and prune let it pass")
    return Trial(name=name, params=params / max(plan.before.params, 1), error=error), left


def _gap(expected: Sequence[Tensor], received: Sequence[Tensor]) -> tuple[float, float]:
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in received]:
        return float("inf"), 0.0
    return relative_gap([*expected], [*received])


# Poison


def _few(graph: Graph) -> list[Group]:
    """Exact groups from the first to the last."""
    exact = [group for group in graph if group.exact]
    places = np.linspace(0, len(exact) - 1, POISONED).round().astype(int)
    return [exact[place] for place in dict.fromkeys(places.tolist())] if exact else []


def _poison(model: nn.Module, inputs: Any, group: Group, seed: int, wrong: list[str]) -> bool:
    """Whether NaN in all that produces a unit reaches its readers; ``wrong`` if it gets past them.

    Where the graph says that the unit is read, zero is read instead. So a consumer that the graph does not
    name lets NaN through, and so does a tensor of this unit that other units depend on.
    """
    poisoned = copy.deepcopy(model)
    unit = int(stream(seed, "poison", group.name).integers(group.size))
    read = {(site.weight, site.dim) for site in group.sites}
    owned = dict(_context.named_tensors(poisoned))
    for piece in group.slices:
        tensor = owned[piece.tensor]
        if (piece.tensor, piece.dim) not in read and tensor.is_floating_point():
            index = piece.index[unit].to(tensor.device)
            tensor.data = tensor.detach().index_fill(piece.dim, index, torch.nan)
    reached = False

    def heal(place: tuple[str, int], gate: Gate, value: Tensor) -> Tensor:
        nonlocal reached
        ours = (gate.index == unit).to(value.device)
        reached = reached or bool((value.isnan() & ours).any())
        return torch.where(ours, 0.0, value)

    expected, received = (_healed(function, inputs, group, heal) for function in (model, poisoned))
    gap, tolerance = _gap(expected, received)
    if gap > tolerance:
        what = "a NaN" if gap == float("inf") else f"a difference of {gap:.1e}"
        wrong.append(
            f"group {group.name}: {what} in all that produces unit {unit} gets past the places that read it"
        )
    return reached


def _healed(function: nn.Module, inputs: Any, group: Group, heal: Callable[..., Tensor]) -> list[Tensor]:
    with torch.no_grad(), _context.inference(function), Reader(function, Gates([group]), heal):
        return _context.tensors(_context.forward(function, inputs))


# Order


def _order(model: nn.Module, inputs: Any, graph: Graph, seed: int, wrong: list[str]) -> float:
    """By how much the outputs move when units are laid in another order; ``wrong`` names the groups."""
    expected = _outputs(model, model, inputs)

    def moved(groups: Sequence[Group]) -> tuple[float, float]:
        turned, _ = reordered(model, groups, stream(seed, "order", *(group.name for group in groups)))
        return _gap(expected, _outputs(turned, turned, inputs))

    gap, tolerance = moved(graph.groups)
    if gap > tolerance:
        alone = [group.name for group in graph if moved([group])[0] > tolerance]
        which = ", ".join(alone[:6]) or "several together"
        wrong.append(f"the outputs differ by {gap:.1e} when units are laid in another order: group {which}")
    return gap

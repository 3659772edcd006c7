"""rehearse: does the model's own Python code still run once units are gone?

Code can hold a size in a place that no trace sees: a literal, a configuration object, a length
computed long ago. So a copy without storage is pruned and run; groups that it cannot do without are
marked, with the line that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .. import _context
from .._calls import Calls
from ..cuts import attributes, slicing
from ..errors import DataError
from ..records import Cost, Graph, Plan
from .build import Views

_SHARES = (0.5, 0.4, 0.65, 0.55, 0.35)


def rehearse(
    model: nn.Module, graph: Graph, ways: Sequence[Any], views: Views, shapes: list[torch.Size]
) -> Graph:
    """The graph, with the groups marked that the code cannot follow on one of several inputs.

    All groups are shortened at once, each by another share. Only where that fails halves of them are, down
    to those that fail alone; the others are then tried together again, as far as they go. ``views`` says
    how long some views must become: code that parts an axis by a number of its own may run and part it
    otherwise. ``shapes`` are those of the outputs. A model that cannot be copied is left as it is, with a
    note.
    """
    stage = _Stage(model, ways, views, shapes)
    sets = list(dict.fromkeys(graph.tied(group.name) for group in graph))
    try:
        reason = stage.fails(graph, range(len(sets)), sets)
        if reason is None:
            return graph
    except Exception as error:  # noqa: BLE001 - the user's own code runs here
        note = f"Sizes in the code were not looked for, as a copy of the model does not run: {_line(error)}"
        return replace(graph, notes=(*graph.notes, note))
    held = _blamed(stage, graph, sets, range(len(sets)), reason)
    left = [number for number in range(len(sets)) if number not in held]
    if not held or stage.fails(graph, left, sets) is not None:
        going: list[int] = []
        for number in left:
            reason = stage.fails(graph, [*going, number], sets)
            if reason is None:
                going.append(number)
            else:
                held[number] = reason
    reasons = {name: reason for number, reason in held.items() for name in sets[number]}
    groups = tuple(replace(g, blocked=reasons[g.name]) if g.name in reasons else g for g in graph)
    return replace(graph, groups=groups)


def _blamed(
    stage: _Stage, graph: Graph, sets: Sequence[tuple[str, ...]], numbers: Sequence[int], reason: str
) -> dict[int, str]:
    """Of sets without which together the code fails, for this reason, those that fail alone; by halving."""
    if len(numbers) == 1:
        return {numbers[0]: reason}
    middle = len(numbers) // 2
    found: dict[int, str] = {}
    for part in (numbers[:middle], numbers[middle:]):
        why = stage.fails(graph, part, sets)
        if why is not None:
            found |= _blamed(stage, graph, sets, part, why)
    return found


class _Stage:
    """Runs shortened copies of a model, without storage where the code allows it."""

    def __init__(self, model: nn.Module, ways: Sequence[Any], views: Views, shapes: list[torch.Size]) -> None:
        self._model, self._ways, self._views, self._shapes = model, ways, views, shapes
        self._meta, self._whole = True, False

    def fails(self, graph: Graph, numbers: Sequence[int], sets: Sequence[tuple[str, ...]]) -> str | None:
        """Why the model does not run without parts of these groups; None if it does."""
        keep: dict[str, tuple[int, ...]] = {}
        for number in numbers:
            kept = max(1, round(graph.portions(sets[number][0]) * _SHARES[number % len(_SHARES)]))
            keep |= {name: tuple(range(graph.units(name, kept))) for name in sets[number]}
        nothing = Cost(units=0, params=0, macs=0)
        plan = Plan(graph=graph, keep=keep, before=nothing, after=nothing)
        reason = self._try(plan)
        if reason is not None and not self._whole:
            self._check()
            reason = self._try(plan)
        return reason

    def _check(self) -> None:
        """Whether the whole model runs without storage; else with it, which raises if it cannot."""
        try:
            self._run(self._copy())
        except Exception:  # noqa: BLE001 - whatever does not run without storage
            self._meta = False
            self._run(self._copy())
        self._whole = True

    def _try(self, plan: Plan) -> str | None:
        shortened = self._copy()
        what = slicing.cuts(plan)
        slicing.slice_tensors(shortened, what)
        attributes.update(shortened, what)
        attributes.resize(shortened, plan)
        try:
            with _Watch(shortened, self._views, plan) if self._views else nullcontext():
                shapes = self._run(shortened)
        except Exception as error:  # noqa: BLE001 - an assertion of the code is an answer too
            return _where(error)
        return None if shapes == self._shapes else "the model's output would change its shape"

    def _copy(self) -> nn.Module:
        if not self._meta:
            return _context.copied(self._model)
        memo: dict[int, Any] = {}
        for parameter in self._model.parameters():
            empty = torch.empty_like(parameter, device="meta")
            memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
        for buffer in self._model.buffers():
            memo[id(buffer)] = torch.empty_like(buffer, device="meta")
        return _context.copied(self._model, memo)

    def _run(self, model: nn.Module) -> list[torch.Size]:
        ways = _context.on_device([*self._ways], model)
        with torch.no_grad(), _context.rng(0), _context.mode(model, train=False):
            outputs = [_context.forward(model, inputs) for inputs in ways]
        return [tensor.shape for tensor in _context.tensors(outputs)]


class _Watch(Calls):
    """Stops where a view parts an axis otherwise than the plan does."""

    def __init__(self, model: nn.Module, views: Views, plan: Plan) -> None:
        super().__init__(model)
        self._views, self._plan = views, plan

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        for axis, length in self._views.get(key, {}).items():
            wanted = self._plan.length(length)
            if out.shape[axis] != wanted:
                raise RuntimeError(f"axis {axis} has length {out.shape[axis]}, expected {wanted}")
        return out


def _where(error: Exception) -> str:
    """The line of the user's code that failed, and how."""
    cause = error.__cause__ or error if isinstance(error, DataError) else error
    line = _context.culprit(cause)
    place = _context.place(line.filename, line.lineno or 0) if line else "the model's code"
    return f"{place} holds a size that does not follow: {_line(cause)}"


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

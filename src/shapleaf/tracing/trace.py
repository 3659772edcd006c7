"""trace: run the model once per mode while labels flow beside the values."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from .. import _context
from .._calls import Calls
from ..errors import DataError, TraceError
from ..records import Graph
from .build import build
from .inputs import describe
from .labels import Labeling
from .ops import RULES, Contraction, OpCall, Rule, rule_for

_TORCH = os.path.dirname(torch.__file__)
_HERE = os.path.dirname(os.path.dirname(__file__))
DROPOUTS = frozenset(
    "dropout dropout_ dropout1d dropout2d dropout3d feature_dropout feature_dropout_ alpha_dropout "
    "alpha_dropout_ feature_alpha_dropout feature_alpha_dropout_".split()
)


@dataclass(slots=True)
class Reading:
    """One consumer reading one argument: what a site is made of once the groups are known."""

    call: str
    arg: int
    labels: Tensor
    reader: Tensor | None
    source: int


@dataclass(slots=True)
class Trail:
    """Everything the runs left behind."""

    flow: Labeling = field(default_factory=Labeling)
    readings: list[Reading] = field(default_factory=list)
    contractions: list[Contraction] = field(default_factory=list)
    dropouts: list[tuple[str, Tensor]] = field(default_factory=list)
    norms: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Ops(TorchDispatchMode):
    def __init__(self, see: Callable[..., None]) -> None:
        super().__init__()
        self.see = see

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            self.see(func, args, kwargs or {}, out)
        return out


class Tracer(Calls):
    """One forward pass: function calls are named, ATen ops inside them move the labels."""

    def __init__(self, model: nn.Module, trail: Trail, rules: Mapping[str, Rule], *, record: bool) -> None:
        super().__init__(model)
        self.trail, self.flow, self.rules, self.record = trail, trail.flow, rules, record
        self._ops = _Ops(self._see)
        self._call = ""
        self._dropping = False
        self._consumed: list[tuple[Tensor, Tensor | None]] = []
        self._sources: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._producers: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._norms: list[list[Any]] = []

    def __enter__(self) -> Tracer:
        super().__enter__()
        self._ops.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._ops.__exit__(*exception)
        super().__exit__(*exception)
        if self.record:
            self.trail.norms += [(producer[0], norm) for producer, norm in self._norms if producer[1] == 1]

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = key.split(":")[1].split("#")[0]
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        before = [(leaf, list(self.flow.of(leaf)), self._source(leaf)) for leaf in leaves]
        self._call, self._consumed, self._dropping = key, [], name in DROPOUTS
        contracted = len(self.trail.contractions)
        try:
            out = func(*args, **kwargs)
        finally:
            self._call, self._dropping, read = "", False, self._consumed
        if name in DROPOUTS and isinstance(out, Tensor):
            self._drop(out, leaves[0])
        for labels, reader in read:
            self._read(key, before, labels, reader)
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(out)):
            for leaf in leaves:
                if leaf in self._producers:
                    self._producers[leaf][1] += 1
        if isinstance(out, Tensor):
            if len(self.trail.contractions) == contracted + 1:
                self._producers[out] = [key, 0]
            elif name == "batch_norm" and leaves[0] in self._producers:
                self._norms.append([self._producers[leaves[0]], self.module])
        return out

    def _source(self, tensor: Tensor) -> int:
        versions = self._sources.setdefault(tensor, {})
        total = sum(len(known) for known in self._sources.values()) if tensor._version not in versions else 0
        number: int = versions.setdefault(tensor._version, total)
        return number

    def _drop(self, out: Tensor, source: Tensor) -> None:
        if out is not source:
            self.flow.fields[out] = list(self.flow.of(source))
            if source in self.flow.active:
                self.flow.active[out] = True
        if self.record:
            self.trail.dropouts += [(self.module, labels) for labels in self.flow.of(source)]

    def _read(self, key: str, before: Sequence[Any], labels: Tensor, reader: Tensor | None) -> None:
        for position, (leaf, fields, source) in enumerate(before):
            if leaf not in self.flow.active:
                continue
            for mine in fields:
                inside = torch.isin(mine, labels)
                if not bool(inside.any()):
                    continue
                if mine.shape[0] > 1 and mine.ndim == leaf.ndim:
                    self.flow.freeze(labels, f"units lie along the first axis, the examples' ({key})")
                elif self.record:
                    place = torch.where(inside, mine, 0)
                    self.trail.readings.append(Reading(key, position, place, reader, source))
                return
        self.flow.freeze(labels, f"read inside {key}, where units cannot be masked")

    def _see(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        op = OpCall(
            func, args, kwargs, out, self.flow, func.overloadpacket.__name__, self._place, self._call
        )
        if any(tensor in self.flow.active for tensor in op.tensors):
            for result in op.outputs:
                self.flow.active[result] = True
        if self._dropping:
            return
        rule_for(func, self.rules)(op)
        if self.record:
            self.trail.contractions += op.contractions
        if self._call:
            self._consumed += op.consumed
        else:
            for labels, _ in op.consumed:
                self.flow.freeze(labels, op.why("read outside any torch function"))

    def _place(self) -> str:
        frame = sys._getframe(1)
        while frame.f_back and frame.f_code.co_filename.startswith((_TORCH, _HERE)):
            frame = frame.f_back
        where = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        return f"{self.module or 'the model'}, {where}"


def trace(
    model: nn.Module,
    example_inputs: Any,
    *,
    keep: Sequence[str] = (),
    rules: Mapping[str, Rule] | None = None,
) -> Graph:
    """Find the units of a model that can be removed, and everything each of them owns.

    The model runs once in eval and once in train mode, without gradients, on the example inputs;
    every parameter's axes carry labels through the run (DESIGN section 4). Nothing of the model is
    changed. Works on meta tensors as well: a model without storage can be traced.

    Args:
        model: any module.
        example_inputs: a tensor, a tuple of positional or a mapping of keyword arguments; the
            examples lie along the first dimension.
        keep: parameter names whose axes must all stay (for instance ``("head.weight",)``).
        rules: further rules, ATen op name to rule, or replacements of ours.

    Raises:
        TraceError: the forward pass failed, or nothing can be removed.

    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> graph = trace(model, torch.zeros(1, 3))
    >>> graph["0"].size, [(s.tensor, s.dim) for s in graph["0"].slices]
    (8, [('0.weight', 0), ('0.bias', 0), ('2.weight', 1)])
    """
    trail = Trail()
    owned = [*model.named_parameters(), *model.named_buffers()]
    unknown = sorted(set(keep) - {name for name, _ in owned})
    if unknown:
        raise TraceError(f"keep= names no parameter or buffer of the model: {', '.join(unknown)}.")
    for name, tensor in owned:
        if tensor.is_floating_point():
            trail.flow.own(name, tensor)
        if name in keep:
            for labels in trail.flow.of(tensor):
                trail.flow.freeze(labels, "kept by the caller")
    merged = {**RULES, **(rules or {})}
    _run(model, example_inputs, trail, merged, train=False)
    try:
        _run(model, _at_least_two(example_inputs), trail, merged, train=True)
    except TraceError as error:
        trail.notes.append(f"train mode was not traced: {error}")
    return build(model, trail, describe(example_inputs), _examples(example_inputs))


def _run(model: nn.Module, inputs: Any, trail: Trail, rules: Mapping[str, Rule], *, train: bool) -> None:
    tracer = Tracer(model, trail, rules, record=not train)
    private = tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, inputs)
    for leaf in tree_leaves(private):
        if isinstance(leaf, Tensor):
            trail.flow.active[leaf] = True
    with torch.no_grad(), _context.buffers(model), _context.rng(0), _context.mode(model, train=train):
        try:
            with tracer:
                output = _context.forward(model, private)
        except DataError as error:
            raise TraceError(f"in {'train' if train else 'eval'} mode {error}") from error
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            for labels in trail.flow.of(leaf):
                trail.flow.freeze(labels, "the model's output")


def _examples(inputs: Any) -> int:
    return next((len(leaf) for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.ndim), 1)


def _at_least_two(inputs: Any) -> Any:
    """BatchNorm in train mode needs more than one value per channel."""
    if _examples(inputs) != 1:
        return inputs
    return tree_map(
        lambda x: torch.cat([x, x]) if isinstance(x, Tensor) and x.ndim and len(x) == 1 else x, inputs
    )

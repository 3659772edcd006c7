"""trace: run the model once per mode while labels flow beside the values."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from .. import _context
from .._calls import Calls, channel_axis, function_of
from ..errors import DataError, TraceError
from ..records import Graph
from .build import build
from .inputs import describe, plain
from .labels import Labeling
from .opcall import Consumed, Contraction, OpCall, Rule
from .ops import MOVEMENTS, RULES, rule_for
from .readings import Call, Readings
from .rehearsal import rehearse
from .sizes import ALIGNED, TOLD, Computed, Use, View, align, loose, shape_of, tagged, told

_SHAPE = Tensor.shape.__get__  # type: ignore[attr-defined]
_DATA = Tensor.data.__get__  # type: ignore[attr-defined]
DROPOUTS = frozenset(
    "dropout dropout_ dropout1d dropout2d dropout3d feature_dropout feature_dropout_ alpha_dropout "
    "alpha_dropout_ feature_alpha_dropout feature_alpha_dropout_".split()
)
LEAKS = frozenset(
    "_local_scalar_dense equal numpy tolist __array__ __dlpack__ data_ptr untyped_storage".split()
)
"""Ops and functions that hand a tensor's values to Python, which may go another way for other values."""
MEASURES = frozenset("size sym_size numel".split())
"""Functions that tell lengths of a tensor."""
SIZED = frozenset("multi_head_attention_forward lstm gru rnn_tanh rnn_relu".split())
"""Functions whose modules hold sizes that surgery does not know: what they read must stay."""


@dataclass(slots=True)
class Trail:
    """Everything the runs left behind."""

    flow: Labeling = field(default_factory=Labeling)
    readings: Readings = field(init=False)
    contractions: list[Contraction] = field(default_factory=list)
    dropouts: list[tuple[str, Tensor]] = field(default_factory=list)
    norms: list[tuple[str, str]] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    forks: list[str] = field(default_factory=list)
    reached: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    shapes: list[torch.Size] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.readings = Readings(self.flow)


class _Ops(TorchDispatchMode):
    def __init__(self, see: Callable[..., None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.see = see

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.is_inference_mode_enabled():  # where composite ops arrive in one piece
            with self:
                out = func.decompose(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        out = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            self.see(func, args, kwargs or {}, out)
        return out


class Tracer(Calls):
    """One forward pass: function calls are named, ATen ops inside them move the labels."""

    def __init__(
        self, model: nn.Module, trail: Trail, rules: Mapping[str, Rule], *, record: bool, first: bool
    ) -> None:
        super().__init__(model)
        self.trail, self.flow, self.rules = trail, trail.flow, rules
        self.record, self.first = record, first
        self._ops = _Ops(self._see)
        self._call = ""
        self._whole = self._loose = False
        self._leaves: list[Tensor] = []
        self._consumed: list[Consumed] = []
        self._origin: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._sources: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._source_numbers = itertools.count()
        self._producers: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._norms: list[tuple[list[Any], str]] = []
        self._forked = ""

    def __enter__(self) -> Tracer:
        super().__enter__()
        self._ops.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        self._ops.__exit__(*exception)  # type: ignore[no-untyped-call]
        super().__exit__(*exception)
        if self.first:
            calls = Counter(norm for _, norm in self._norms)
            self.trail.norms += [
                (layer, norm if calls[norm] == 1 else "")
                for (layer, reads), norm in self._norms
                if reads == 1
            ]

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = function_of(key)
        whole = name in DROPOUTS or (name == "pad" and "circular" in (*args, *kwargs.values()))
        self._leaves = leaves = _context.tensors((args, kwargs))
        before = [(leaf, list(self.flow.of(leaf)), self._source(leaf)) for leaf in leaves]
        for position in reversed(range(len(leaves))):
            self._origin[leaves[position]] = position
        self._hold_what_sets_sizes(key, name, args, kwargs)
        self._call, self._consumed, self._whole = key, [], whole
        self._loose = loose(name, args)
        contracted = len(self.trail.contractions)
        try:
            out = func(*args, **kwargs)
        finally:
            self._call, self._whole, self._loose, read = "", False, False, self._consumed
        if name in LEAKS:
            self._leak(name, leaves)
        if isinstance(out, Tensor) and leaves and (whole or func == _DATA):
            padded = [axis for axis, size in enumerate(out.shape) if size != leaves[0].shape[axis]]
            self._pass(leaves[0], out, padded)
        if name in DROPOUTS and self.record:
            self.trail.dropouts += [(self.module, labels) for labels in before[0][1]]
        self.trail.readings.add(Call(key, before, self._origin, self.record), read)
        self._origin = WeakTensorKeyDictionary()
        for arrival in told(self.flow, key, args, kwargs, out) if name in TOLD else ():
            if isinstance(arrival, Use):
                self.trail.uses.append(replace(arrival, place=self._place()))
            elif self.record:
                self.trail.views.append(arrival)
        self._pair(key, name, leaves, out, len(self.trail.contractions) == contracted + 1)
        return self._measured(name, args, out) if func == _SHAPE or name in MEASURES else out

    def _hold_what_sets_sizes(
        self, key: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Units whose number a function takes from its module, or turns into a factor."""
        if name in SIZED or (name == "group_norm" and _literal(*args[1:2], **kwargs)):
            for leaf in self._leaves:
                self.hold(leaf, f"{name} in {self._place()} holds its sizes as integers")
        if name == "scaled_dot_product_attention" and kwargs.get("scale", *args[6:7] or (None,)) is None:
            for labels in (f for leaf in self._leaves[:2] for f in self.flow.of(leaf)):
                self.flow.pin(labels, [labels.ndim - 1], f"the dimensions of a head set the scale in {key}")

    def _measured(self, name: str, args: tuple[Any, ...], out: Any) -> Any:
        """A shape, or one length of it, that remembers the labels along its axes."""
        tensor = self._leaves[0] if self._leaves else None
        if tensor is None or (name == "numel" and tensor.ndim != 1):
            return out
        shape = shape_of(tensor, tensor.shape, self.flow.of(tensor))
        if isinstance(out, torch.Size):
            return shape
        return shape[int(args[1]) if len(args) > 1 else 0] if len(args) > 1 or name == "numel" else out

    def _pair(self, key: str, name: str, leaves: Sequence[Tensor], out: Any, contraction: bool) -> None:
        """Notes which BatchNorm reads a contraction's output channels, and how many calls read it."""
        if _context.tensors(out):
            for leaf in leaves:
                if leaf in self._producers:
                    self._producers[leaf][1] += 1
        if contraction and isinstance(out, Tensor):
            self._producers[out] = [key, 0]
        elif name == "batch_norm":
            layer = self._producers.get(leaves[0], ["", 0])
            channels = channel_axis(layer[0]) % leaves[0].ndim == 1
            self._norms.append((layer if channels else ["", 0], self.module))

    def _source(self, tensor: Tensor) -> int:
        versions = self._sources.setdefault(tensor, {})
        version = 0 if tensor.is_inference() else tensor._version
        if version not in versions:
            versions[version] = next(self._source_numbers)
        number: int = versions[version]
        return number

    def _pass(self, source: Tensor, out: Tensor, worked: Sequence[int]) -> None:
        """The same units, through a call whose ops say nothing of units; not along axes that it works on."""
        if out is not source:
            reason = f"wraps around units (in {self._place()})"
            fields = [left for f in self.flow.of(source) for left in self.flow.pin(f, worked, reason)]
            self.flow.fields[out] = fields
            if source in self.flow.active:
                self.flow.active[out] = self.flow.active[source]

    def _leak(self, name: str, leaves: Sequence[Tensor]) -> None:
        """The code reads values: from here on it may go another way, for other values.

        Where parameters had a say, whatever is alive or comes later must stay. Where only the inputs had,
        pruning cannot change the way; another batch may, which matters if parameters lie on a way not seen.
        """
        learned = [self.flow.active[leaf] for leaf in leaves if leaf in self.flow.active]
        place = f"({name} in {self._place()})"
        if any(learned):
            self._forked = f"the code reads values {place}, so it may go another way for others"
            for tensor in [*self.flow.active]:
                self.hold(tensor, self._forked)
        elif learned:
            self.trail.forks.append(place)

    def hold(self, tensor: Tensor, reason: str) -> None:
        """All units of a tensor must stay, and those that its values number."""
        for labels in [*self.flow.of(tensor), *self.flow.places.get(tensor, [])]:
            self.flow.freeze(labels, reason)

    def _see(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        name = func.overloadpacket.__name__
        op = OpCall(func, args, kwargs, out, self.flow, name, self._place, self._call, self._loose)
        self._note(op)
        if self._whole:
            return
        if op.name in LEAKS:
            self._leak(op.name, op.tensors)
        for labels in (labels for tensor in op.tensors for labels in self.flow.places.get(tensor, [])):
            self.flow.freeze(labels, op.why("reads which place a unit has"))
        rule = rule_for(func, self.rules)
        rule(op)
        if op.name == "expand" and function_of(self._call) in ALIGNED:
            align(self.flow, self._leaves, op.tensors[0], op.outputs[0])
        if rule in MOVEMENTS or op.name in ("mul", "div"):  # an absent unit is as absent in a product
            origin = next((self._origin[t] for t in op.tensors[:1] if t in self._origin), None)
            for result in op.outputs if origin is not None else ():
                self._origin[result] = origin
        for tensor in op.tensors + op.outputs if self._forked else ():
            self.hold(tensor, self._forked)
        if self.first:
            self.trail.contractions += op.contractions
        if self._call:
            self._consumed += op.consumed
        else:
            for consumed in op.consumed:
                self.flow.freeze(consumed.labels, op.why("read outside any torch function"))

    def _note(self, op: OpCall) -> None:
        """Which parameters were reached, what was used, and what depends on the inputs."""
        for tensor in op.tensors:
            self.trail.reached.add(id(tensor))
            self.flow.use(tensor)
        if any(op.active(tensor) for tensor in op.tensors):
            # What depends on the inputs alone is the same whatever units are there.
            learned = any(self.flow.active.get(t, t.is_floating_point()) for t in op.tensors)
            for result in op.outputs:
                self.flow.active[result] = learned

    def _place(self) -> str:
        frame = sys._getframe(1)
        while frame.f_back and frame.f_code.co_filename.startswith(_context.LIBRARIES):
            frame = frame.f_back
        where = _context.place(frame.f_code.co_filename, frame.f_lineno)
        return f"{self.module or 'the model'}, {where}"


def _literal(num_groups: int, **_: Any) -> bool:
    """Whether the code itself names the number of groups, so that it cannot follow."""
    return num_groups > 1 and not isinstance(num_groups, Computed)


def trace(
    model: nn.Module,
    example_inputs: Any,
    *,
    also: Sequence[Any] = (),
    keep: Sequence[str] = (),
    rules: Mapping[str, Rule] | None = None,
) -> Graph:
    """Find the units of a model that can be removed, and everything each of them owns.

    The model runs once in eval and once in train mode, without gradients, on the example inputs;
    every parameter's axes carry labels through the run (DESIGN section 4). Nothing of the model is
    changed. Works on meta tensors as well: a model without storage can be traced.

    Code that takes another way for other inputs is seen along the ways that it is shown: what ``also``
    gives is run in eval mode, and what is said about units on any of these ways holds. Costs are counted
    and results verified on ``example_inputs``.

    Args:
        model: any module.
        example_inputs: a tensor, a tuple of positional or a mapping of keyword arguments; the
            examples lie along the first dimension.
        also: further inputs, each as ``example_inputs``.
        keep: parameter names whose axes must all stay (for instance ``("head.weight",)``).
        rules: further rules, ATen op name to rule, or replacements of ours.

    Raises:
        TraceError: the forward pass failed, or nothing can be removed.

    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> graph = trace(model, torch.zeros(1, 3))
    >>> graph["0"].size, [(s.tensor, s.dim) for s in graph["0"].slices]
    (8, [('0.weight', 0), ('0.bias', 0), ('2.weight', 1)])
    """
    example_inputs = plain(example_inputs)
    trail = Trail()
    owned = _context.named_tensors(model)
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
    ways = [example_inputs, *map(plain, also)]
    for number, inputs in enumerate(ways):
        _run(model, inputs, trail, merged, first=not number)
    try:
        _run(model, _doubled(example_inputs), trail, merged, train=True)
    except TraceError as error:
        trail.notes.append(f"train mode was not traced: {error}")
    _hold_unseen_ways(model, trail)
    graph, views = build(model, trail, describe(example_inputs), _examples(example_inputs))
    return rehearse(model, graph, ways, views, trail.shapes)


def _hold_unseen_ways(model: nn.Module, trail: Trail) -> None:
    """Code that branches on its inputs, and parameters that were not reached: they lie on another way."""
    unseen = [name for name, parameter in model.named_parameters() if id(parameter) not in trail.reached]
    if trail.forks and unseen:
        way = f"the code reads values of the inputs {trail.forks[0]}, and {unseen[0]} lies on a way not taken"
        for parameter in model.parameters():
            for labels in trail.flow.of(parameter):
                trail.flow.freeze(labels, way)
    elif trail.forks:
        trail.notes.append(f"The code reads values of the inputs {trail.forks[0]}: one way was traced.")


def _run(
    model: nn.Module,
    inputs: Any,
    trail: Trail,
    rules: Mapping[str, Rule],
    *,
    train: bool = False,
    first: bool = False,
) -> None:
    tracer = Tracer(model, trail, rules, record=not train, first=first)
    with (
        torch.inference_mode(mode=False), torch.no_grad(),
        _context.buffers(model), _context.rng(0), _context.mode(model, train=train),
    ):  # fmt: skip
        private = tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, inputs)
        for leaf in _context.tensors(private):
            trail.flow.active[leaf] = False
        try:
            with tagged(model), tracer:
                output = _context.forward(model, private)
        except DataError as error:
            raise TraceError(f"in {'train' if train else 'eval'} mode {error}") from error
    for leaf in _context.tensors(output):
        trail.flow.use(leaf)
        tracer.hold(leaf, "the model's output")
        if not train:
            trail.shapes.append(leaf.shape)


def _examples(inputs: Any) -> int:
    return next((len(leaf) for leaf in _context.tensors(inputs) if leaf.ndim), 1)


def _doubled(inputs: Any) -> Any:
    """Twice as many examples: BatchNorm in train mode needs two, and the axis that grows is theirs."""
    count = _examples(inputs)
    return tree_map(
        lambda x: torch.cat([x, x]) if isinstance(x, Tensor) and x.ndim and len(x) == count else x, inputs
    )

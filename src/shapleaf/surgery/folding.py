"""FoldMean: removed units are replaced by what they gave on average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_flatten, tree_unflatten

from .. import _context
from .._calls import channel_axis, repeats
from ..cuts import slicing
from ..data import batches
from ..layers.recurrent import recur
from ..masking import CalibrationMean, Fill, Gates, Masks, Reader
from ..records import Plan
from .compensation import add_bias, outputs, unbiased


@dataclass(frozen=True)
class FoldMean:
    """Removed units are replaced by their calibration mean, folded into what reads them.

    The mean contribution of the removed units to each consumer goes into its bias; without one,
    into the running mean of the BatchNorm that reads the consumer; without that, into a new bias.
    Exact for linear consumers, and for convolutions up to the padded border, where the
    average over all places is taken. Consumers without weights of their own get nothing.

    Args:
        data: calibration batches, labelled or not.

    >>> import shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> data = [(torch.randn(20, 3), None)]
    >>> plan = sl.plan(sl.trace(model, torch.zeros(1, 3)), {"0": (0, 1)})
    >>> pruned, receipt = sl.prune(model, plan, compensate=FoldMean(data))
    >>> folded = sl.masked(model, plan, removal=sl.CalibrationMean(data))
    >>> bool(torch.allclose(pruned(data[0][0]), folded(data[0][0]), atol=1e-6))
    True
    """

    data: Any = field(compare=False, repr=False)

    def compensate(self, pruned: nn.Module, reference: nn.Module, plan: Plan) -> Sequence[str]:
        """Add the means to biases, or take them from running means.

        Raises:
            PlanError: a consumer has weights but no place that can take the mean.
        """
        what = slicing.cuts(plan)
        changes = self._changes(reference, plan)
        named = dict(_context.named_tensors(pruned))
        for name, shift in changes.values.items():
            named[name].data = named[name].data + slicing.cut(shift, what.get(name, {})).to(named[name])
        for name, bias in changes.biases.items():
            kept = outputs(reference, what, name)
            add_bias(pruned, name, bias if kept is None else bias[kept.to(bias.device)])
        return ()

    def _changes(self, model: nn.Module, plan: Plan) -> Changes:
        gates = Gates(plan.graph[name] for name in plan.pruned)
        fill = CalibrationMean(self.data).fill(model, gates, None)
        batch = next(iter(batches(self.data, limit=1, device=_context.device_of(model), labelled=False)))
        masks = {name: plan.mask(name)[None].float() for name in plan.pruned}
        meter = _Shift(model, gates, masks, fill)
        with torch.no_grad(), _context.inference(model), meter:
            _context.forward(model, batch.inputs)
        return _fold(model, plan, meter)


@dataclass(slots=True)
class Changes:
    """What is added to tensors by name, and biases for modules that have none; nothing cut yet."""

    values: dict[str, Tensor] = field(default_factory=dict)
    biases: dict[str, Tensor] = field(default_factory=dict)


class _Shift(Reader):
    """Measures what the removed units' means add to each output channel of each reading call."""

    def __init__(self, model: nn.Module, gates: Gates, masks: dict[str, Tensor], fill: Fill) -> None:
        super().__init__(model, gates, Masks(masks))
        self._masks, self._fill = masks, fill
        self.shifts: dict[str, Tensor] = {}
        self.biases: dict[str, Tensor | None] = {}

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for arg, gate in self._gates.at.get(key, {}).items():
            leaves, spec = tree_flatten((args, kwargs))
            place = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)][arg]
            read = leaves[place]
            mean = (self._fill[key, arg].to(read) * (1 - gate.factor(self._masks, read))).expand_as(read)
            outs = []
            for stand_in in (mean, torch.zeros_like(read)):
                leaves[place] = stand_in
                inner_args, inner_kwargs = tree_unflatten(leaves, spec)
                outs.append(func(*inner_args, **inner_kwargs))
            so_far = 0 if repeats(key) else self.shifts.get(key, 0)
            self.shifts[key] = so_far + outs[0] - outs[1]
            self.biases[key] = _bias(func.__name__, args, kwargs)
        return func(*args, **kwargs)


def _bias(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """What a linear function adds to each output channel: the parameter, or a part of one."""
    if function in ("addmm", "baddbmm"):
        return args[0]  # type: ignore[no-any-return]
    if function == recur.__name__:
        return args[3]  # type: ignore[no-any-return]
    linear = function == "linear" or function.startswith("conv")
    bias = kwargs.get("bias", args[2] if len(args) > 2 else None) if linear else None
    return bias if isinstance(bias, Tensor) else None


def _fold(model: nn.Module, plan: Plan, meter: _Shift) -> Changes:
    weights = {site.call: site.weight for name in plan.pruned for site in plan.graph[name].sites}
    norms = {call: model.get_submodule(name) for call, name in plan.graph.norms}
    running = {call: norm.running_mean for call, norm in norms.items() if isinstance(norm, _NormBase)}
    named = dict(_context.named_tensors(model))
    names = {id(tensor): name for name, tensor in named.items()}
    added: dict[tuple[str, int], list[Tensor]] = {}
    without: dict[str, dict[str, Tensor]] = {}
    for call, shift in meter.shifts.items():
        weight = weights[call]
        if weight is None:
            continue
        channel = channel_axis(call) % shift.ndim
        mine = shift.mean([axis for axis in range(shift.ndim) if axis != channel])
        bias = meter.biases[call]
        whole = bias if bias is None or id(bias) in names else bias._base
        if bias is not None and whole is not None and id(whole) in names and bias.shape == mine.shape:
            start = int(bias.storage_offset() - whole.storage_offset())
            added.setdefault((names[id(whole)], start), []).append(mine)
        else:
            without.setdefault(unbiased(model, call, weight), {})[call] = mine
    changes = Changes()
    for (name, start), shifts in added.items():
        # Several calls of one layer get their average; a part of a bias what is added there.
        value = changes.values.setdefault(name, torch.zeros_like(named[name].detach()))
        value[start : start + len(shifts[0])] += torch.stack(shifts).mean(0)
    for name, parts in without.items():
        means = [running.get(call) for call in parts]
        if all(mean is not None for mean in means):
            for mean, shift in zip(means, parts.values(), strict=True):
                assert mean is not None
                changes.values[names[id(mean)]] = -shift
        else:
            changes.biases[name] = torch.stack([*parts.values()]).mean(0)
    return changes

"""LeastSquares: what reads removed units is refitted to give what it gave before."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .. import _context
from .._progress import progress
from .._ridge import Ridge
from ..cuts import slicing
from ..data import Batch, batches
from ..errors import PlanError
from ..linear import Linear, places, within
from ..records import Plan
from ..watching import Seen, Uses, summed, watch
from .compensation import add_bias, unbiased


@dataclass(frozen=True)
class LeastSquares:
    """Every layer that reads removed units is refitted by least squares to its original output.

    Layer by layer, in the order in which they run, the weights on the kept inputs and the bias are
    chosen so that the layer returns, from what the pruned network really gives it, what it returned in
    the intact one. Where the result is added to a shortcut, and read by nothing else, it makes up for what
    the shortcut lost, too.
    Weights are drawn to their old values by a ridge penalty, in units of each input's variance, which is
    chosen for every layer so that one half of the examples predicts the other best; no change at all is
    among the choices. Layers without bias get the shift into the running mean of the BatchNorm behind
    them, or a new bias. Works for linear layers, convolutions (grouped, transposed), attention
    projections and recurrent steps, whatever the number of groups that they read.

    Normal equations are gathered in float64, batch by batch. Cost: for each layer two passes of the
    network up to it, and some Cholesky factorisations of its number of inputs.

    Args:
        data: calibration batches, labelled or not; ten examples help, a hundred are enough to begin with.
        memory: bytes that the rows of a regression may take at a time, about.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)).double()
    >>> _ = model[0].weight.data.copy_(torch.tensor([[1.0, 2, 3], [2, 4, 6]]))  # one unit says it all
    >>> data = torch.randn(50, 3).double()
    >>> plan = sl.plan(sl.trace(model, data[:1]), {"0": [0]})
    >>> pruned = sl.prune(model, plan, compensate=LeastSquares(data)).model
    >>> bool(torch.allclose(pruned(data), model(data), atol=1e-3))
    True
    """

    data: Any = field(compare=False, repr=False)
    memory: int = field(default=2**28, repr=False)

    def compensate(self, pruned: nn.Module, reference: nn.Module, plan: Plan) -> Sequence[str]:
        """Refit layer after layer; returns which were left alone, and why."""
        device = _context.device_of(pruned)
        data = list(batches(self.data, device=device, labelled=False))
        layers, notes = _layers(pruned, plan, data[0])
        # What is added may come from another call of the same layer, if there are several.
        single = [calls[0] for _, calls in layers if len(calls) == 1]
        sums = summed(pruned, data[0][:2].inputs, single)
        with progress("refit", len(layers)) as step:
            for weight, calls in layers:
                _Refit(pruned, reference, plan, weight, calls, sums).run(data, self.memory)
                step(weight)
        return notes


def _layers(
    model: nn.Module, plan: Plan, batch: Batch
) -> tuple[list[tuple[str, tuple[str, ...]]], tuple[str, ...]]:
    """The weights that read removed units with their calls, in order; and those that cannot be refitted."""
    reads: dict[str, str] = {
        site.call: site.weight for name in plan.pruned for site in plan.graph[name].sites if site.weight
    }
    uses = Uses(model)
    with torch.no_grad(), _context.inference(model), uses:
        _context.forward(model, batch[:2].inputs)
    found, notes = [], []
    used = [weight for weight in uses.of if weight in reads.values()]
    for weight in used:
        calls = uses.of[weight]
        others = [call for call in calls if reads.get(call) != weight]
        odd = [call for call in calls if call not in uses.linear]
        if others:
            notes.append(f"{weight} was not refitted: {others[0]} uses it for something else.")
        elif odd:
            notes.append(f"{weight} was not refitted: {odd[0]} is no product of rows and a matrix.")
        else:
            found.append((weight, tuple(calls)))
    lost = sorted({*reads.values()} - {*used})
    notes += [f"{weight} was not refitted: it is not what its layer multiplies by." for weight in lost]
    return found, tuple(notes)


class _Refit:
    """One weight, the calls that multiply by it, and where their shift can go."""

    def __init__(
        self,
        pruned: nn.Module,
        reference: nn.Module,
        plan: Plan,
        weight: str,
        calls: Sequence[str],
        sums: Container[str],
    ) -> None:
        self.pruned, self.reference, self.weight, self.calls = pruned, reference, weight, calls
        self.sums = sums
        self.what = slicing.cuts(plan)
        dims = {site.call: site.dim for group in plan.graph for site in group.sites if site.call in calls}
        self.axis = 1 - dims[calls[0]]
        norms = {call: name for call, name in plan.graph.norms if call in calls}
        running = [name for name in norms.values() if _running(pruned, name) is not None]
        self.norm_of = norms if len(running) == len(calls) else {}
        self.home = self._home()

    def _home(self) -> str:
        """The layer that could be given a bias; empty if none."""
        try:
            return unbiased(self.pruned, self.calls[0], self.weight)
        except PlanError:
            return ""

    def run(self, data: Sequence[Batch], memory: int) -> None:
        """Gather the normal equations, solve them, and put the new weights and the shift in place."""
        self.memory, self.examples = memory, sum(batch.examples for batch in data)
        ridge: dict[int, Ridge] = {}
        layers: dict[int, Linear] = {}
        for batch in data:
            expected, found = (watch(m, batch.inputs, self.calls) for m in (self.reference, self.pruned))
            for call in self.calls:
                for before, now in zip(expected[call], found[call], strict=True):
                    place = int(
                        now.layer.weight.storage_offset()
                    )  # parts of one parameter are regressions apart
                    layers[place] = now.layer
                    gathered = ridge.setdefault(place, Ridge(intercept=self._movable(now.layer)))
                    self._gather(gathered, batch, now, self._target(call, before, now))
        for place, layer in layers.items():
            fit = ridge[place].solve()
            self._write(layer.weight, layer.weights(layer.matrix().double() + fit.matrix))
            if self._movable(layer):
                self._shift(layer, fit.intercept.flatten())

    def _movable(self, layer: Linear) -> bool:
        """Whether there is a place for a shift."""
        return layer.bias is not None or bool(self.norm_of) or bool(self.home)

    def _target(self, call: str, before: Seen, now: Seen) -> Tensor:
        """What the pruned layer's output lacks."""
        axis = now.layer.channel
        kept = self._kept(before.layer)

        def mine(value: Tensor) -> Tensor:
            return value if kept is None else value.index_select(axis, kept.to(value.device))

        missing = mine(before.out).double() - now.out.double()
        if call in self.norm_of:
            moved = _running(self.pruned, self.norm_of[call]) - slicing.cut(
                _running(self.reference, self.norm_of[call]),
                self.what.get(f"{self.norm_of[call]}.running_mean", {}),
            )
            missing += _along(moved.double(), axis, missing.ndim)
        if call in self.sums and before.other is not None and now.other is not None:
            lost = mine(before.other).double() - now.other.double()
            missing += lost * _along(_inverse(now.factor), axis, missing.ndim)
        return missing

    def _kept(self, layer: Linear) -> Tensor | None:
        """Which of the intact layer's outputs are left."""
        positions = self.what.get(self.weight, {}).get(self.axis)
        return None if positions is None else within(layer.weight, positions, self.axis)

    def _gather(self, ridge: Ridge, batch: Batch, now: Seen, missing: Tensor) -> None:
        layer, size = now.layer, len(now.layer.input)
        chosen = places(layer, missing, self.examples)
        each = 8 * missing.numel() * layer.matrix().shape[1] * layer.groups
        step = max(1, self.memory * size * missing.shape[layer.channel] // max(each, 1))
        half = (torch.arange(size) * batch.examples // size + batch.first) % 2
        for first in range(0, size, step):
            part = slice(first, first + step)
            rows, targets = layer.rows(layer.input[part]), layer.outputs(missing[part])
            if chosen is not None:
                rows, targets = (t.index_select(2, chosen.to(t.device)) for t in (rows, targets))
            halves = half[part].to(rows.device).repeat_interleave(rows.shape[2])
            ridge.add(rows.transpose(0, 1).flatten(1, 2), targets.transpose(0, 1).flatten(1, 2), halves)

    def _write(self, part: Tensor, value: Tensor) -> None:
        """New values for a parameter, or for a part of one, in new storage."""
        names = {id(p): p for p in self.pruned.parameters()}
        whole = names.get(id(part), part._base)
        assert whole is not None
        fresh = whole.detach().clone()
        start = part.storage_offset() - whole.storage_offset()
        fresh.as_strided(part.shape, part.stride(), start).copy_(value)
        whole.data = fresh

    def _shift(self, layer: Linear, shift: Tensor) -> None:
        if layer.bias is not None:
            self._write(layer.bias, layer.bias.double() + shift)
        elif self.norm_of:
            for name in set(self.norm_of.values()):
                running = _running(self.pruned, name)
                running.data = (running.double() - shift).to(running)
        else:
            add_bias(self.pruned, self.home, shift)


def _running(model: nn.Module, name: str) -> Any:
    norm = model.get_submodule(name)
    return norm.running_mean if isinstance(norm, _NormBase) else None


def _along(values: Tensor, axis: int, ndim: int) -> Tensor:
    """One value per channel, to be broadcast over the others."""
    shape = [1] * ndim
    shape[axis] = len(values)
    return values.reshape(shape)


def _inverse(factor: Tensor) -> Tensor:
    """1 / factor; zero for channels that are scaled down to nothing."""
    factor = factor.double()
    small = factor.abs() < 1e-2 * factor.abs().max()
    return torch.where(small, 0.0, 1 / torch.where(small, 1.0, factor))

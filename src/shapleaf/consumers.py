"""The layers that read a group: as they run, and as regressions that the loss feels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import _context
from ._calls import Calls, channel_axis
from ._ridge import varying
from .criteria import Consumer, Layer
from .data import Batch
from .errors import CriterionError
from .linear import Linear, places
from .records import Group, Site
from .watching import watch

WIDEST = 1024
"""Convolutions with more features are seen through as many components of each channel's patches as fit."""


def layers(model: nn.Module, group: Group, data: Sequence[Batch]) -> Iterator[Layer]:
    """The layers with weights that read a group, as they run on the examples, batch by batch.

    Args:
        model: the model.
        group: the group that is read.
        data: the examples, on the model's device.

    Raises:
        CriterionError: a layer reads units in a way that no matrix tells.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> group = sl.trace(model, torch.zeros(1, 3))["0"]
    >>> [(one.call, one.units.tolist()) for one in layers(model, group, [Batch(torch.randn(5, 3))])]
    [('2:linear#0', [[0, 1, 2, 3]])]
    """
    sites = {site.call: site for site in group.sites if site.weight}
    for batch in data if sites else ():
        for call, seen in watch(model, batch.inputs, [*sites]).items():
            for step, one in enumerate(seen):
                yield Layer(call, step, one.layer, _units(sites[call], one.layer), batch.ids)


def consumers(
    model: nn.Module, group: Group, data: Sequence[Batch], felt: Mapping[str, Tensor]
) -> list[Consumer]:
    """What each layer with weights reads of a group, in every group of its channels.

    Args:
        model: the model.
        group: the group that is read.
        data: the examples, on the model's device.
        felt: by call, the weight of each of its outputs; ones where it is not named.

    Raises:
        CriterionError: a layer reads units in a way that no matrix tells.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> graph = sl.trace(model, torch.zeros(1, 3))
    >>> found = consumers(model, graph["0"], [Batch(torch.randn(5, 3))], {})
    >>> found[0].gram.shape, found[0].weight.shape, found[0].units.tolist()
    (torch.Size([4, 4]), torch.Size([4, 2]), [0, 1, 2, 3])
    """
    sites = {site.call: site for site in group.sites if site.weight}
    if not sites:
        return []
    examples = sum(batch.examples for batch in data)

    def read() -> Iterator[tuple[str, Linear, Tensor]]:
        for batch in data:
            for call, seen in watch(model, batch.inputs, [*sites]).items():
                for one in seen:
                    chosen = places(one.layer, one.out, examples, each=4)
                    yield from ((call, one.layer, rows) for rows in _rows(one.layer, chosen))

    layers: dict[str, _Layer] = {}
    for call, layer, rows in read():
        layers.setdefault(call, _Layer(layer, _units(sites[call], layer))).add(rows)
    narrowed = [layer.narrow() for layer in layers.values()]
    if any(narrowed):
        for call, _, rows in read():
            layers[call].add_again(rows)
    return [
        consumer for call, layer in layers.items() for consumer in layer.consumers(examples, felt.get(call))
    ]


def _rows(layer: Linear, chosen: Tensor | None) -> Iterator[Tensor]:
    """What the places of a layer read, (groups, rows, features), some examples at a time."""
    for part in layer.input.split(16):
        rows = layer.rows(part)
        if chosen is not None:
            rows = rows.index_select(2, chosen.to(rows.device))
        yield rows.transpose(0, 1).flatten(1, 2)


class _Layer:
    """The moments of what one layer reads; of wide convolutions, of the channels' main components."""

    def __init__(self, layer: Linear, units: Tensor) -> None:
        self.weight, self.units = layer.matrix().detach().double(), units
        self.width = self.weight[0, :, 0].numel() // units.shape[1]
        self.components: Tensor | None = None
        self._sums: list[Tensor] = []
        self._narrow = units.shape[1] * self.width > WIDEST and self.width > 1

    def add(self, rows: Tensor) -> None:
        """Moments of all features, or, to begin with, of those of each channel."""
        self._put(rows, apart=self._narrow)

    def narrow(self) -> bool:
        """Choose each channel's main components, if there are too many features; then rows come again."""
        if not self._narrow:
            return False
        count, total, square = self._sums
        mean = (total / count).unflatten(1, (-1, self.width))
        spread = square / count - mean[..., :, None] * mean[..., None, :]
        kept = max(1, WIDEST // self.units.shape[1])
        self.components = torch.linalg.eigh(spread).eigenvectors[..., -kept:]  # groups, channels, width, kept
        self.weight = (self.components.mT @ self.weight.unflatten(1, (-1, self.width))).flatten(1, 2)
        self._sums = []
        return True

    def add_again(self, rows: Tensor) -> None:
        if self.components is not None:
            parts = rows.unflatten(2, (-1, self.width)).transpose(1, 2)  # groups, channels, rows, width
            self._put((parts @ self.components.to(parts)).transpose(1, 2).flatten(2))

    def _put(self, rows: Tensor, *, apart: bool = False) -> None:
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        if not self._sums:
            self._origin = rows[:, :1].clone()
        rows = rows - self._origin  # far from their mean, rounding would hide by how much they vary
        if apart:
            parts = rows.unflatten(2, (-1, self.width))
            square = torch.einsum("gnck,gncl->gckl", parts, parts)
        else:
            square = rows.mT @ rows
        count = torch.tensor(float(rows.shape[1]), device=rows.device)
        new = [value.double() for value in (count, rows.sum(1), square)]
        self._sums = [old + more for old, more in zip(self._sums, new, strict=True)] if self._sums else new

    def consumers(self, examples: int, felt: Tensor | None) -> list[Consumer]:
        """A regression for each group of channels that reads units."""
        count, total, square = self._sums
        gram = square - total[:, :, None] * total[:, None] / count
        gram = varying(gram, self._origin[:, 0].double() + total / count, float(count))[0] / examples
        units = self.units.repeat_interleave(gram.shape[1] // self.units.shape[1], 1)
        groups, _, outputs = self.weight.shape
        weights = self.weight.new_ones(groups, outputs) if felt is None else felt.reshape(groups, outputs)
        parts = zip(gram, self.weight, units, weights, strict=True)
        return [Consumer(*part) for part in parts if bool((part[2] >= 0).any())]


def _units(site: Site, layer: Linear) -> Tensor:
    """The unit of every channel, (groups, channels)."""
    axis = layer.channel - 1 if layer.channel > 0 else layer.channel
    channels = layer.input.shape[layer.channel]
    index = site.index.movedim(axis, 0)
    index = index.reshape(len(index), -1)
    if len(index) not in (1, channels) or not bool((index == index[:, :1]).all()):
        raise CriterionError(
            f"{site.call} reads units that differ from place to place; use another criterion."
        )
    return index[:, 0].expand(channels).reshape(layer.groups, -1).to(layer.input.device)


def feeling(
    model: nn.Module, groups: Sequence[Group], data: Sequence[Batch], loss: _context.Loss
) -> dict[str, Tensor]:
    """The mean square of each example's loss gradient at every output channel of the groups' consumers.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> graph = sl.trace(model, torch.zeros(1, 3))
    >>> batch = Batch(torch.randn(5, 3), torch.zeros(5, dtype=torch.int64))
    >>> feeling(model, graph.groups, [batch], _context.cross_entropy)["2:linear#0"].shape
    torch.Size([2])
    """
    calls = {site.call for group in groups for site in group.sites if site.weight}
    sums: dict[str, Tensor] = {}
    rows: dict[str, int] = {}
    for batch in data:
        taps = _Taps(model, calls)
        with torch.enable_grad():
            with taps:
                output = _context.forward(model, batch.inputs)
            losses = _context.per_example(loss, output, batch.target, batch.examples)
        instead = "OptimalBrainSurgeon(felt=False)"
        grads = _context.gradients(losses, [*taps.found.values()], instead=instead)
        for call, gradient in zip(taps.found, grads, strict=True):
            if gradient is not None:
                flat = gradient.movedim(channel_axis(call), -1).flatten(0, -2).double()
                sums[call] = sums.get(call, 0) + flat.square().sum(0)
                rows[call] = rows.get(call, 0) + len(flat)
    return {call: total / rows[call] for call, total in sums.items()}


class _Taps(Calls):
    """Outputs of calls, as leaves of their own gradient."""

    def __init__(self, model: nn.Module, calls: set[str]) -> None:
        super().__init__(model)
        self._calls = calls
        self.found: dict[str, Tensor] = {}

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        if key not in self._calls:
            return out
        self.found[key] = out if out.requires_grad else out.detach().requires_grad_()
        return self.found[key].clone()  # later calls may write into it

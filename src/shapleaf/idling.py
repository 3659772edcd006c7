"""idle: units that tell nothing, because they never change or because nothing listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from . import _context
from .allocation import plan as make_plan
from .data import batches
from .errors import DataError, PlanError
from .linear import reading
from .masking import Gate, Gates, Reader
from .records import Graph, Group, Plan, Site


def idle(model: nn.Module, graph: Graph, data: Any, *, tolerance: float = 0.0, padded: bool = False) -> Plan:
    """Plan the removal of all units that tell nothing: constant on the data, or read by zeros alone.

    A filter of which single-weight pruning left only zeros is constant: its bias, or what BatchNorm makes
    of it. Pruning such units with ``compensate=FoldMean(data)`` leaves the outputs on the data as they are:
    what a constant gives to a linear layer goes into the bias; without compensation its layers would
    miss it. Units that go once others have gone are found when the pruned model is traced anew.

    A constant other than zero stays where it has no bias to go into: where no linear layer reads it, and
    where a convolution pads it with zeros, unless ``padded``: it then ends at the border, which a bias
    does not. Groups that a norm reads as a whole keep all units, and every group keeps one.

    Args:
        model: the model that ``graph`` was traced from.
        graph: its graph.
        data: batches, labelled or not; at least two examples.
        tolerance: how far a unit may vary, relative to its largest value, and still count as constant.
        padded: remove constants that zero-padded convolutions read as well. This changes outputs near the
            border; the receipt of pruning with ``FoldMean`` tells how much.

    Raises:
        StaleGraphError: the graph belongs to another model.
        DataError: there are fewer than two examples.
        PlanError: the tolerance is negative, or the model does not run on the data as it was traced.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> with torch.no_grad():  # the second unit is always 0.5; nothing reads the last
    ...     _ = model[0].weight[1].zero_(), model[0].bias[1].fill_(0.5), model[2].weight[:, 3].zero_()
    >>> data = torch.randn(20, 3)
    >>> plan = idle(model, sl.trace(model, data[:1]), data)
    >>> pruned, receipt = sl.prune(model, plan, compensate=sl.FoldMean(data))
    >>> plan.keep["0"], bool(torch.allclose(pruned(data), model(data), atol=1e-6))
    ((0, 2), True)
    """
    if tolerance < 0:
        raise PlanError(f"idle(tolerance=...) is not negative, received {tolerance}.")
    graph.check(model)
    groups = [group for group in graph if group.exact and not group.blocked and group.sites]
    gates, extents, examples = Gates(groups), _Extents(), 0
    with torch.no_grad(), _context.inference(model):
        for batch in batches(data, device=_context.device_of(model), labelled=False):
            examples += batch.examples
            with _Watcher(model, gates, extents):
                _context.forward(model, batch.inputs)
    if examples < 2:
        raise DataError("what never changes shows on two examples or more; received one.")
    named = dict(model.named_parameters())
    useless = {group.name: _useless(group, extents, named, tolerance, padded=padded) for group in groups}
    keep = {name: units for group in groups for name, units in _kept(graph, group.name, useless).items()}
    made_by = {"idle": f"{examples} examples", "tolerance": str(tolerance), "padded": str(padded)}
    return make_plan(graph, keep, made_by=made_by)


def _kept(graph: Graph, name: str, useless: dict[str, Tensor]) -> dict[str, list[int]]:
    """The units that stay of a group; of groups that are tied equal shares, and of each one portion."""
    tie = graph.tied(name)
    if not all(member in useless for member in tie):
        return {}
    each = {member: graph.units(member, 1) for member in tie}
    portions = min(int(useless[member].sum()) // each[member] for member in tie)
    portions = min(portions, graph.portions(name) - 1)
    keep = {}
    for member in tie:
        stays = torch.ones(graph[member].size, dtype=torch.bool)
        stays[useless[member].nonzero()[:, 0].flip(0)[: portions * each[member]]] = False
        keep[member] = stays.nonzero()[:, 0].tolist()
    return keep


def _useless(
    group: Group, extents: _Extents, named: dict[str, nn.Parameter], tolerance: float, *, padded: bool
) -> Tensor:
    """Which units tell no reader anything, ``(units,)``."""
    layers: dict[tuple[str, int], list[Site]] = {}
    for site in group.sites:
        layers.setdefault((site.weight or site.call, site.dim), []).append(site)
    found = torch.ones(group.size, dtype=torch.bool)
    for sites in layers.values():
        varying = extents.varying(sites, tolerance, padded=padded)
        units = sites[0].index.broadcast_to(varying.shape)[varying]
        constant = torch.ones(group.size, dtype=torch.bool).index_fill(0, units[units >= 0], value=False)
        found &= constant | _unread(group, sites[0], named)
    return found


def _unread(group: Group, site: Site, named: dict[str, nn.Parameter]) -> Tensor:
    """Which units a site multiplies by zeros alone."""
    silent = torch.zeros(group.size, dtype=torch.bool)
    for piece in group.slices:
        if (piece.tensor, piece.dim) == (site.weight, site.dim) and site.weight in named:
            used = (named[site.weight].detach().movedim(site.dim, 0).flatten(1) != 0).any(1).cpu()
            silent = ~used[piece.index].any(1)
    return silent


class _Extents:
    """The smallest and the largest value of everything that is read, over examples and places."""

    def __init__(self) -> None:
        self._low: dict[tuple[str, int], Tensor] = {}
        self._high: dict[tuple[str, int], Tensor] = {}
        self.bordered: dict[str, bool] = {}

    def __call__(self, place: tuple[str, int], gate: Gate, read: Tensor) -> Tensor:
        axes = [0, *(1 + axis for axis, size in enumerate(gate.index.shape) if size == 1)]
        low, high = (
            value[0].cpu() for value in (read.amin(axes, keepdim=True), read.amax(axes, keepdim=True))
        )
        self._low[place] = low.minimum(self._low.get(place, low))
        self._high[place] = high.maximum(self._high.get(place, high))
        return read

    def varying(self, sites: list[Site], tolerance: float, *, padded: bool) -> Tensor:
        """Of what the calls of one layer read, what is not one constant that could go into its bias."""
        missed = [site.call for site in sites if (site.call, site.arg) not in self._low]
        if missed:
            raise PlanError(
                f"the model does not call {missed[0]} on these data; trace it with inputs like them."
            )
        lows, highs = ([known[site.call, site.arg] for site in sites] for known in (self._low, self._high))
        if len({low.shape for low in lows}) > 1:
            return torch.ones_like(lows[0], dtype=torch.bool)
        low, high = torch.stack(lows).amin(0), torch.stack(highs).amax(0)
        size = low.abs().maximum(high.abs())
        allowed = (False, True) if padded else (False,)
        if all(site.weight and self.bordered.get(site.call) in allowed for site in sites):
            return ~(high - low <= tolerance * size)
        return ~(size == 0)  # what is no number varies


class _Watcher(Reader):
    def __init__(self, model: nn.Module, gates: Gates, extents: _Extents) -> None:
        super().__init__(model, gates, extents)
        self._extents = extents

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = reading(key, args, kwargs) if key in self._gates.at else None
        if layer is not None and key not in self._extents.bordered:
            # Where a place reads something else of ones, a constant does not come as one: at padded borders.
            rows = layer.rows(torch.ones_like(layer.input[:1]))
            self._extents.bordered[key] = not bool((rows == 1).all())
        return super().call(key, func, args, kwargs)

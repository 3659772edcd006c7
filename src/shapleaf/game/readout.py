"""A call that reads the units, as the sum of what each unit contributes to it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from .._calls import CONVOLUTIONS, Call, function_of
from ..errors import CriterionError
from ..masking import Gate
from .game import precise
from .moments import contraction

CHUNK = 2**23
"""Bytes of contributions that are held at a time."""


def refusal(name: str, key: str, why: str) -> CriterionError:
    """The error where moments cannot be propagated: which call, why, and what to use."""
    return CriterionError(
        f"moments cannot be propagated from the units of group {name} through {function_of(key)!r} (call "
        f"{key}): {why}. Use Path() or Permutation(), which run the network as it is."
    )


class Readout:
    """One reading call ``y = base + sum_j B_j c_j`` of the presences ``B_j`` of the units.

    ``c_j`` is what the call makes of unit j's elements alone, without a bias: all of them at once, as they
    come and go together, so that squares are taken after summing within a unit. Where there is a fill,
    the elements count from it. Only sums over units are kept; contributions themselves are computed in
    chunks of units and examples.

    Args:
        call: the call.
        gates: its gates by argument.
        fill: what absent units leave behind in what it reads.
        examples: number of examples; of a batch that holds them several times over, the first ones are read.
        players: number of units.

    Raises:
        CriterionError: the call is neither linear nor a convolution, or reads the units along another
            axis than the one that it contracts.
    """

    def __init__(
        self, call: Call, gates: dict[int, Gate], fill: Tensor | None, examples: int, players: int
    ) -> None:
        gate = next(iter(gates.values()))
        self.key, self.name, self.players = call.key, gate.groups[0], players
        kind = function_of(call.key)
        self._linear = kind == "linear"
        if not self._linear and kind not in CONVOLUTIONS:
            raise refusal(self.name, call.key, "it reads the units and is neither linear nor a convolution")
        read, self._weight, _, self._more, self._rest = contraction(call.args, call.kwargs)
        self._func, self._weight = call.func, self._weight.detach()
        self._reads = 0 if "transpose" in kind else 1  # the axis of the weight
        if [*gates] != [0] or len(gate.groups) > 1 or read.ndim < 2 or len(read) % examples:
            raise refusal(self.name, call.key, "the units are not in its first argument")
        self._axis = read.ndim - 1 if self._linear else 1
        shape = (*[1] * (read.ndim - gate.index.ndim), *gate.index.shape)
        if not gate.index.numel() == shape[self._axis] == read.shape[self._axis]:
            raise refusal(self.name, call.key, "the units do not lie along the axis that it contracts")
        self._view = [-1 if d == self._axis else 1 for d in range(read.ndim)]
        self._columns = gate.columns(read.device)
        owned = self._columns < players
        read = read.detach()[:examples]
        present = read if fill is None else read - fill.to(read)
        self._elements = present * owned.view(self._view)
        # Units with fewer elements than others are filled up by one that is zero, after the last.
        counts = torch.bincount(self._columns[owned], minlength=players)
        self._table = counts.new_full((players, max(1, int(counts.max()))), len(self._columns))
        slots = torch.arange(self._table.shape[1], device=read.device) < counts[:, None]
        self._table[slots] = self._columns.argsort(stable=True)[: len(self._columns[owned])]
        self._whole = not self._linear and self._groups > 1
        single = self._table.shape[1] == 1 and all(size == 1 for size in self._weight.shape[2:])
        self._alone = single and not self._whole

    @property
    def _groups(self) -> int:
        return int(self._rest.get("groups", self._more[3] if len(self._more) > 3 else 1))

    @cached_property
    def exact(self) -> Readout:
        """The same in double precision: differences of products must stay a covariance."""
        twin = copy.copy(self)
        for name in ("total", "squares", "products"):
            vars(twin).pop(name, None)
        twin._elements, twin._weight = precise(self._elements), precise(self._weight)
        return twin

    def contribution(self, factor: Tensor) -> Tensor:
        """What the call makes of the units' elements times a factor ``(rows, units)``, without a bias.

        Rows are the examples, as many times over as there are rows.
        """
        times = len(factor) // len(self._elements)
        read = self._elements.repeat(times, *[1] * (self._elements.ndim - 1))
        return self._run(read * self._spread(factor))

    @cached_property
    def total(self) -> Tensor:
        """Sum of all contributions, in the shape of the call's output."""
        return self._run(self._elements)

    @cached_property
    def squares(self) -> Tensor:
        """Sum over units of squared contributions, in the shape of the call's output."""
        if self._alone:
            return self._run(self._elements.square(), square=True)
        found = torch.zeros_like(self.total).flatten(1)
        for rows, _, part in self._chunks():
            found[rows] += part.square().sum(1)
        return found.view_as(self.total)

    @cached_property
    def products(self) -> Tensor:
        """Sum over units of products of contributions to two outputs, ``(examples, outputs, outputs)``."""
        outputs = self.total.shape[1]
        found = self.total.new_zeros(len(self.total), outputs, outputs)
        for rows, _, part in self._chunks():
            found[rows] += part.transpose(1, 2) @ part
        return found

    def against_squares(self, slope: Tensor) -> Tensor:
        """Inner product of every unit's squared contributions with a slope: ``(examples, units)``."""
        if self._alone:
            with torch.enable_grad():
                factor = slope.new_ones(len(slope), self.players, requires_grad=True)
                out = self._run(self._elements.square() * self._spread(factor), square=True)
                (found,) = torch.autograd.grad(out, factor, slope)
            return found
        found, flat = slope.new_zeros(len(slope), self.players), slope.flatten(1)
        for rows, units, part in self._chunks():
            found[rows, units] = torch.einsum("euo,eo->eu", part.square(), flat[rows])
        return found

    def against_products(self, slope: Tensor) -> Tensor:
        """The same of products of contributions, with a slope ``(examples, outputs, outputs)``."""
        found = slope.new_zeros(len(slope), self.players)
        for rows, units, part in self._chunks():
            found[rows, units] = ((part @ slope[rows]) * part).sum(2)
        return found

    def _run(self, read: Tensor, *, square: bool = False) -> Tensor:
        weight = self._weight
        out: Tensor = self._func(read, weight.square() if square else weight, None, *self._more, **self._rest)
        return out

    def _spread(self, factor: Tensor) -> Tensor:
        """A factor of the units as one of the elements."""
        padded = torch.cat([factor, factor.new_zeros(len(factor), 1)], 1)
        columns = self._columns.clamp(max=self.players)
        return padded.index_select(1, columns).view(len(factor), *self._view[1:])

    def _chunks(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Examples, units and their contributions ``(examples, units, outputs)``."""
        each = self.total[0].numel() * self.total.element_size()
        units = max(1, min(self.players, CHUNK // each))
        rows = max(1, min(len(self.total), CHUNK // (each * units)))
        zero = torch.zeros_like(self._elements.narrow(self._axis, 0, 1))
        read = torch.cat([self._elements, zero], self._axis)
        for first in range(0, len(self.total), rows):
            some = slice(first, min(first + rows, len(self.total)))
            for start in range(0, self.players, units):
                those = slice(start, min(start + units, self.players))
                yield some, those, self._of(read[some], those)

    def _of(self, read: Tensor, units: slice) -> Tensor:
        """Contributions of some units; ``read`` has a zero at the end of its axis."""
        table = self._table[units]
        with torch.no_grad():
            if self._whole:
                one_by_one = torch.eye(self.players, device=read.device, dtype=read.dtype)[units]
                every = read.narrow(self._axis, 0, len(self._columns))
                return torch.stack(
                    [self._run(every * self._spread(u[None])).flatten(1) for u in one_by_one], 1
                )
            zero = torch.zeros_like(self._weight.narrow(self._reads, 0, 1))
            weight = torch.cat([self._weight, zero], self._reads)
            if self._linear:
                own = read.index_select(-1, table.flatten()).reshape(len(read), -1, *table.shape)
                by = weight.index_select(1, table.flatten()).unflatten(1, table.shape)
                return torch.einsum("etup,oup->euto", own, by).flatten(2)
            pairs = ((read.index_select(1, own), weight.index_select(self._reads, own)) for own in table)
            parts = [self._func(x, w, None, *self._more, **self._rest).flatten(1) for x, w in pairs]
            return torch.stack(parts, 1)

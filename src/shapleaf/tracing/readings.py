"""Who reads which units where: the sites of a graph, before the groups are known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .labels import Fields, Labeling
from .opcall import Consumed


@dataclass(slots=True)
class Reading:
    """One consumer reading one argument."""

    call: str
    arg: int
    labels: Tensor
    reader: Tensor | None
    source: int
    shape: torch.Size
    squares: bool


@dataclass(slots=True)
class Call:
    """One function call as readings see it.

    Attributes:
        key: its name.
        leaves: for each tensor among its arguments itself, the fields that it had, and its number.
        origin: which of these arguments a tensor inside the call is made of.
        record: whether this run may add sites; one in train mode only checks those that are there.
    """

    key: str
    leaves: Sequence[tuple[Tensor, Fields, int]]
    origin: WeakTensorKeyDictionary
    record: bool


@dataclass(slots=True)
class Readings:
    """All readings of all runs; where units cannot be masked, they must stay."""

    flow: Labeling
    at: dict[str, list[Reading]] = field(default_factory=lambda: defaultdict(list))

    def __iter__(self) -> Any:
        return (reading for mine in self.at.values() for reading in mine)

    def add(self, call: Call, read: Sequence[Consumed]) -> None:
        """What was read inside one call."""
        earlier = list(self.at.get(call.key, ()))
        places: dict[int, list[Tensor]] = {}
        for consumed in read:
            self._add(call, consumed, earlier, places)

    def _add(
        self, call: Call, consumed: Consumed, earlier: list[Reading], places: dict[int, list[Tensor]]
    ) -> None:
        """A site, if masking the argument that the operand was taken from is to mask the operand."""
        labels = consumed.labels[consumed.labels > 0]
        position = call.origin.get(consumed.operand)
        if position is None:
            self.flow.freeze(labels, f"read inside {call.key}, where units cannot be masked")
            return
        leaf, fields, source = call.leaves[position]
        mine = self._mine(consumed, fields, labels)
        if mine is None:
            self.flow.freeze(labels, f"{call.key} reads units that lie along two axes, or only inside of it")
            return
        place = torch.where(torch.isin(mine, labels), mine, 0)
        known = places.setdefault(position, [])
        before = [reading for reading in earlier if reading.arg == position]
        if mine.shape[0] > 1 or _elsewhere(before, leaf, call):
            why = f"what {call.key} reads does not have the examples along its first axis"
            self.flow.freeze(labels, why)
        elif any(bool(((place != other) & (place * other > 0)).any()) for other in known):
            self.flow.freeze(labels, f"{call.key} reads two kinds of units at once")
        elif not any(torch.equal(place, other) for other in known):
            known.append(place)
            if call.record and not earlier:
                squares = consumed.squares and consumed.operand is leaf  # the call itself may take them
                self.at[call.key].append(
                    Reading(call.key, position, place, consumed.reader, source, leaf.shape, squares)
                )
            elif call.record:
                self._again(call, place, before)

    def _again(self, call: Call, place: Tensor, before: Sequence[Reading]) -> None:
        """On another way through the code, or in another step, the same places hold the same units."""
        for reading in before:
            if reading.labels.shape == place.shape and torch.equal(reading.labels > 0, place > 0):
                self.flow.unite(place, reading.labels)
                return
        for labels in (place, *(reading.labels for reading in before)):
            self.flow.freeze(labels, f"{call.key} does not always read the same units")

    def _mine(self, consumed: Consumed, fields: Fields, labels: Tensor) -> Tensor | None:
        """Which field of the argument the operand's is; movement keeps their order."""
        moved = [field is consumed.labels for field in self.flow.of(consumed.operand)]
        found = [i for i, mine in enumerate(fields) if bool(torch.isin(labels, mine).any())]
        if len(found) > 1 and len(moved) == len(fields):
            found = [i for i in found if moved[i]]
        return fields[found[0]] if len(found) == 1 else None


def _elsewhere(before: Sequence[Reading], leaf: Tensor, call: Call) -> bool:
    """Whether, now that there are twice as many examples, another axis than the first has grown."""
    shapes = [r.shape for r in before if not call.record and len(r.shape) == leaf.ndim]
    return any(shape != leaf.shape and shape[0] == len(leaf) for shape in shapes)

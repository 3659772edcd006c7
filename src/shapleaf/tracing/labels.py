"""Identity labels: who is who along every axis, and which labels live and die together.

Every axis of every parameter gets fresh integers, one per index. A tensor of the run carries
*fields*: integer tensors of its own rank, of length 1 along the axes that they do not vary
along. Label 0 means "must stay": an axis on which no field varies is an axis of zeros.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .._rng import stream

Fields = list[Tensor]


def varies(labels: Tensor, axis: int) -> bool:
    """Whether a field carries identity along an axis."""
    return labels.shape[axis] > 1


def axes_of(labels: Tensor) -> tuple[int, ...]:
    """The axes along which a field varies."""
    return tuple(axis for axis in range(labels.ndim) if varies(labels, axis))


def narrow(labels: Tensor) -> Tensor:
    """The same field with length 1 along every axis on which it is constant."""
    for axis, size in enumerate(labels.shape):
        if size > 1:
            first = labels.narrow(axis, 0, 1)
            if labels.stride(axis) == 0 or bool((labels == first).all()):
                labels = first
    return labels


def components(count: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The smallest member of each element's connected component.

    >>> components(5, np.array([1, 3]), np.array([2, 4])).tolist()
    [0, 1, 1, 3, 3]
    """
    root = np.arange(count)
    while True:
        a, b = root[left], root[right]
        if np.array_equal(a, b):
            return root
        low = np.minimum(a, b)
        np.minimum.at(root, a, low)
        np.minimum.at(root, b, low)
        while True:
            jumped = root[root]
            if np.array_equal(jumped, root):
                break
            root = jumped


@dataclass(frozen=True, slots=True)
class Owner:
    """The axis of a parameter or buffer whose labels start at ``start``; without a name, of no tensor's."""

    tensor: str
    dim: int
    start: int
    size: int


@dataclass(slots=True)
class Labeling:
    """All labels of one trace, and everything the ops said about them.

    ``active`` holds the tensors that depend on the inputs, and whether on parameters as well;
    ``statistics`` those that are a statistic over units, with what to :meth:`blur` should they be used;
    ``places`` those whose values number units, and the labels of these; ``squares`` those that are squares.
    """

    owners: list[Owner] = field(default_factory=list)
    count: int = 1
    pairs: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    frozen: list[tuple[np.ndarray, str]] = field(default_factory=list)
    inexact: list[tuple[np.ndarray, str]] = field(default_factory=list)
    splits: list[tuple[np.ndarray, ...]] = field(default_factory=list)
    parts: list[tuple[np.ndarray, np.ndarray, str]] = field(default_factory=list)
    grids: dict[object, tuple[np.ndarray, tuple[int, ...]]] = field(default_factory=dict)
    fields: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)
    places: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)
    active: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)
    statistics: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)
    squares: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)
    _known: tuple[np.ndarray, int, int] = field(default_factory=lambda: (np.zeros(0, int), 0, 0))

    @property
    def owned(self) -> list[Owner]:
        """The axes of parameters and buffers."""
        return [owner for owner in self.owners if owner.tensor]

    def own(self, name: str, tensor: Tensor) -> None:
        """Give a parameter or buffer fresh labels along each axis that has more than one index."""
        mine = []
        for dim, size in enumerate(tensor.shape):
            if size > 1:
                self.owners.append(Owner(name, dim, self.count, size))
                shape = [1] * tensor.ndim
                shape[dim] = size
                mine.append(torch.arange(self.count, self.count + size).view(shape))
                self.count += size
        self.fields[tensor] = mine

    def fresh(self, size: int) -> Tensor:
        """Labels of an axis that code made as long as it pleased: nobody's, until they meet some unit's."""
        self.owners.append(Owner("", 0, self.count, size))
        self.count += size
        return torch.arange(self.count - size, self.count)

    def of(self, tensor: Tensor) -> Fields:
        """The fields of a tensor; none for one that no parameter reached."""
        found: Fields = self.fields.get(tensor, [])
        return found

    def unite(self, a: Tensor, b: Tensor) -> None:
        """These labels live and die together, element by element after broadcasting."""
        a, b = torch.broadcast_tensors(a, b)
        left, right = a.reshape(-1).numpy(), b.reshape(-1).numpy()
        differ = left != right
        if differ.any():
            self.pairs.append((left[differ].copy(), right[differ].copy()))

    def freeze(self, labels: Tensor, reason: str) -> None:
        """These labels must stay, for the reason given."""
        self.frozen.append((np.unique(labels.numpy()), reason))

    def blur(self, labels: Tensor, reason: str, axes: Iterable[int] | None = None) -> None:
        """A statistic along these axes, or all: if units lie there, masking and slicing differ."""
        along = [axis for axis in (range(labels.ndim) if axes is None else axes) if varies(labels, axis)]
        places = math.prod(labels.shape[axis] for axis in along)
        table = labels.movedim(along, [*range(len(along))]).reshape(places, -1)
        self.inexact.append((table.numpy(), reason))

    def use(self, tensor: Tensor) -> None:
        """Something reads a tensor: a statistic over units that nobody reads says nothing about them."""
        for statistic in self.statistics.pop(tensor, ()):
            self.blur(*statistic)

    def grid(self, labels: Tensor, pinned: Sequence[int] = ()) -> None:
        """A labelled axis that code split into several: whatever goes, they must stay a grid.

        ``pinned`` axes keep their length.
        """
        axes = axes_of(labels)
        array = labels.squeeze().numpy()
        key = array.shape, array.tobytes()
        known = self.grids.get(key, (array, ()))[1]
        self.grids[key] = array, (*known, *(axes.index(axis) for axis in pinned if axis in axes))

    def close(self, labels: Tensor, *axes: int) -> Tensor:
        """Unite the labels along axes of a view: what is left varies along the other axes only."""
        for axis in axes:
            first = labels.narrow(axis, 0, 1)
            self.unite(labels, first)
            labels = first
        return labels

    def pin(self, labels: Tensor, axes: Iterable[int], reason: str) -> Fields:
        """What is left of a field where these axes must keep all their places.

        In a view, units that are whole along them: a head with all its dimensions. Else nothing may go.
        """
        crossed = [axis for axis in axes if varies(labels, axis)]
        if crossed and len(crossed) == len(axes_of(labels)):
            self.freeze(labels, reason)
            return []
        return [self.close(labels, *crossed)]

    def agree(self, mine: Fields, theirs: Fields, reason: str) -> list[tuple[Tensor, Tensor]]:
        """Unite the fields of two operands that lie along one axis each; the pairs that were united.

        A merged axis may carry several identities, such as heads and their dimensions: they are paired
        where they part the places in the same way. Otherwise only the first of each may go.
        """
        pairs = [(a, b) for a in mine for b in theirs if len(mine) == len(theirs) == 1 or _alike(a, b)]
        if not len(mine) == len(theirs) == len(pairs):
            for labels in [*mine[1:], *theirs[1:]]:
                self.freeze(labels, reason)
            pairs = [(mine[0], theirs[0])]
        for a, b in pairs:
            self.unite(a.reshape(-1), b.reshape(-1))
        return pairs

    def meet(
        self, operands: Sequence[tuple[Fields, Sequence[int]]], shape: Sequence[int], reason: str
    ) -> Fields:
        """Fields of an elementwise result: labels at the same place become one.

        An operand that has full length along an axis but no identity there keeps that axis as long as it is.
        """
        rank = len(shape)
        aligned = [
            (
                [f.view([1] * (rank - f.ndim) + list(f.shape)) for f in fields],
                [1] * (rank - len(size)) + [*size],
            )
            for fields, size in operands
        ]
        blank = [
            axis
            for axis in range(rank)
            if shape[axis] > 1
            and any(size[axis] > 1 and not any(varies(f, axis) for f in fields) for fields, size in aligned)
        ]
        result: Fields = []
        for fields, _ in aligned:
            known = list(result)
            pinned = [left for labels in fields for left in self.pin(labels, blank, reason)]
            for mine in self._several(pinned, known, reason):
                axes = set(axes_of(mine))
                meets = [other for other in known if axes & set(axes_of(other))]
                for other in meets:
                    self._meet(mine, other, reason)
                if not any(axes <= set(axes_of(other)) for other in meets):
                    # What varies along more axes says all that the others said.
                    said = [f for f in meets if set(axes_of(f)) <= axes]
                    result = [f for f in result if not any(f is other for other in said)]
                    result.append(mine)
        return result

    def _meet(self, a: Tensor, b: Tensor, reason: str) -> None:
        """Unite two fields; of a view and a field along a part of its axes that is left to :meth:`solve`."""
        large, small = (a, b) if len(axes_of(a)) >= len(axes_of(b)) else (b, a)
        if 0 < len(axes_of(small)) < len(axes_of(large)) and set(axes_of(small)) < set(axes_of(large)):
            self.parts.append((large.numpy(), small.numpy(), reason))
        else:
            self.unite(a, b)

    def _several(self, fields: Fields, known: Fields, reason: str) -> Fields:
        """The fields left to meet, after those along axes of which one side tells several identities."""
        for axes in {axes_of(f) for f in fields if len(axes_of(f)) == 1}:
            mine, theirs = ([f for f in side if axes_of(f) == axes] for side in (fields, known))
            if theirs and len(mine) + len(theirs) > 2:
                self.agree(mine, theirs, reason)
                fields = [f for f in fields if axes_of(f) != axes]
        return fields

    def solve(self) -> np.ndarray:
        """The representative of every label; 0 for the labels that must stay.

        Repeats until every axis that code splits into equal parts or into a grid still can be split
        so, whatever is removed. Where a view meets a field along some of its axes, as heads with their
        dimensions meet a weight per dimension: if its units turn out whole along these axes, the field
        stays as it is; else the two become one.
        """
        while True:
            root = self._components()
            if self.parts:  # before an axis of a grid is chosen to shrink
                self.pairs.extend(self._decide(root))
                continue
            extra = [pair for array, pinned in self.grids.values() for pair in _square(root, array, pinned)]
            if not extra:  # only in settled grids it shows which parts stay equal by themselves
                uneven = [parts for parts in self.splits if not _even(root, parts)]
                ties = tied(root, self.signatures(root), uneven)
                extra = [
                    (np.concatenate(parts[1:]), np.tile(parts[0], len(parts) - 1))
                    for parts, kinds in zip(uneven, ties, strict=True)
                    if not kinds
                ]
            if not extra:
                return root
            self.pairs.extend(extra)

    def _decide(self, root: np.ndarray) -> list[Pairs]:
        """Settle meetings of views with parts of them: all those whose units are whole, else the first."""
        whole = [part for part in self.parts if _constant(root[part[0]], part[1])]
        for _, small, reason in whole:
            self.frozen.append((np.unique(small), reason))
        if whole:
            self.parts = [part for part in self.parts if not any(part is other for other in whole)]
            return []
        large, small, _ = self.parts.pop(0)
        return [(large.ravel(), np.broadcast_to(small, large.shape).ravel())]

    def signatures(self, root: np.ndarray) -> np.ndarray:
        """For every class a number that is equal for classes on the same multiset of axes."""
        weights = stream(0, "signature").integers(1, 2**63, size=len(self.owners), dtype=np.uint64)
        kinds = np.zeros(self.count, np.uint64)
        np.add.at(kinds, root[1:], np.repeat(weights, [owner.size for owner in self.owners]))
        return kinds

    def _components(self) -> np.ndarray:
        """The representatives as of now; what was said before is not gone through again."""
        root, pairs, frozen = (
            self._known if len(self._known[0]) == self.count else (np.arange(self.count), 0, 0)
        )
        zero = [(labels, np.zeros_like(labels)) for labels, _ in self.frozen[frozen:]]
        left, right = _columns([*self.pairs[pairs:], *zero])
        root = components(self.count, root[left], root[right])[root]
        self._known = root, len(self.pairs), len(self.frozen)
        return root


Pairs = tuple[np.ndarray, np.ndarray]


def _constant(classes: np.ndarray, along: np.ndarray) -> bool:
    """Whether classes do not vary along the axes that another array varies along."""
    axes = [axis for axis, size in enumerate(along.shape) if size > 1]
    return all((classes == classes.take([0], axis)).all() for axis in axes)


def _columns(pairs: Sequence[Pairs]) -> Pairs:
    if not pairs:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    left, right = zip(*pairs, strict=True)
    return np.concatenate(left), np.concatenate(right)


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether two fields along one axis each tell the same places apart."""
    both = torch.stack([a.reshape(-1), b.reshape(-1)], 1).unique(dim=0)
    return len(both) == len(a.unique()) == len(b.unique())


def _square(root: np.ndarray, grid: np.ndarray, pinned: tuple[int, ...]) -> list[Pairs]:
    """What must still be united for a grid to stay one: it may shrink along one axis, not a pinned one.

    Where several could, the last: the code that splits an axis names the lengths before it.
    """
    classes = root[grid]
    loose = [axis for axis in range(grid.ndim) if (classes != classes.take([0], axis)).any()]
    free = [axis for axis in loose if axis not in pinned]
    if len(loose) <= 1 and free == loose:
        return []
    spare = free[-1] if free else None
    return [
        (grid.ravel(), np.broadcast_to(grid.take([0], axis), grid.shape).ravel())
        for axis in loose
        if axis != spare
    ]


def _even(root: np.ndarray, parts: tuple[np.ndarray, ...]) -> bool:
    """Whether every unit has as many labels in each part, so that the parts stay equal by themselves."""
    counts = [np.unique(root[part], return_counts=True) for part in parts]
    return all(np.array_equal(a, b) for c in counts for a, b in zip(c, counts[0], strict=True))


def tied(
    root: np.ndarray, kinds: np.ndarray, splits: Sequence[tuple[np.ndarray, ...]]
) -> list[tuple[int, ...] | None]:
    """For each split the signature of each part's units, where each is one whole group; else None.

    Such parts stay equal as long as the groups keep equal numbers of units: a tie.
    """
    members = dict(zip(*np.unique(kinds[np.unique(root)], return_counts=True), strict=True)) if splits else {}
    return [_tie(root, kinds, parts, members) for parts in splits]


def _tie(
    root: np.ndarray, kinds: np.ndarray, parts: tuple[np.ndarray, ...], members: dict[int, int]
) -> tuple[int, ...] | None:
    found: list[int] = []
    shapes = set()
    for part in parts:
        classes, counts = np.unique(root[part], return_counts=True)
        free = classes > 0
        mine = np.unique(kinds[classes[free]])
        if len(mine) != 1 or members[mine[0]] != free.sum() or len(set(counts[free])) != 1:
            return None
        shapes.add((int(free.sum()), int(counts[free][0]), len(part)))
        found.append(int(mine[0]))
    return tuple(found) if len(shapes) == 1 and len(set(found)) == len(found) else None


def reasons(labeling: Labeling, root: np.ndarray) -> dict[int, str]:
    """For every label that must stay, the first reason given for anything it is coupled with."""
    free = components(labeling.count, *_columns(labeling.pairs))
    by_class: dict[int, str] = {}
    for labels, reason in labeling.frozen:
        for representative in np.unique(free[labels]):
            by_class.setdefault(int(representative), reason)
    still = np.flatnonzero(root == 0)
    return {int(label): by_class.get(int(free[label]), "") for label in still[still > 0]}

"""Solved labels: which classes of labels are units, and which units form a group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from .labels import Labeling, Owner
from .sizes import Use

Length = tuple[Fraction, dict[int, Fraction]]
"""An axis as a function of the plan: what is fixed, and for each group how much each unit adds."""


@dataclass(slots=True)
class Units:
    """The solved labels: for each one its group and its unit, -1 where it must stay.

    ``axes`` holds for every group the axes that carry it, with each unit's positions, (units, positions).
    """

    flow: Labeling
    root: np.ndarray
    group: np.ndarray
    unit: np.ndarray
    kinds: np.ndarray
    members: list[np.ndarray]
    starts: np.ndarray
    axes: list[list[tuple[Owner, np.ndarray]]]

    def owner(self, labels: Tensor | None) -> Owner | None:
        """The axis of a parameter that labels are taken from."""
        label = 0 if labels is None else int(labels.max())
        return self.flow.owners[int(np.searchsorted(self.starts, label, side="right")) - 1] if label else None

    def groups_of(self, labels: np.ndarray) -> list[int]:
        """The numbers of the groups that some labels belong to."""
        found = np.unique(self.group[labels])
        return [int(number) for number in found if number >= 0]

    def length(self, labels: Tensor | None, size: int) -> Length:
        """How long an axis is under a plan, given the labels at each place, (places, labels)."""
        if labels is None or self._constant(labels):
            return Fraction(size), {}
        flat = labels[:, 0].numpy()
        group = self.group[flat]
        terms = {
            int(g): Fraction(int((group == g).sum()), len(self.members[g]))
            for g in np.unique(group)
            if g >= 0
        }
        return Fraction(int((group < 0).sum())), terms

    def even(self, labels: Tensor) -> bool:
        """Whether an axis carries every unit of its groups equally often, so that numbers say its length."""
        if self._constant(labels):
            return True
        flat = labels[:, 0].numpy()
        counts = (
            np.bincount(self.unit[flat][self.group[flat] == number], minlength=len(self.members[number]))
            for number in self.groups_of(flat)
        )
        return all((count == count[0]).all() for count in counts)

    def free(self, labels: Tensor) -> Tensor:
        """Those of some labels that belong to a group."""
        return labels[torch.from_numpy(self.group[labels.numpy()] >= 0)]

    def _constant(self, labels: Tensor) -> bool:
        """Whether an axis of a view stays as it is: all its places hold the same units."""
        return bool((self.root[labels.numpy()] == self.root[labels[:1].numpy()]).all())


def solve(flow: Labeling, read: Sequence[Tensor], uses: Sequence[Use]) -> tuple[Units, list[tuple[int, int]]]:
    """Units and groups, and pairs of groups that must keep equal shares of their units.

    Repeats until every size that the code holds can follow: one size that is the length of two
    axes ties them where each is the length of one group, and holds both where it is not.
    """
    root = flow.solve()
    seen = np.zeros(flow.count, bool)
    for labels in read:
        seen[root[labels.reshape(-1).numpy()]] = True
    unseen = np.flatnonzero(~seen[root])
    if unseen.any():
        flow.freeze(torch.from_numpy(unseen), "nothing reads it in eval mode")
    for owner in flow.owned:
        mine = root[owner.start : owner.start + owner.size]
        if mine[0] and (mine == mine[0]).all():
            whole = torch.arange(owner.start, owner.start + owner.size)
            flow.freeze(whole, f"all of {owner.tensor}[{owner.dim}] is one unit")
    while True:
        units = _grouped(flow)
        ties, conflict = _settle(units, uses)
        if conflict is None:
            return units, ties
        flow.freeze(*conflict)


def _settle(units: Units, uses: Sequence[Use]) -> tuple[list[tuple[int, int]], tuple[Tensor, str] | None]:
    """Ties that make sizes agree, or the labels that must stay because nothing else would."""
    ties: list[tuple[int, int]] = []
    known: dict[object, tuple[Use, Length]] = {}
    for use in uses:
        fixed, terms = units.length(use.labels, use.length)
        mine = _over((fixed, terms), use.factor)
        counted = use.part or not isinstance(use.origin, Tensor)
        what = "a length of a tensor" if isinstance(use.origin, Tensor) else str(use.origin)
        if counted and use.labels is not None and not units.even(use.labels):
            return ties, (units.free(use.labels), f"{what} counts some of these units only ({use.place})")
        if isinstance(use.origin, Tensor):
            first, wanted = use, units.length(use.origin, len(use.origin))
        else:
            first, wanted = known.setdefault(use.origin, (use, mine))
        if mine == wanted:
            continue
        pair = _tie(units, mine, wanted)
        if pair:
            ties.append(pair)
            continue
        sides = [x for x in (use.labels, first.labels, use.origin) if isinstance(x, Tensor)]
        if not sides:
            continue
        free = torch.cat([units.free(labels) for labels in sides])
        if not len(free):
            continue
        return ties, (free, f"{what} is the size of another axis too ({use.place})")
    return ties, None


def _over(length: Length, factor: Fraction) -> Length:
    return length[0] / factor, {group: per_unit / factor for group, per_unit in length[1].items()}


def _tie(units: Units, a: Length, b: Length) -> tuple[int, int] | None:
    """Two lengths that are each one group's alone are equal if the groups keep equal shares."""
    if a[0] != b[0] or len(a[1]) != 1 or len(b[1]) != 1:
        return None
    ((one, each),), ((other, as_much),) = a[1].items(), b[1].items()
    equal = each * len(units.members[one]) == as_much * len(units.members[other])
    return (one, other) if equal else None


def _grouped(flow: Labeling) -> Units:
    root = flow.solve()
    kinds = flow.signatures(root)
    group, unit = np.full(flow.count, -1), np.full(flow.count, -1)
    members: dict[int, list[int]] = defaultdict(list)
    for representative in np.unique(root[1:]):
        if representative > 0:
            members[int(kinds[representative])].append(int(representative))
    ordered = sorted(members.values(), key=lambda reps: reps[0])
    for number, reps in enumerate(ordered):
        index = np.full(flow.count, -1)
        index[reps] = np.arange(len(reps))
        found = index[root]
        unit = np.where(found >= 0, found, unit)
        group[found >= 0] = number
    starts = np.array([owner.start for owner in flow.owners])
    solved = Units(flow, root, group, unit, kinds, [*map(np.array, ordered)], starts, [[] for _ in ordered])
    for owner in flow.owned:
        span = np.arange(owner.start, owner.start + owner.size)
        for number in solved.groups_of(span):
            position = np.flatnonzero(group[span] == number)
            order = np.argsort(unit[span][position], kind="stable")
            solved.axes[number].append((owner, position[order].reshape(len(ordered[number]), -1)))
    return solved

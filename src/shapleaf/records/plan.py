"""Plan: which units stay, and what the model then costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import torch

from .._context import number
from ..errors import PlanError
from ._base import Part, Record
from .graph import Axis, Graph


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cost(Part):
    """Units, parameters (elements) and MACs (multiply-accumulates for one example)."""

    units: int
    params: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan(Record):
    """The units that stay, sorted, for every group of a graph.

    Attributes:
        graph: the graph that is planned.
        keep: group name to the indices of the units kept; every group of the graph is named.
        before, after: the cost of the model as it is and as planned.
        made_by: budget, strategy and criterion.

    Raises:
        PlanError: an unknown group, or units that are missing, repeated or out of range.

    >>> import shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> plan = sl.plan(sl.trace(model, torch.zeros(1, 3)), {"0": (0, 3)})
    >>> plan.pruned, plan.mask("0").tolist()
    (('0',), [True, False, False, True])
    """

    graph: Graph
    keep: dict[str, tuple[int, ...]]
    before: Cost
    after: Cost
    made_by: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", dict(self.keep))
        names = [group.name for group in self.graph]
        for name in self.keep:
            if name not in names:
                raise PlanError(f"no group is named {name!r}; the groups are: {', '.join(names)}.")
        for group in self.graph:
            kept = integers(self.keep.get(group.name, range(group.size)))
            if not kept or list(kept) != sorted(set(kept)) or not 0 <= kept[0] <= kept[-1] < group.size:
                raise PlanError(
                    f"group {group.name}: units to keep must be sorted, unique and within "
                    f"0..{group.size - 1}, at least one; received {list(kept)[:12]}."
                )
            self.keep[group.name] = kept
        for tie in self.graph.ties:
            counts = {name: (len(self.keep[name]), self.graph[name].size) for name in tie}
            if len({Fraction(*count) for count in counts.values()}) > 1:
                received = ", ".join(f"{name} {kept} of {size}" for name, (kept, size) in counts.items())
                raise PlanError(f"tied groups must keep equal shares of their units; received {received}.")

    def length(self, axis: Axis) -> int:
        """How long an axis is that some of the units lie along."""
        terms = zip(axis.groups, axis.per_unit, strict=True)
        return axis.fixed + round(sum(each * len(self.keep[group]) for group, each in terms))

    def mask(self, name: str) -> torch.Tensor:
        """A boolean tensor ``(units,)``: True where the unit stays."""
        mask = torch.zeros(self.graph[name].size, dtype=torch.bool)
        return mask.index_fill_(0, torch.tensor(self.keep[name], dtype=torch.int64), True)

    @property
    def pruned(self) -> tuple[str, ...]:
        """Names of the groups that lose units."""
        return tuple(group.name for group in self.graph if len(self.keep[group.name]) < group.size)

    def compose(self, second: Plan) -> Plan:
        """One plan for this plan's model that does what this plan and then ``second`` do.

        Args:
            second: a plan for the model that this plan leaves, traced anew.

        Raises:
            PlanError: ``second`` was made for another model, or removes channels that are units only since a
                convolution or norm has a single group left.

        >>> import torch, shapleaf as sl
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> first = sl.plan(sl.trace(model, torch.zeros(1, 3)), {"0": (1, 3, 5, 7)})
        >>> pruned, receipt = sl.prune(model, first)
        >>> second = sl.plan(sl.trace(pruned, torch.zeros(1, 3)), {"0": (0, 3)})
        >>> first.compose(second).keep
        {'0': (1, 7)}
        """
        keep = dict(self.keep)
        for group in second.graph:
            units = keep.get(group.name, ())
            if len(units) == group.size:
                keep[group.name] = tuple(units[unit] for unit in second.keep[group.name])
            elif 1 not in map(len, self.keep.values()):
                raise PlanError(
                    f"the second plan's group {group.name} has {group.size} units, expected {len(units)}: "
                    "make it for the model that the first plan leaves."
                )
            elif group.name in second.pruned:
                raise PlanError(
                    f"the second plan removes units of group {group.name} that are no units of the first "
                    "plan's: where a convolution or norm has a single group left, traced anew each of its "
                    "channels is one. Carry out one plan after the other."
                )
        after = replace(second.after, units=sum(map(len, keep.values())))
        return replace(self, keep=keep, after=after, made_by={**self.made_by, **second.made_by})

    def table(self) -> dict[str, Any]:
        rows: list[list[object]] = []
        for group in self.graph:
            kept = len(self.keep[group.name])
            rows.append([group.name, group.size, kept, f"{kept / group.size:.0%}"])
        changes = [
            f"{label} {a:,} -> {b:,} ({b / max(a, 1):.1%})"
            for label, a, b in (
                ("units", self.before.units, self.after.units),
                ("params", self.before.params, self.after.params),
                ("MACs", self.before.macs, self.after.macs),
            )
        ]
        made = ", ".join(f"{key}={value}" for key, value in self.made_by.items())
        return {
            "title": "Plan",
            "header": ["group", "units", "kept", "kept %"],
            "rows": rows,
            "footer": "\n".join([", ".join(changes), made]).strip(),
        }


def integers(units: Iterable[Any]) -> tuple[int, ...]:
    """Units to keep as Python's own integers, from numbers of any kind.

    Raises:
        PlanError: they are no integers, as in a mask.

    >>> integers(torch.arange(3))
    (0, 1, 2)
    """
    try:
        found = tuple(number(unit) for unit in units)
    except TypeError as error:
        raise PlanError(f"units to keep must be integers, in a sequence; received {units!r}.") from error
    for unit in found:
        if type(unit) is not int:
            raise PlanError(
                f"units to keep must be integers, received {unit!r}; of a mask pass the places that are True."
            )
    return found

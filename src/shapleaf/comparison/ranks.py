"""Whether two criteria rank the units alike, and whether they would remove the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ..evaluation.pruning_curves import lowest
from ..evaluation.sensitivity_n import spearman
from ..records import RankCorrelation, Scores

Values = Mapping[str, Tensor]
T = TypeVar("T")


def correlation(a: Values, b: Values) -> RankCorrelation:
    """How alike two criteria rank the units of the same groups, ``(units,)`` each.

    >>> one = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([5.0, 6.0, 7.0])}
    >>> two = {"a": torch.tensor([2.0, 1.0]), "b": torch.tensor([5.0, 6.0, 7.0])}
    >>> found = correlation(one, two)
    >>> round(found.within, 3), round(found.overall, 3)  # (-1 * 2 + 1 * 3) / 5
    (0.2, 0.9)
    """
    within = weighted((len(values), spearman(values, b[name])) for name, values in a.items())
    both = (torch.cat([values[name].double() for name in a]) for values in (a, b))
    return RankCorrelation(within=within, overall=spearman(*both))


def correlations(scores: Sequence[Values]) -> tuple[Tensor, Tensor]:
    """Of every two criteria, within groups and over all; ``(criteria, criteria)``, NaN where nothing varies.

    >>> within, overall = correlations([{"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([2.0, 1.0])}])
    >>> within.tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """

    def pair(a: Values, b: Values) -> Tensor:
        found = correlation(a, b)
        ends = (found.within, found.overall)
        return torch.tensor([torch.nan if end is None else end for end in ends], dtype=torch.float64)

    within, overall = _square(scores, pair).unbind(-1)
    return within, overall


def removed(scores: Scores, share: float) -> Tensor:
    """Which units go first: True for a share of all units that were scored, group after group, ``(units,)``.

    Those at the bottom of one list over all groups, as :func:`shapleaf.pruning_curves` removes them.

    >>> import shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    >>> values = {"0": torch.tensor([3.0, 1.0, 2.0, 5.0])}
    >>> removed(sl.Scores(graph=sl.trace(model, torch.zeros(1, 3)), values=values), 0.5).tolist()
    [False, True, True, False]
    """
    plan = lowest(scores, share)
    return torch.cat([~plan.mask(name).bool() for name in scores.values])


def overlap(a: Tensor, b: Tensor) -> float | None:
    """The share of two sets that they have in common; of sets of one size, what is in both beside its size.

    Two random sets of a share *p* have *p* in common. None where both are empty.

    >>> overlap(torch.tensor([True, True, False, False]), torch.tensor([False, True, True, False]))
    0.5
    """
    sizes = int(a.sum() + b.sum())
    return 2 * int((a & b).sum()) / sizes if sizes else None


def overlaps(sets: Sequence[Tensor]) -> Tensor:
    """Of every two criteria's sets; ``(criteria, criteria)``.

    >>> overlaps([torch.tensor([True, False]), torch.tensor([False, True])]).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def pair(a: Tensor, b: Tensor) -> Tensor:
        found = overlap(a, b)
        return torch.tensor(torch.nan if found is None else found, dtype=torch.float64)

    return _square(sets, pair)


def weighted(values: Iterable[tuple[int, float | None]]) -> float | None:
    """The mean of those values that there are, each with its weight; None if there are none.

    >>> weighted([(1, 1.0), (3, 0.0), (5, None)]), weighted([(2, None)])
    (0.25, None)
    """
    known = [(weight, value) for weight, value in values if value is not None]
    total = sum(weight for weight, _ in known)
    return sum(weight * value for weight, value in known) / total if known else None


def _square(items: Sequence[T], pair: Callable[[T, T], Tensor]) -> Tensor:
    """What a symmetric function says of every two items."""
    upper = {(i, j): pair(a, b) for i, a in enumerate(items) for j, b in enumerate(items) if i <= j}
    rows = [[upper[min(i, j), max(i, j)] for j in range(len(items))] for i in range(len(items))]
    return torch.stack([torch.stack(row) for row in rows])

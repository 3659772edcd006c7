"""Whether scores from few examples rank the units as scores from all of them do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _context
from .._progress import progress
from .._rng import stream
from ..data import Batch
from ..records import Stability
from .attributions import Attributed, Case, aggregated, scored
from .ranks import correlation, weighted


def subsets(examples: int, count: int, draws: int, seed: int = 0) -> list[Tensor]:
    """Disjoint sets of so many examples, at most ``draws`` of them, as ascending numbers of the examples.

    They are cut from one order drawn by seed, so that the first small set lies within the first large one.

    >>> first, second = subsets(10, 4, draws=3)
    >>> len(first), len({*first.tolist(), *second.tolist()})
    (4, 8)
    """
    order = torch.from_numpy(stream(seed, "compare", "samples").permutation(examples))
    whole = min(draws, examples // count)
    return [order[k * count : (k + 1) * count].sort().values for k in range(whole)]


def picked(data: Sequence[Batch], index: Tensor) -> list[Batch]:
    """Some of the examples, given by ascending numbers, renumbered from 0; batches stay what they are.

    >>> data = [Batch(torch.arange(3), None, 0), Batch(torch.arange(3, 6), None, 3)]
    >>> [batch.inputs.tolist() for batch in picked(data, torch.tensor([1, 3, 5]))]
    [[1], [3, 5]]
    """
    found: list[Batch] = []
    for batch in data:
        inside = (index >= batch.first) & (index < batch.first + batch.examples)
        if bool(inside.any()):
            seen = sum(one.examples for one in found)
            inputs, target = _context.picked((batch.inputs, batch.target), index[inside] - batch.first)
            found.append(Batch(inputs, target, seen))
    return found


def stabilities(
    case: Case, found: dict[str, Attributed], data: Sequence[Batch]
) -> dict[str, tuple[Stability, ...]]:
    """Of every criterion and number of examples, the mean rank correlation with the scores of all examples.

    Scores per example that stand for themselves are aggregated anew over the examples of a set, which is
    what an attribution on these alone would give: draws are named by the example. All others are attributed
    anew on every set. Of criteria that read no data there is nothing to tell.

    Returns:
        By criterion; empty for those without data.
    """
    settings, seed = case.settings, case.seed
    examples = sum(batch.examples for batch in data)
    sets = {count: subsets(examples, count, settings.draws, seed) for count in settings.samples}
    result: dict[str, tuple[Stability, ...]] = {}
    with progress("stability", len(found)) as step:
        for name, one in found.items():
            reads = bool(one.criterion.needs)
            result[name] = tuple(_stability(case, name, one, data, drawn) for drawn in sets.values() if reads)
            step(name)
    return result


def _stability(
    case: Case, name: str, one: Attributed, data: Sequence[Batch], drawn: Sequence[Tensor]
) -> Stability:
    alike = []
    for index in drawn:
        if one.each:
            values = {g: aggregated(each[index], case.settings.aggregate) for g, each in one.each.items()}
        else:
            values = scored(case, name, one.criterion, picked(data, index)).scores.values
        alike.append(correlation(values, one.scores.values))
    return Stability(
        samples=len(drawn[0]),
        draws=len(drawn),
        within=weighted((1, a.within) for a in alike),
        overall=weighted((1, a.overall) for a in alike),
    )

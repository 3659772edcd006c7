"""Sensitivity-n: whether the scores of units foretell what removing several of them costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from math import comb
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .. import _context
from .._progress import progress
from .._rng import stream
from ..criteria import Loss, Target
from ..criteria.targets import measured, parts
from ..data import batches
from ..errors import CriterionError
from ..game.game import without
from ..game.layer import LayerGame
from ..masking import Gates, Removal, Zero
from ..records import Correlation, Faithfulness, Graph, Group, Scores

POINTS = 10
"""Sizes by default, before those that fall together."""


def faithfulness(  # noqa: PLR0913 - which scores, on what, how
    model: nn.Module,
    scores: Scores | Mapping[str, Scores],
    data: Any,
    *,
    sizes: Sequence[int | float] | None = None,
    subsets: int = 100,
    loss: _context.Loss | Target = _context.cross_entropy,
    removal: Removal | None = None,
    seed: int = 0,
) -> Faithfulness:
    """Correlate the scores of random sets of units with the rise of the loss when they are removed.

    This is Sensitivity-n (Ancona et al. 2018) for the units of a group. A set *S* of *n* units, drawn
    uniformly, is removed from one group, all others whole; ``sum_{i in S} score_i`` should then be
    ``loss(without S) - loss(with all)``. The two are correlated over sets of one size, which forgives scale
    and offset: for each example, where scores are per example, and for the mean over examples, which is what
    pruning goes by. No scores are faithful at every size unless units do not interact: leaving one out is
    perfect at n = 1 by construction, while Shapley values sum to the rise when all are gone.
    :meth:`Faithfulness.area` sums up the sizes that pruning is about.

    Pooled areas on 100 images of CIFAR-10, VGG16 classifier.1 (512 units) | ResNet-20 layer3.1 (64): mean
    Shapley values by ``Path()`` .83 | .67, leaving one out .65 | .45 (but 1.00 | 1.00 at the smallest size),
    signed Taylor .64 | .41, APoZ .50 | .19, absolute Taylor .38 | .06, Sensitivity .29 | .19, weight norms
    .34 | .06, random -.01 | .06. With 100 sets an r of 0 has a standard error of .1, an r of .9 one of .02.

    All criteria are measured on the same sets, all examples lose the same. Where there are no more sets of a
    size than ``subsets``, each is removed once. Costs ``subsets`` evaluations for each group and size.

    Args:
        model: the model that was scored.
        scores: those of one criterion, or name to scores of several on the same graph and groups. Per example
            (``attribute(..., aggregate=None)``) or aggregated; the latter have pooled correlations only.
        data: labelled batches; those that were scored, if scores are per example.
        sizes: how many units to remove: an int counts units, a float is a share of each group's units, 1.0
            all of them. By default 10 sizes from 1 to 80 %, evenly spaced in the logarithm.
        subsets: sets of each size.
        loss: ``f(output, target)``, one value per example; or a target such as ``Logit()``, if that is what
            was scored: the rise is then how far removal lowers it.
        removal: what absent units leave behind; ``Zero()`` by default, as criteria have it.
        seed: names every random draw.

    Raises:
        StaleGraphError: the scores belong to another model.
        CriterionError: scores of different graphs, groups or examples; sizes or subsets out of range; the
            loss is not per example or not finite; the target has no value where units are removed.
        DataError: data are missing, empty, unlabelled, or do not fit the model.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> graph, data = sl.trace(model, torch.zeros(1, 3)), [(torch.randn(20, 3), torch.randint(2, (20,)))]
    >>> scores = sl.attribute(model, graph, data, sl.LeaveOneOut(), aggregate=None)
    >>> found = faithfulness(model, {"leave one out": scores}, data, sizes=[1, 0.5])
    >>> [row.removed for row in found.rows], round(found.curve("0", "leave one out")[0].pooled, 4)
    ([1, 4], 1.0)
    """
    named = {scores.criterion: scores} if isinstance(scores, Scores) else dict(scores)
    groups = _groups(model, named)
    if subsets < 2:
        raise CriterionError(f"subsets={subsets}: a correlation needs at least 2.")
    target, loss = measured(loss)
    counts = {group.name: _counts(group, sizes) for group in groups}
    rows: list[Correlation] = []
    removal = removal or Zero()
    with _context.inference(model), progress("faithfulness", len(groups)) as step:
        examples = list(batches(data, device=_context.device_of(model), labelled=target.labelled))
        fill = removal.fill(model, Gates(groups), examples)
        for group in groups:
            game = LayerGame(model, group, examples, partial(target.cost, loss=loss), fill)
            values = {name: _per_example(one, group, game) for name, one in named.items()}
            removals = [_remove(game, size, subsets, seed) for size in counts[group.name]]
            for name, value in values.items():
                rows += [_row(group, name, value, one) for one in removals]
            step(group.name)
    settings = {
        **({"target": repr(target)} if target != Loss() else {}),
        "subsets": str(subsets),
        "examples": str(sum(batch.examples for batch in examples)),
        "removal": type(removal).__name__,
        **_context.made_with(loss if any(isinstance(one, Loss) for one in parts(target)) else None, seed),
    }
    return Faithfulness(rows=tuple(rows), settings=settings)


def _groups(model: nn.Module, named: Mapping[str, Scores]) -> list[Group]:
    """The groups that all have scored."""
    if not named:
        raise CriterionError("there are no scores to measure; pass those of one criterion at least.")
    first, one = next(iter(named.items()))
    graph: Graph = one.graph
    graph.check(model)
    for name, other in named.items():
        if other.graph.fingerprint != graph.fingerprint:
            raise CriterionError(f"scores {first!r} and {name!r} belong to different graphs.")
        if other.values.keys() != one.values.keys():
            raise CriterionError(
                f"scores {first!r} are of groups {', '.join(one.values)}; scores {name!r} of "
                f"{', '.join(other.values) or 'nothing'}. Score the same groups."
            )
    return [graph[name] for name in one.values]


def _counts(group: Group, sizes: Sequence[int | float] | None) -> list[int]:
    """Numbers of units to remove, each once, in order."""
    if sizes is None:
        return sorted(set(np.geomspace(1, max(1, group.size * 4 // 5), POINTS).round().astype(int).tolist()))
    fits = [0 < size <= (1 if isinstance(size, float) else group.size) for size in sizes]
    if not fits or not all(fits):
        raise CriterionError(
            f"sizes={list(sizes)}: group {group.name} has {group.size} units; give whole numbers from 1 to "
            f"{group.size}, or shares above 0.0 and up to 1.0."
        )
    return sorted({max(1, round(n * group.size)) if isinstance(n, float) else n for n in sizes})


def _per_example(scores: Scores, group: Group, game: LayerGame) -> Tensor:
    values = scores.values[group.name].double()
    if values.ndim == 2 and len(values) != game.examples:
        raise CriterionError(
            f"group {group.name}: scores of {len(values)} examples, but data of {game.examples}; pass "
            "the data that were scored, or aggregate the scores."
        )
    return values


class _Removal(NamedTuple):
    """What some sets of one size did.

    Attributes:
        sets: 1 for units that were removed, ``(sets, units)``.
        rises: of the loss, ``(sets, examples)``.
        rounding: what differences of each example's rises may be due to that alone, ``(examples,)``.
    """

    sets: Tensor
    rises: Tensor
    rounding: Tensor


def _remove(game: LayerGame, size: int, subsets: int, seed: int) -> _Removal:
    """Play without sets of units: all of that size if they are few, else some of them at random."""
    units = game.players
    every = comb(units, size)
    gone = np.zeros((min(subsets, every), units))
    if every <= subsets:
        for row, members in zip(gone, combinations(range(units), size), strict=True):
            row[list(members)] = 1
    else:
        generator = stream(seed, "faithfulness", game.name, size)
        for row in gone:
            row[generator.permutation(units)[:size]] = 1
    sets = torch.from_numpy(gone)
    losses = without(game, sets).cpu().double()
    rounding = 4 * torch.finfo(game.dtype).eps * losses.abs().amax(0)
    return _Removal(sets, losses[1:] - losses[0], rounding)


def _row(group: Group, criterion: str, values: Tensor, removal: _Removal) -> Correlation:
    sets, rises, rounding = removal
    mean, rise = values if values.ndim == 1 else values.mean(0), rises.mean(1)
    predicted = sets @ mean
    pooled = _pearson(predicted[:, None], rise[:, None], rounding.mean())
    each = _pearson(sets @ values.T, rises, rounding) if values.ndim == 2 else predicted[:0]
    return Correlation(
        group=group.name,
        criterion=criterion,
        removed=int(sets[0].sum()),
        units=group.size,
        sets=len(sets),
        example=each.mean().item() if len(each) else None,
        examples=len(each),
        pooled=pooled.item() if len(pooled) else None,
        spearman=spearman(predicted, rise) if len(pooled) else None,
        predicted=predicted.mean().item(),
        rise=rise.mean().item(),
    )


def _pearson(predicted: Tensor, rises: Tensor, rounding: Tensor) -> Tensor:
    """Pearson's r of each column, ``(columns,)``, without those where a side is constant but for rounding."""
    x, y = predicted - predicted.mean(0), rises - rises.mean(0)
    vary = (x.abs().amax(0) > 1e-12 * predicted.abs().amax(0)) & (y.abs().amax(0) > rounding)
    x, y = x[:, vary], y[:, vary]
    return (x * y).sum(0) / (x.square().sum(0) * y.square().sum(0)).sqrt()


def spearman(a: Tensor, b: Tensor) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None where a side does not vary.

    >>> spearman(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([3.0, 2.0, 1.0]))
    -1.0
    >>> spearman(torch.tensor([1.0, 1.0]), torch.tensor([3.0, 2.0])) is None
    True
    """
    found = _pearson(places(a.double())[:, None], places(b.double())[:, None], torch.zeros(()))
    return found.item() if len(found) else None


def places(values: Tensor) -> Tensor:
    """Rank of each value, ties at their mean rank.

    >>> places(torch.tensor([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, which, counts = values.unique(return_inverse=True, return_counts=True)
    ranks: Tensor = counts.cumsum(0).double() - (counts - 1) / 2
    return ranks[which]

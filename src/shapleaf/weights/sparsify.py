"""sparsify: masks of single weights that meet a budget on the real number of non-zero parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..budgets import Nonzeros
from ..errors import BudgetError, CriterionError
from ..records import Mask, Masks
from ..records.masks import fingerprint
from .choosing import Study, WeightCriterion
from .counting import nonzeros, prunable
from .criteria import Magnitude


def sparsify(
    model: nn.Module,
    budget: Nonzeros,
    criterion: WeightCriterion | None = None,
    data: Any = None,
    *,
    layers: Sequence[str] | None = None,
    sweep: bool = True,
    seed: int = 0,
) -> Masks:
    """Choose which single weights of a model stay; nothing is applied.

    Pruned are the weights of linear layers (convolutions, shortcuts and classifiers among them), never
    biases, norms or embeddings. Weights that are zero count as removed already, and stay so.

    Args:
        model: the model; it is left as it is.
        budget: how many of the non-zero scalars among all parameters may stay. Of what can be met it is the
            closest from below.
        criterion: how weights are chosen; :class:`shapleaf.Magnitude` by default.
        data: batches, for criteria that look at data, and for the sweep.
        layers: shell patterns of the layers to prune; all by default.
        sweep: with data, whether parameters that are dead once the weights are gone go, too; see
            :func:`shapleaf.weights.dead.dead`. The budget counts what is left.
        seed: names every random draw.

    Raises:
        BudgetError: the budget asks for less than the parameters that are not pruned.
        CriterionError: a weight is not finite.
        DataError: the criterion needs data, or labels.
        PlanError: nothing can be pruned, or a pattern matches no layer.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> masks = sparsify(model, sl.Nonzeros(keep=0.5))
    >>> masks.before, masks.after
    (26, 13)
    """
    if not isinstance(budget, Nonzeros):
        raise BudgetError(f"sparsify takes a Nonzeros budget, received {budget}.")
    criterion = Magnitude() if criterion is None else criterion
    if data is not None and hasattr(data, "__next__"):
        data = [*data]
    named = dict(model.named_parameters())
    weights = {name: named[name].detach() for name in prunable(model, data, layers)}
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise CriterionError(f"{name} holds weights that are not finite; repair or reload the model.")
    before = nonzeros(model)
    inside = sum(int(torch.count_nonzero(weight)) for weight in weights.values())
    target = min(budget.most(before), before)
    others = before - inside
    if target < others:
        raise BudgetError(
            f"{budget} asks for at most {target:,} of {before:,} non-zero parameters, but {others:,} of "
            f"them are not pruned; the nearest is Nonzeros(keep={others})."
        )
    choose = criterion.choose(Study(model, weights, data, seed))
    kept = choose(target - (others))
    after = others + sum(int(torch.count_nonzero(one.keep)) for one in kept.values())
    return Masks(
        fingerprint=fingerprint(model),
        masks=tuple(Mask.of(name, one.keep, one.factors) for name, one in kept.items()),
        before=before,
        after=after,
        made_by={"budget": str(budget), "criterion": str(criterion)},
    )

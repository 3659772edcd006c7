"""sparsify: masks of single weights that meet a budget on the real number of non-zero parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import _context
from ..budgets import Nonzeros
from ..data import repeatable
from ..errors import BudgetError, CriterionError
from ..records import Mask, Masks
from ..records.masks import fingerprint
from .choosing import Choice, Kept, WeightCriterion, WeightProbe
from .counting import nonzeros, prunable
from .criteria import Magnitude
from .dead import dead

CLOSE = 0.001
"""How far below its target a count may stay, as a share of it, before another is tried."""
ROUNDS = 12
"""How many numbers of weights are tried at most."""


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
            :func:`shapleaf.weights.dead`. The budget counts what is left.
        seed: names every random draw.

    Raises:
        BudgetError: the budget asks for less than the parameters that are not pruned.
        CriterionError: a weight is not finite.
        DataError: the criterion needs data, or labels, or the data can be gone through only once.
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
    if not isinstance(criterion, WeightCriterion):
        raise CriterionError(
            f"{criterion} is no criterion for single weights: use Magnitude(), SiPP() or Snip()."
        )
    data = repeatable(data)
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
    search = _Search(model, weights, data if sweep else None, layers)
    choose = criterion.choose(WeightProbe(model, weights, data, seed))
    kept, after = search.closest(choose, target, target - others, inside)
    return Masks(
        fingerprint=fingerprint(model),
        masks=tuple(Mask.of(name, one.keep, one.factors) for name, one in kept.items()),
        before=before,
        after=after,
        made_by={"budget": str(budget), "criterion": str(criterion), **search.made_by},
    )


class _Search:
    """The number of weights to ask for, so that the real number of non-zero scalars is what it shall be."""

    def __init__(
        self, model: nn.Module, weights: dict[str, Tensor], data: Any, layers: Sequence[str] | None
    ) -> None:
        self._model, self._weights, self._data = model, weights, data
        self._swept: tuple[str, ...] = ()
        if data is not None:
            spared = {_module(name) for name in prunable(model, data) if name not in weights}
            self._swept = tuple(
                name
                for name, parameter in model.named_parameters()
                if name in weights or (parameter.ndim == 1 and _module(name) not in spared)
            )

    @property
    def made_by(self) -> dict[str, str]:
        return {"sweep": "dead parameters"} if self._swept else {}

    def closest(self, choose: Choice, target: int, first: int, most: int) -> tuple[dict[str, Kept], int]:
        """What leaves at most ``target`` scalars, and as many as possible; and how many.

        Args:
            choose: the weights that stay.
            target: the scalars that may be left.
            first: the number of weights to begin with.
            most: the number that there are.
        """
        (low, above), (high, below) = (0, 0), (most, 0)  # requests, and how far their counts are off
        request, best = first, None
        for turn in range(ROUNDS):
            kept, count = self._left(choose(request))
            gap = target - count
            if best is None or _worth(count, target) > _worth(best[1], target):
                best = kept, count
            if 0 <= gap <= CLOSE * target:
                break
            if gap > 0:
                low, above = request, gap
            else:
                high, below = request, gap
            if not (above and below):
                request += gap << turn  # by more and more: what is dead can go on and off in lumps
            elif turn % 2:
                request = low + (high - low) * above // (above - below)
            if not low < request < high:
                request = (low + high) // 2
            if not low < request < high:
                break
        assert best is not None
        return best

    def _left(self, kept: dict[str, Kept]) -> tuple[dict[str, Kept], int]:
        """The same without what is dead then, and the number of scalars that are not zero."""
        copy = _context.copied(self._model)
        with torch.no_grad():
            for name, one in kept.items():
                weight = copy.get_parameter(name)
                if one.factors is not None:
                    weight.mul_(one.factors.to(weight))
                weight.masked_fill_(~one.keep.to(weight.device), 0)
            for name, gone in (dead(copy, self._data, self._swept) if self._swept else {}).items():
                copy.get_parameter(name).masked_fill_(gone, 0)
                found = kept.get(name, Kept(torch.ones_like(gone, device="cpu")))
                kept[name] = found._replace(keep=found.keep & ~gone.cpu())
        return {name: kept[name] for name, _ in copy.named_parameters() if name in kept}, nonzeros(copy)


def _worth(count: int, target: int) -> tuple[bool, int]:
    """Rather not too many, then as close as can be."""
    return count <= target, -abs(target - count)


def _module(name: str) -> str:
    return name.rpartition(".")[0]

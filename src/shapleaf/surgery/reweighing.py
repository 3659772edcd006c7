"""redraw and Reweigh: units that stay by chance, and readers' weights that make up for it on average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from .. import _context
from .._draws import Floats, adapt
from .._rng import stream
from ..allocation import plan as make_plan
from ..cuts import slicing
from ..errors import CriterionError, PlanError, StaleGraphError
from ..records import Plan, Scores
from ..tracing.inputs import imitate
from ..watching import Uses


@dataclass(frozen=True)
class Reweigh:
    """The weights that read a unit are multiplied by the unit's factor.

    As if what the unit gives were that much larger; its own weights stay. What :func:`redraw` returns
    beside its plan.

    Args:
        factors: group name to one factor for every unit kept, in their order.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> plan = sl.plan(sl.trace(model, torch.zeros(1, 3)), {"0": [1, 3]})
    >>> pruned, receipt = sl.prune(model, plan, compensate=Reweigh({"0": torch.tensor([1.0, 2.0])}))
    >>> bool(torch.equal(pruned[2].weight, model[2].weight[:, [1, 3]] * torch.tensor([1.0, 2.0])))
    True
    """

    factors: Mapping[str, Tensor] = field(compare=False, repr=False)

    def compensate(self, pruned: nn.Module, reference: nn.Module, plan: Plan) -> Sequence[str]:
        """Multiply; returns by how much.

        Raises:
            PlanError: a group is unknown or keeps another number of units, or something reads it that has no
                weights, or whose weights do more than read it.
        """
        what, named = slicing.cuts(plan), dict(_context.named_tensors(pruned))
        uses = Uses(reference)
        with torch.no_grad(), _context.inference(reference), uses:
            _context.forward(reference, imitate(plan.graph.inputs, device=_context.device_of(reference)))
        notes = []
        for name, factors in self.factors.items():
            for (weight, dim), scale in self._scales(plan, name, uses).items():
                kept = what.get(weight, {}).get(dim)
                along = scale if kept is None else scale[kept]
                shape = [-1 if axis == dim else 1 for axis in range(named[weight].ndim)]
                tensor = named[weight]
                tensor.data = tensor.data * along.view(shape).to(tensor)
            low, high = float(factors.min()), float(factors.max())
            notes.append(f"weights that read {name} were multiplied by {low:.3g} to {high:.3g}.")
        return notes

    def _scales(self, plan: Plan, name: str, uses: Uses) -> dict[tuple[str, int], Tensor]:
        """The factor of every position along the axes that read a group, before the cut."""
        group, factors = plan.graph[name], self.factors[name].double().cpu()
        kept = torch.tensor(plan.keep[name])
        if factors.shape != kept.shape or not bool(factors.isfinite().all()):
            raise PlanError(
                f"Reweigh needs one finite factor for each of the {len(kept)} units that {name} keeps, "
                f"received {factors.tolist()[:12]}."
            )
        reads: dict[tuple[str, int], set[str]] = {}
        for site in group.sites:
            if site.weight is None:
                raise PlanError(
                    f"{site.call} reads {name} and has no weights that could be multiplied; leave the group "
                    "as the plan has it."
                )
            reads.setdefault((site.weight, site.dim), set()).add(site.call)
        scales = {}
        for (weight, dim), calls in reads.items():
            used = set(uses.of.get(weight, ()))
            others = used - calls
            if others or not used:
                why = f"{min(others)} uses it, too" if others else "its layer multiplies by something else"
                raise PlanError(f"{weight} cannot be multiplied for what it reads of {name} alone: {why}.")
            lengths = {info.name: info.shape for info in plan.graph.tensors}
            scale = torch.ones(lengths[weight][dim], dtype=torch.float64)
            for piece in group.slices:
                if (piece.tensor, piece.dim) == (weight, dim):
                    scale[piece.index[kept]] = factors[:, None]
            scales[weight, dim] = scale
        return scales


def redraw(
    plan: Plan, scores: Scores, *, mode: Literal["random", "partial"] = "random", seed: int = 0
) -> tuple[Plan, Reweigh]:
    """Draw at random which units stay, about as many as a plan keeps, each with a weight that keeps the mean.

    Units are drawn with replacement in proportion to their scores, so often that the different ones are
    as many as in the plan, on average and rounded up; the number itself varies. A unit drawn ``k`` times in
    ``N`` counts ``k / (N p)``-fold for its readers, so that the mean of their weights over all draws is
    what they were (Liebenwein et al. 2020). With ``"partial"`` those with ``p >= 1 / N`` stay for sure, as
    they are, and the rest are drawn. No more units with a score than the plan keeps stay as they are.

    Args:
        plan: how many units each group keeps, as of :class:`~shapleaf.ErrorLevel`.
        scores: one per unit, such as of :class:`~shapleaf.PFP`; not negative.
        mode: ``"random"`` (PFPNetRand) or ``"partial"`` (PFPNetTop).
        seed: names the draw, together with the group.

    Returns:
        The plan, and the compensation that goes with it.

    Raises:
        StaleGraphError: plan and scores belong to different models.
        CriterionError: a group of the plan was not scored, per unit, or its scores are negative or all zero.
        PlanError: the mode is unknown, or a group is tied to others, which must keep equal shares.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> graph = sl.trace(model, torch.zeros(1, 3))
    >>> scores = sl.Scores(graph=graph, values={"0": torch.tensor([6.0, 3, 2, 1])})
    >>> drawn, reweigh = redraw(sl.plan(graph, {"0": [0, 1]}), scores, seed=3)
    >>> pruned, receipt = sl.prune(model, drawn, compensate=reweigh)
    >>> drawn.keep["0"], [round(value, 3) for value in reweigh.factors["0"].tolist()]
    ((0, 2), [1.0, 3.0])
    """
    if mode not in ("random", "partial"):
        raise PlanError(f'redraw(mode=...) is "random" or "partial", received {mode!r}.')
    if plan.graph.fingerprint != scores.graph.fingerprint:
        raise StaleGraphError(
            f"the scores belong to the model {scores.graph.fingerprint}, the plan to "
            f"{plan.graph.fingerprint}; attribute the model that the plan is for."
        )
    keep: dict[str, Sequence[int]] = dict(plan.keep)
    factors = {}
    for name in plan.pruned:
        found = _factors(
            _shares(plan, scores, name), len(plan.keep[name]), mode, stream(seed, "redraw", name)
        )
        units = found.nonzero()[0]
        keep[name], factors[name] = units.tolist(), torch.from_numpy(found[units])
    made_by = {**plan.made_by, "redraw": mode, "redraw_seed": str(seed)}
    return make_plan(plan.graph, keep, made_by=made_by), Reweigh(factors)


def _shares(plan: Plan, scores: Scores, name: str) -> Floats:
    tie = plan.graph.tied(name)
    if len(tie) > 1:
        raise PlanError(
            f"{name} must keep the same share as {', '.join(t for t in tie if t != name)}, which draws do "
            "not give; leave the groups that are tied out of the plan."
        )
    values = scores.values.get(name)
    if values is None or values.ndim != 1:
        raise CriterionError(
            f"the plan prunes {name}, for which there are no scores per unit; attribute it, too."
        )
    found: Floats = values.double().numpy()
    if not (np.isfinite(found).all() and found.min() >= 0 and found.sum() > 0):
        raise CriterionError(
            f"draws in proportion to the scores of {name} need scores that are not negative, and not all "
            f"zero; received {found.tolist()[:12]}."
        )
    shares: Floats = found / found.sum()
    return shares


def _factors(shares: Floats, units: int, mode: str, generator: np.random.Generator) -> Floats:
    """What every unit counts for its readers; 0 for those that go."""
    found = np.zeros(len(shares))
    if units >= (shares > 0).sum():
        found[np.argsort(-shares, kind="stable")[:units]] = 1.0
        return found
    draws = int(adapt(shares, np.array([units]))[0])
    if mode == "random":
        found[:] = generator.multinomial(draws, shares)
        np.divide(found, draws * shares, out=found, where=shares > 0)
        return found
    order = np.argsort(-shares, kind="stable")
    sure = order[:units][shares[order[:units]] >= 1 / draws]
    found[sure] = 1.0
    rest = np.where(found > 0, 0.0, shares)
    if len(sure) < units:
        found += _factors(rest / rest.sum(), units - len(sure), "random", generator)
    return found

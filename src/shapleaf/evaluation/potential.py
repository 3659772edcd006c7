"""Prune potential: how much may be removed before a network errs more than a tolerance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import CriterionError, DataError
from ..records.outcomes import Observed, Outcomes
from ..records.potential import Limit, Pooled, Potential, Scope
from .resampling import ends, resampled_errors

_EXACT = 1e-9  # errors of resamples are sums of floats: this much more counts as equal


def prune_potential(
    outcomes: Outcomes,
    *,
    delta: float | Sequence[float] = 0.005,
    resamples: int = 1000,
    seed: int = 0,
) -> Potential:
    """The most parameters that each method may remove of each network, on each distribution.

    Of all pruned models of a method and net it is the largest share removed whose error is at most
    ``delta`` above that of the net's reference on the same distribution, 0 if there is none (Liebenwein et
    al. 2021, definition 1). A model counts even if one that is pruned less fails, and the comparison is
    one of whole numbers of errors: the same error plus ``delta`` is within it. Errors are shares of
    examples; of segmentations, 1 less the mean intersection over union.

    An interval is that of the paired bootstrap over examples: what the potential would be on other
    examples, for the same models. Its ends are shares that were measured. The potential is chosen on the
    test examples themselves, so it is a little too high where the interval is wide. How finely the shares
    are spaced is told beside it (``below``, ``above``).

    Args:
        outcomes: of :func:`shapleaf.assess`: pruned models, and the reference of each net.
        delta: how much the error may rise, absolute: 0.005 is half a point. Several are several potentials.
        resamples: how many the intervals are made of.
        seed: of the resamples.

    Raises:
        DataError: no model is pruned, a net has no reference, or there are no distributions.
        CriterionError: no delta, one that is not finite, or no resamples.

    >>> from shapleaf.records import Subject
    >>> labels = torch.zeros(200, dtype=torch.int64)
    >>> predicted = torch.zeros(3, 200, dtype=torch.int64)
    >>> predicted[1, :1], predicted[2, :40] = 1, 1
    >>> seen = Observed(
    ...     distribution="clean", nominal=True, labels=labels, predicted=predicted,
    ...     confidence=torch.ones(3, 200),
    ... )
    >>> subjects = (
    ...     Subject(name="dense", role="reference"), Subject(name="half", method="WT", removed=0.5),
    ...     Subject(name="tenth", method="WT", removed=0.9),
    ... )
    >>> found = prune_potential(Outcomes(subjects=subjects, observed=(seen,)))
    >>> found.over("WT").mean, found.limits[0].above
    (0.5, 0.9)
    """
    deltas = [delta] if isinstance(delta, int | float) else [*delta]
    if not deltas or any(not -1 <= one <= 1 for one in deltas):
        raise CriterionError(f"delta must be a share of errors between -1 and 1, received {delta}.")
    curves = [
        _Curve(method, net, outcomes.reference(net), members, [outcomes.subjects[k].removed for k in members])
        for (method, net), members in outcomes.curves().items()
    ]
    if not outcomes.observed:
        raise DataError("the outcomes hold no distribution; measure at least one by shapleaf.assess.")
    drawn = resampled_errors(outcomes, resamples, seed)
    scored = [_Scored(one, one.errors, drawn[one.distribution]) for one in outcomes.observed]
    limits, pooled = list[Limit](), list[Pooled]()
    for one in deltas:
        found = {
            (curve.method, curve.net, each.seen.distribution): _limit(curve, each, one)
            for each in scored
            for curve in curves
        }
        limits += [limit for limit, _ in found.values()]
        for method in dict.fromkeys(curve.method for curve in curves):
            nets = [curve.net for curve in curves if curve.method == method]
            pooled += [
                _pooled(method, scope, name, [[found[method, net, d] for d in names] for net in nets])
                for scope, name, names in _scopes(outcomes.observed)
            ]
    settings = {"resamples": f"{resamples:,}", "seed": str(seed)}
    return Potential(limits=tuple(limits), pooled=tuple(pooled), settings=settings)


class _Curve(NamedTuple):
    """The pruned models of one method and net, fewest removed first, and where they stand."""

    method: str
    net: str
    reference: int
    members: Sequence[int]
    removed: Sequence[float]


class _Scored(NamedTuple):
    """A distribution, and the errors on it: exact ones, and those of every resample."""

    seen: Observed
    exact: Sequence[Fraction]
    resampled: Tensor


def _limit(curve: _Curve, scored: _Scored, delta: float) -> tuple[Limit, Tensor]:
    """One limit, and what it is in every resample, ``(resamples,)``."""
    seen, errors, removed = scored.seen, scored.exact, curve.removed
    allowed = errors[curve.reference] + Fraction(str(delta))
    inside = [share for share, k in zip(removed, curve.members, strict=True) if errors[k] <= allowed]
    value = max(inside, default=0.0)
    risen = scored.resampled[:, list(curve.members)] - scored.resampled[:, [curve.reference]]
    fits, shares = risen <= delta + _EXACT, torch.tensor(removed, dtype=torch.float64)
    drawn = (fits * shares).amax(1)
    at = fits[:, shares == value].any(1).double().mean().item() if inside else 1.0
    low, high = ends(drawn).tolist()
    limit = Limit(
        method=curve.method,
        net=curve.net,
        distribution=seen.distribution,
        nominal=seen.nominal,
        family=seen.family,
        delta=float(delta),
        value=value,
        low=low,
        high=high,
        probability=at,
        below=max((share for share in removed if share < value), default=0.0),
        above=min((share for share in removed if share > value), default=None),
    )
    return limit, drawn


def _scopes(observed: Sequence[Observed]) -> Iterator[tuple[Scope, str, list[str]]]:
    """The groups of distributions: their kind, name and members."""
    shifted = [one for one in observed if not one.nominal]
    nominal = [one.distribution for one in observed if one.nominal]
    if nominal:
        yield "nominal", "nominal", nominal
    if shifted:
        yield "shifted", "shifted", [one.distribution for one in shifted]
    for family in dict.fromkeys(one.family for one in shifted if one.family):
        yield "family", family, [one.distribution for one in shifted if one.family == family]
    for one in observed:
        yield "distribution", one.distribution, [one.distribution]


def _pooled(method: str, scope: Scope, name: str, found: Sequence[Sequence[tuple[Limit, Tensor]]]) -> Pooled:
    """Over nets (the outer sequence) and distributions."""
    values = torch.tensor([[limit.value for limit, _ in row] for row in found], dtype=torch.float64)
    drawn = torch.stack([torch.stack([each for _, each in row]) for row in found])
    mean, worst = values.mean(1), values.amin(1)
    mean_ends, worst_ends = (ends(per_net.mean(0)).tolist() for per_net in (drawn.mean(1), drawn.amin(1)))
    several = len(found) > 1
    return Pooled(
        method=method,
        delta=found[0][0][0].delta,
        scope=scope,
        name=name,
        distributions=values.shape[1],
        nets=len(found),
        mean=mean.mean().item(),
        mean_low=mean_ends[0],
        mean_high=mean_ends[1],
        mean_std=mean.std().item() if several else None,
        worst=worst.mean().item(),
        worst_low=worst_ends[0],
        worst_high=worst_ends[1],
        worst_std=worst.std().item() if several else None,
        weakest=found[0][int(values.mean(0).argmin())][0].distribution,
    )

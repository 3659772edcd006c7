"""The verb: everything that outcomes tell about robustness, in one record."""

from __future__ import annotations

from collections.abc import Sequence

from ..records.features import HeatMap
from ..records.outcomes import Outcomes
from ..records.robustness import Robustness
from ..records.similarity import NoiseSimilarity
from .calibration import calibration
from .classes import class_counts, class_names
from .curves import accuracies, agreements
from .excess import excess_error
from .potential import prune_potential
from .verdict import Rules, verdict


def robustness(
    outcomes: Outcomes,
    *,
    similarity: NoiseSimilarity | None = None,
    features: HeatMap | None = None,
    delta: float | Sequence[float] = 0.005,
    resamples: int = 1000,
    seed: int = 0,
    rules: Rules = Rules(),  # noqa: B008 - frozen
) -> Robustness:
    """All measures of pruned models on many distributions, and the verdict.

    Accuracy (or mean IoU), agreement and calibration error of each model on each distribution, right and
    changed predictions by class, prune potential, excess error where there are shifts, and the verdict by
    the first ``delta``. No model is run.

    Args:
        outcomes: of :func:`shapleaf.assess`.
        similarity: of :func:`shapleaf.noise_similarity`, to be kept beside it.
        features: of :func:`shapleaf.heat_map`, to be kept beside it.
        delta: how much the error may rise, absolute; see :func:`shapleaf.prune_potential`.
        resamples: of the examples, for all intervals.
        seed: of the resamples.
        rules: where the verdict draws its lines.

    Raises:
        DataError: no model is pruned, a net has no reference, or no distribution is nominal.
        CriterionError: a delta is no share of errors, or there are no resamples.

    >>> import torch
    >>> from shapleaf.records import Observed, Subject
    >>> predicted = torch.zeros(2, 100, dtype=torch.int64)
    >>> predicted[:, :8] = 1
    >>> seen = Observed(
    ...     distribution="clean", nominal=True, labels=torch.zeros(100, dtype=torch.int64),
    ...     predicted=predicted, confidence=torch.full((2, 100), 0.92),
    ... )
    >>> both = Subject(name="dense", role="reference"), Subject(name="half", method="WT", removed=0.5)
    >>> found = robustness(Outcomes(subjects=both, observed=(seen,)))
    >>> found.curve("accuracy", "clean")[1].value, found.potential.over("WT").mean
    (92.0, 0.5)
    >>> print(found.verdict.sentences[0])
    WT, data as in training only: prune fully; you may remove 50 % of the parameters
    (95 % interval 50 to 50 %; no more was measured).
    """
    potential = prune_potential(outcomes, delta=delta, resamples=resamples, seed=seed)
    shifted = not all(one.nominal for one in outcomes.observed)
    excess = excess_error(outcomes, resamples=resamples, seed=seed) if shifted else None
    classified = all(one.overlaps is None for one in outcomes.observed)
    curves = accuracies(outcomes, resamples=resamples, seed=seed)
    if classified:
        curves += agreements(outcomes) + calibration(outcomes, resamples=resamples, seed=seed)
    return Robustness(
        subjects=outcomes.subjects,
        curves=curves,
        potential=potential,
        excess=excess,
        verdict=verdict(potential, excess, rules=rules),
        similarity=similarity,
        features=features,
        classes=class_counts(outcomes) if classified else (),
        class_names=class_names(outcomes) if classified else outcomes.classes,
        settings={**outcomes.settings, "resamples": f"{resamples:,}", "seed": str(seed)},
    )

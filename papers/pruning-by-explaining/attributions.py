"""The rows of the tables: every criterion of the library, as it scores the units of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from subjects import Kind, Subject

import shapleaf as sl
from shapleaf.aggregation import Aggregation
from shapleaf.criteria import Criterion, Target

SIGNED = sl.MeanPlusStd(2)
"""Of scores with a sign: a unit counts that some examples need, whatever others say."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """A row of a table: a criterion, and how its scores per image become one per unit.

    Attributes:
        name: as the tables say it.
        criterion: what scores.
        aggregate: over the reference images.
        slow: 1 for what takes a minute on a large network, 2 for what takes many: run after all others.
        drawn: whether scores depend on the seed.
    """

    name: str
    criterion: Criterion
    aggregate: Aggregation = field(default_factory=sl.Mean)
    slow: int = 0
    drawn: bool = True

    def scores(
        self, subject: Subject, graph: sl.Graph, reference: Any, seed: int, classes: Sequence[int] = ()
    ) -> sl.Scores:
        """Of all candidates; with classes, for the network as a classifier of these alone."""
        return sl.attribute(
            subject.model,
            graph,
            reference,
            restricted(self.criterion, classes),
            aggregate=self.aggregate,
            groups=subject.kind.groups,
            seed=seed,
        )


def restricted(criterion: Criterion, classes: Sequence[int]) -> Criterion:
    """The criterion with its target among these classes; as it is without classes or without a target.

    >>> restricted(sl.Taylor(), (1, 2)).target
    Restricted(classes=(1, 2), target=Loss(), excluded=-inf)
    >>> restricted(sl.APoZ(), (1, 2))
    APoZ()
    """
    target: Target | None = getattr(criterion, "target", None)
    if target is None or not classes:
        return criterion
    if isinstance(target, sl.Relative):
        few: Target = sl.Relative(sl.Restricted(tuple(classes), target.target))
    else:
        few = sl.Restricted(tuple(classes), target)
    return replace(criterion, target=few)  # type: ignore[type-var]  # criteria with a target are dataclasses


def attributions(kind: Kind) -> tuple[Attribution, ...]:
    """All rows of a network, in the order in which they are run."""
    return (*_baselines(), *_relevance(kind), *_gradients(), *_slow())


EPSILON, SIGNED_EPSILON, PXP = "LRP epsilon", "LRP epsilon, signed", "PXP, epsilon everywhere"
ZPLUS, SHAPLEY = "LRP z+", "Shapley, default path"
LINE = "Shapley, line path = integrated gradients"
FAITHFUL = {False: ("LRP epsilon + z+", "LRP epsilon + gamma", "LRP epsilon + alpha2-beta1"),
            True: (EPSILON, "LRP AttnLRP + gamma", "LRP CP")}  # fmt: skip
"""The composites that explain inputs faithfully, of CNNs and of transformers; epsilon is AttnLRP there."""


def _baselines() -> tuple[Attribution, ...]:
    return (
        Attribution("random", sl.Random()),
        Attribution("weight norm", sl.WeightNorm(), drawn=False),
        Attribution("APoZ", sl.APoZ()),
    )


def _gradients() -> tuple[Attribution, ...]:
    """One forward and one backward, or few, for all groups."""
    return (
        Attribution("sensitivity, of the loss", sl.Sensitivity()),
        Attribution("saliency, of the logit", sl.Saliency(target=sl.Logit())),
        Attribution("Taylor", sl.Taylor()),
        Attribution("Taylor, signed", sl.Taylor(signed=True), SIGNED),
        Attribution("gradient x activation, of the logit", sl.GradientActivation(target=sl.Logit())),
        Attribution("conductance", sl.Conductance(8), SIGNED),
        Attribution("DeepLIFT", sl.DeepLIFT(sl.Reference()), SIGNED),
    )


def _relevance(kind: Kind) -> tuple[Attribution, ...]:
    rules = {ZPLUS: sl.ZPlus(), "LRP gamma": sl.Gamma(), "LRP alpha2-beta1": sl.AlphaBeta()}
    presets = {
        False: ("epsilon-plus", "epsilon-gamma", "epsilon-alpha2-beta1"),
        True: ("attnlrp", "attnlrp-gamma", "cp-lrp"),
    }[kind.transformer]
    composites = dict(zip(FAITHFUL[kind.transformer], map(sl.preset_composite, presets), strict=True))
    every = {EPSILON: sl.Epsilon()} | rules | composites
    pxp = sl.LRP(sl.preset_composite(f"pxp-{kind.bands}"), sl.Relative(sl.Logit()), kind.absolute)
    return (
        Attribution(PXP, pxp),
        Attribution(SIGNED_EPSILON, sl.LRP(absolute=None)),
        *(Attribution(name, sl.LRP(r, absolute=kind.absolute)) for name, r in every.items()),
    )


def _slow() -> tuple[Attribution, ...]:
    return (
        Attribution(SHAPLEY, sl.Shapley(), SIGNED, slow=1),
        Attribution(LINE, sl.Shapley(sl.Path(16, "line")), SIGNED, slow=1),
        Attribution("ThiNet", sl.ThiNet(), slow=1),
        Attribution("PFP", sl.PFP(), slow=1),
        Attribution("optimal brain surgeon", sl.OptimalBrainSurgeon(), slow=1),
        Attribution("leave one out = occlusion", sl.LeaveOneOut(), SIGNED, slow=2),
        Attribution("Shapley, permutations", sl.Shapley(sl.Permutation(2)), SIGNED, slow=2),
    )

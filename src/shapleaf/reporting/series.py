"""What figures of robustness show: lines, bars and dots in percent, for the page and the plots alike."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Literal, NamedTuple

from ..records.excess import ExcessError
from ..records.outcomes import Subject
from ..records.potential import Potential
from ..records.pruning_curves import PruningCurves, averaged
from ..records.robustness import Robustness
from ..records.similarity import NoiseSimilarity

Likeness = Literal["matching", "distance"]
Role = Literal["pruned", "reference", "separate", "control"]

REMOVED = "parameters removed (%)"
EPSILON = "noise: largest size ε (input std)"
MATCHING = "matching labels (% of examples)"
DISTANCE = "softmax distance (0 to 1.41)"
POTENTIAL = "prune potential (% of parameters)"
EXCESS = "excess error (points)"
UNITS = "units removed (%)"
_NAMES = {"accuracy": "accuracy", "mean IoU": "mean IoU", "agreement": "agreement with unpruned"}


class Dot(NamedTuple):
    """A measured point with its 95 % interval."""

    x: float
    y: float
    low: float
    high: float


class Line(NamedTuple):
    """What belongs together: its name, the place of its method among all, and its dots from left to right."""

    label: str
    method: int
    role: Role
    dots: tuple[Dot, ...]


class Bar(NamedTuple):
    """A share in percent with its 95 % interval."""

    label: str
    family: str
    value: float
    low: float
    high: float


class Fit(NamedTuple):
    """The excess errors of one method, and the line through the origin: points of error at 100 % removed."""

    method: str
    dots: tuple[Dot, ...]
    slope: float
    low: float
    high: float


def methods(subjects: Iterable[Subject]) -> tuple[str, ...]:
    """The pruning methods, each once, in the order of the subjects.

    >>> methods([Subject(name="a", method="WT"), Subject(name="d", role="reference")])
    ('WT',)
    """
    return tuple(dict.fromkeys(one.method for one in subjects if one.role == "pruned"))


def label_of(metric: str) -> str:
    """A metric as the name of an axis.

    >>> label_of("calibration error")
    'calibration error (%)'
    """
    return f"{_NAMES.get(metric, metric)} (%)"


def quality(robustness: Robustness) -> str:
    """The metric that says how good a model is: accuracy, of segmentations mean IoU."""
    return "mean IoU" if any(one.metric == "mean IoU" for one in robustness.curves) else "accuracy"


def distributions(robustness: Robustness) -> tuple[str, ...]:
    """All that was tested on, in order, nominal data first."""
    nominal = {one.distribution for one in robustness.potential.limits if one.nominal}
    names = dict.fromkeys(one.distribution for one in robustness.curves)
    return tuple(sorted(names, key=lambda name: name not in nominal))


def curves(robustness: Robustness, metric: str, distribution: str) -> tuple[Line, ...]:
    """A metric against the share removed: a line for each unpruned model, then one for each method and net.

    Lines of other roles have one dot at 0. Agreement is that of pruned models with the reference of their
    net, and as the yardstick that of the reference with independently trained networks.

    Raises:
        DataError: nothing was measured of that name.
    """
    subjects = {one.name: one for one in robustness.subjects}
    order = methods(robustness.subjects)
    dots: dict[tuple[str, str, Role], list[Dot]] = {}
    for one in robustness.curve(metric, distribution):
        subject = subjects[one.subject]
        role = _part(subject, subjects.get(one.other))
        if role is not None:
            key = (subject.method if role == "pruned" else subject.name, subject.net, role)
            dots.setdefault(key, []).append(Dot(100 * subject.removed, one.value, one.low, one.high))
    found = [
        Line(name, order.index(name) if role == "pruned" else 0, role, tuple(sorted(points)))
        for (name, _, role), points in dots.items()
    ]
    return tuple(sorted(found, key=lambda line: line.role == "pruned"))


def _part(subject: Subject, other: Subject | None) -> Role | None:
    """What part a number plays in a chart; None if it is left out."""
    if other is None:
        return subject.role
    if subject.role == "reference":
        return "separate"
    return subject.role if other.role == "reference" else None


def potentials(potential: Potential) -> dict[str, tuple[Bar, ...]]:
    """Of each method, how much may be removed on each distribution, at the first tolerance."""
    first = potential.deltas[:1]
    nominal = {one.distribution for one in potential.limits if one.nominal}
    family = {one.distribution: one.family for one in potential.limits}
    found: dict[str, list[Bar]] = {method: [] for method in potential.methods}
    for one in potential.pooled:
        if one.scope == "distribution" and (one.delta,) == first:
            ends = (100 * one.mean, 100 * one.mean_low, 100 * one.mean_high)
            found[one.method].append(Bar(one.name, family.get(one.name, ""), *ends))
    return {
        method: tuple(sorted(bars, key=lambda bar: bar.label not in nominal))
        for method, bars in found.items()
    }


def fits(excess: ExcessError) -> tuple[Fit, ...]:
    """The excess error of each method against the share removed."""
    found = []
    for one in excess.slopes:
        dots = sorted(
            Dot(100 * point.removed, 100 * point.difference, 100 * point.low, 100 * point.high)
            for point in excess.points
            if point.method == one.method
        )
        found.append(Fit(one.method, tuple(dots), 100 * one.value, 100 * one.low, 100 * one.high))
    return tuple(found)


def noise(similarity: NoiseSimilarity, measure: Likeness) -> dict[str, tuple[Line, ...]]:
    """Likeness to the reference against the noise: of each method, a line for each model and the yardsticks.

    A separate net says how alike independently trained networks are; lines are labelled by the share removed.
    """
    unit = 100 if measure == "matching" else 1
    mean = unit * getattr(similarity, measure).double().mean(-1)
    ends = unit * getattr(similarity, f"{measure}_interval").double()
    yardsticks, found = [], dict[str, list[Line]]()
    order = methods(similarity.subjects)
    for i, one in enumerate(similarity.subjects):
        if one.name == similarity.against[i]:
            continue
        dots = tuple(
            Dot(epsilon, float(mean[i, e]), float(ends[i, e, 0]), float(ends[i, e, 1]))
            for e, epsilon in enumerate(similarity.epsilons)
        )
        if one.role == "pruned":
            share = f"{100 * one.removed:.0f} % removed"
            found.setdefault(one.method, []).append(Line(share, order.index(one.method), "pruned", dots))
        else:
            yardsticks.append(Line(one.name, 0, one.role, dots))
    return {method: (*lines, *yardsticks) for method, lines in found.items()}


def pruning(found: PruningCurves) -> tuple[Line, ...]:
    """Accuracy against the share of units removed: the mean over seeds, and as ends its standard error.

    A line for each criterion and compensation; one of role ``control`` where those needed most went first.
    """
    kinds = list(dict.fromkeys((one.criterion, one.compensation) for one in found.curves))
    lines = []
    for place, (criterion, compensation) in enumerate(kinds):
        label = criterion if len(found.compensations) < 2 else f"{criterion}, {compensation}"
        orders = {c.order for c in found.curves if (c.criterion, c.compensation) == (criterion, compensation)}
        for order in sorted(orders):
            ones = found.select(criterion, order, compensation)
            dots = []
            for k in range(len(ones[0].rates)):
                heights = [float(one.accuracy[k]) for one in ones]
                mean, error = averaged(heights)
                share = 100 * fmean(one.removed[k] for one in ones)
                ends = (mean - (error or 0.0), mean + (error or 0.0))
                dots.append(Dot(share, mean, *ends))
            role: Role = "pruned" if order == "least" else "control"
            text = label if order == "least" else f"{label}, most needed first"
            lines.append(Line(text, place, role, tuple(dots)))
    return tuple(lines)

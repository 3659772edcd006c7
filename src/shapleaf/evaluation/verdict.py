"""The verdict: how far to prune, from what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean

from .._table import count
from ..errors import CriterionError, DataError
from ..records.excess import ExcessError, Slope
from ..records.potential import Pooled, Potential, Scope
from ..records.verdict import Advice, Extent, Verdict

_FEW = 5  # models of which a slope is uncertain whatever its interval says
_EXACT = 1e-9  # shares are means of floats: this little less counts as equal


@dataclass(frozen=True, slots=True)
class Rules:
    """Where the verdict draws its lines; shares, 0 to 1.

    Args:
        full: prune fully if the worst distribution leaves at least this share of the nominal potential.
        least: do not prune at all if the worst distribution, or nominal data, allow less than this share of
            the parameters.
        wide: an interval of a potential wider than this share of the parameters is called uncertain.

    Raises:
        CriterionError: one is not between 0 and 1.

    >>> Rules().extent(worst=0.8, nominal=0.85), Rules().extent(worst=0.05, nominal=0.85)
    ('fully', 'not at all')
    """

    full: float = 0.9
    least: float = 0.1
    wide: float = 0.1

    def __post_init__(self) -> None:
        for name in ("full", "least", "wide"):
            if not 0 <= getattr(self, name) <= 1:
                raise CriterionError(f"Rules: {name} is a share, 0 to 1; received {getattr(self, name)}.")

    def extent(self, worst: float, nominal: float) -> Extent:
        """How far to prune where the worst distribution allows ``worst``, and nominal data ``nominal``."""
        if min(worst, nominal) < self.least - _EXACT:
            return "not at all"
        return "fully" if worst >= self.full * nominal - _EXACT else "moderately"


def verdict(
    potential: Potential,
    excess: ExcessError | None = None,
    *,
    delta: float | None = None,
    rules: Rules = Rules(),
) -> Verdict:
    """How far each method may prune, for nominal data alone, for all shifts measured, and by family.

    The guidelines are those of "Lost in Pruning" (Liebenwein et al. 2021): do not prune if unexpected
    shifts may occur; prune moderately if some shifts are part of training; prune fully if all are; and
    include shifts in training to be able to prune more. What decides is the potential on the worst of the
    distributions expected (w) against that on nominal data (n), averaged over nets:

    * **not at all**: ``w < rules.least``, or ``n < rules.least``;
    * **fully**: ``w >= rules.full * n``; remove what both allow, ``min(w, n)``;
    * **moderately**: between these; remove ``w``.

    Distributions that the networks were trained on are the nominal ones; where shifts are among them, the
    first row of a method says what training with them allows. A row is ``certain`` if both ends of the
    interval of w give the same answer and are no further apart than ``rules.wide``. The worst of many
    distributions is low by chance, too, where examples are few; its mean and the families stand beside it.

    Args:
        potential: of :func:`shapleaf.prune_potential`.
        excess: of :func:`shapleaf.excess_error`, told beside it.
        delta: which of the potential's tolerances; by default its first.
        rules: where the lines are drawn.

    Raises:
        DataError: the potential has no nominal distributions, or not this delta.

    >>> same = dict(method="WT", delta=0.005, distributions=1, nets=1)
    >>> def pooled(scope, name, share, weakest):
    ...     ends = dict(mean=share, mean_low=share, mean_high=share)
    ...     worst = dict(worst=share, worst_low=share, worst_high=share)
    ...     return Pooled(scope=scope, name=name, weakest=weakest, **same, **ends, **worst)
    >>> found = verdict(Potential(limits=(), pooled=(
    ...     pooled("nominal", "nominal", 0.85, "clean"), pooled("shifted", "shifted", 0.0, "impulse 3"),
    ... )))
    >>> print(found.sentences[1])
    WT, all shifts measured: do not prune at all; on impulse 3 nothing may be removed
    (95 % interval 0 to 0 %), 0 % on average over the shifts, 85 % on nominal data.
    """
    if not potential.deltas or (delta is not None and delta not in potential.deltas):
        known = ", ".join(map(str, potential.deltas)) or "none"
        raise DataError(f"the potential was not worked out for delta {delta}; it was for {known}.")
    delta = potential.deltas[0] if delta is None else delta
    advice = [
        _advice(potential, one, potential.over(method, "nominal", delta=delta), rules)
        for method in potential.methods
        for one in _groups(potential, method, delta)
    ]
    notes = [*_guidelines(advice), *_excess(excess), *_doubts(potential, advice)]
    settings = {name: f"{getattr(rules, name):g}" for name in ("full", "least", "wide")}
    return Verdict(advice=tuple(advice), notes=tuple(notes), delta=delta, settings=settings)


def _groups(potential: Potential, method: str, delta: float) -> Iterator[Pooled]:
    scopes: tuple[Scope, ...] = ("nominal", "shifted", "family")
    for scope in scopes:
        for one in potential.pooled:
            if (one.method, one.scope, one.delta) == (method, scope, delta):
                yield one


def _advice(potential: Potential, one: Pooled, nominal: Pooled, rules: Rules) -> Advice:
    extent = rules.extent(one.worst, nominal.worst)
    answers = _answers(one.worst_low, one.worst_high, None if one is nominal else nominal.worst, rules)
    certain = answers == {extent} and one.worst_high - one.worst_low <= rules.wide
    key = (one.method, one.delta, one.weakest)
    there = [limit for limit in potential.limits if (limit.method, limit.delta, limit.distribution) == key]
    larger = [limit.above for limit in there if limit.above is not None]
    found = Advice(
        method=one.method,
        expected=one.name,
        extent=extent,
        remove=0.0 if extent == "not at all" else min(one.worst, nominal.worst),
        worst=one.worst,
        low=one.worst_low,
        high=one.worst_high,
        mean=one.mean,
        nominal=nominal.worst,
        weakest=one.weakest,
        below=fmean(limit.below for limit in there) if there else 0.0,
        above=fmean(larger) if larger else None,
        certain=certain,
    )
    return replace(found, sentence=_sentence(found, rules))


def _answers(low: float, high: float, nominal: float | None, rules: Rules) -> set[Extent]:
    """What the ends of an interval lead to; those of nominal data are compared with themselves."""
    return {rules.extent(end, end if nominal is None else nominal) for end in (low, high)}


def _percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _sentence(one: Advice, rules: Rules) -> str:
    """The advice in words, with its evidence and its doubts."""
    where = {"nominal": "data as in training only", "shifted": "all shifts measured"}
    start = f"{one.method or 'pruning'}, {where.get(one.expected, f'shifts of {one.expected}')}: "
    text = start + (_refused(one) if one.extent == "not at all" else _allowed(one))
    if one.expected != "nominal":
        text += f", {_percent(one.mean)} on average over the shifts, {_percent(one.nominal)} on nominal data"
    if one.certain:
        return text + "."
    nominal = None if one.expected == "nominal" else one.nominal
    other = _answers(one.low, one.high, nominal, rules) - {one.extent}
    if other:
        return (
            text
            + f". This is not certain: the interval also allows for {' or '.join(map(repr, sorted(other)))}."
        )
    return text + f". This is not precise: the interval is wider than {_percent(rules.wide)}."


def _ends(one: Advice) -> str:
    return f"95 % interval {100 * one.low:.3g} to {_percent(one.high)}"


def _refused(one: Advice) -> str:
    if one.nominal < one.worst:
        return (
            f"do not prune at all; nominal data allow only {_percent(one.nominal)} of the parameters to be "
            f"removed, where {one.weakest} allows {_percent(one.worst)} ({_ends(one)})"
        )
    much = f"only {_percent(one.worst)} of the parameters" if one.worst else "nothing"
    return f"do not prune at all; on {one.weakest} {much} may be removed ({_ends(one)})"


def _allowed(one: Advice) -> str:
    more = f"the next size measured, {_percent(one.above)}, was too much" if one.above else None
    evidence = f"({_ends(one)}; {more or 'no more was measured'})"
    text = f"prune {one.extent}; you may remove {_percent(one.remove)} of the parameters"
    if one.expected == "nominal":
        return f"{text} {evidence}"
    if one.worst > one.remove:
        return (
            f"{text}, no more than nominal data allow; {one.weakest} allows {_percent(one.worst)} {evidence}"
        )
    return f"{text} {evidence}, which is what {one.weakest} allows"


def _guidelines(advice: list[Advice]) -> Iterator[str]:
    """What to do about it, for all methods together."""
    shifted = any(one.expected == "shifted" for one in advice)
    if not shifted:
        yield "No shifts were measured, so nothing is known about data unlike those of training."
    spent = {one.method for one in advice if one.expected == "nominal" and one.extent == "not at all"}
    if spent:
        names = ", ".join(name or "pruning" for name in sorted(spent))
        yield (
            f"Even nominal data allow {names} next to nothing. "
            "Measure models that are pruned less or trained again afterwards, or allow more error (delta)."
        )
    advice = [one for one in advice if one.method not in spent]
    if not (advice and shifted):
        return
    lowered = [one for one in advice if one.extent != "fully" and one.worst < one.nominal]
    worst = [one for one in lowered if one.expected == "shifted"]
    most = max(worst, key=lambda one: one.nominal - one.worst, default=None)
    if most is None:
        yield "The shifts measured hardly lower the potential; of other shifts this says nothing."
    else:
        yield (
            f"If unexpected shifts may occur, do not prune: nominal data allow {most.method or 'pruning'} to "
            f"remove {_percent(most.nominal)}, {most.weakest} only {_percent(most.worst)}."
        )
    families = dict.fromkeys(one.expected for one in lowered if one.expected not in ("nominal", "shifted"))
    if families:
        yield (
            f"To be able to remove more, include shifts of {', '.join(families)} in training, and measure "
            "again on others that are held out."
        )


def _excess(excess: ExcessError | None) -> Iterator[str]:
    for one in excess.slopes if excess is not None else ():
        yield _line(one)


def _line(one: Slope) -> str:
    ends = f"95 % interval of the difference {10 * one.low:+.2f} to {10 * one.high:+.2f}"
    ends += f", of only {count(one.points, 'model')}" if one.points < _FEW else ""
    text = (
        f"{one.method or 'pruning'}: for every tenth of the parameters removed, shifts add "
        f"{abs(10 * one.value):.2f} points of error {'less' if one.value < 0 else 'more'} than without "
        f"pruning ({ends})"
    )
    return text + (", which cannot be told from 0." if one.low <= 0 <= one.high else ".")


def _doubts(potential: Potential, advice: list[Advice]) -> Iterator[str]:
    """How sure all of this is."""
    unsure = dict[str, list[str]]()
    for one in advice:
        if not one.certain:
            unsure.setdefault(one.method or "pruning", []).append(one.expected)
    if unsure:
        names = ", ".join(f"{method} ({', '.join(where)})" for method, where in unsure.items())
        yield (f"Not certain: {names}. More test examples narrow the intervals, four times as many by half.")
    if any(one.nets == 1 for one in potential.pooled):
        yield "One network was measured; how much another of the same kind may lose is not known."

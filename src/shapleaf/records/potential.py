"""Potential: how much of each network may be removed before it errs more than a tolerance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .._table import interval, percent
from ..errors import DataError
from ._base import Part, Record

Scope = Literal["distribution", "family", "nominal", "shifted"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Limit(Part):
    """How much of one network one method may remove on one distribution; shares of parameters, 0 to 1.

    Attributes:
        method: the pruning method.
        net: which network.
        distribution: what it was tested on.
        nominal: whether it is one that the networks were trained on.
        family: the kind of shift.
        delta: how much the error may rise, absolute, 0 to 1.
        value: the most that was removed by a model within ``delta`` of the reference; 0 if there is none.
            Higher is better.
        low: lower end of its 95 % interval.
        high: upper end.
        probability: how sure it is that the model at ``value`` is within ``delta``: share of resamples.
        below: the next smaller share that was measured, or 0: the true limit may lie anywhere up to
            ``above``.
        above: the next larger share that was measured, which is too much; None beyond the largest.
    """

    method: str
    net: str
    distribution: str
    nominal: bool = False
    family: str = ""
    delta: float
    value: float
    low: float
    high: float
    probability: float
    below: float = 0.0
    above: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pooled(Part):
    """The potential of a method over several distributions and nets; shares of parameters, 0 to 1.

    Each net's limits are averaged over the distributions, and the least of them is taken; both are then
    averaged over the nets.

    Attributes:
        method: the pruning method.
        delta: how much the error may rise, absolute.
        scope: over one ``distribution``, a ``family`` of shifts, all ``nominal`` or all ``shifted`` ones.
        name: of the distribution or family; else that of the scope.
        distributions: how many.
        nets: how many.
        mean: mean over the distributions, higher is better.
        mean_low: lower end of its 95 % interval: other examples, the same nets.
        mean_high: upper end.
        mean_std: standard deviation over the nets, None of one net.
        worst: least over the distributions, higher is better.
        worst_low: lower end of its 95 % interval.
        worst_high: upper end.
        worst_std: standard deviation over the nets, None of one net.
        weakest: the distribution on which the least may be removed, averaged over the nets.
    """

    method: str
    delta: float
    scope: Scope
    name: str
    distributions: int
    nets: int
    mean: float
    mean_low: float
    mean_high: float
    mean_std: float | None = None
    worst: float
    worst_low: float
    worst_high: float
    worst_std: float | None = None
    weakest: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Potential(Record):
    """What :func:`shapleaf.prune_potential` found.

    Attributes:
        limits: of every method, net, distribution and delta.
        pooled: of every method and delta, over nets and distributions.
        unit: of the numbers.
        better: which direction is good.
        settings: resamples, seed, metric.

    >>> same = dict(method="WT", delta=0.005, distributions=1, nets=1)
    >>> means = dict(mean=0.85, mean_low=0.69, mean_high=0.85)
    >>> worst = dict(worst=0.85, worst_low=0.69, worst_high=0.85, weakest="clean")
    >>> one = Pooled(scope="nominal", name="nominal", **same, **means, **worst)
    >>> print(Potential(limits=(), pooled=(one,)))
    Prune potential: % of the parameters that may be removed, higher is better
    method  delta  over     mean  interval      std  worst  interval      std  weakest
    ──────  ─────  ───────  ────  ────────────  ───  ─────  ────────────  ───  ───────
    WT        0.5  nominal    85  69.0 to 85.0    -     85  69.0 to 85.0    -  clean
    """

    limits: tuple[Limit, ...]
    pooled: tuple[Pooled, ...] = ()
    unit: str = "share of the parameters"
    better: Literal["higher", "lower"] = "higher"
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def deltas(self) -> tuple[float, ...]:
        """How much the error may rise, each value once, as they were given."""
        return tuple(dict.fromkeys(one.delta for one in self.pooled))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, each once."""
        return tuple(dict.fromkeys(one.method for one in self.pooled))

    def over(
        self, method: str, scope: Scope = "nominal", name: str | None = None, *, delta: float | None = None
    ) -> Pooled:
        """The potential over a group of distributions.

        Args:
            method: the pruning method.
            scope: which kind of group.
            name: of the distribution or family; not needed for ``nominal`` and ``shifted``.
            delta: how much the error may rise; by default the first that was asked for.

        Raises:
            DataError: there is none.
        """
        name = scope if name is None else name
        delta = self.deltas[0] if delta is None and self.deltas else delta
        for one in self.pooled:
            if (one.method, one.scope, one.name, one.delta) == (method, scope, name, delta):
                return one
        raise DataError(
            f"no potential of method {method!r} over {scope} {name!r} with delta {delta}; methods: "
            f"{', '.join(self.methods)}; deltas: {', '.join(map(str, self.deltas))}."
        )

    def table(self) -> dict[str, Any]:
        rows = []
        for one in self.pooled:
            over = one.name if one.scope != "family" else f"{one.name} (all)"
            mean = [percent(one.mean), interval(one.mean_low, one.mean_high), percent(one.mean_std)]
            worst = [percent(one.worst), interval(one.worst_low, one.worst_high), percent(one.worst_std)]
            rows.append([one.method, percent(one.delta), over, *mean, *worst, one.weakest])
        ends = ["interval", "std"]
        return {
            "title": "Prune potential: % of the parameters that may be removed, higher is better",
            "header": ["method", "delta", "over", "mean", *ends, "worst", *ends, "weakest"],
            "rows": rows,
            "footer": ", ".join(f"{key}={value}" for key, value in self.settings.items()),
        }

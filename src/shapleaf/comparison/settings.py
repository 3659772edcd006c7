"""What a comparison measures, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .. import _context
from ..aggregation import Aggregation, MeanPlusStd
from ..criteria import Target
from ..criteria.targets import measured
from ..errors import CriterionError
from ..evaluation.pruning_curves import RATES, check
from ..records.pruning_curves import Order
from ..strategies import Strategy
from ..surgery import Compensation


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """The settings of :func:`shapleaf.compare`; any part can be left out.

    Args:
        groups: shell patterns of the groups to compare on; all by default.
        aggregate: how scores per example become one per unit.
        loss: ``f(output, target)``, one value per example: what criteria without a target of their own go
            by, and what removing sets and single units is measured by. Or a target such as ``Logit()``: then
            removals are measured by how far they lower it, and those criteria go by cross-entropy.
        rates: shares of the units to remove for the pruning curves; ``()`` leaves these out.
        orders: ``"least"`` needed first, and ``"most"`` needed first as the control.
        strategy: of the curves, which units leave first across groups; one list over all by default.
            ``Tradeoff()`` and ``ErrorLevel()`` have no order ``"most"``.
        compensate: if given, curves are also measured with it, least needed first.
        overlaps: shares of the units: the sets are compared that criteria would remove; ``()`` for none.
        sizes: how many units of a group Sensitivity-n removes, as :func:`shapleaf.faithfulness` takes them;
            the area needs a quarter and 80 %.
        subsets: sets of each size; 0 leaves Sensitivity-n out.
        ablated: single units of each group that are removed, at most, drawn by seed; 0 leaves this out.
        examples: test examples on which sets and single units are removed, at most, drawn by seed.
        samples: numbers of calibration examples whose scores are compared with those of all; ``()`` for none.
        draws: disjoint sets of each such number, at most.

    Raises:
        CriterionError: a setting is out of range.

    >>> Comparing(rates=(), subsets=0).samples
    (10, 30)
    """

    groups: Sequence[str] | None = None
    aggregate: Aggregation = field(default_factory=MeanPlusStd)
    loss: _context.Loss | Target = _context.cross_entropy
    rates: Sequence[float] = RATES
    orders: Sequence[Order] = ("least", "most")
    strategy: Strategy | None = None
    compensate: Compensation | None = None
    overlaps: Sequence[float] = (0.25, 0.5)
    sizes: Sequence[int | float] = (0.25, 0.5, 0.8)
    subsets: int = 20
    ablated: int = 16
    examples: int = 100
    samples: Sequence[int] = (10, 30)
    draws: int = 3

    def __post_init__(self) -> None:
        """Refuse what cannot be, before hours are spent."""
        _context.several("groups", self.groups)
        rates = list(self.rates)
        if rates != sorted(set(rates)) or not all(0 <= rate < 1 for rate in rates):
            raise CriterionError(f"rates={rates}: expected ascending shares of the units, from 0 to below 1.")
        if not all(0 < share < 1 for share in self.overlaps):
            raise CriterionError(f"overlaps={list(self.overlaps)}: shares of the units lie between 0 and 1.")
        check(self.orders, self.strategy)
        if self.subsets == 1 or self.subsets < 0:
            raise CriterionError(
                f"subsets={self.subsets}: a correlation needs 2; 0 leaves Sensitivity-n out."
            )
        measured(self.loss)
        for name, least in (("ablated", 0), ("examples", 1), ("draws", 1)):
            if getattr(self, name) < least:
                raise CriterionError(f"{name}={getattr(self, name)}: expected at least {least}.")
        if not all(count >= 1 for count in self.samples):
            raise CriterionError(f"samples={list(self.samples)}: numbers of examples are at least 1.")

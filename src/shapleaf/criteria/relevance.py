"""LRP: the relevance that a unit passes on, by layer-wise relevance propagation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor, nn

from .._calls import function_of
from ..backward import KINDS
from ..errors import CriterionError
from ..masking import Gates, Replace
from ..records import Graph
from ..relevance import Composite, Epsilon, Relevance, Rule
from .probe import Needs, Probe
from .targets import Logit, Target

Absolute = Literal["unit", "token", "sample"]


@dataclass(frozen=True)
class LRP:
    """The relevance of a unit for a logit: what layer-wise relevance propagation passes through it.

    Relevance is activation times a gradient in which the slopes of some functions are edited (see
    :class:`~shapleaf.relevance.Relevance`), so one forward and one backward give that of all units of all
    groups, read where consumers read them: filters behind their BatchNorm and activation function, MLP
    neurons behind theirs, attention heads at the output projection. With ``Epsilon(0)`` and no functions but
    piecewise linear ones it is ``Taylor`` of the same target. Layers that read the inputs alone need no rule;
    a call that has none raises an error.

    As Hatefi et al. (2024), Pruning by eXplaining Revisited, rank units: ``target=Relative(Logit())``,
    ``absolute="sample"`` for filters and ``"token"`` for neurons and heads of transformers, and
    ``aggregate=Mean()``, on samples of :func:`shapleaf.per_class`; :class:`~shapleaf.criteria.Restricted`
    has it for a few classes, and :func:`shapleaf.pruning_curves` prunes by it.

    LRP is reported to be patented, in any implementation; check for yourself whether you may use it.

    Args:
        rules: one rule for all layers, or a :class:`~shapleaf.relevance.Composite` of rules by place.
        target: what relevance starts from; a logit, by default that of each example's label.
        absolute: None keeps the sign; else absolute values are taken of what an example's relevance is summed
            to: over all places (``"sample"``), within each place (``"token"``), or of every number
            (``"unit"``), and then summed. Of the total over examples it is None with
            ``aggregate=AbsOfMean()``, which is the total over their number.

    Raises:
        CriterionError: ``absolute`` is none of these.

    >>> import torch, shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> _ = model[0].weight.data.copy_(torch.eye(2)), model[2].weight.data.copy_(torch.tensor([[3.0, -1.0]]))
    >>> data = [(torch.tensor([[2.0, 1.0]]), torch.tensor([0]))]
    >>> graph = sl.trace(model, torch.zeros(1, 2))
    >>> lrp = LRP(sl.ZPlus(), absolute=None)
    >>> sl.attribute(model, graph, data, lrp, aggregate=sl.Mean()).values["0"].round()
    tensor([5., 0.], dtype=torch.float64)
    """

    rules: Rule | Composite = field(default_factory=Epsilon)
    target: Target = field(default_factory=Logit)
    absolute: Absolute | None = "sample"
    needs: ClassVar[Needs] = Needs.ACTIVATION | Needs.GRADIENT | Needs.MASK_GRADIENT

    def __post_init__(self) -> None:
        if self.absolute not in (None, "unit", "token", "sample"):
            raise CriterionError(
                f'LRP(absolute=...) is None, "unit", "token" or "sample", received {self.absolute!r}.'
            )

    def reader(self, graph: Graph, model: nn.Module, gates: Gates, replace: Replace) -> Relevance:
        """The forward that :func:`shapleaf.attribute` differentiates."""
        return relevance(self.rules, graph, model, gates, replace)

    def score(self, probe: Probe) -> Tensor:
        """Relevance ``(examples, units)``; not negative unless ``absolute`` is None."""
        if self.absolute == "unit":
            return (probe.activation * probe.gradient).abs().sum(2)
        if self.absolute == "token":
            return probe.places.abs().sum(2)
        passed = -probe.mask_gradient  # of a cost, which falls as the target rises
        return passed if self.absolute is None else passed.abs()


def relevance(
    rules: Rule | Composite, graph: Graph, model: nn.Module, gates: Gates, replace: Replace
) -> Relevance:
    """The forward by these rules, for a model with this graph.

    >>> import torch, shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    >>> graph = sl.trace(model, torch.zeros(1, 3))
    >>> relevance(sl.ZPlus(), graph, model, Gates(()), lambda place, gate, read: read).rules
    {'0:linear#0': ZPlus(eps=1e-06), '2:linear#0': ZPlus(eps=1e-06)}
    """
    composite = rules if isinstance(rules, Composite) else Composite(default=rules)
    calls = [op.call for op in graph.ops if KINDS.get(function_of(op.call)) == "layer"]
    assigned = composite.assign(list(dict.fromkeys(calls)))
    followed = {call for call, _ in graph.norms}
    return Relevance(model, gates, replace, assigned, followed, composite.attention)

"""LRP: the relevance that a unit passes on, by layer-wise relevance propagation."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from .. import _objects, _store
from .._calls import function_of
from ..backward import KINDS
from ..errors import CriterionError, DataError
from ..masking import Gates, Replace
from ..records import Graph
from ..relevance import PRESETS, Composite, Epsilon, Relevance, Rule
from ..relevance.composite import RULES
from ..relevance.rules import check_rule
from .probe import Needs, Probe
from .targets import Logit, LogitDifference, Loss, Relative, Target, check_target

Absolute = Literal["unit", "token", "sample"]
TARGETS = (Logit, LogitDifference, Loss, Relative)
"""Those that can be saved."""


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

    :meth:`preset` makes the criterion from rules of the literature, or from a file that :meth:`save` or
    :func:`shapleaf.tune` wrote.

    LRP is reported to be patented, in any implementation; check for yourself whether you may use it.

    Args:
        rules: one rule for all layers, or a :class:`~shapleaf.relevance.Composite` of rules by place.
        target: what relevance starts from; a logit, by default that of each example's label.
        absolute: None keeps the sign; else absolute values are taken of what an example's relevance is summed
            to: over all places (``"sample"``), within each place (``"token"``), or of every number
            (``"unit"``), and then summed. Of the total over examples it is None with
            ``aggregate=AbsOfMean()``, which is the total over their number.

    Raises:
        CriterionError: ``absolute`` is none of these, or the rules or the target are none.

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
        if not isinstance(self.rules, Composite):
            check_rule(self.rules, "LRP(rules=...) is a Composite, or")
        check_target(self)
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

    @classmethod
    def preset(cls, name: str | os.PathLike[str]) -> LRP:
        """The criterion with rules of the literature, or from a file that :meth:`save` wrote.

        Args:
            name: of a composite, see :func:`~shapleaf.preset_composite`; or the path of a JSON file.

        Raises:
            CriterionError: there is neither a preset nor a file of that name.
            DataError: the file cannot be read, or does not hold a criterion.

        >>> LRP.preset("zplus") == LRP(PRESETS["zplus"])
        True
        """
        if isinstance(name, str) and name in PRESETS:
            return cls(PRESETS[name])
        if not Path(name).exists():
            raise CriterionError(
                f"no preset and no file is named {os.fspath(name)!r}; the presets are {', '.join(PRESETS)}."
            )
        return cls.from_json(_objects.read(name), str(name))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the criterion to a JSON file for :meth:`preset`, atomically.

        Raises:
            CriterionError: a rule or the target is not of this library.
            DataError: the place cannot be written.
        """
        text = json.dumps(self.to_json(), indent=1)
        with _store.atomic(path) as temporary:
            temporary.write_text(f"{text}\n", encoding="utf-8")

    def to_json(self) -> dict[str, Any]:
        """The criterion as JSON values, from which :meth:`from_json` makes it again.

        Raises:
            CriterionError: a rule or the target is not of this library.
        """
        ruled = self.rules.to_json() if isinstance(self.rules, Composite) else None
        return {
            "criterion": "LRP",
            "rules": ruled or _objects.to_plain(self.rules, RULES),
            "target": _objects.to_plain(self.target, TARGETS),
            "absolute": self.absolute,
        }

    @classmethod
    def from_json(cls, found: Any, where: str = "the criterion") -> LRP:
        """What :meth:`to_json` made; what is left out is as by default.

        Args:
            found: JSON values, from anywhere.
            where: what to call them in messages.

        Raises:
            DataError: something is unknown, missing, or has a wrong value; the message says where.

        >>> LRP.from_json({"criterion": "LRP", "rules": {"name": "ZPlus"}, "absolute": None})
        LRP(rules=ZPlus(eps=1e-06), target=Logit(of='true'), absolute=None)
        """
        given = _objects.checked(found, where, ("criterion", "rules", "target", "absolute"))
        if given.get("criterion") != "LRP":
            raise DataError(f"{where} does not hold an LRP criterion: expected 'criterion': 'LRP'.")
        rules = given.get("rules", {"name": "Epsilon"})
        plain = isinstance(rules, dict) and "name" in rules
        place = f"the rules of {where}"
        target = given.get("target", {"name": "Logit"})
        try:
            return cls(
                _objects.from_plain(rules, RULES, place) if plain else Composite.from_json(rules, place),
                _objects.from_plain(target, TARGETS, f"the target of {where}"),
                given.get("absolute", "sample"),
            )
        except CriterionError as error:
            raise DataError(f"{where}: {error}") from error


def layers(graph: Graph) -> tuple[str, ...]:
    """The calls of all layers with weights, in the order in which they run.

    >>> import torch, shapleaf as sl
    >>> layers(sl.trace(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)), torch.zeros(1, 3)))
    ('0:linear#0', '2:linear#0')
    """
    return tuple(dict.fromkeys(op.call for op in graph.ops if KINDS.get(function_of(op.call)) == "layer"))


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
    assigned = composite.assign(layers(graph))
    followed = {call for call, _ in graph.norms}
    return Relevance(model, gates, replace, assigned, followed, composite.attention)

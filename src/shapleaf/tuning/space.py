"""What is tuned: the rules of each band of depth and their parameters, attention, absolute values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .. import _context, _objects
from .._calls import function_of
from ..aggregation import Aggregation, MeanPlusStd
from ..backward.affine import PRODUCTS
from ..criteria import LRP, Logit, Restricted, Target
from ..criteria.relevance import TARGETS, Absolute, layers
from ..errors import CriterionError
from ..evaluation.pruning_curves import RATES
from ..records import Graph
from ..relevance import BOUNDS, AlphaBeta, Composite, Epsilon, Gamma, Rule, ZPlus
from ..relevance.composite import LINEARS, RULES, Attention, Where, bands

Choices = Mapping[str, str | float]
"""What a trial chose, by name."""

GAMMA = " gamma"
"""What follows the name of a slot in that of its gamma."""


@dataclass(frozen=True)
class Tuning:
    """What :func:`shapleaf.tune` may choose from, and how it measures.

    Each band of depth and the linear layers get a rule of their own; in networks of mostly linear layers,
    such as transformers, the bands are of those and the last alone is apart (Hatefi et al. 2024).

    Args:
        trials: how many presets are tried. The first is epsilon everywhere, then each other rule everywhere.
        seed: names every draw.
        bands: depths at which bands end, rising; or whose of the literature: ``"vgg"``, ``"resnet18"``,
            ``"resnet50"``, ``"vit"``.
        rules: to choose from, epsilon among them.
        gamma: the range of gamma, drawn on a log scale, in place of that of a rule :class:`Gamma`; None keeps
            it.
        attention: to choose from, in models that have attention.
        absolute: to choose from, see :class:`~shapleaf.LRP`; the first is that of epsilon everywhere.
        target: what relevance starts from.
        aggregate: how the relevance of examples becomes a score; by default as :func:`shapleaf.attribute`
            does it.
        rates: shares of units that go, see :func:`shapleaf.pruning_curves`; fewer make trials faster.
        restricted: only these classes count; what relevance starts from is ``target`` among them.
        groups: shell patterns of the groups to prune; all by default.

    Raises:
        CriterionError: nothing is left to choose from, epsilon is missing, a rule or the target cannot be
            saved, ``restricted`` has another target, or a value is out of range.

    >>> Tuning(bands="vgg").ends
    (0.3, 0.7)
    """

    trials: int = 50
    seed: int = 0
    bands: str | tuple[float, ...] = (0.3, 0.7)
    rules: tuple[Rule, ...] = (Epsilon(), Gamma(), ZPlus(), AlphaBeta())
    gamma: tuple[float, float] | None = (0.01, 1.0)
    attention: tuple[Attention, ...] = ("attnlrp", "cp")
    absolute: tuple[Absolute | None, ...] = ("sample", "token")
    target: Target = field(default_factory=Logit)
    aggregate: Aggregation = field(default_factory=lambda: MeanPlusStd(2.0))
    rates: tuple[float, ...] = RATES
    restricted: Restricted | None = None
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise CriterionError(f"Tuning(trials=...) must be at least 1, received {self.trials}.")
        for name in ("rules", "attention", "absolute", "rates"):
            given = getattr(self, name)
            if isinstance(given, str) or not given or len(set(given)) < len(given):
                raise CriterionError(f"Tuning({name}=...) needs different values, received {given!r}.")
            object.__setattr__(self, name, tuple(given))
        if Epsilon() not in self.rules:
            raise CriterionError("Tuning(rules=...) needs Epsilon() among them, which all are compared with.")
        if self.gamma is not None and not 0 < self.gamma[0] <= self.gamma[1] < float("inf"):
            raise CriterionError(f"Tuning(gamma=...) is a range above 0, received {self.gamma}.")
        _context.several("groups", self.groups)
        for rule in self.rules:
            _objects.to_plain(rule, RULES)
        _objects.to_plain(self.target, TARGETS)
        if self.restricted is not None:
            if self.restricted.target not in (Logit(), self.target):  # the first is there if none was named
                raise CriterionError(
                    f"restricted={self.restricted} has another target than target={self.target}; name it "
                    f"once, Tuning(target={self.restricted.target})."
                )
            replace(self.restricted, target=self.target)  # refuses a class that is none of its own
        for attention in self.attention:
            Composite(attention=attention)
        for absolute in self.absolute:
            LRP(absolute=absolute)
        bands(self.ends)

    @property
    def ends(self) -> tuple[float, ...]:
        """Where the bands end."""
        if not isinstance(self.bands, str):
            return tuple(self.bands)
        if self.bands not in BOUNDS:
            raise CriterionError(f"bands are known of {', '.join(BOUNDS)}; received {self.bands!r}.")
        return BOUNDS[self.bands]


class Space:
    """The choices that there are for a model.

    Attributes:
        options: what each choice has to choose from; gammas, which depend on a rule, aside.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
    >>> Space(Tuning(), sl.trace(model, torch.zeros(1, 3))).options
    {'last': ('Epsilon', 'Gamma', 'ZPlus', 'AlphaBeta'),
     '0-0.3': ('Epsilon', 'Gamma', 'ZPlus', 'AlphaBeta'), 'absolute': ('sample', 'token')}
    """

    def __init__(self, settings: Tuning, graph: Graph) -> None:
        self.settings = settings
        self.rules = _named(settings.rules)
        self.places = _places(settings.ends, layers(graph))
        self.options: dict[str, tuple[str, ...]] = dict.fromkeys(self.places, tuple(self.rules))
        if _attends(graph):
            self.options["attention"] = settings.attention
        self.options["absolute"] = tuple(absolute or "signed" for absolute in settings.absolute)

    def everywhere(self, rule: str) -> dict[str, str | float]:
        """One rule in all slots, and the first option of everything else."""
        found: dict[str, str | float] = {name: options[0] for name, options in self.options.items()}
        for slot in self.places:
            found[slot] = rule
            chosen = self.rules[rule]
            if self.settings.gamma and isinstance(chosen, Gamma):
                low, high = self.settings.gamma
                found[slot + GAMMA] = min(max(chosen.gamma, low), high)
        return found

    @property
    def baseline(self) -> dict[str, str | float]:
        """Epsilon everywhere."""
        return self.everywhere(next(name for name, rule in self.rules.items() if rule == Epsilon()))

    @property
    def first(self) -> tuple[dict[str, str | float], ...]:
        """What is tried before anything is drawn: epsilon everywhere, then each other rule."""
        found = [self.baseline, *map(self.everywhere, self.rules)]
        return tuple(one for place, one in enumerate(found) if one not in found[:place])

    def draw(self, trial: Any) -> dict[str, str | float]:
        """The choices that a trial of Optuna suggests."""
        found: dict[str, str | float] = {}
        for name, options in self.options.items():
            chosen = found[name] = trial.suggest_categorical(name, options)
            if name in self.places and self.settings.gamma and isinstance(self.rules[chosen], Gamma):
                found[name + GAMMA] = trial.suggest_float(name + GAMMA, *self.settings.gamma, log=True)
        return found

    def distributions(self, choices: Choices) -> dict[str, Any]:
        """What Optuna needs to know of choices that were made."""
        from ..integrations import require

        kinds: Any = require("optuna.distributions", "search")
        low, high = self.settings.gamma or (1.0, 1.0)
        return {
            name: kinds.CategoricalDistribution(self.options[name])
            if name in self.options
            else kinds.FloatDistribution(low, high, log=True)
            for name in choices
        }

    def criterion(self, choices: Choices) -> LRP:
        """The criterion that was chosen."""
        ruled: list[tuple[Where, Rule]] = [
            (place, self._rule(choices, slot)) for slot, place in self.places.items()
        ]
        attention: Any = choices.get("attention", self.settings.attention[0])
        absolute: Any = None if choices["absolute"] == "signed" else choices["absolute"]
        return LRP(Composite(tuple(ruled), attention=attention), self.settings.target, absolute)

    def _rule(self, choices: Choices, slot: str) -> Rule:
        rule = self.rules[str(choices[slot])]
        if isinstance(rule, Gamma) and slot + GAMMA in choices:
            return Gamma(float(choices[slot + GAMMA]), rule.eps)
        return rule


def _named(rules: Sequence[Rule]) -> dict[str, Rule]:
    """Rules by their class, or written out where there are several of it."""
    kinds = [type(rule).__name__ for rule in rules]
    return {
        kind if kinds.count(kind) == 1 else repr(rule): rule for kind, rule in zip(kinds, rules, strict=True)
    }


def _places(ends: Sequence[float], calls: Sequence[str]) -> dict[str, Where]:
    """The slots that any layer is in: the linear layers or the last of them, then the bands."""
    linear = sum(function_of(call) == "linear" for call in calls)
    found: dict[str, Where] = {"linear": LINEARS} if 2 * linear < len(calls) else {"last": (1, 1)}
    found |= {f"{start:g}-{stop:g}": (start, stop) for start, stop in bands(ends)}
    marks = tuple((place, Epsilon(number)) for number, place in enumerate(found.values()))
    used = set(Composite(marks).assign(calls).values())
    return {
        slot: place for (slot, place), (_, mark) in zip(found.items(), marks, strict=True) if mark in used
    }


def _attends(graph: Graph) -> bool:
    """Whether two activations are multiplied anywhere, as queries and keys are."""
    return any(function_of(op.call) in {"scaled_dot_product_attention", *PRODUCTS} for op in graph.ops)

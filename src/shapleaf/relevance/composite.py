"""Composites: which layer is propagated by which rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise
from numbers import Real
from typing import Any, Literal

from .. import _objects
from .._calls import function_of
from ..backward import KINDS
from ..errors import CriterionError, DataError
from .rules import AlphaBeta, Epsilon, Gamma, Rule, ZPlus, check_rule

Where = str | tuple[float, float]
Attention = Literal["attnlrp", "cp"]

RULES = (Epsilon, Gamma, ZPlus, AlphaBeta)
"""Those that can be saved."""

LINEARS = "*:linear#*"
"""The pattern of the calls of linear layers."""

_LAYERS = [f":{name}#0" for name, kind in KINDS.items() if kind == "layer"]


@dataclass(frozen=True)
class Composite:
    """Rules by place: the first that fits a layer holds.

    A place is a shell pattern, of the module's name or of the call's, ``module:function#k``; or a band of
    depth, ``(start, stop)`` with ``start <= depth < stop``. Depth runs from 0, the first layer, to 1, the
    last, among the layers of the same function: convolutions and linear layers are counted apart. The last
    belongs to the band that ends at 1; ``(1, 1)`` is that layer alone.

    Args:
        rules: pairs of a place and a rule.
        default: the rule of all other layers.
        attention: ``"attnlrp"`` goes through queries and keys too (Achtibat et al. 2024); ``"cp"`` takes
            the attention weights for constants (Ali et al. 2022), which conserves relevance.

    Raises:
        CriterionError: something is no place or no rule, a band is empty, or the attention is neither.

    >>> composite = Composite(((":linear#*", Epsilon()), ((0.5, 1), ZPlus())))
    >>> {call: type(rule).__name__ for call, rule in composite.assign(["a:conv2d#0", "b:conv2d#0"]).items()}
    {'a:conv2d#0': 'Epsilon', 'b:conv2d#0': 'ZPlus'}
    """

    rules: tuple[tuple[Where, Rule], ...] = ()
    default: Rule = field(default_factory=Epsilon)
    attention: Attention = "attnlrp"

    def __post_init__(self) -> None:
        if self.attention not in ("attnlrp", "cp"):
            raise CriterionError(f'attention is "attnlrp" or "cp", received {self.attention!r}.')
        if not isinstance(self.rules, tuple | list):
            raise CriterionError(f"rules are pairs of a place and a rule, received {self.rules!r}.")
        for pair in self.rules:
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise CriterionError(
                    f"rules are pairs of a place and a rule, such as (':linear#*', Epsilon()), received "
                    f"{pair!r} among them."
                )
            place, rule = pair
            if not isinstance(place, str) and not _is_band(place):
                raise CriterionError(
                    "a place is a layer's name or a pattern, and a band of depth is (start, stop) with "
                    f"0 <= start < stop <= 1, received {place!r}."
                )
            check_rule(rule, f"the rule at {place!r}")
        check_rule(self.default, "Composite(default=...)")

    def assign(self, calls: Sequence[str]) -> Mapping[str, Rule]:
        """The rule of every call, given those of all layers with weights in the order in which they run.

        Raises:
            CriterionError: a pattern fits none of them, as one that is mistyped; patterns that begin with
                ``*:`` or ``:`` name a kind of layer, which a model need not have, but which must be one.
        """
        for place in (place for place, _ in self.rules if isinstance(place, str)):
            known = [*calls, *_LAYERS] if place.startswith(("*:", ":")) else calls
            if not any(_fits(place, call) for call in known):
                raise CriterionError(
                    f"no layer is named {place!r}; the calls of layers are {', '.join(calls[:6])}"
                    f"{', …' if len(calls) > 6 else ''}, and a kind of them is named as ':linear#*' is."
                )
        depths = _depths(calls)
        return {
            call: next((rule for place, rule in self.rules if _fits(place, call, depths[call])), self.default)
            for call in calls
        }

    def to_json(self) -> dict[str, Any]:
        """The composite as JSON values, from which :meth:`from_json` makes it again.

        Raises:
            CriterionError: a rule is not of this library.
        """
        rules = [
            {"place": place if isinstance(place, str) else list(place), **_objects.to_plain(rule, RULES)}
            for place, rule in self.rules
        ]
        default = _objects.to_plain(self.default, RULES)
        return {"rules": rules, "default": default, "attention": self.attention}

    @classmethod
    def from_json(cls, found: Any, where: str = "the composite") -> Composite:
        """What :meth:`to_json` made; what is left out is as by default.

        Args:
            found: JSON values, from anywhere.
            where: what to call them in messages.

        Raises:
            DataError: something is unknown, missing, or has a wrong value; the message says where.

        >>> Composite.from_json({"rules": [{"place": [0.5, 1], "name": "ZPlus"}], "attention": "cp"}).rules
        (((0.5, 1), ZPlus(eps=1e-06)),)
        """
        given = _objects.checked(found, where, ("rules", "default", "attention"))
        rules = given.get("rules", [])
        if not isinstance(rules, list):
            raise DataError(f"the rules of {where} are a {type(rules).__name__}, expected a list.")
        made = [_rule(one, f"rule {number} of {where}") for number, one in enumerate(rules)]
        default = given.get("default", {"name": "Epsilon"})
        try:
            return cls(
                rules=tuple(made),
                default=_objects.from_plain(default, RULES, f"the default of {where}"),
                attention=given.get("attention", "attnlrp"),
            )
        except CriterionError as error:
            raise DataError(f"{where}: {error}") from error


def _rule(found: Any, where: str) -> tuple[Where, Rule]:
    given = dict(_objects.checked(found, where))
    place = given.pop("place", None)
    if isinstance(place, list) and len(place) == 2 and all(type(end) in (int, float) for end in place):
        place = (place[0], place[1])
    elif not isinstance(place, str):
        raise DataError(f"the place of {where} is {place!r}, expected a pattern or a band [start, stop].")
    return place, _objects.from_plain(given, RULES, where)


def _is_band(place: Any) -> bool:
    two = isinstance(place, tuple | list) and len(place) == 2 and all(isinstance(end, Real) for end in place)
    return two and (0 <= place[0] < place[1] <= 1 or tuple(place) == (1, 1))


def _fits(place: Where, call: str, depth: float = 0) -> bool:
    if isinstance(place, str):
        pattern = f"*{place}" if place.startswith(":") else place
        return fnmatchcase(call, pattern) or fnmatchcase(call.rpartition(":")[0], pattern)
    start, stop = place
    return start <= depth < stop or depth == stop == 1


def _depths(calls: Sequence[str]) -> dict[str, float]:
    depths: dict[str, float] = {}
    for kind in dict.fromkeys(function_of(call) for call in calls):
        alike = [call for call in calls if function_of(call) == kind]
        depths |= {call: place / max(len(alike) - 1, 1) for place, call in enumerate(alike)}
    return depths


def banded(
    low: Rule,
    mid: Rule,
    high: Rule,
    linear: Rule,
    *,
    network: str,
    attention: Attention = "attnlrp",
) -> Composite:
    """The slots that Hatefi et al. (2024) choose rules for: three bands of depth, and the linear layers.

    Args:
        low: the rule of the first band: of convolutions, in a transformer of linear layers.
        mid: that of the second.
        high: that of the last.
        linear: the rule of linear layers, in a transformer of the last one alone.
        network: ``"vgg"``, ``"resnet18"``, ``"resnet50"`` or ``"vit"``: where the bands end.
        attention: as of :class:`Composite`.

    Raises:
        CriterionError: there are no bands of that name.

    >>> banded(ZPlus(), Gamma(), Epsilon(), Epsilon(), network="resnet18").rules[1]
    ((0, 0.25), ZPlus(eps=1e-06))
    """
    if network not in BOUNDS:
        raise CriterionError(f"bands are known of {', '.join(BOUNDS)}; received {network!r}.")
    places = bands(BOUNDS[network])
    where = (1, 1) if network == "vit" else LINEARS
    return Composite(((where, linear), *zip(places, (low, mid, high), strict=True)), linear, attention)


def bands(ends: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """The bands of depth that end at these, and the last one.

    Raises:
        CriterionError: the ends do not rise, or are not between 0 and 1.

    >>> bands((0.3, 0.7))
    ((0, 0.3), (0.3, 0.7), (0.7, 1))
    """
    found = tuple(pairwise((0, *ends, 1)))
    if not all(start < stop for start, stop in found):
        raise CriterionError(f"bands end at rising depths between 0 and 1, received {(*ends,)}.")
    return found


BOUNDS = {"vgg": (0.3, 0.7), "resnet18": (0.25, 0.75), "resnet50": (0.2, 0.82), "vit": (0.25, 0.75)}
"""Depths at which the bands of Hatefi et al. (2024) end: VGG-16's convolutions 1-4, 5-9, 10-13; ResNets' stem
and stage 1, stages 2 and 3, stage 4; the first and the last quarter of a transformer's blocks."""

PRESETS: dict[str, Composite] = {
    "lrp-0": Composite(default=Epsilon(0)),
    "epsilon": Composite(),
    "zplus": Composite(default=ZPlus()),
    "epsilon-plus": Composite(((LINEARS, Epsilon()),), ZPlus()),
    "epsilon-gamma": Composite(((LINEARS, Epsilon()),), Gamma()),
    "epsilon-alpha2-beta1": Composite(((LINEARS, Epsilon()),), AlphaBeta()),
    "attnlrp": Composite(),
    "attnlrp-gamma": Composite((((1, 1), Epsilon()),), Gamma(0.05)),
    "cp-lrp": Composite(attention="cp"),
    **{f"pxp-{net}": banded(*[Epsilon()] * 4, network=net) for net in BOUNDS},
}


def preset_composite(name: str) -> Composite:
    """A composite of the literature.

    - ``lrp-0``: gradient times activation; ``epsilon``: that rule everywhere; ``zplus``: Yeom et al. (2021).
    - Those made for explaining inputs faithfully: ``epsilon-plus``, ``epsilon-gamma`` and
      ``epsilon-alpha2-beta1``, with the second rule in convolutions and epsilon in linear layers;
      ``attnlrp``, ``attnlrp-gamma`` and ``cp-lrp`` for transformers.
    - ``pxp-vgg``, ``pxp-resnet18``, ``pxp-resnet50``, ``pxp-vit``: the bands of Hatefi et al. (2024) with the
      rules of the configuration that their code ships with, epsilon in every slot; :func:`banded` fills the
      same slots otherwise.

    Raises:
        CriterionError: there is no preset of that name.

    >>> preset_composite("cp-lrp").attention
    'cp'
    """
    if name not in PRESETS:
        raise CriterionError(f"no preset is named {name!r}; there are {', '.join(PRESETS)}.")
    return PRESETS[name]

"""Layer-wise relevance propagation (LRP) as gradient times activation."""

from .composite import BOUNDS, PRESETS, Composite, banded, preset_composite
from .propagate import Relevance
from .rules import AlphaBeta, Epsilon, Gamma, Rule, ZPlus

__all__ = [
    "BOUNDS",
    "PRESETS",
    "AlphaBeta",
    "Composite",
    "Epsilon",
    "Gamma",
    "Relevance",
    "Rule",
    "ZPlus",
    "banded",
    "preset_composite",
]

"""Pruning of single weights: criteria, masks that meet a budget, and what holds them."""

from .choosing import Choice, Kept, WeightCriterion, WeightProbe, top
from .counting import nonzeros, prunable
from .criteria import Magnitude, SiPP, Snip
from .dead import dead
from .holding import Hold, hold, sparsified
from .sparsify import sparsify

__all__ = [
    "Choice",
    "Hold",
    "Kept",
    "Magnitude",
    "SiPP",
    "Snip",
    "WeightCriterion",
    "WeightProbe",
    "dead",
    "hold",
    "nonzeros",
    "prunable",
    "sparsified",
    "sparsify",
    "top",
]

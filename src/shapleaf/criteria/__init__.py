"""Criteria: what a unit is worth, by every notion of the literature."""

from .activations import APoZ
from .gradients import Sensitivity, Taylor
from .probe import Consumer, Criterion, Elimination, Needs, Probe
from .shapley import LeaveOneOut, Shapley
from .surgeon import OptimalBrainSurgeon
from .weights import Random, WeightNorm

__all__ = [
    "APoZ",
    "Consumer",
    "Criterion",
    "Elimination",
    "LeaveOneOut",
    "Needs",
    "OptimalBrainSurgeon",
    "Probe",
    "Random",
    "Sensitivity",
    "Shapley",
    "Taylor",
    "WeightNorm",
]

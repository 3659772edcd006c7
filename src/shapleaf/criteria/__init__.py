"""Criteria: what a unit is worth, by every notion of the literature."""

from .activations import APoZ
from .gradients import Sensitivity, Taylor
from .probe import Criterion, Needs, Probe
from .shapley import LeaveOneOut, Shapley
from .weights import Random, WeightNorm

__all__ = [
    "APoZ",
    "Criterion",
    "LeaveOneOut",
    "Needs",
    "Probe",
    "Random",
    "Sensitivity",
    "Shapley",
    "Taylor",
    "WeightNorm",
]

"""Criteria: what a unit is worth, by every notion of the literature."""

from .activations import APoZ
from .gradients import Sensitivity, Taylor
from .probe import OF_LAYERS, Consumer, Criterion, Elimination, Layer, Needs, Probe
from .provable import PFP, sample_size
from .shapley import LeaveOneOut, Shapley
from .surgeon import OptimalBrainSurgeon
from .thinet import ThiNet
from .weights import Random, WeightNorm

__all__ = [
    "OF_LAYERS",
    "PFP",
    "APoZ",
    "Consumer",
    "Criterion",
    "Elimination",
    "Layer",
    "LeaveOneOut",
    "Needs",
    "OptimalBrainSurgeon",
    "Probe",
    "Random",
    "Sensitivity",
    "Shapley",
    "Taylor",
    "ThiNet",
    "WeightNorm",
    "sample_size",
]

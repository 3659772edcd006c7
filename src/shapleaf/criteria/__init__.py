"""Criteria: what a unit is worth, by every notion of the literature."""

from .activations import APoZ
from .contrasts import Conductance, DeepLIFT
from .gradients import GradientActivation, Saliency, Sensitivity, Taylor
from .probe import OF_LAYERS, Consumer, Criterion, Elimination, Layer, Needs, Probe
from .provable import PFP, sample_size
from .relevance import LRP
from .shapley import IntegratedGradients, LeaveOneOut, Occlusion, Shapley
from .surgeon import OptimalBrainSurgeon
from .targets import Logit, LogitDifference, Loss, Relative, Restricted, Target
from .thinet import ThiNet
from .weights import Random, WeightNorm

__all__ = [
    "LRP",
    "OF_LAYERS",
    "PFP",
    "APoZ",
    "Conductance",
    "Consumer",
    "Criterion",
    "DeepLIFT",
    "Elimination",
    "GradientActivation",
    "IntegratedGradients",
    "Layer",
    "LeaveOneOut",
    "Logit",
    "LogitDifference",
    "Loss",
    "Needs",
    "Occlusion",
    "OptimalBrainSurgeon",
    "Probe",
    "Random",
    "Relative",
    "Restricted",
    "Saliency",
    "Sensitivity",
    "Shapley",
    "Target",
    "Taylor",
    "ThiNet",
    "WeightNorm",
    "sample_size",
]

"""Test distributions other than the one that a network was trained on: corruptions, noise, attacks, files."""

from .attacks import FGSM, PGD
from .constants import CORRUPTIONS, MIX1, MIX2, Scale
from .corruption import Corruption
from .distribution import Attack, Distribution, Shift
from .mix import CorruptionMix
from .perturbations import GaussianNoise, UniformNoise
from .shifted import Shifted, distributions, shifted

__all__ = [
    "CORRUPTIONS",
    "FGSM",
    "MIX1",
    "MIX2",
    "PGD",
    "Attack",
    "Corruption",
    "CorruptionMix",
    "Distribution",
    "GaussianNoise",
    "Scale",
    "Shift",
    "Shifted",
    "UniformNoise",
    "distributions",
    "shifted",
]

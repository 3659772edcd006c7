"""Shapley values of units: the game they play, and the estimators that solve it."""

from .adaptive import Adaptive
from .corrected import Corrected
from .dasp import DASP
from .exact import Exact
from .game import Estimate, Estimator, Game
from .owen import OwenMoments
from .path import Path
from .permutation import Permutation
from .regression import Regression
from .sampling import Sampler

__all__ = [
    "DASP",
    "Adaptive",
    "Corrected",
    "Estimate",
    "Estimator",
    "Exact",
    "Game",
    "OwenMoments",
    "Path",
    "Permutation",
    "Regression",
    "Sampler",
]

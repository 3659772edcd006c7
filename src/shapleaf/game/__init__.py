"""Shapley values of units: the game they play, and the estimators that solve it."""

from .adaptive import Adaptive
from .corrected import Corrected
from .exact import Exact
from .game import Estimate, Estimator, Game
from .path import Path
from .permutation import Permutation
from .regression import Regression
from .sampling import Sampler

__all__ = [
    "Adaptive",
    "Corrected",
    "Estimate",
    "Estimator",
    "Exact",
    "Game",
    "Path",
    "Permutation",
    "Regression",
    "Sampler",
]

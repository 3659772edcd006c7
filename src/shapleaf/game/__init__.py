"""Shapley values of units: the game they play, and the estimators that solve it."""

from .exact import Exact
from .game import Estimate, Estimator, Game
from .path import Path
from .permutation import Permutation
from .regression import Regression

__all__ = ["Estimate", "Estimator", "Exact", "Game", "Path", "Permutation", "Regression"]

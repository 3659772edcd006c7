"""Shapley values of units: the game they play, and the estimators that solve it."""

from .dasp import DASP
from .exact import Exact
from .game import Estimate, Estimator, Game
from .owen import OwenMoments
from .path import Path
from .permutation import Permutation

__all__ = ["DASP", "Estimate", "Estimator", "Exact", "Game", "OwenMoments", "Path", "Permutation"]

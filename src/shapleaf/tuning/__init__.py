"""Tuning: the rules of relevance that prune best, found by trial, and told whether they hold elsewhere."""

from .space import Tuning
from .tune import tune

__all__ = ["Tuning", "tune"]

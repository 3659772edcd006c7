"""Pruning and retraining, again and again: recipes, training that survives its process, and whole cycles."""

from .augmentation import Augmentation, Compose, CropFlip
from .cycles import Retraining, cycle
from .methods import METHODS, FilterPruning, Method, NoPruning, WeightPruning
from .presets import preset
from .recipes import RECIPES, Constant, Cosine, Decay, Every, Milestones, Poly, Recipe, learning_rate
from .spacings import PAPER, chunks, spacing
from .train import train

__all__ = [
    "METHODS",
    "PAPER",
    "RECIPES",
    "Augmentation",
    "Compose",
    "Constant",
    "Cosine",
    "CropFlip",
    "Decay",
    "Every",
    "FilterPruning",
    "Method",
    "Milestones",
    "NoPruning",
    "Poly",
    "Recipe",
    "Retraining",
    "WeightPruning",
    "chunks",
    "cycle",
    "learning_rate",
    "preset",
    "spacing",
    "train",
]

"""Pruning and retraining, again and again: recipes, training that survives its process, and whole cycles."""

from .augmentation import Augmentation, CropFlip
from .recipes import RECIPES, Constant, Cosine, Decay, Every, Milestones, Poly, Recipe, learning_rate
from .spacings import PAPER, chunks, spacing
from .train import train

__all__ = [
    "PAPER",
    "RECIPES",
    "Augmentation",
    "Constant",
    "Cosine",
    "CropFlip",
    "Decay",
    "Every",
    "Milestones",
    "Poly",
    "Recipe",
    "chunks",
    "learning_rate",
    "spacing",
    "train",
]

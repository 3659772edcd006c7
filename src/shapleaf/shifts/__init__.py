"""Test distributions other than the one that a network was trained on: corruptions, noise, attacks, files."""

from .distribution import Attack, Distribution, Shift

__all__ = ["Attack", "Distribution", "Shift"]

"""Data, one way: any iterable of batches becomes checked batches of inputs and target."""

from .batches import LABELS, Batch, Batches, batches, repeatable, shard
from .drawing import per_class, take

__all__ = ["LABELS", "Batch", "Batches", "batches", "per_class", "repeatable", "shard", "take"]

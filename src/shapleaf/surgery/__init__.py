"""Taking the units out for real: slices, attributes, optimizer state, compensation, proof."""

from .compensation import Compensation, FoldMean
from .prune import Pruned, prune, prune_, replay

__all__ = ["Compensation", "FoldMean", "Pruned", "prune", "prune_", "replay"]

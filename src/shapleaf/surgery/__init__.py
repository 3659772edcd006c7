"""Taking the units out for real: slices, attributes, optimizer state, proof, compensation."""

from .compensation import Compensation
from .distillation import Distill
from .folding import FoldMean
from .prune import Pruned, prune, prune_, replay
from .recalibration import RecalibrateBatchNorm
from .refitting import LeastSquares
from .reweighing import Reweigh, redraw

__all__ = [
    "Compensation",
    "Distill",
    "FoldMean",
    "LeastSquares",
    "Pruned",
    "RecalibrateBatchNorm",
    "Reweigh",
    "prune",
    "prune_",
    "redraw",
    "replay",
]

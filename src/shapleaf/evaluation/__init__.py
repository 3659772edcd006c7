"""What was gained and lost, on test data and under shifts, and whether scores foretold it."""

from .assess import assess
from .calibration import CalibrationError, calibration
from .candidates import Candidate
from .classes import class_counts, flips, identified
from .curves import accuracies, agreements
from .evaluate import evaluate
from .excess import excess_error
from .features import heat_map
from .latency import Latency
from .lipschitz import Lipschitz
from .metrics import Accuracy, Agreement, ExampleMetric, Interval, Loss, Macs, ModelMetric, Params
from .orderings import Fast, backselect
from .potential import prune_potential
from .pruning_curves import RATES, pruning_curves
from .robustness import robustness
from .segmentation import MeanIoU
from .sensitivity_n import faithfulness
from .similarity import noise_similarity
from .verdict import Rules, verdict

__all__ = [
    "RATES",
    "Accuracy",
    "Agreement",
    "CalibrationError",
    "Candidate",
    "ExampleMetric",
    "Fast",
    "Interval",
    "Latency",
    "Lipschitz",
    "Loss",
    "Macs",
    "MeanIoU",
    "ModelMetric",
    "Params",
    "Rules",
    "accuracies",
    "agreements",
    "assess",
    "backselect",
    "calibration",
    "class_counts",
    "evaluate",
    "excess_error",
    "faithfulness",
    "flips",
    "heat_map",
    "identified",
    "noise_similarity",
    "prune_potential",
    "pruning_curves",
    "robustness",
    "verdict",
]

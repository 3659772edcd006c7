"""What was gained and lost, and whether scores foretold it: metrics, ``evaluate``, ``faithfulness``."""

from .candidates import Candidate
from .evaluate import evaluate
from .features import heat_map
from .latency import Latency
from .lipschitz import Lipschitz
from .metrics import Accuracy, Agreement, ExampleMetric, Interval, Loss, Macs, ModelMetric, Params
from .orderings import Fast, backselect
from .sensitivity_n import faithfulness
from .similarity import noise_similarity

__all__ = [
    "Accuracy",
    "Agreement",
    "Candidate",
    "ExampleMetric",
    "Fast",
    "Interval",
    "Latency",
    "Lipschitz",
    "Loss",
    "Macs",
    "ModelMetric",
    "Params",
    "backselect",
    "evaluate",
    "faithfulness",
    "heat_map",
    "noise_similarity",
]

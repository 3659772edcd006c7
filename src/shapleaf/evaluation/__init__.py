"""What was gained and lost, and whether scores foretold it: metrics, ``evaluate``, ``faithfulness``."""

from .candidates import Candidate
from .evaluate import evaluate
from .latency import Latency
from .metrics import Accuracy, Agreement, ExampleMetric, Interval, Loss, Macs, ModelMetric, Params
from .sensitivity_n import faithfulness
from .similarity import noise_similarity

__all__ = [
    "Accuracy",
    "Agreement",
    "Candidate",
    "ExampleMetric",
    "Interval",
    "Latency",
    "Loss",
    "Macs",
    "ModelMetric",
    "Params",
    "evaluate",
    "faithfulness",
    "noise_similarity",
]

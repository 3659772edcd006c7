"""What was gained and lost: metrics, latency, and the verb ``evaluate``."""

from .evaluate import evaluate
from .latency import Latency
from .metrics import Accuracy, Agreement, ExampleMetric, Interval, Loss, Macs, ModelMetric, Params

__all__ = [
    "Accuracy",
    "Agreement",
    "ExampleMetric",
    "Interval",
    "Latency",
    "Loss",
    "Macs",
    "ModelMetric",
    "Params",
    "evaluate",
]

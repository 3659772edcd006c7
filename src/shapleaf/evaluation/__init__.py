"""What was gained and lost, and whether scores foretold it: metrics, ``evaluate``, ``faithfulness``."""

from .evaluate import evaluate
from .faithfulness import faithfulness
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
    "faithfulness",
]

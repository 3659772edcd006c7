"""The frozen records that travel from stage to stage."""

from .faithfulness import Correlation, Faithfulness
from .features import HeatMap, Ordering
from .graph import Axis, Blocked, Graph, Group, Op, Site, Size, Slice, TensorInfo
from .latency import LatencyTable, TimedCall
from .outcomes import Observed, Outcomes, Subject
from .plan import Cost, Plan
from .receipt import Edit, Effect, Receipt
from .report import Measurement, Report
from .scores import Scores
from .similarity import NoisePotential, NoiseSimilarity
from .sweep import Failure, Sweep

__all__ = [
    "Axis",
    "Blocked",
    "Correlation",
    "Cost",
    "Edit",
    "Effect",
    "Failure",
    "Faithfulness",
    "Graph",
    "Group",
    "HeatMap",
    "LatencyTable",
    "Measurement",
    "NoisePotential",
    "NoiseSimilarity",
    "Observed",
    "Op",
    "Ordering",
    "Outcomes",
    "Plan",
    "Receipt",
    "Report",
    "Scores",
    "Site",
    "Size",
    "Slice",
    "Subject",
    "Sweep",
    "TensorInfo",
    "TimedCall",
]

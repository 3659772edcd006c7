"""The frozen records that travel from stage to stage."""

from .cycle import Cycle, Point
from .faithfulness import Correlation, Faithfulness
from .graph import Axis, Blocked, Graph, Group, Op, Site, Size, Slice, TensorInfo
from .latency import LatencyTable, TimedCall
from .masks import Mask, Masks
from .outcomes import Observed, Outcomes, Subject
from .plan import Cost, Plan
from .receipt import Edit, Effect, Receipt
from .report import Measurement, Report
from .scores import Scores
from .training import Training

__all__ = [
    "Axis",
    "Blocked",
    "Correlation",
    "Cost",
    "Cycle",
    "Edit",
    "Effect",
    "Faithfulness",
    "Graph",
    "Group",
    "LatencyTable",
    "Mask",
    "Masks",
    "Measurement",
    "Observed",
    "Op",
    "Outcomes",
    "Plan",
    "Point",
    "Receipt",
    "Report",
    "Scores",
    "Site",
    "Size",
    "Slice",
    "Subject",
    "TensorInfo",
    "TimedCall",
    "Training",
]

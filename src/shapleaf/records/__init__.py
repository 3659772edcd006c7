"""The frozen records that travel from stage to stage."""

from .comparison import Compared, Comparison, RankCorrelation, Stability
from .cycle import Cycle, Point
from .excess import Excess, ExcessError, Slope
from .faithfulness import Correlation, Faithfulness
from .features import HeatMap, Ordering
from .graph import Axis, Blocked, Graph, Group, Op, Site, Size, Slice, TensorInfo
from .latency import LatencyTable, TimedCall
from .masks import Mask, Masks
from .outcomes import Observed, Outcomes, Subject
from .plan import Cost, Plan
from .potential import Limit, Pooled, Potential
from .pruning_curves import PruningCurve, PruningCurves
from .receipt import Edit, Effect, Receipt
from .report import Measurement, Report
from .robustness import ClassCounts, Flips, Measured, Robustness
from .scores import Scores
from .similarity import NoisePotential, NoiseSimilarity
from .sweep import Failure, Sweep
from .training import Training
from .tuned import Tried, Tuned
from .verdict import Advice, Verdict

__all__ = [
    "Advice",
    "Axis",
    "Blocked",
    "ClassCounts",
    "Compared",
    "Comparison",
    "Correlation",
    "Cost",
    "Cycle",
    "Edit",
    "Effect",
    "Excess",
    "ExcessError",
    "Failure",
    "Faithfulness",
    "Flips",
    "Graph",
    "Group",
    "HeatMap",
    "LatencyTable",
    "Limit",
    "Mask",
    "Masks",
    "Measured",
    "Measurement",
    "NoisePotential",
    "NoiseSimilarity",
    "Observed",
    "Op",
    "Ordering",
    "Outcomes",
    "Plan",
    "Point",
    "Pooled",
    "Potential",
    "PruningCurve",
    "PruningCurves",
    "RankCorrelation",
    "Receipt",
    "Report",
    "Robustness",
    "Scores",
    "Site",
    "Size",
    "Slice",
    "Slope",
    "Stability",
    "Subject",
    "Sweep",
    "TensorInfo",
    "TimedCall",
    "Training",
    "Tried",
    "Tuned",
    "Verdict",
]

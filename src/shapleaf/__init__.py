"""shapleaf: principled structured pruning of PyTorch models.

>>> import shapleaf as sl
>>> import torch
>>> model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
>>> data = [(torch.randn(50, 4), torch.randint(3, (50,)))]
>>> graph = sl.trace(model, data[0][0][:1])
>>> scores = sl.attribute(model, graph, data)
>>> plan = sl.allocate(scores, sl.Macs(keep=0.5))
>>> pruned, receipt = sl.prune(model, plan)
>>> pruned[0].out_features
8
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "errors": "ShapleafError TraceError CriterionError BudgetError PlanError StaleGraphError DataError "
    "MissingExtraError",
    "records": "Graph Scores Plan Receipt Report Faithfulness LatencyTable Outcomes NoiseSimilarity "
    "HeatMap Ordering Potential ExcessError Verdict Robustness Masks Cycle Sweep "
    "PruningCurves Tuned Comparison",
    "data": "batches take per_class",
    "shifts": "Distribution Corruption CorruptionMix GaussianNoise UniformNoise FGSM PGD shifted "
    "distributions",
    "tracing": "trace",
    "programs": "program",
    "costs": "cost",
    "masking": "masked Zero CalibrationMean Reference",
    "game": "Exact Permutation Path OwenMoments Corrected Regression DASP Adaptive Estimate",
    "criteria": "Random WeightNorm APoZ Sensitivity Saliency Taylor GradientActivation LeaveOneOut Occlusion "
    "IntegratedGradients DeepLIFT Conductance Shapley OptimalBrainSurgeon Criterion Needs PFP ThiNet "
    "sample_size LRP Loss Logit LogitDifference Relative Restricted Target",
    "relevance": "Epsilon ZPlus Gamma AlphaBeta Composite banded preset_composite",
    "aggregation": "Mean MeanPlusStd AbsMean AbsOfMean Quantile",
    "attribution": "attribute",
    "scanning": "scan",
    "budgets": "Units Params Macs Latency Nonzeros",
    "weights": "sparsify sparsified hold Magnitude SiPP Snip",
    "strategies": "Global Uniform Tradeoff ErrorLevel",
    "allocation": "allocate plan",
    "idling": "idle",
    "surgery": "prune prune_ replay FoldMean LeastSquares RecalibrateBatchNorm Distill redraw Reweigh",
    "refining": "refine",
    "schedules": "OneShot Linear Cubic Geometric Schedule",
    "training": "Pruner Planner",
    "evaluation": "evaluate faithfulness Candidate assess prune_potential excess_error verdict "
    "robustness noise_similarity backselect heat_map pruning_curves",
    "comparison": "compare Comparing",
    "retraining": "Recipe Retraining WeightPruning FilterPruning CropFlip train cycle spacing preset",
    "profiling": "profile relative_time",
    "exporting": "export",
    "slimming": "slim",
    "sweeps": "Study sweep",
    "tuning": "tune Tuning",
    "_progress": "quiet",
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__all__ = ["__version__", *_HOME]  # noqa: PLE0604 - the names are strings


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that importing shapleaf loads neither torch nor any extra."""
    if name not in _HOME:
        raise AttributeError(f"module 'shapleaf' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

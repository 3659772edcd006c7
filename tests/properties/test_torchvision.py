"""Real architectures at random ratios: they run, and compute what the masked model computes."""

from __future__ import annotations

import pytest
import torch

import shapleaf as sl
from zoo import gap, random_plan, run, settle

models = pytest.importorskip("torchvision.models")

FAST = ("resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "efficientnet_b0", "googlenet", "squeezenet1_0")
SLOW = (
    "densenet121", "mobilenet_v3_small", "mnasnet1_0", "resnext50_32x4d", "regnet_y_400mf", "convnext_tiny",
    "alexnet", "segmentation.lraspp_mobilenet_v3_large", "segmentation.fcn_resnet50",
)  # fmt: skip
BLOCKED = {"shufflenet_v2_x0_5": 2}  # ties


def build(name: str) -> torch.nn.Module:
    factory = models
    for part in name.split("."):
        factory = getattr(factory, part)
    options = (
        {"init_weights": False} if name == "googlenet" else {"weights_backbone": None} if "." in name else {}
    )
    return settle(factory(weights=None, **options))


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_masked_equals_pruned(name: str) -> None:
    model = build(name)
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    graph = sl.trace(model, x)
    assert all(group.exact for group in graph)
    assert graph.notes == ()
    assert len(graph.ties) == BLOCKED.get(name, 0)
    plan = random_plan(graph, 0)
    assert plan.after.params < 0.8 * plan.before.params
    pruned, receipt = sl.prune(model, plan)
    assert receipt.error is not None
    assert receipt.error < 1e-9
    assert gap(run(sl.masked(model, plan), x), run(pruned, x)) < 1e-9
    assert sum(p.numel() for p in pruned.parameters()) == plan.after.params
    pruned.train()(torch.cat([x, x]))  # auxiliary heads too


def test_a_kept_ratio_is_kept_everywhere() -> None:
    """Half of all units of a ResNet leave a quarter of its inner weights, half of the first and the last."""
    model = build("resnet18")
    graph = sl.trace(model, torch.zeros(1, 3, 64, 64, dtype=torch.float64))
    plan = sl.plan(graph, {group.name: range(group.size // 2) for group in graph})
    kept = {name: p.numel() for name, p in sl.prune(model, plan).model.named_parameters()}
    share = {name: kept[name] / p.numel() for name, p in model.named_parameters() if p.ndim == 4}
    assert share.pop("conv1.weight") == 0.5
    assert set(share.values()) == {0.25}
    assert kept["fc.weight"] == model.fc.weight.numel() / 2

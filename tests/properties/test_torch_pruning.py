"""Torch-Pruning as an oracle: on plain CNNs both find the same groups, position by position.

Its unit of a grouped convolution is a channel, ours a whole group, so such nets are left out.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import shapleaf as sl

models = pytest.importorskip("torchvision.models")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tp = pytest.importorskip("torch_pruning")

Axes = frozenset[tuple[str, int, tuple[int, ...]]]
"""What is coupled: tensor, axis and the positions on it."""


def ours(model: nn.Module, x: torch.Tensor) -> set[Axes]:
    return {
        frozenset((s.tensor, s.dim, tuple(sorted(s.index.flatten().tolist()))) for s in group.slices)
        for group in sl.trace(model, x)
    }


def theirs(model: nn.Module, x: torch.Tensor) -> set[Axes]:
    last = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    names = {module: name for name, module in model.named_modules()}
    found = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(model, example_inputs=x)
        for group in graph.get_all_groups(ignored_layers=[last], root_module_types=[nn.Conv2d, nn.Linear]):
            axes: set[tuple[str, int, tuple[int, ...]]] = set()
            for dependency, positions in group:
                module = dependency.target.module
                inputs = "in_channels" in dependency.handler.__name__
                axes |= {
                    (f"{names[module]}.{tensor}", dim, tuple(sorted(positions)))
                    for tensor, dim in owned(module, inputs=inputs)
                }
            found.add(frozenset(axes))
    return found


def owned(module: nn.Module, *, inputs: bool) -> list[tuple[str, int]]:
    """The axes of a layer's tensors that go with its input or output channels."""
    if isinstance(module, _BatchNorm):
        return [(name, 0) for name in ("weight", "bias", "running_mean", "running_var")]
    if not isinstance(module, nn.Linear | nn.Conv2d):
        return []
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        return [("weight", 0), *([("bias", 0)] if module.bias is not None else [])]
    if inputs:
        return [("weight", 1)]
    return [("weight", 0), *([("bias", 0)] if module.bias is not None else [])]


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "mobilenet_v2", "squeezenet1_0", "densenet121"])
def test_the_groups_are_the_same(name: str) -> None:
    model = getattr(models, name)(weights=None).eval()
    x = torch.randn(1, 3, 64, 64)
    mine, other = ours(model, x), theirs(model, x)
    assert mine - other == set()
    assert other - mine == set()

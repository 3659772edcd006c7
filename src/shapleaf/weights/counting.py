"""Which weights can be pruned one by one, and how many scalars of a model are not zero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from .. import _context
from ..data import batches
from ..errors import PlanError
from ..watching import multiplied


def nonzeros(model: nn.Module) -> int:
    """The number of non-zero scalars among all parameters; tied ones count once.

    >>> layer = nn.Linear(3, 2)
    >>> _ = nn.init.zeros_(layer.bias)
    >>> nonzeros(layer)
    6
    """
    return sum(int(torch.count_nonzero(parameter)) for parameter in model.parameters())


def prunable(model: nn.Module, data: Any = None, layers: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names of the parameters whose weights can be pruned one by one: those of linear layers.

    With data the model is run, and they are those by which any linear call multiplies and that nothing
    else reads. Without, they are the weights of PyTorch's own linear, convolutional, recurrent and attention
    layers. Biases, norms, embeddings and whatever shares a parameter with them are never among them.

    Args:
        model: the model.
        data: batches, of which the first two examples are used.
        layers: shell patterns of the names of their modules, or of the parameters.

    Raises:
        PlanError: there is none, or a pattern matches none.

    >>> prunable(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)))
    ('0.weight', '3.weight')
    """
    if data is None:
        found = _of_modules(model)
        more = "; pass data, on which the model is run to find them"
    else:
        found = multiplied(
            model, next(batches(data, labelled=False, device=_context.device_of(model)))[:2].inputs
        )
        more = ""
    if not found:
        raise PlanError(f"{type(model).__name__} has no weights of linear layers that could be pruned{more}.")
    for pattern in layers or ():
        if not any(_matches(name, pattern) for name in found):
            known = ", ".join(name.rpartition(".")[0] or name for name in found)
            raise PlanError(f"no layer is named {pattern!r}; the layers are: {known}.")
    return tuple(name for name in found if layers is None or any(_matches(name, p) for p in layers))


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[0], pattern)


def _of_modules(model: nn.Module) -> tuple[str, ...]:
    uses: Counter[int] = Counter()  # by all modules, and by linear ones as weights
    linear: Counter[int] = Counter()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            uses[id(parameter)] += 1
            linear[id(parameter)] += _is_weight(module, name)
    return tuple(name for name, p in model.named_parameters() if linear[id(p)] == uses[id(p)])


def _is_weight(module: nn.Module, name: str) -> bool:
    if isinstance(module, nn.Linear | _ConvNd):
        return name == "weight"
    if isinstance(module, nn.MultiheadAttention):
        return name.endswith("proj_weight")
    return isinstance(module, nn.RNNBase | nn.RNNCellBase) and name.startswith("weight_")

"""The sizes that PyTorch's own layers hold as integers, brought up to date with their weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..records import Edit


def update(model: nn.Module, tensors: Iterable[str]) -> tuple[Edit, ...]:
    """Set ``in_features``, ``groups``, ``num_features`` … of all layers that hold the tensors named.

    Returns:
        What was changed.
    """
    named = dict([*model.named_parameters(), *model.named_buffers()])
    cut = {id(named[name]) for name in tensors}
    edits: list[Edit] = []
    for name, module in model.named_modules():
        held = [*module._parameters.values(), *module._buffers.values()]
        if not any(id(tensor) in cut for tensor in held):
            continue
        for attribute, after in _sizes(module).items():
            before = getattr(module, attribute)
            if before != after:
                setattr(module, attribute, after)
                edits.append(Edit(module=name, attribute=attribute, before=before, after=after))
    return tuple(edits)


def undo(model: nn.Module, edits: Iterable[Edit]) -> None:
    """Put the old values back."""
    for edit in edits:
        setattr(model.get_submodule(edit.module), edit.attribute, edit.before)


def redo(model: nn.Module, edits: Iterable[Edit]) -> None:
    """Set the new values again, on another copy of the model."""
    for edit in edits:
        setattr(model.get_submodule(edit.module), edit.attribute, edit.after)


def scale_dropouts(model: nn.Module, rates: dict[str, float]) -> tuple[Edit, ...]:
    """Multiply the rate of each named dropout, so that as much of what is left gets through."""
    edits = []
    for name, factor in rates.items():
        module: Any = model.get_submodule(name)
        if isinstance(getattr(module, "p", None), float) and module.p:
            edits.append(Edit(module=name, attribute="p", before=module.p, after=module.p * factor))
    redo(model, edits)
    return tuple(edits)


def _sizes(module: nn.Module) -> dict[str, int]:
    if isinstance(module, nn.Linear):
        return {"out_features": len(module.weight), "in_features": module.weight.shape[1]}
    if isinstance(module, _ConvTransposeNd):
        rows, columns = module.weight.shape[:2]
        groups = rows // (module.in_channels // module.groups)
        groups = groups if module.groups > 1 else 1
        return {"in_channels": rows, "out_channels": columns * groups, "groups": groups}
    if isinstance(module, _ConvNd):
        rows, columns = module.weight.shape[:2]
        groups = rows // (module.out_channels // module.groups)
        groups = groups if module.groups > 1 else 1
        return {"out_channels": rows, "in_channels": columns * groups, "groups": groups}
    if isinstance(module, _NormBase):
        tensor = module.weight if module.weight is not None else module.running_mean
        return {} if tensor is None else {"num_features": len(tensor)}
    if isinstance(module, nn.Embedding):
        return {"num_embeddings": len(module.weight), "embedding_dim": module.weight.shape[1]}
    if isinstance(module, nn.RNNCellBase):
        return {"input_size": module.weight_ih.shape[1]}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": len(module.weight)}
    return {}

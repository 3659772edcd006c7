"""The sizes that PyTorch's own layers hold as integers, brought up to date with their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..records import Edit, Plan


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


def resize(model: nn.Module, plan: Plan) -> tuple[Edit, ...]:
    """Set the sizes that modules hold as integers to the lengths that the plan leaves."""
    edits = []
    for size in plan.graph.sizes:
        module = model.get_submodule(size.module)
        after = plan.length(size.axis)
        value = getattr(module, size.attribute)
        before = value if size.index is None else value[size.index]
        if before != after:
            edits.append(
                Edit(
                    module=size.module, attribute=size.attribute, index=size.index, before=before, after=after
                )
            )
    redo(model, edits)
    return tuple(edits)


def undo(model: nn.Module, edits: Iterable[Edit]) -> None:
    """Put the old values back."""
    for edit in edits:
        _set(model.get_submodule(edit.module), edit, edit.before)


def redo(model: nn.Module, edits: Iterable[Edit]) -> None:
    """Set the new values again, on another copy of the model."""
    for edit in edits:
        _set(model.get_submodule(edit.module), edit, edit.after)


def _set(module: nn.Module, edit: Edit, value: object) -> None:
    if edit.index is None:
        setattr(module, edit.attribute, value)
    else:
        held = list(getattr(module, edit.attribute))
        held[edit.index] = value
        setattr(module, edit.attribute, type(getattr(module, edit.attribute))(held))


def scale_dropouts(model: nn.Module, rates: dict[str, float]) -> tuple[Edit, ...]:
    """Multiply the rate of each named dropout, so that as much of what is left gets through."""
    edits = []
    for name, factor in rates.items():
        module: Any = model.get_submodule(name)
        if isinstance(getattr(module, "p", None), float) and module.p:
            edits.append(Edit(module=name, attribute="p", before=module.p, after=module.p * factor))
    redo(model, edits)
    return tuple(edits)


def _sizes(module: nn.Module) -> dict[str, Any]:
    kind = next((kind for kind in _HELD if isinstance(module, kind)), None)
    weight = getattr(module, "weight", None)
    return {} if kind is None or (weight is None and kind in _AFFINE) else _HELD[kind](module)


def _linear(module: Any) -> dict[str, Any]:
    return {"out_features": len(module.weight), "in_features": module.weight.shape[1]}


def _transposed(module: Any) -> dict[str, Any]:
    rows, columns = module.weight.shape[:2]
    groups = rows // (module.in_channels // module.groups) if module.groups > 1 else 1
    return {"in_channels": rows, "out_channels": columns * groups, "groups": groups}


def _convolution(module: Any) -> dict[str, Any]:
    rows, columns = module.weight.shape[:2]
    groups = rows // (module.out_channels // module.groups) if module.groups > 1 else 1
    return {"out_channels": rows, "in_channels": columns * groups, "groups": groups}


def _batch_norm(module: Any) -> dict[str, Any]:
    tensor = module.weight if module.weight is not None else module.running_mean
    return {} if tensor is None else {"num_features": len(tensor)}


def _group_norm(module: Any) -> dict[str, Any]:
    width = module.num_channels // module.num_groups
    return {"num_channels": len(module.weight), "num_groups": len(module.weight) // width}


def _last_axes(module: Any) -> dict[str, Any]:
    return {"normalized_shape": tuple(module.weight.shape)}


_HELD: dict[type[nn.Module], Callable[[Any], dict[str, Any]]] = {
    nn.Linear: _linear,
    _ConvTransposeNd: _transposed,
    _ConvNd: _convolution,
    _NormBase: _batch_norm,
    nn.LayerNorm: _last_axes,
    nn.RMSNorm: _last_axes,
    nn.GroupNorm: _group_norm,
    nn.Embedding: lambda m: {"num_embeddings": len(m.weight), "embedding_dim": m.weight.shape[1]},
    nn.RNNCellBase: lambda m: {"input_size": m.weight_ih.shape[1]},
    nn.PReLU: lambda m: {"num_parameters": len(m.weight)},
}
"""Kind of layer to the sizes that its tensors say; the first kind that fits counts."""
_AFFINE = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
"""Kinds that have no tensors to read sizes from where they have no weight."""

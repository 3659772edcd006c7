"""The sizes that PyTorch's own layers hold as integers, brought up to date with their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..errors import PlanError
from ..layers import SUCCESSORS
from ..records import Edit, Plan

_NAMES = {
    kind: f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
    for pair in SUCCESSORS.items()
    for kind in pair
}
_CLASSES = {name: kind for kind, name in _NAMES.items()}


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
        mine = [
            Edit(module=name, attribute=attribute, before=before, after=after)
            for attribute, after in _sizes(module).items()
            if (before := getattr(module, attribute)) != after
        ]
        if type(module) in SUCCESSORS:
            before, after = (_NAMES[kind] for kind in (type(module), SUCCESSORS[type(module)]))
            mine.append(Edit(module=name, attribute="__class__", before=before, after=after))
        edits += mine
    redo(model, edits)
    return tuple(edits)


def resize(model: nn.Module, plan: Plan) -> tuple[Edit, ...]:
    """Set the sizes that modules hold as integers to the lengths that the plan leaves."""
    edits = []
    for size in plan.graph.sizes:
        module = model.get_submodule(size.module)
        terms = zip(size.axis.groups, size.axis.per_unit, strict=True)
        after = size.axis.fixed + round(sum(n * len(plan.keep[group]) for group, n in terms))
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
    if edit.attribute == "__class__":
        if value not in _CLASSES or type(module) not in _CLASSES.values():
            raise PlanError(f"{edit.module} is a {type(module).__name__} and cannot become a {value}.")
        module.__class__ = _CLASSES[str(value)]
    elif edit.index is None:
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


def _attention(module: Any) -> dict[str, Any]:
    packed = module.in_proj_weight
    query, key, value = (
        [packed] * 3 if packed is not None else [getattr(module, f"{n}_proj_weight") for n in "qkv"]
    )
    return {"embed_dim": query.shape[1], "kdim": key.shape[1], "vdim": value.shape[1]}


_HELD: dict[type[nn.Module], Callable[[Any], dict[str, Any]]] = {
    nn.Linear: _linear,
    _ConvTransposeNd: _transposed,
    _ConvNd: _convolution,
    _NormBase: _batch_norm,
    nn.LayerNorm: _last_axes,
    nn.RMSNorm: _last_axes,
    nn.GroupNorm: _group_norm,
    nn.Embedding: lambda m: {"num_embeddings": len(m.weight), "embedding_dim": m.weight.shape[1]},
    nn.MultiheadAttention: _attention,
    nn.RNNCellBase: lambda m: {"input_size": m.weight_ih.shape[1]},
    nn.PReLU: lambda m: {"num_parameters": len(m.weight)},
}
"""Kind of layer to the sizes that its tensors say; the first kind that fits counts."""
_AFFINE = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
"""Kinds that have no tensors to read sizes from where they have no weight."""

"""The sizes that PyTorch's own layers hold as integers, brought up to date with their weights."""

from __future__ import annotations

from collections.abc import Iterable
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
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) and module.weight is not None:
        return {"normalized_shape": tuple(module.weight.shape)}
    if isinstance(module, nn.GroupNorm) and module.weight is not None:
        width = module.num_channels // module.num_groups
        return {"num_channels": len(module.weight), "num_groups": len(module.weight) // width}
    if isinstance(module, nn.Embedding):
        return {"num_embeddings": len(module.weight), "embedding_dim": module.weight.shape[1]}
    if isinstance(module, nn.RNNCellBase):
        return {"input_size": module.weight_ih.shape[1]}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": len(module.weight)}
    return {}

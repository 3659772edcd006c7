"""The sizes that PyTorch's own layers hold as integers, brought up to date with their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

from .. import _context
from ..errors import PlanError
from ..layers import SUCCESSORS
from ..records import Edit, Plan

_NAMES = {
    kind: f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
    for pair in SUCCESSORS.items()
    for kind in pair
}


def update(model: nn.Module, tensors: Iterable[str]) -> tuple[Edit, ...]:
    """Set ``in_features``, ``groups``, ``num_features`` … of all layers that hold the tensors named.

    Returns:
        What was changed.
    """
    named = dict(_context.named_tensors(model))
    cut = {id(named[name]) for name in tensors}
    edits: list[Edit] = []
    # Weights may be computed when they are asked for; spectral norm then takes a step in train mode.
    with torch.no_grad(), _context.mode(model, train=False):
        for name, module in model.named_modules():
            if not any(id(tensor) in cut for tensor in held(module)):
                continue
            edits += [
                Edit(module=name, attribute=attribute, before=before, after=after)
                for attribute, after in _sizes(module).items()
                if (before := getattr(module, attribute)) != after
            ]
            if type(module) in SUCCESSORS:
                before, after = (_NAMES[kind] for kind in (type(module), SUCCESSORS[type(module)]))
                edits.append(Edit(module=name, attribute="__class__", before=before, after=after))
    redo(model, edits)
    return tuple(edits)


def held(module: nn.Module) -> Iterator[Tensor | None]:
    """The tensors of a layer itself, those behind its parametrizations among them."""
    yield from module._parameters.values()
    yield from module._buffers.values()
    if is_parametrized(module):
        yield from module.get_submodule("parametrizations").parameters()


def weights(module: nn.Module) -> list[Tensor]:
    """A layer's weight, or what it is computed from."""
    if is_parametrized(module, "weight"):
        return [*module.get_submodule("parametrizations.weight").parameters()]
    own = ("weight", "weight_v", "weight_orig")
    return [t for name, t in module._parameters.items() if t is not None and name in own]


def _shape(module: nn.Module) -> tuple[int, ...] | None:
    """The shape of a layer's weight; where older norms compute one before each run, of what they keep."""
    kept = (getattr(module, f"weight{suffix}", None) for suffix in ("_orig", "_v", ""))
    return next((tuple(tensor.shape) for tensor in kept if isinstance(tensor, Tensor)), None)


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


def redo(model: nn.Module, edits: Iterable[Edit]) -> None:
    """Set the new values again, on another copy of the model.

    Raises:
        PlanError: an edit names no number that the model holds, or one that is not what it was before.
    """
    for edit in edits:
        try:
            module = model.get_submodule(edit.module)
        except AttributeError as error:
            raise PlanError(f"the model has no module {edit.module!r}, which a receipt edits.") from error
        if edit.attribute == "__class__":
            _succeed(module, edit)
        else:
            vars(module)[edit.attribute] = _edited(module, edit)


def _succeed(module: nn.Module, edit: Edit) -> None:
    """Give a layer the class that PyTorch's own becomes."""
    kind = SUCCESSORS.get(type(module))
    if kind is None or (edit.before, edit.after) != (_NAMES[type(module)], _NAMES[kind]):
        raise PlanError(f"{edit.module} is a {type(module).__name__} and cannot become a {edit.after}.")
    module.__class__ = kind


def _edited(module: nn.Module, edit: Edit) -> Any:
    """What an attribute becomes: another number or other numbers, where it holds those from before."""
    held: Any = vars(module).get(edit.attribute)
    several = isinstance(held, list | tuple)
    new, before, after = (_parts(value) for value in (held, edit.before, edit.after))
    at = slice(None) if edit.index is None else slice(edit.index, edit.index + 1)
    kinds = [_kind(part) for part in new[at]]
    fits = new[at] == before and kinds == [_kind(part) for part in after] and None not in kinds
    if not fits or (edit.index is not None and not several):
        raise PlanError(
            f"a receipt sets {edit.module}.{edit.attribute} from {edit.before!r} to {edit.after!r}, but the "
            f"model holds {held!r} there: build it as the model was that was pruned."
        )
    new[at] = after
    return type(held)(new) if several else new[0]


def _parts(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _kind(value: Any) -> type | None:
    """Whether a number is whole; None if it is no number."""
    kinds = (kind for kind in (Integral, Real) if isinstance(value, kind) and not isinstance(value, bool))
    return next(kinds, None)


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
    shape = _shape(module)
    return {} if kind is None or (shape is None and kind in _AFFINE) else _HELD[kind](module, shape)


def _transposed(module: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    rows, columns = shape[:2]
    groups = rows // (module.in_channels // module.groups) if module.groups > 1 else 1
    return {"in_channels": rows, "out_channels": columns * groups, "groups": groups}


def _convolution(module: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    rows, columns = shape[:2]
    groups = rows // (module.out_channels // module.groups) if module.groups > 1 else 1
    return {"out_channels": rows, "in_channels": columns * groups, "groups": groups}


def _batch_norm(module: Any, shape: tuple[int, ...] | None) -> dict[str, Any]:
    shape = shape or (None if module.running_mean is None else tuple(module.running_mean.shape))
    return {} if shape is None else {"num_features": shape[0]}


def _group_norm(module: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    width = module.num_channels // module.num_groups
    return {"num_channels": shape[0], "num_groups": shape[0] // width if module.num_groups > 1 else 1}


def _attention(module: Any, _: Any) -> dict[str, Any]:
    packed = module.in_proj_weight
    query, key, value = (
        [packed] * 3 if packed is not None else [getattr(module, f"{n}_proj_weight") for n in "qkv"]
    )
    return {"embed_dim": query.shape[1], "kdim": key.shape[1], "vdim": value.shape[1]}


def _recurrent(module: Any, _: Any) -> dict[str, Any]:
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    hidden = {"hidden_size": len(module.weight_hh_l0) // gates}
    projected = {"proj_size": len(module.weight_hr_l0)} if module.proj_size else {}
    return {"input_size": module.weight_ih_l0.shape[1], **hidden, **projected}


_HELD: dict[type[nn.Module], Callable[[Any, Any], dict[str, Any]]] = {
    nn.Linear: lambda _, shape: {"out_features": shape[0], "in_features": shape[1]},
    nn.Bilinear: lambda _, s: {"out_features": s[0], "in1_features": s[1], "in2_features": s[2]},
    _ConvTransposeNd: _transposed,
    _ConvNd: _convolution,
    _NormBase: _batch_norm,
    nn.LayerNorm: lambda _, shape: {"normalized_shape": shape},
    nn.RMSNorm: lambda _, shape: {"normalized_shape": shape},
    nn.GroupNorm: _group_norm,
    nn.Embedding: lambda _, shape: {"num_embeddings": shape[0], "embedding_dim": shape[1]},
    nn.EmbeddingBag: lambda _, shape: {"num_embeddings": shape[0], "embedding_dim": shape[1]},
    nn.MultiheadAttention: _attention,
    nn.RNNBase: _recurrent,
    nn.RNNCellBase: lambda module, _: {"input_size": module.weight_ih.shape[1]},
    nn.PReLU: lambda _, shape: {"num_parameters": shape[0]},
}
"""Kind of layer to the sizes that its tensors say; the first kind that fits counts."""
_AFFINE = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
"""Kinds that have no tensors to read sizes from where they have no weight."""

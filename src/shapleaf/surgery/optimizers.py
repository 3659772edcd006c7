"""Optimizer state, sliced like the parameters it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..cuts import attributes
from ..cuts.slicing import Cuts, cut
from ..errors import PlanError


def slice_state(optimizer: Optimizer, model: nn.Module, what: Cuts) -> None:
    """Slice every state tensor that has its parameter's old shape; call before the parameters are cut.

    Scalars such as Adam's step count stay. Works for any optimizer that keeps state of the
    parameter's shape (SGD, Adam, AdamW, RMSprop, …), over all parameter groups.

    Raises:
        PlanError: the optimizer holds no parameter of the model, or keeps state of another shape.
    """
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            _check(optimizer, parameter, key, value)
    named = dict(model.named_parameters())
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(parameter) in held for parameter in named.values()):
        raise PlanError(
            f"this {type(optimizer).__name__} holds no parameter of the model; "
            "pass the optimizer that was built from this model's own parameters."
        )
    for name, parameter in ((name, named[name]) for name in what if name in named):
        state = optimizer.state.get(parameter, {})
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = cut(value, what[name])


def _check(optimizer: Optimizer, parameter: Tensor, key: object, value: object) -> None:
    simple = not isinstance(value, list | tuple | dict | Tensor)
    if simple or (isinstance(value, Tensor) and (value.numel() == 1 or value.shape == parameter.shape)):
        return
    kind = f"tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    raise PlanError(
        f"{type(optimizer).__name__} keeps {key!r}, a {kind}, for a parameter of shape "
        f"{tuple(parameter.shape)}; shapleaf slices state of the parameter's own shape only. "
        "Prune first and build the optimizer afterwards."
    )


def adopt(optimizer: Optimizer, model: nn.Module, layers: Iterable[str]) -> None:
    """Give the optimizer the biases of these layers, each at the end of its weight's group."""
    for name in layers:
        layer = model.get_submodule(name)
        bias, weight = layer._parameters["bias"], attributes.weights(layer)[0]
        assert bias is not None
        for group in optimizer.param_groups:
            _move(group, f"{name}.bias", bias, here=any(p is weight for p in group["params"]))


def _move(group: dict[str, Any], name: str, parameter: Tensor, *, here: bool) -> None:
    """Take a parameter out of an optimizer's group, or put it at its end."""
    kept = [i for i, other in enumerate(group["params"]) if other is not parameter]
    for key, end in (("params", parameter), ("param_names", name)):
        if key in group:
            group[key][:] = [group[key][i] for i in kept] + [end] * here


@contextmanager
def restored_on_failure(optimizer: Optimizer | None) -> Iterator[None]:
    """The state's tensors are put back if the block raises."""
    before: list[tuple[Any, dict[Any, Any]]] = []
    if optimizer is not None:
        before = [(parameter, dict(state)) for parameter, state in optimizer.state.items()]
    try:
        yield
    except BaseException:
        for parameter, state in before:
            assert optimizer is not None
            optimizer.state[parameter].update(state)
        raise

"""Names for the torch function calls of one forward pass.

A call is ``module:function#k``: the k-th time that function ran inside that module's own
``forward``. The name is the same in every forward of the same code, which is how a place
found by the tracer is found again when units are masked there. The steps of a recurrent layer
share one name.
"""

from __future__ import annotations

import functools
import inspect
import threading
import types
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from .layers import EQUIVALENTS
from .layers.recurrent import recur

CONVOLUTIONS = frozenset(f"conv{kind}{rank}d" for kind in ("", "_transpose") for rank in (1, 2, 3))
"""The names of functions that convolve."""


def function_of(key: str) -> str:
    """The function that a call of this name runs.

    >>> function_of("layer1.0:conv2d#3")
    'conv2d'
    """
    return key.rpartition(":")[2].partition("#")[0]


def channel_axis(key: str) -> int:
    """The axis along which the channels of what a linear call returns lie.

    >>> channel_axis("conv1:conv2d#0"), channel_axis("fc:linear#0")
    (1, -1)
    """
    return 1 if function_of(key).startswith("conv") else -1


def repeats(key: str) -> bool:
    """Whether calls of this name are the steps of one recurrence.

    >>> repeats("cell:recur#0"), repeats("cell:linear#0")
    (True, False)
    """
    return function_of(key) == recur.__name__


class Call(NamedTuple):
    """A function call of a model, and its name."""

    key: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def out_of_place(call: Call) -> Call | None:
    """A call that writes into what it reads as one that does not, under its function's name; None for others.

    >>> call = Call(":mul_#0", Tensor.mul_, (torch.ones(1), 2), {})
    >>> out_of_place(call).key
    'mul'
    """
    name = function_of(call.key)
    if name.endswith("_") and not name.endswith("__"):
        homes = (torch, nn.functional, Tensor)
        func = next((f for home in homes if (f := getattr(home, name[:-1], None)) is not None), None)
        return None if func is None else call._replace(key=name[:-1], func=func)
    if isinstance(call.func, types.FunctionType) and "inplace" in (given := _parameters(call.func)):
        place = given.index("inplace")
        if call.args[place : place + 1] == (True,) or call.kwargs.get("inplace"):
            kept = {name: value for name, value in call.kwargs.items() if name != "inplace"}
            return call._replace(key=name, args=call.args[:place], kwargs=kept)
    return None


@functools.cache
def _parameters(func: types.FunctionType) -> list[str]:
    try:
        return [*inspect.signature(func).parameters]
    except ValueError:  # around a builtin, as operators are
        return []


class Calls(TorchFunctionMode):
    """Sees every outermost torch function that a model's Python code calls.

    Subclasses override :meth:`call`. Module names come from hooks that torch keeps apart from
    the model, so the model's own hooks and attributes are not touched.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._names = {id(module): name for name, module in reversed([*model.named_modules()])}
        self._stack = [""]
        self._counts: Counter[tuple[str, str]] = Counter()

    @property
    def module(self) -> str:
        """Name of the innermost module whose ``forward`` is running; empty at the top."""
        return self._stack[-1]

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one call; ``key`` is its name."""
        return func(*args, **kwargs)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in EQUIVALENTS:
            TorchFunctionMode.__enter__(self)
            try:
                out = EQUIVALENTS[func](args, kwargs or {})
            finally:
                TorchFunctionMode.__exit__(self, None, None, None)
            if out is not NotImplemented:
                return out
        # The ops of an exported program go by names like linear.default.
        place = (self.module, getattr(func, "__name__", "?").partition(".")[0])
        # A step of a recurrence has the name of its layer: sequences are not all of one length.
        number = args[0] if func is recur else self._counts[place]
        key = f"{place[0]}:{place[1]}#{number}"
        self._counts[place] += 1
        return self.call(key, func, args, kwargs or {})

    def __enter__(self) -> Calls:
        thread = threading.get_ident()

        def push(module: nn.Module, _: Any) -> None:
            if threading.get_ident() == thread:
                self._stack.append(self._names.get(id(module), self.module))

        def pop(module: nn.Module, _: Any, __: Any) -> None:
            if threading.get_ident() == thread:
                self._stack.pop()

        self._hooks = (
            register_module_forward_pre_hook(push),
            register_module_forward_hook(pop, always_call=True),
        )
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

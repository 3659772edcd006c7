"""What linear layers read and return in one run, and what their output is added to."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import _context
from ._calls import Calls, repeats
from .errors import PlanError
from .linear import Linear, reading

_BATCH_NORM = inspect.signature(functional.batch_norm)
_SUMS = ("add", "__add__", "__radd__", "__iadd__", "add_")


@dataclass(slots=True, eq=False)
class Seen:
    """One call of a layer.

    Attributes:
        layer: what it reads and multiplies by.
        out: what it returns.
        factor: what each of its output channels is multiplied by before the sum, ``(channels,)``.
        other: what it is added to, directly or behind a BatchNorm; None if something else reads it first.
    """

    layer: Linear
    out: Tensor
    factor: Tensor
    other: Tensor | None = None
    at: Tensor | None = field(default=None, repr=False)
    shared: bool = field(default=False, repr=False)


def watch(model: nn.Module, inputs: Any, calls: Sequence[str]) -> dict[str, list[Seen]]:
    """Run a model in eval mode until all calls named, and the sums behind them, have been seen.

    Raises:
        PlanError: one of them is not a linear layer's.

    >>> model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    >>> seen = watch(model, torch.ones(4, 3), ["1:linear#0"])["1:linear#0"]
    >>> seen[0].layer.input.shape
    torch.Size([4, 2])
    """
    watcher = _Watcher(model, calls)
    with torch.no_grad(), _context.inference(model), contextlib.suppress(_Enough), watcher:
        _context.forward(model, inputs)
    missing = [call for call in calls if not watcher.seen[call]]
    if missing:
        raise PlanError(
            f"the model does not call {missing[0]} on these data; trace it with inputs like them."
        )
    return watcher.seen


def summed(model: nn.Module, inputs: Any, calls: Sequence[str]) -> frozenset[str]:
    """Those of some linear calls whose output, or that of the BatchNorm behind, nothing but a sum reads.

    >>> class Block(nn.Linear):
    ...     def forward(self, x):
    ...         return super().forward(x) + x
    >>> summed(Block(3, 3), torch.ones(4, 3), [":linear#0"])
    frozenset({':linear#0'})
    """
    watcher = _Watcher(model, calls, whole=True)
    with torch.no_grad(), _context.inference(model):
        with watcher:
            out = _context.forward(model, inputs)
        watcher.read(_context.tensors(out))
    return frozenset(
        call
        for call, found in watcher.seen.items()
        if found and not any(seen.other is None or seen.shared for seen in found)
    )


class Uses(Calls):
    """Which calls take each parameter, in the order in which they run.

    Attributes:
        of: parameter to the names of these calls.
        linear: the calls among all that are linear layers'.

    >>> model = nn.Sequential(nn.Linear(3, 2), nn.PReLU())
    >>> uses = Uses(model)
    >>> with uses:
    ...     _ = model(torch.ones(4, 3))
    >>> uses.of["0.weight"], uses.linear
    (['0:linear#0'], {'0:linear#0'})
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._known = {id(p): name for name, p in model.named_parameters()}
        self.of: dict[str, list[str]] = {}
        self.linear: set[str] = set()

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        if not _context.tensors(out):  # a size or a device, asked of a parameter
            return out
        if reading(key, args, kwargs):
            self.linear.add(key)
        for tensor in _context.tensors((args, kwargs)):
            name = self._known.get(id(tensor)) or self._known.get(id(tensor._base))
            part = (
                isinstance(out, Tensor) and out._base is not None and self._known.get(id(out._base)) == name
            )
            if name and not part:  # a view taken of a parameter is no use of it yet
                calls = self.of.setdefault(name, [])
                calls += [] if key in calls else [key]
        return out


class _Enough(Exception):  # noqa: N818 - no error
    """Nothing further is needed of this run."""


class _Watcher(Calls):
    def __init__(self, model: nn.Module, calls: Sequence[str], *, whole: bool = False) -> None:
        super().__init__(model)
        self.seen: dict[str, list[Seen]] = {call: [] for call in calls}
        self._whole = whole or any(repeats(call) for call in calls)
        self._open: list[Seen] = []
        self._passed: list[tuple[Tensor | None, Seen]] = []  # what was read on the way to the sums

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = reading(key, args, kwargs) if key in self.seen else None
        if layer is not None:  # later calls may write into what this one was given or returns
            layer = replace(layer, input=layer.input.clone())
        elif key in self.seen:
            raise PlanError(
                f"{key} multiplies in a way that shapleaf does not refit; leave its units, or use "
                "another criterion."
            )
        out = func(*args, **kwargs)
        if out is None or _context.tensors(out):  # not x.dim(), but x[0] = y
            given = _context.tensors((args, kwargs))
            self.read(given)
            for seen in [*self._open]:
                if any(tensor is seen.at for tensor in given):
                    self._follow(seen, func, args, kwargs, out)
        if layer is not None:
            found = Seen(layer, out.clone(), out.new_ones(out.shape[layer.channel]), at=out)
            self.seen[key].append(found)
            self._open += [] if repeats(key) else [found]
        if not self._open and not self._whole and all(self.seen.values()):
            raise _Enough
        return out

    def read(self, given: Sequence[Tensor]) -> None:
        """Note what is read again."""
        for at, seen in self._passed:
            seen.shared = seen.shared or any(tensor is at for tensor in given)

    def _follow(
        self, seen: Seen, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> None:
        """Behind a BatchNorm or an idle dropout the trail goes on; with a sum, or anything else, it ends."""
        if out is not seen.at:  # nor written into: what lies there now is read later
            self._passed.append((seen.at, seen))
        name = getattr(func, "__name__", "").partition(".")[0]
        norm = batch_norm(func, args, kwargs) if name == "batch_norm" else {}
        channels = seen.layer.channel % seen.out.ndim == 1
        if norm and norm["input"] is seen.at and norm["running_var"] is not None and channels:
            seen.factor = seen.factor * _factor(norm)
            seen.at = out
        elif name in ("dropout", "dropout2d"):
            seen.at = out
        else:
            others = [t for t in args[:2] if isinstance(t, Tensor) and t is not seen.at]
            scaled = kwargs.get("alpha", 1) != 1
            if name in _SUMS and len(others) == 1 and others[0].shape == seen.out.shape and not scaled:
                seen.other = others[0].clone()
            self._open.remove(seen)


def batch_norm(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What a BatchNorm is given, by the names of ``torch.nn.functional``.

    >>> from torch.nn.functional import batch_norm as function
    >>> batch_norm(function, (torch.ones(2, 3), None, None), {"training": True})["running_mean"] is None
    True
    """
    if isinstance(func, torch._ops.OpOverload):  # of an exported program: in another order
        names = [argument.name for argument in func._schema.arguments]
        return {**dict(zip(names, args, strict=False)), **kwargs}
    bound = _BATCH_NORM.bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _factor(given: dict[str, Any]) -> Tensor:
    """What a BatchNorm in eval mode multiplies each channel by."""
    weight = 1 if given["weight"] is None else given["weight"]
    return weight / (given["running_var"] + given["eps"]).sqrt()  # type: ignore[no-any-return]


def multiplied(model: nn.Module, inputs: Any) -> tuple[str, ...]:
    """The parameters by which linear layers multiply, and that nothing else reads, in the model's order.

    So biases, norms, embeddings, and weights that are computed from other parameters are none of them.

    >>> model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2), nn.LayerNorm(2))
    >>> multiplied(model, torch.tensor([[1, 4]]))
    ('1.weight',)
    """
    uses = Uses(model)
    with torch.no_grad(), _context.inference(model), uses:
        _context.forward(model, inputs)
    seen: set[str] = set()
    visit(model, inputs, dict(model.named_parameters()), lambda name, _: seen.add(name))
    return tuple(
        name for name, _ in model.named_parameters() if name in seen and uses.linear.issuperset(uses.of[name])
    )


def visit(model: nn.Module, inputs: Any, names: Container[str], see: Callable[[str, Linear], object]) -> None:
    """Run a model in eval mode and show every call by which a linear layer multiplies by these parameters.

    Args:
        model: the model.
        inputs: what it is given.
        names: the parameters that matter.
        see: is given the name of the parameter that the weights are, or are a view of, and the call; the
            tensors are the run's own.

    >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> visit(model, torch.ones(4, 3), ["2.weight"], lambda name, layer: print(name, layer.input.shape))
    2.weight torch.Size([4, 2])
    """
    with torch.no_grad(), _context.inference(model), _Visitor(model, names, see):
        _context.forward(model, inputs)


class _Visitor(Calls):
    def __init__(self, model: nn.Module, names: Container[str], see: Callable[[str, Linear], object]) -> None:
        super().__init__(model)
        self._known = {id(p): name for name, p in model.named_parameters()}
        self._wanted, self._see = names, see

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = reading(key, args, kwargs)
        if layer is not None:
            name = self._known.get(id(layer.weight)) or self._known.get(id(layer.weight._base))
            if name is not None and name in self._wanted:
                self._see(name, layer)
        return func(*args, **kwargs)

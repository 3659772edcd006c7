"""Checks that criteria and models must pass, and that they are left as they were.

Every check raises AssertionError with what was expected and received; none needs a test framework.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import _context
from .._rng import stream
from ..allocation import plan as make_plan
from ..attribution import attribute
from ..criteria import OF_LAYERS, Criterion, Needs
from ..masking import masked
from ..records import Graph, Group, Plan
from ..surgery import prune
from ..tracing import trace

_EXAMPLES = 5


def check_criterion(criterion: Criterion) -> None:
    """A criterion keeps the contract that :func:`~shapleaf.attribute` relies on.

    On a small perceptron and a small convolutional network in double precision: scores are finite and
    of the right shape, the same for the same seed, independent of how the data are cut into batches,
    and move with the examples and units when these are reordered (the latter two for criteria that do
    not depend on the seed). The criterion reads only what it declares, holds configuration only
    (hashable, equal to its copy, printed with its arguments), and leaves the model as it was.

    Raises:
        AssertionError: the contract is broken; the message says where.
        CriterionError: the criterion failed, or read what it does not declare.

    >>> from dataclasses import dataclass
    >>> from typing import ClassVar
    >>> @dataclass(frozen=True)
    ... class Peak:
    ...     needs: ClassVar[Needs] = Needs.ACTIVATION
    ...     def score(self, probe):
    ...         return probe.activation.abs().amax(-1)
    >>> check_criterion(Peak())
    """
    require(isinstance(criterion, Criterion), f"{criterion!r} lacks `needs` or `score`")
    require(isinstance(criterion.needs, Needs), f"needs must be a Needs flag, not {criterion.needs!r}")
    printed, twin = repr(criterion), copy.deepcopy(criterion)
    require(" at 0x" not in printed, f"{printed} does not show its configuration; make it a dataclass")
    require(
        twin == criterion and hash(twin) == hash(criterion),
        f"{printed} does not equal its copy; make it a frozen dataclass, with compare=False on data",
    )
    for model, shape in ((_perceptron(), (6,)), (_convolutional(), (2, 6, 6))):
        _check_on(model, shape, criterion)
    require(repr(criterion) == printed and criterion == twin, f"{printed} changed while it scored")


def assert_masked_equals_pruned(
    model: nn.Module, example_inputs: Any, *, plan: Plan | None = None, seed: int = 0
) -> None:
    """Masking the units of a plan and slicing them away give the same outputs, in eval mode.

    Args:
        model: any module that can be traced; it is left as it is.
        example_inputs: what it is traced with and compared on.
        plan: what to prune; by default a random half of each exact group, ties respected.
        seed: names the random plan.

    Raises:
        AssertionError: the outputs differ by more than rounding, or the plan prunes a group that is
            not exact, for which they must differ.
        PlanError: the plan cannot be carried out.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> assert_masked_equals_pruned(model, torch.randn(2, 3, 6, 6))
    """
    plan = plan or _random_plan(trace(model, example_inputs), seed)
    for name in plan.pruned:
        group = plan.graph[name]
        require(group.exact, f"group {name} is not exact ({group.reason}): masked and pruned differ")
    pruned = prune(model, plan).model
    with untouched(model), torch.no_grad():
        with _context.inference(model, seed):
            expected = _context.tensors(_context.forward(masked(model, plan), example_inputs))
        with _context.inference(pruned, seed):
            received = _context.tensors(_context.forward(pruned, example_inputs))
    require(len(expected) == len(received), f"{len(received)} outputs, expected {len(expected)}")
    for want, got in zip(expected, received, strict=True):
        require(want.shape == got.shape, f"output of shape {(*got.shape,)}, expected {(*want.shape,)}")
        if want.is_floating_point() and want.numel():
            tolerance = torch.finfo(want.dtype).eps ** 0.75 * float(want.abs().max())
            gap = float((want - got).abs().max())
            require(gap <= tolerance, f"masked and pruned outputs differ by {gap:.1e} > {tolerance:.1e}")


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """The block leaves a model and the random generators as they were, also when it raises.

    Compared are the bytes, identity and gradients of every parameter and buffer, and every attribute
    of every module, hooks and modes among them.

    >>> model = nn.Linear(2, 2)
    >>> with untouched(model):
    ...     _ = model.eval()
    Traceback (most recent call last):
        ...
    AssertionError: the model itself: attribute training is not as it was
    """
    modules = {name: _attributes(module) for name, module in model.named_modules()}
    tensors = {name: (tensor, *_state(tensor)) for name, tensor in _context.named_tensors(model)}
    generators = _generators()
    try:
        yield
    finally:
        for name, module in model.named_modules():
            now, before = _attributes(module), modules.get(name, {})
            for key in {**before, **now}:
                kept = key in now and key in before and _same(before[key], now[key])
                require(kept, f"{name or 'the model itself'}: attribute {key} is not as it was")
        for name, tensor in _context.named_tensors(model):
            original, content, gradient = tensors[name]
            now, gradient_now = _state(tensor)
            require(tensor is original and now == content, f"{name} is not what it was")
            require(gradient_now == gradient, f"the gradient of {name} is not as it was")
        require(_generators() == generators, "a random generator is not in the state it was in")


def require(condition: bool, message: str) -> None:
    """An assertion that ``python -O`` keeps."""
    if not condition:
        raise AssertionError(message)


def _check_on(model: nn.Module, shape: tuple[int, ...], criterion: Criterion) -> None:
    drawn = stream(0, "testing", *shape)
    inputs = torch.from_numpy(drawn.standard_normal((_EXAMPLES, *shape)))
    target = torch.from_numpy(drawn.integers(3, size=_EXAMPLES))
    graph = trace(model, inputs[:1])

    def score(net: nn.Module, order: Any = slice(None), seed: int = 0, size: int = 9) -> Mapping[str, Tensor]:
        x, y = inputs[order], target[order]
        data = [(x[i : i + size], y[i : i + size]) for i in range(0, _EXAMPLES, size)]
        return attribute(net, graph, data, criterion, aggregate=None, seed=seed).values

    for _, parameter in model.named_parameters():
        parameter.grad = torch.ones_like(parameter)
    with untouched(model):
        scores = score(model)
    rows = (_EXAMPLES,) if criterion.needs & ~OF_LAYERS else ()  # layers have no examples
    for group in graph:
        expected, received = (*rows, group.size), tuple(scores[group.name].shape)
        require(received == expected, f"scores of shape {received}, expected {expected}")
    _compare(scores, score(model), "the same seed", exact=True)
    for size in (1, 3):
        _compare(scores, score(model, size=size), f"batches of {size}")
    if all(torch.equal(scores[name], other) for name, other in score(model, seed=1).items()):
        order = torch.from_numpy(drawn.permutation(_EXAMPLES))
        moved = {name: values[order] if rows else values for name, values in scores.items()}
        _compare(moved, score(model, order), "examples in another order")
        turned, orders = reordered(model, graph.groups, drawn)
        moved = {name: values[..., orders[name]] for name, values in scores.items()}
        _compare(moved, score(turned), "units in another order")


def _compare(
    expected: Mapping[str, Tensor], received: Mapping[str, Tensor], what: str, *, exact: bool = False
) -> None:
    for name, want in expected.items():
        scale = 0.0 if exact else 1e-9 * float(want.abs().max())
        gap = float((want - received[name]).abs().max())
        require(gap <= scale, f"group {name}: scores differ by {gap:.1e} with {what}")


def reordered(
    model: nn.Module, groups: Sequence[Group], drawn: np.random.Generator
) -> tuple[nn.Module, dict[str, Tensor]]:
    """A copy that is the same function, with the units of some groups in another order; and these orders."""
    turned = copy.deepcopy(model)
    orders = {group.name: torch.from_numpy(drawn.permutation(group.size)) for group in groups}
    owned = dict(_context.named_tensors(turned))
    for group in groups:
        for piece in group.slices:
            tensor = owned[piece.tensor].detach()
            source = tensor.index_select(piece.dim, piece.index[orders[group.name]].reshape(-1))
            tensor.index_copy_(piece.dim, piece.index.reshape(-1), source)
    return turned, orders


def _random_plan(graph: Graph, seed: int) -> Plan:
    """Half of each exact group, at random; groups tied to one that is not exact stay whole."""
    keep = {}
    for group in graph:
        if all(graph[name].exact for name in graph.tied(group.name)):
            order = stream(seed, "testing", group.name).permutation(group.size)
            half = -(-graph.portions(group.name) // 2)
            keep[group.name] = order[: graph.units(group.name, half)].tolist()
    return make_plan(graph, keep)


def _perceptron() -> nn.Module:
    return _random(nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 5), nn.GELU(), nn.Linear(5, 3)))


def _convolutional() -> nn.Module:
    return _random(
        nn.Sequential(
            *(nn.Conv2d(2, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(5, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)),
        )
    )


def _random(model: nn.Module) -> nn.Module:
    """Double precision, and values that have nothing in common between units."""
    model.double()
    with torch.no_grad():
        for name, tensor in _context.named_tensors(model):
            if tensor.is_floating_point():
                values = torch.from_numpy(stream(0, "testing", name).uniform(-0.5, 0.5, tensor.shape))
                tensor.copy_(values.abs() + 0.5 if tensor.ndim == 1 else values)
    return model


def _bytes(tensor: Tensor | None) -> bytes | None:
    if tensor is None:
        return None
    flat = tensor.detach().cpu().contiguous().flatten()
    return b"" if not flat.numel() else flat.view(torch.uint8).numpy().tobytes()


def _state(tensor: Tensor) -> tuple[Any, Any]:
    return (tensor.requires_grad, _bytes(tensor)), _bytes(tensor.grad)


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {key: dict(value) if isinstance(value, dict) else value for key, value in vars(module).items()}


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, dict) and isinstance(now, dict):
        return [*before] == [*now] and all(before[key] is now[key] for key in before)
    return before is now or (
        type(before) is type(now) and not isinstance(now, Tensor) and bool(before == now)
    )


def _generators() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), (name, tuple(keys), *rest)

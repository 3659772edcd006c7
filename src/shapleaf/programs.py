"""program: a model as one list of ATen calls, whose sizes can be rewritten."""

from __future__ import annotations

import copy
import itertools
import operator
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from . import _context
from .errors import TraceError

SIZES = frozenset(
    "size shape sizes split_size split_sizes normalized_shape groups num_groups start end".split()
)
"""Arguments of ATen ops that are lengths of axes, bounds along them, or numbers of groups."""
CHECKS = frozenset(
    "_assert_scalar _assert_tensor_metadata sym_constrain_range sym_constrain_range_for_size".split()
)
"""ATen ops that compute nothing but compare with what was, which need not hold once units are gone."""

BIASED = frozenset("linear conv1d conv2d conv3d".split())
"""ATen ops of layers to which a bias can be added."""


class Program(fx.GraphModule):
    """A model as one list of ATen calls; its ``sizes`` are integers that the calls read."""

    def reader(self, weight: str) -> str:
        """The ATen op that reads a weight with the bias beside it; empty if it is read otherwise."""
        calls = [node for node in self.graph.nodes if _target(node, 1) == weight]
        ops = {_name(node) for node in calls}
        alike = len(ops) == 1 and all(_target(node, 2) == _beside(weight) for node in calls)
        return ops.pop() if alike and ops <= BIASED else ""

    def recompile(self) -> Any:
        for node in self.graph.find_nodes(op="get_attr"):
            owner, _, name = str(node.target).rpartition(".")
            if self.get_submodule(owner).__dict__.get(name, self) is None:  # a bias that may yet come
                delattr(self.get_submodule(owner), name)
                self.get_submodule(owner).register_parameter(name, None)
        code = super().recompile()
        del type(self).__call__  # which prints the code wherever the module fails
        return code

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        with warnings.catch_warnings():  # torch copies what it calls deprecated
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            return super().__deepcopy__(memo)


def program(model: nn.Module, example_inputs: Any) -> Program:
    """The model as an exported program whose every size can follow a plan.

    A model whose Python code names a size, as ``x.view(n, t, 4, 8)`` does, cannot be resized: its groups are
    blocked. Its program can be. That is an ordinary module with the same parameters under the same names,
    made by ``torch.export`` for any number of examples. The sizes in its code are integers that it holds,
    ``program.sizes.view_size2`` for one, which surgery sets as it sets ``num_heads`` elsewhere.
    It is the model in eval mode for good: dropout is off, BatchNorm uses its running statistics.

    Args:
        model: any module that ``torch.export`` takes; it is left as it is and shares no memory.
        example_inputs: as for :func:`shapleaf.trace`, the examples along the first dimension.

    Returns:
        A module to be traced, scored, pruned and exported in the model's place. Tensors that the model
        holds as constants are buffers of it.

    Raises:
        TraceError: the model cannot be exported. Where a cache among the outputs is the reason, switch it
            off: ``model.config.use_cache = False``.

    >>> import shapleaf as sl
    >>> class Heads(nn.Sequential):
    ...     def forward(self, x):
    ...         return self[1](self[0](x).view(-1, 2, 3).relu().flatten(1))
    >>> model, x = Heads(nn.Linear(4, 6), nn.Linear(6, 2)), torch.randn(5, 4)
    >>> exported = program(model, x)
    >>> pruned, receipt = sl.prune(exported, sl.plan(sl.trace(exported, x), {"0": [1]}))
    >>> exported.sizes.view_size2, pruned.sizes.view_size2
    (3, 1)
    """
    with torch.no_grad(), _context.inference(model):
        try:
            module = exported(model, one_more(example_inputs)).module()
        except Exception as error:
            raise TraceError(f"the model cannot be exported: {type(error).__name__}: {error}") from error
    graph = module.graph
    for node in [*graph.nodes]:
        if node.target == "_guards_fn" or _name(node) in CHECKS:
            graph.erase_node(node)
    home = next(name for i in itertools.count() if not hasattr(module, name := "sizes" + "_" * i))
    setattr(module, home, nn.Module())
    for node in [*graph.nodes]:
        _lift(node, module, home)
        _make_room(node, module)
    for node in graph.nodes:
        node.meta = {}  # it names shapes
    return copy.deepcopy(Program(module, graph, class_name="Program")).eval()


def instead(model: nn.Module) -> str:
    """What to do where a model's code cannot be resized."""
    return "" if isinstance(model, Program) else " Prune its program: shapleaf.program(model, inputs)."


def exported(model: nn.Module, inputs: Any, *, dynamic_batch: bool = True) -> torch.export.ExportedProgram:
    """``torch.export`` of a model, for any number of examples unless told otherwise."""
    args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else (_positional(inputs), {})
    shapes: Any = torch.export.ShapesCollection()
    for leaf in _context.tensors((args, kwargs)):
        if leaf.ndim:
            shapes[leaf] = {0: torch.export.Dim("batch", min=1)}
    dynamic = shapes if dynamic_batch else None
    return torch.export.export(model, args, kwargs, dynamic_shapes=dynamic, strict=False)


def one_more(inputs: Any) -> Any:
    """The first example twice: of a batch of one, the exporter takes the one for a constant."""
    return tree_map(
        lambda leaf: torch.cat([leaf, leaf[:1]]) if isinstance(leaf, Tensor) and leaf.ndim else leaf, inputs
    )


def _positional(inputs: Any) -> tuple[Any, ...]:
    return tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)


def _name(node: fx.Node) -> str:
    """The ATen op that a node calls, without its overload."""
    return str(getattr(node.target, "__name__", "")).partition(".")[0]


def _lift(node: fx.Node, module: nn.Module, home: str) -> None:
    """The sizes that are literals in a node become integers that the submodule ``home`` holds."""

    def held(label: str, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [held(f"{label}{i}", element) for i, element in enumerate(value)]
        if type(value) is not int or not 1 < value < sys.maxsize:
            return value
        setattr(module.get_submodule(home), f"{node.name}_{label}", value)
        with node.graph.inserting_before(node):
            return node.graph.create_node("get_attr", f"{home}.{node.name}_{label}")

    if node.target is operator.mul:
        node.args = tuple(held(f"factor{i}", value) for i, value in enumerate(node.args))
    elif isinstance(node.target, torch._ops.OpOverload) and node.all_input_nodes:
        names = [argument.name for argument in node.target._schema.arguments]
        given = zip(names, _from_the_start(node), strict=False)
        node.args = tuple(held(name, value) if name in SIZES else value for name, value in given)
        node.kwargs = {k: held(k, value) if k in SIZES else value for k, value in node.kwargs.items()}


def _from_the_start(node: fx.Node) -> tuple[Any, ...]:
    """The arguments of a node, with the bounds of a slice counted from the start of its axis."""
    if _name(node) != "slice" or len(node.args) < 3:
        return node.args
    source, dim, *bounds = node.args
    assert isinstance(source, fx.Node)
    length = source.meta["val"].shape[dim]
    known = type(length) is int
    return source, dim, *(b + length if known and type(b) is int and b < 0 else b for b in bounds)


def _target(node: fx.Node, position: int) -> str:
    """The name of the tensor that a node takes as its argument at a position."""
    given = node.args[position] if len(node.args) > position else None
    return str(given.target) if isinstance(given, fx.Node) and given.op == "get_attr" else ""


def _beside(weight: str) -> str:
    return f"{weight.rpartition('.')[0]}.bias" if weight.endswith(".weight") else ""


def _make_room(node: fx.Node, module: nn.Module) -> None:
    """A layer without bias reads an absent one, so that compensation can add it."""
    bias = _beside(_target(node, 1))
    if _name(node) in BIASED and bias and (len(node.args) == 2 or node.args[2] is None):
        layer = module.get_submodule(bias.rpartition(".")[0])
        if getattr(layer, "bias", None) is None:
            layer.bias = None  # type: ignore[assignment]
            with node.graph.inserting_before(node):
                absent = node.graph.create_node("get_attr", bias)
            node.args = (*node.args[:2], absent, *node.args[3:])

"""Methods of pruning under one protocol: how a network loses parameters before it is retrained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import nn

from .. import _context, _store
from ..allocation import allocate
from ..attribution import attribute
from ..budgets import Params
from ..criteria import Criterion, Needs, Random, Shapley, WeightNorm
from ..data import batches
from ..errors import DataError
from ..records import Graph, Receipt
from ..scanning import curved
from ..strategies import Strategy, Tradeoff, Uniform
from ..surgery import Compensation, LeastSquares, prune, replay
from ..tracing import trace
from .recipes import described
from .train import Hold

Kept = Receipt


class Step(NamedTuple):
    """A pruned network, and the record by which the same can be done to another of its architecture."""

    model: nn.Module
    record: Kept | None


@runtime_checkable
class Method(Protocol):
    """How a network loses parameters; configuration only."""

    @property
    def name(self) -> str: ...

    def check(self, model: nn.Module, keep: int, sample: Any) -> None:
        """Refuse a number of parameters that cannot be reached."""
        ...

    def prune(self, model: nn.Module, keep: int, sample: Any, seed: int) -> Step:
        """A copy of the network of which at most ``keep`` parameters stay, decided on the sample."""
        ...


@dataclass(frozen=True)
class NoPruning:
    """Nothing is removed: the control, which is retrained like the others.

    >>> NoPruning().prune(nn.Linear(2, 2), 3, None, 0).record is None
    True
    """

    name: str = "control"

    def check(self, model: nn.Module, keep: int, sample: Any) -> None:
        """Everything stays."""

    def prune(self, model: nn.Module, keep: int, sample: Any, seed: int) -> Step:
        """A copy."""
        return Step(_context.copied(model), None)


@dataclass(frozen=True, repr=False)
class FilterPruning:
    """Whole units are removed: filters, neurons, heads.

    Args:
        name: what it is called.
        criterion: how units are scored.
        strategy: how the budget is spread over the layers; scores are scanned where it needs curves.
        compensate: what makes a compensation of the sample, such as ``LeastSquares``; None for none.
        loss: per example, for criteria that need one.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> FilterPruning("FT", WeightNorm(1), Uniform()).prune(model, 26, (torch.zeros(2, 3),), 0).model[0]
    Linear(in_features=3, out_features=4, bias=True)
    """

    name: str
    criterion: Criterion
    strategy: Strategy = field(default_factory=Uniform)
    compensate: Callable[[Any], Compensation] | None = None
    loss: _context.Loss = _context.cross_entropy

    def __repr__(self) -> str:
        return described(self)

    def check(self, model: nn.Module, keep: int, sample: Any) -> None:
        """Allocate such a budget at random: what can be reached at all depends on the model alone.

        Raises:
            BudgetError: so few parameters cannot be reached; the nearest number that can is named.
        """
        scores = attribute(model, self._graph(model, sample), None, Random())
        allocate(scores, Params(keep=keep), multiple_of=1)

    def prune(self, model: nn.Module, keep: int, sample: Any, seed: int) -> Step:
        """Trace, attribute, allocate, prune."""
        graph = self._graph(model, sample)
        data = sample if self.criterion.needs & ~Needs.CONSUMERS else None
        scores = attribute(model, graph, data, self.criterion, loss=self.loss, seed=seed)
        if isinstance(self.strategy, Tradeoff):
            scores = curved(model, scores, sample, loss=self.loss)
        plan = allocate(scores, Params(keep=keep), strategy=self.strategy, multiple_of=1)
        steps = () if self.compensate is None else (self.compensate(sample),)
        return Step(*prune(model, plan, compensate=steps))

    @staticmethod
    def _graph(model: nn.Module, sample: Any) -> Graph:
        example = next(batches(sample, limit=2, labelled=False))
        return trace(model, _context.on_device(example.inputs, model))


def redo(model: nn.Module, record: Kept | None) -> nn.Module:
    """Do to a model, in place, what a step did to another of its architecture; the weights are its own."""
    return model if record is None else replay(model, record)


def holding(record: Kept | None) -> Hold | None:
    """What keeps pruned weights at zero while a network is retrained; nothing where units were cut out."""
    return None


def load_record(path: Path) -> Kept:
    """Read what a step pruned.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    kind = _store.kind(path)
    if kind not in _RECORDS:
        raise DataError(f"{path} holds a {kind or 'thing'} instead of what a step pruned.")
    return _RECORDS[kind].load(path)


_RECORDS: dict[str, type[Kept]] = {one.__name__: one for one in (Receipt,)}


class _Methods(Mapping[str, Method]):
    """Methods by name; a name that is not there says which are."""

    def __init__(self, *methods: Method) -> None:
        self._methods = {method.name: method for method in methods}

    def __getitem__(self, name: str) -> Method:
        if name not in self._methods:
            raise DataError(f"no method is named {name!r}; there are: {', '.join(self._methods)}.")
        return self._methods[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)


METHODS: Mapping[str, Method] = _Methods(
    FilterPruning("FT", WeightNorm(1), Uniform()),
    FilterPruning("random", Random(), Uniform()),
    FilterPruning("Shapley", Shapley(), Tradeoff()),
    FilterPruning("Shapley+refit", Shapley(), Tradeoff(), compensate=LeastSquares),
    NoPruning(),
)
"""Methods by name: WT and SiPP of single weights; FT, PFP, random, Shapley of filters; and the control."""

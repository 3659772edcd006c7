"""Methods of pruning under one protocol: how a network loses parameters before it is retrained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from .. import _context, _store
from ..allocation import allocate
from ..attribution import attribute
from ..budgets import Nonzeros, Params
from ..criteria import PFP, Criterion, Random, Shapley, WeightNorm
from ..data import batches
from ..errors import DataError
from ..records import Graph, Mask, Masks, Receipt
from ..scanning import curved
from ..strategies import ErrorLevel, Strategy, Tradeoff, Uniform
from ..surgery import Compensation, LeastSquares, prune, replay
from ..tracing import trace
from ..weights import Magnitude, SiPP, WeightCriterion, hold, sparsified, sparsify
from ..weights.holding import apply
from .recipes import described
from .train import Holder

Removed = Masks | Receipt


class Step(NamedTuple):
    """A pruned network, and the record by which the same can be done to another of its architecture."""

    model: nn.Module
    record: Removed | None


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


@dataclass(frozen=True)
class WeightPruning:
    """Single weights become zero, and are held there while the network is retrained.

    Args:
        name: what it is called.
        criterion: how weights are chosen.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> pruned = WeightPruning("WT", Magnitude()).prune(model, 26, torch.randn(5, 3), 0).model
    >>> sum(int(parameter.count_nonzero()) for parameter in pruned.parameters()) <= 26
    True
    """

    name: str
    criterion: WeightCriterion = field(default_factory=Magnitude)

    def check(self, model: nn.Module, keep: int, sample: Any) -> None:
        """Choose so many weights by magnitude: what can be reached at all depends on the model alone.

        Raises:
            BudgetError: so few parameters cannot be reached; the nearest number that can is named.
        """
        sparsify(model, Nonzeros(keep=keep))

    def prune(self, model: nn.Module, keep: int, sample: Any, seed: int) -> Step:
        """Choose, and set the others to zero."""
        masks = sparsify(model, Nonzeros(keep=keep), self.criterion, sample, seed=seed)
        return Step(sparsified(model, masks), masks)


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
        scores = attribute(model, graph, sample, self.criterion, loss=self.loss, seed=seed)
        if isinstance(self.strategy, Tradeoff):
            scores = curved(model, scores, sample, loss=self.loss)
        plan = allocate(scores, Params(keep=keep), strategy=self.strategy, multiple_of=1)
        steps = () if self.compensate is None else (self.compensate(sample),)
        return Step(*prune(model, plan, compensate=steps))

    @staticmethod
    def _graph(model: nn.Module, sample: Any) -> Graph:
        example = next(batches(sample, limit=2, labelled=False))
        return trace(model, _context.on_device(example.inputs, model))


def redo(model: nn.Module, record: Removed | None) -> nn.Module:
    """Remove from a model, in place, what a step removed from another of its architecture.

    The weights that stay are its own; factors by which a step multiplied them are left out.
    """
    if isinstance(record, Masks):
        apply(model, _together([record]))
    elif record is not None:
        replay(model, record)
    return model


def holding(records: Sequence[Removed]) -> Holder | None:
    """What keeps all weights at zero that some steps pruned; nothing where units were cut out."""
    masks = [record for record in records if isinstance(record, Masks)]
    if not masks:
        return None
    every = _together(masks)
    return lambda model, optimizer: hold(model, every, optimizer)


def _together(records: Sequence[Masks]) -> Masks:
    """What stays in all of them, without the factors: the pruned weights have these in them already."""
    keep: dict[str, Tensor] = {}
    for mask in (mask for record in records for mask in record):
        keep[mask.parameter] = keep[mask.parameter] & mask.keep() if mask.parameter in keep else mask.keep()
    return replace(records[-1], masks=tuple(Mask.of(name, kept) for name, kept in keep.items()))


def load_record(path: Path) -> Removed:
    """Read what a step pruned.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    kind = _store.kind(path)
    if kind not in _RECORDS:
        raise DataError(f"{path} holds a {kind or 'thing'} instead of what a step pruned.")
    return _RECORDS[kind].load(path)


_RECORDS: dict[str, type[Masks | Receipt]] = {"Masks": Masks, "Receipt": Receipt}


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
    WeightPruning("WT", Magnitude()),
    WeightPruning("SiPP", SiPP()),
    FilterPruning("FT", WeightNorm(1), Uniform()),
    FilterPruning("PFP", PFP(), ErrorLevel()),
    FilterPruning("random", Random(), Uniform()),
    FilterPruning("Shapley", Shapley(), Tradeoff()),
    FilterPruning("Shapley+refit", Shapley(), Tradeoff(), compensate=LeastSquares),
    NoPruning(),
)
"""Methods by name: WT and SiPP of single weights; FT, PFP, random, Shapley of filters; and the control."""

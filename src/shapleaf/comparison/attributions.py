"""The scores that are compared: attributed once, per example where these stand for themselves, and timed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from .. import _context
from .._progress import progress
from ..aggregation import Aggregation
from ..attribution import attribute
from ..criteria import OF_LAYERS, Criterion, Target
from ..criteria.targets import measured
from ..data import Batch
from ..errors import ShapleafError
from ..game import Exact, Path, Permutation, Regression
from ..masking import Reference, Zero
from ..records import Graph, Scores
from .settings import Comparing

STEPS = 3
"""Training steps of which the fastest counts."""
T = TypeVar("T")


class Case(NamedTuple):
    """What criteria are compared on, and how."""

    model: nn.Module
    graph: Graph
    settings: Comparing
    seed: int = 0

    @property
    def target(self) -> Target:
        """What removals are measured by."""
        return measured(self.settings.loss)[0]

    @property
    def loss(self) -> _context.Loss:
        """What criteria without a target go by."""
        return measured(self.settings.loss)[1]


class Seconds(NamedTuple):
    """What something took: by the clock, and of all processor cores together."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True, eq=False)
class Attributed:
    """The scores of one criterion.

    Attributes:
        criterion: what they are by.
        scores: one per unit.
        each: group name to scores per example, ``(examples, units)``; empty where an example's score depends
            on which others there are, or on none.
        seconds: what the attribution took.
    """

    criterion: Criterion
    scores: Scores
    each: dict[str, Tensor]
    seconds: Seconds


def attributed(case: Case, criteria: Mapping[str, Criterion], data: Sequence[Batch]) -> dict[str, Attributed]:
    """The scores of every criterion, each attributed once.

    Raises:
        ShapleafError: a criterion failed; the message begins with its name.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> case = Case(model, sl.trace(model, torch.zeros(1, 3)), Comparing())
    >>> data = [Batch(torch.ones(5, 3), torch.zeros(5).long())]
    >>> found = attributed(case, {"norm": sl.WeightNorm(), "taylor": sl.Taylor()}, data)
    >>> found["taylor"].each["0"].shape, found["norm"].each
    (torch.Size([5, 4]), {})
    """
    found = {}
    with progress("criteria", len(criteria)) as step:
        for name, criterion in criteria.items():
            found[name] = scored(case, name, criterion, data)
            step(name)
    return found


def scored(case: Case, name: str, criterion: Criterion, data: Sequence[Batch]) -> Attributed:
    """The scores of one criterion on some examples; errors say its name."""
    model, graph, settings, seed = case
    with _named(name):
        scores, seconds = timed(
            lambda: attribute(
                model,
                graph,
                data,
                criterion,
                aggregate=None,
                loss=case.loss,
                groups=settings.groups,
                seed=seed,
            ),
            model,
        )
        values = {group: aggregated(one, settings.aggregate) for group, one in scores.values.items()}
    each = dict(scores.values) if independent(criterion) else {}
    made_with = {**scores.settings}
    if any(one.ndim > 1 for one in scores.values.values()):
        made_with["aggregate"] = repr(settings.aggregate)
    whole = replace(scores, values=values, stderr={}, settings=made_with)
    return Attributed(criterion, whole, each, seconds)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors of the block say which criterion it was, those of the user's own code in a note."""
    try:
        with _context.located(f"criterion {name!r}"):
            yield
    except ShapleafError:
        raise
    except Exception as error:
        error.add_note(f"This was criterion {name!r} of the comparison.")
        raise


def independent(criterion: Criterion) -> bool:
    """Whether what it says of an example does not depend on which other examples there are.

    It does where nothing is said of single examples (layers, weights), where absent units are the mean of
    the data, and where an estimator decides by all examples when to stop or what to correct. Of estimators
    that are not known to be so it is not assumed.

    >>> import shapleaf as sl
    >>> independent(sl.Taylor()), independent(sl.Shapley(sl.Corrected())), independent(sl.WeightNorm())
    (True, False, False)
    """
    if not criterion.needs or criterion.needs & OF_LAYERS:
        return False
    fixed = all(
        isinstance(one, Zero) or (isinstance(one, Reference) and not isinstance(one.inputs, str))
        for one in (getattr(criterion, place, Zero()) for place in ("removal", "baseline"))
    )
    estimator = getattr(criterion, "estimator", Exact())
    alone = isinstance(estimator, Exact | Path | Regression)
    return fixed and (alone or (isinstance(estimator, Permutation) and not estimator.truncate))


def aggregated(values: Tensor, aggregate: Aggregation) -> Tensor:
    """One score per unit ``(units,)`` from one per example and unit; such as are one per unit already stay.

    >>> from shapleaf import Mean
    >>> aggregated(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), Mean()).tolist()
    [2.0, 3.0]
    """
    if values.ndim == 1:
        return values
    state = aggregate.start(values.shape[1])
    state.update(values)
    return state.result()[0]


def training_step(model: nn.Module, data: Sequence[Batch], loss: _context.Loss) -> Seconds | None:
    """What a forward and backward over all the data takes, with gradients of all weights: the best of a few.

    It runs on a copy, so that no gradient and no hook of the model's is touched. None where no gradient leads
    from the loss to a weight, as of a model that runs under ``torch.no_grad()``.

    >>> model = nn.Linear(3, 2)
    >>> step = training_step(model, [Batch(torch.ones(5, 3), torch.zeros(5).long())], _context.cross_entropy)
    >>> step.wall > 0, model.weight.grad is None
    (True, True)
    """

    def step() -> bool:
        for batch in data:
            output = _context.forward(copy, batch.inputs)
            value = _context.per_example(loss, output, batch.target, batch.examples).mean()
            if not value.requires_grad:
                return False
            value.backward()
            copy.zero_grad()
        return True

    with torch.inference_mode(False), torch.enable_grad():
        copy = _context.copied(model)
        for weight in copy.parameters():
            weight.requires_grad_(weight.is_floating_point())
        with _context.inference(copy):
            trained, runs = zip(*(timed(step, copy) for _ in range(STEPS)), strict=True)
    return Seconds(*(min(column) for column in zip(*runs, strict=True))) if all(trained) else None


def timed(run: Callable[[], T], model: nn.Module) -> tuple[T, Seconds]:
    """What a function returns, and what it took, with what it left to an accelerator."""
    device = _context.device_of(model)
    _context.synchronise(device)
    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    _context.synchronise(device)
    return found, Seconds(time.perf_counter() - wall, time.process_time() - cpu)

"""attribute: run the passes that a criterion needs and aggregate its scores per example."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import _context, passes
from ._progress import progress
from .aggregation import Aggregation, MeanPlusStd, State
from .consumers import consumers, feeling, layers
from .contrasts import POINTS, conductances, rescaled, rescaled_from
from .criteria import OF_LAYERS, Criterion, Elimination, Loss, Needs, Probe, Shapley, Target
from .criteria.targets import compared, parts
from .data import Batch, batches
from .errors import CriterionError
from .game import Estimate
from .game.layer import MEMORY, LayerGame
from .masking import Gates, Reader, Reference, Removal, Replace, Zero
from .records import Graph, Group, Scores

_DEFAULT_AGGREGATION = MeanPlusStd(2.0)
_AWAY = Needs.GAME | Needs.CONDUCTANCE | Needs.RESCALED
"""What is measured where units are absent, or on other inputs."""


def attribute(  # noqa: PLR0913 - what to score, on what, how
    model: nn.Module,
    graph: Graph,
    data: Any,
    criterion: Criterion | None = None,
    *,
    aggregate: Aggregation | None = _DEFAULT_AGGREGATION,
    loss: _context.Loss = _context.cross_entropy,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> Scores:
    """Score every unit of every group: higher means needed more.

    Criteria that need gradients share one forward and one backward among all groups; those that
    play the game are run group by group over all data, which are held in memory. Examples that
    influence each other are noticed on the first batch. The model is left as it was found, and
    gradients are taken also under ``torch.no_grad()`` and ``torch.inference_mode()``.

    Args:
        model: the model that ``graph`` was traced from.
        graph: its graph.
        data: calibration batches ``(inputs, target)``; None for a criterion that needs none.
        criterion: by default ``Shapley()``.
        aggregate: how scores per example become one per unit; None keeps them per example.
        loss: ``f(output, target)``, one value per example; what units are needed for, unless the
            criterion's own ``target`` is another.
        groups: shell patterns of the groups to score; all by default.
        seed: names every random draw.

    Raises:
        StaleGraphError: the graph belongs to another model.
        DataError: data are missing, empty, unlabelled, or do not fit the model.
        CriterionError: the loss is not per example or not finite, or changes with the other examples of the
            batch, or the scores are unusable; ``groups`` is a string.

    Warns:
        UserWarning: the model draws random numbers in eval mode, as dropout that is always on does: where
            gradients or activations are read, scores depend on how the data are cut into batches.

    >>> import shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> graph = sl.trace(model, torch.zeros(1, 3))
    >>> data = [(torch.randn(20, 3), torch.randint(2, (20,)))]
    >>> attribute(model, graph, data, sl.Taylor()).values["0"].shape
    torch.Size([8])
    """
    criterion = criterion or Shapley()
    graph.check(model)
    if isinstance(criterion, type) or not isinstance(criterion, Criterion):
        raise CriterionError(f"criterion={criterion!r}: expected a criterion, such as Taylor().")
    if isinstance(loss, Target):
        raise CriterionError(f"loss={loss} is a target; pass Taylor(target={loss}), say, instead.")
    _context.several("groups", groups)
    chosen = graph.groups if groups is None else graph.select(*groups)
    tally = _Tally(aggregate if criterion.needs & ~OF_LAYERS else None)
    target = getattr(criterion, "target", Loss())
    if criterion.needs & _AWAY:
        compared(target, f"elsewhere, which {criterion!r} compares it with")
    with _context.inference(model):
        if not criterion.needs:
            tally.samples = 0
            for group in chosen:
                probe = Probe(group, model, seed, criterion.needs)
                tally.add(group, criterion.score(probe), None)
        else:
            driver = next((run for need, run in _DRIVERS if need & criterion.needs), _differentiate)
            cost = partial(target.cost, loss=loss)
            driver(_Task(model, graph, chosen, data, criterion, target, cost, seed), tally)
    used = loss if criterion.needs and any(isinstance(one, Loss) for one in parts(target)) else None
    return tally.scores(graph, criterion, used, seed)


class _Task(NamedTuple):
    """What is to be scored, and how."""

    model: nn.Module
    graph: Graph
    groups: Sequence[Group]
    data: Any
    criterion: Criterion
    target: Target
    cost: _context.Loss
    seed: int

    @property
    def removal(self) -> Removal:
        """What the criterion lets absent units leave behind."""
        return getattr(self.criterion, "removal", Zero())

    @property
    def reader(self) -> Callable[[nn.Module, Gates, Replace], Reader]:
        """How the forward runs; a criterion may bring one whose gradients are edited."""
        edited = getattr(self.criterion, "reader", None)
        return Reader if edited is None else partial(edited, self.graph)

    def batches(self, *, labelled: bool = True) -> Iterator[Batch]:
        labelled = labelled and self.target.labelled
        return batches(self.data, device=_context.device_of(self.model), labelled=labelled)

    def probe(self, group: Group, ids: tuple[int, ...]) -> Callable[..., Probe]:
        return partial(Probe, group, self.model, self.seed, self.criterion.needs, ids)


class _Tally:
    """Scores of the groups as they come in, batch by batch."""

    def __init__(self, aggregate: Aggregation | None) -> None:
        self.aggregate, self.samples = aggregate, 0
        self.states: dict[str, State] = {}
        self.values: dict[str, list[Tensor]] = {}
        self.errors: dict[str, list[Tensor]] = {}
        self.common: dict[str, Tensor] = {}
        self.evaluations: dict[str, int] = {}
        self.stopped: dict[str, str] = {}
        self.curves: dict[str, Tensor] = {}

    def add(self, group: Group, score: Tensor | Estimate | Elimination, examples: int | None) -> None:
        values: Any = score.values if isinstance(score, Estimate | Elimination) else score
        shape = (group.size,) if examples is None else (examples, group.size)
        if not isinstance(values, Tensor) or values.shape != shape:
            got = f"shape {(*values.shape,)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
            raise CriterionError(
                f"group {group.name}: the criterion returned {got}, expected scores of shape {shape}."
            )
        if not bool(values.isfinite().all()):
            raise CriterionError(f"group {group.name}: the criterion returned scores that are not finite.")
        values = values.detach().cpu().double()
        if self.aggregate:
            if group.name not in self.states:
                self.states[group.name] = self.aggregate.start(group.size)
            self.states[group.name].update(values)
        else:
            self.values.setdefault(group.name, []).append(values)
        if isinstance(score, Estimate):
            self._sampled(group.name, score)
        elif isinstance(score, Elimination):
            self.curves[group.name] = score.curve

    def _sampled(self, name: str, estimate: Estimate) -> None:
        self.evaluations[name] = estimate.evaluations
        if estimate.stopped:
            self.stopped[name] = estimate.stopped
        common = estimate.common
        if estimate.stderr is not None:
            error = estimate.stderr.detach().cpu().double()
            self.errors.setdefault(name, []).append(error)
            common = error.mean(0) if estimate.shared else common
        if common is not None:
            self.common[name] = common.detach().cpu().double()

    def scores(self, graph: Graph, criterion: Criterion, loss: _context.Loss | None, seed: int) -> Scores:
        values: dict[str, Tensor] = {}
        stderr: dict[str, Tensor] = {}
        for name in self.states or self.values:
            if self.aggregate:
                value, error = self.states[name].result()
                # What all examples share does not average out over them.
                if error is not None and name in self.common:
                    error = torch.hypot(error, self.common[name])
            else:
                value = torch.cat(self.values[name])
                error = torch.cat(self.errors[name]) if name in self.errors else None
            values[name] = value
            if error is not None:
                stderr[name] = error
        settings = {
            "aggregate": repr(self.aggregate) if criterion.needs & ~OF_LAYERS else "none",
            **_context.made_with(loss, seed),
        }
        return Scores(
            graph=graph,
            values=values,
            stderr=stderr,
            samples=self.samples,
            evaluations=self.evaluations,
            stopped=self.stopped,
            curves=self.curves,
            criterion=repr(criterion),
            settings=settings,
        )


def _play(task: _Task, tally: _Tally) -> None:
    data = list(task.batches())
    fill = task.removal.fill(task.model, Gates(task.groups), data)
    memory = getattr(task.criterion, "memory", MEMORY)
    tally.samples = sum(batch.examples for batch in data)
    ids = tuple(example for batch in data for example in batch.ids)

    def play(group: Group) -> LayerGame:
        return LayerGame(task.model, group, data, task.cost, fill, memory)

    with progress("attribute", len(task.groups)) as step:
        for group in task.groups:
            probe = task.probe(group, ids)(play=partial(play, group))
            score = task.criterion.score(probe)
            tally.add(group, score, tally.samples)
            step(group.name)
            if isinstance(score, Estimate) and score.stopped == "interrupted":
                break


def _by_layer(task: _Task, tally: _Tally) -> None:
    felt = getattr(task.criterion, "felt", False)
    data = list(task.batches(labelled=felt))
    tally.samples = sum(batch.examples for batch in data)
    ids = tuple(example for batch in data for example in batch.ids)
    weights = feeling(task.model, task.groups, data, task.cost) if felt else {}
    with progress("attribute", len(task.groups)) as step:
        for group in task.groups:
            probe = task.probe(group, ids)(
                regress=partial(consumers, task.model, group, data, weights),
                run=partial(layers, task.model, group, data),
            )
            tally.add(group, task.criterion.score(probe), None)
            step(group.name)


def _differentiate(task: _Task, tally: _Tally) -> None:
    gates, needs = Gates(task.groups), task.criterion.needs
    stream: Iterable[Batch] = task.batches(labelled=bool(needs & (Needs.GRADIENT | Needs.MASK_GRADIENT)))
    if task.removal != Zero():  # what absent units leave behind may be read off the data too
        stream = list(stream)
    fill = task.removal.fill(task.model, gates, stream)
    with progress("attribute") as step:
        for batch in stream:
            tally.samples += batch.examples
            found = passes.once(task.model, gates, batch, task.cost, needs, fill, task.reader)
            if not batch.first:
                _warn_of_draws()
                passes.check(task.model, gates, batch, task.cost, found)
            for group in task.groups:
                reads = passes.reads(group, gates, found.masks)
                probe = task.probe(group, batch.ids)(
                    reads=[(found.masks.seen[key].detach(), index) for key, index in reads.items()],
                    activation_gradients=[found.by_read[key] for key in reads] if found.by_read else (),
                    mask_gradients=found.by_mask.get(group.name),
                )
                tally.add(group, task.criterion.score(probe), batch.examples)
            step("")


def _contrast(task: _Task, tally: _Tally) -> None:
    data = list(task.batches())
    measure = _measured(task, data)
    gates = Gates(task.groups)
    with progress("attribute", len(data)) as step:
        for batch in data:
            tally.samples += batch.examples
            if not batch.first:
                found = passes.once(task.model, gates, batch, task.cost, Needs.MASK_GRADIENT)
                _warn_of_draws()
                passes.check(task.model, gates, batch, task.cost, found)
            with torch.enable_grad():
                found_by = measure(task.model, task.groups, batch, task.cost)
            for group in task.groups:
                probe = task.probe(group, batch.ids)(contrasts=found_by[group.name])
                tally.add(group, task.criterion.score(probe), batch.examples)
            step("")


def _warn_of_draws() -> None:
    if _context.drew(0):  # as a pass begins
        warnings.warn(
            "the model draws random numbers in eval mode, the same for every batch. Where they matter, as in "
            "dropout that is always on, scores depend on how the data are cut into batches; switch it off.",
            stacklevel=4,
        )


def _measured(task: _Task, data: Sequence[Batch]) -> Callable[..., dict[str, Tensor]]:
    """How a batch is compared with the criterion's baseline."""
    model, criterion = task.model, task.criterion
    if Needs.CONDUCTANCE in criterion.needs:
        baseline, points = getattr(criterion, "baseline", Reference()), getattr(criterion, "points", POINTS)
        return partial(conductances, start=baseline.example(model, data), points=points)
    if isinstance(task.removal, Reference):
        return partial(rescaled_from, start=task.removal.example(model, data))
    return partial(rescaled, fill=task.removal.fill(model, Gates(task.groups), data))


_DRIVERS = (
    (Needs.GAME, _play),
    (OF_LAYERS, _by_layer),
    (Needs.CONDUCTANCE | Needs.RESCALED, _contrast),
)

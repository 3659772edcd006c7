"""tune: the rules of relevance by which pruning keeps most accuracy."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from .. import _context, _progress
from ..criteria import LRP
from ..data import Batches
from ..errors import DataError
from ..records import Graph, PruningCurves, Sweep, Tuned
from ..records.tuned import PARTS
from ..records.tuned import Tried as Trial
from ..retraining.checkpoints import digest
from ..sweeps import Study
from ..sweeps.journal import locked
from ..sweeps.running import counter, made
from ..sweeps.study import bind
from ..sweeps.working import Book, work
from . import parts
from .drawing import Tried, draw
from .objective import Objective
from .space import Space, Tuning

PATIENCE = 120.0
"""Seconds without a sign of life after which a worker on another machine is taken for dead."""

_DEFAULT = Tuning()


def tune(
    model: nn.Module,
    graph: Graph,
    reference: Any,
    selection: Any,
    test: Any,
    *,
    settings: Tuning = _DEFAULT,
    folder: str | os.PathLike[str] | None = None,
) -> Tuned:
    """Choose the rules of relevance, for each band of depth, by which pruning keeps most accuracy.

    Every trial attributes the reference examples by :class:`~shapleaf.LRP` and takes the area A_PR under the
    pruning curve of the selection examples, the least relevant units first (Hatefi et al. 2024, Pruning by
    eXplaining Revisited). Optuna's tree-structured Parzen estimator chooses what to try. The best of many
    trials always looks good on what it was chosen by: at the end, and only then, it and epsilon everywhere
    are measured on the test examples, and the record says whether the gain holds there.

    With a folder, the search goes on where it was stopped, and other processes that call this with the same
    arguments share its trials. A trial whose process was killed is begun again. One process finds the same
    whether it was interrupted or not. More trials may be added; but who goes on until the test pleases has
    chosen by the test. When all is done the folder holds ``preset.json``, for ``LRP.preset`` and the command
    line, and ``tuned.safetensors``.

    Args:
        model: the model that ``graph`` was traced from.
        graph: its graph.
        reference: labelled batches, to attribute.
        selection: others, to choose by.
        test: others, to test what was chosen.
        settings: what may be chosen, and how it is measured.
        folder: of this tuning alone; None keeps nothing.

    Raises:
        DataError: parts share examples, are empty or unlabelled; the folder belongs to another tuning, or
            cannot be written.
        StaleGraphError: the graph belongs to another model.
        CriterionError: scores are unusable.
        MissingExtraError: Optuna is not installed: ``pip install 'shapleaf[search]'``.

    >>> import torch, shapleaf as sl
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> x = torch.randn(60, 3)
    >>> y = model(x).argmax(1)
    >>> data = [(x[part], y[part]) for part in (slice(10), slice(10, 30), slice(30, 60))]
    >>> found = tune(model, sl.trace(model, x[:1]), *data, settings=sl.Tuning(trials=2, rates=(0.25, 0.5)))
    >>> [trial.choices["last"] for trial in found.trials]
    ['Epsilon', 'Gamma']
    >>> found.best.area >= found.trials[0].area
    True
    """
    graph.check(model)
    held = parts.parts(reference, selection, test)
    objective, space = Objective(model, graph, held, settings), Space(settings, graph)
    bound = {"model": graph.fingerprint, **_bound(model, held, space)}
    if folder is not None:
        return _tuned(objective, space, bound, made(Path(folder)))
    with tempfile.TemporaryDirectory(prefix="shapleaf-tune-") as home:
        return _tuned(objective, space, bound, Path(home))


def _bound(model: nn.Module, held: Mapping[str, Batches], space: Space) -> dict[str, Any]:
    """What a folder is bound to: all that results depend on."""
    settings = space.settings
    rules = {
        name: repr(getattr(settings, name))
        for name in ("rules", "gamma", "target", "aggregate", "restricted")
    }
    return {
        "weights": digest(*(tensor for _, tensor in _context.named_tensors(model))),
        **parts.told(held),
        "seed": settings.seed,
        "rates": list(settings.rates),
        "groups": None if settings.groups is None else list(settings.groups),
        "bands": list(settings.ends),
        "attention": list(settings.attention),
        "absolute": list(settings.absolute),
        **rules,
    }


def _tuned(objective: Objective, space: Space, bound: dict[str, Any], home: Path) -> Tuned:
    trials = _search(objective, space, bound, home)
    best = max(trials, key=lambda one: (one.area, -one.number))
    named = {"tuned": space.criterion(best.choices), "epsilon": space.criterion(space.baseline)}
    if not _usual(space):
        named["default"] = LRP()
    curves = _final(objective, named, bound, made(home / "test"))
    whole = PruningCurves.joined(found["test"] for found in curves.values())
    areas = {name: {part: found[part].area(name)[0] for part in PARTS} for name, found in curves.items()}
    record = Tuned(
        trials=tuple(Trial(number=n, choices=dict(choices), area=area) for n, choices, area in trials),
        preset=named["tuned"].to_json(),
        areas=areas,
        curves=whole,
        gain=whole.difference("tuned", "epsilon", seed=space.settings.seed),
        settings={name: str(value) for name, value in bound.items()} | _context.versions(),
    )
    record.save(home / "tuned.safetensors")
    named["tuned"].save(home / "preset.json")
    return record


def _usual(space: Space) -> bool:
    """Whether epsilon everywhere is what ``LRP()`` is."""
    attention = space.baseline.get("attention", "attnlrp")
    found = (space.settings.target, space.baseline["absolute"], attention)
    return found == (LRP().target, LRP().absolute, "attnlrp")


def _search(objective: Objective, space: Space, bound: dict[str, Any], home: Path) -> list[Tried]:
    """Run the trials that no process has run, and return all."""
    trials = tuple({"trial": number} for number in range(space.settings.trials))
    study = Study(name="tune", run="shapleaf.tuning:tune", trials=trials, settings=bound)

    def _run(trial: Mapping[str, int], folder: Path, **_: object) -> Sweep:
        before, number = _results(book), trial["trial"]
        choices = draw(space, number, before)
        known = next((one.area for one in before if one.choices == choices), None)
        area = objective.area(space.criterion(choices)) if known is None else known
        return Sweep.of("tune", [{"trial": number, "area": area, **choices}])

    book = _begun(study, home)
    _finish(book, _run)
    return _results(book)


def _results(book: Book) -> list[Tried]:
    """The trials that have a result, in the order of their numbers."""
    found = []
    for key in book.trials:
        if book.result(key).exists():
            sweep = Sweep.load(book.result(key))
            row: dict[str, Any] = dict(zip(sweep.columns, sweep.rows[0], strict=True))
            found.append(Tried(row.pop("trial"), area=row.pop("area"), choices=row))
    return found


def _final(
    objective: Objective, named: Mapping[str, LRP], bound: dict[str, Any], home: Path
) -> dict[str, dict[str, PruningCurves]]:
    """The curves of the criteria on all parts, by name and part."""
    trials = tuple(
        {"criterion": {"name": name, "preset": criterion.to_json()}} for name, criterion in named.items()
    )
    study = Study(name="test", run="shapleaf.tuning:tune", trials=trials, settings=bound)

    def _run(trial: Mapping[str, Any], folder: Path, **_: object) -> Sweep:
        name, criterion = trial["criterion"]["name"], LRP.from_json(trial["criterion"]["preset"])
        areas = {}
        for part in PARTS:
            curves = objective.curves(name, criterion, part)
            curves.save(folder / f"{part}.safetensors")
            areas[part] = curves.area(name)[0]
        return Sweep.of("test", [{"criterion": name, **areas}])

    book = _begun(study, home)
    _finish(book, _run)
    return {
        trial["criterion"]["name"]: {
            part: PruningCurves.load(book.place(key) / f"{part}.safetensors") for part in PARTS
        }
        for key, trial in book.trials.items()
    }


def _begun(study: Study, home: Path) -> Book:
    with locked(home):
        bind(study, home)
    return Book(study, home)


def _finish(book: Book, run: Callable[..., Sweep]) -> None:
    """Run the trials that no process has run, and wait for those of others."""
    study = book.study
    with _progress.progress(study.name, len(book.trials)) as step:
        seen = counter(book, step)
        work(study, book.folder, patience=PATIENCE, seen=seen, function=run, strict=True)
    _complete(book)


def _complete(book: Book) -> None:
    failed = book.gather().failed
    if failed:
        raise DataError(
            f"{len(failed)} of {len(book.trials)} trials of {book.folder} have no result, {failed[0].trial} "
            f"for {failed[0].error}. The same call tries them again."
        )

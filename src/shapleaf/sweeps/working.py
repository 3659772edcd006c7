"""One worker: claims trials, runs them, and takes over those of workers that died."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path

from .. import _store
from ..errors import DataError
from ..records.sweep import Failure, Sweep
from .journal import Entry, Journal, locked
from .leases import Watch, lease
from .study import Study, Trial

ATTEMPTS = 3
"""A trial during which so many workers died has failed: it may be what kills them."""

_POLL = 0.5
"""Seconds between looks at what other workers do."""


class Book:
    """A study's trials in its folder: how each stands, and its result.

    Args:
        study: the trials.
        folder: the study's.

    >>> import tempfile
    >>> toy = Study(name="toy", run="shapleaf.sweeps.toys:squared", trials=({"x": 2},))
    >>> book = Book(toy, Path(tempfile.mkdtemp()))
    >>> list(book.states().values())
    ['missing']
    """

    def __init__(self, study: Study, folder: Path) -> None:
        self.study, self.folder = study, folder
        self.journal = Journal(folder, study.name)
        self.trials: dict[str, Trial] = dict(zip(study.keys, study.trials, strict=True))
        self._old = {entry.id for entry in self.journal.entries() if entry.state in ("failed", "lost")}

    def place(self, key: str) -> Path:
        """The trial's own folder."""
        return self.folder / "trials" / key

    def result(self, key: str) -> Path:
        """The file that holds what the trial found, once it has."""
        return self.place(key) / "result.safetensors"

    def states(self) -> dict[str, str]:
        """How each trial stands: done, running, waiting, failed, or missing; earlier failures aside."""
        return {key: self._state(key, runs) for key, runs in self._runs().items()}

    def _runs(self) -> dict[str, list[Entry]]:
        runs: dict[str, list[Entry]] = {key: [] for key in self.trials}
        for entry in self.journal.entries():
            if entry.key in runs and entry.id not in self._old:
                runs[entry.key].append(entry)
        return runs

    def _state(self, key: str, runs: list[Entry]) -> str:
        found = [entry.state for entry in runs]
        if "done" in found and self.result(key).exists():
            return "done"
        live = next((state for state in ("running", "waiting", "failed") if state in found), "missing")
        return "failed" if live == "missing" and found.count("lost") >= ATTEMPTS else live

    def enrol(self) -> None:
        """Let every trial wait that is new, was lost, or whose result is gone; each of them once."""
        if "missing" in self.states().values():
            with locked(self.folder):
                self.journal.add([key for key, state in self.states().items() if state == "missing"])

    def bury(self, watch: Watch) -> None:
        """Mark the trials as lost whose workers have died."""
        for entry in self.journal.entries():
            if entry.state == "running" and watch.dead(entry.worker or f"of {entry.id}"):
                self.journal.fail(entry)

    def gather(self) -> Sweep:
        """What all trials found, in the study's order, and which have no result."""
        parts, failed = [], []
        errors = {entry.key: entry.error for entry in self.journal.entries()}
        for key, label in zip(self.study.keys, self.study.labels, strict=True):
            if self.result(key).exists():
                parts.append(Sweep.load(self.result(key)))
            else:
                failed.append(Failure(trial=label, error=errors.get(key) or "the workers that ran it died"))
        return Sweep.joined(self.study.name, parts, failed)


def work(
    study: Study,
    folder: Path,
    *,
    patience: float,
    seen: Callable[[], None] = lambda: None,
    function: Callable[..., Sweep] | None = None,
    strict: bool = False,
) -> None:
    """Run trials until each has a result or has failed, whoever runs them.

    Args:
        study: what to try; the folder is bound to it.
        folder: shared by all workers.
        patience: seconds without a sign of life after which another worker is taken for dead.
        seen: called whenever something may have changed.
        function: what runs a trial; by default what the study names.
        strict: raise what a trial raises, once the journal says that it failed.

    Raises:
        DataError: the study's function cannot be imported, or the folder cannot be written.
    """
    run = function or study.function()
    book, watch = Book(study, folder), Watch(folder / "workers", patience)
    with lease(folder / "workers", patience) as name:
        while True:
            book.bury(watch)
            book.enrol()
            claimed = book.journal.claim(name, book.trials)
            if claimed is not None:
                _run(book, claimed, run, strict)
            elif set(book.states().values()) <= {"done", "failed"}:
                seen()
                return
            else:
                time.sleep(_POLL)
            seen()


def _found(book: Book, key: str, function: Callable[..., Sweep]) -> Sweep:
    found = function(book.trials[key], book.place(key), **book.study.settings)
    if not isinstance(found, Sweep):
        raise DataError(f"{book.study.run} returned a {type(found).__name__}, expected a Sweep.")
    return found


def _run(book: Book, entry: Entry, function: Callable[..., Sweep], strict: bool = False) -> None:
    """Run a trial, unless its result is there: its worker died before it could say so."""
    place = book.place(entry.key)
    try:
        if not book.result(entry.key).exists():
            place.mkdir(parents=True, exist_ok=True)
            _found(book, entry.key, function).save(book.result(entry.key))
        book.journal.done(entry)
    except Exception as error:  # whatever a trial raises is what came of it
        with _store.atomic(place / "error.txt") as temporary:
            temporary.write_text(traceback.format_exc(), encoding="utf-8")
        book.journal.fail(entry, f"{type(error).__name__}: {error}")
        if strict:
            raise
    except BaseException:
        book.journal.fail(entry)  # interrupted: another worker may take it at once
        raise

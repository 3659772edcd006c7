"""The journal of a sweep: which trial waits, runs, is done, or failed; in Optuna's journal storage.

Any number of processes on any number of machines append to one file. Its order decides: of two workers that
claim one trial, the first in the file has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..errors import DataError
from ..integrations import require

State = Literal["waiting", "running", "done", "failed", "lost"]
_LOCK = 120
"""Seconds after which a lock is taken for one that a dead process left."""


class Entry(NamedTuple):
    """One run of a trial: its place in the journal, and how it stands."""

    id: int
    key: str
    state: State
    worker: str
    error: str


class Journal:
    """The entries of a study, in order.

    Args:
        folder: where the journal is, or is begun.
        name: the study's.

    Raises:
        MissingExtraError: Optuna is not installed: ``pip install 'shapleaf[search]'``.
        DataError: the journal is damaged.

    >>> import tempfile
    >>> journal = Journal(Path(tempfile.mkdtemp()), "toy")
    >>> journal.add(["a", "b"])
    >>> journal.claim("me", ["a", "b"]).key
    'a'
    >>> [entry.state for entry in journal.entries()]
    ['running', 'waiting']
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._optuna = require("optuna", "search")
        path = folder.resolve() / "journal.log"
        backends: Any = require("optuna.storages.journal", "search")
        lock = backends.JournalFileOpenLock(str(path), grace_period=_LOCK)
        with held(lock):
            _mend(path)
        try:
            backend = backends.JournalFileBackend(str(path), lock_obj=lock)
            self._storage = self._optuna.storages.JournalStorage(backend)
            self._study = self._begun(name)
        except (ValueError, KeyError) as error:
            raise DataError(
                f"{path} is damaged ({error}). Delete it: results lie beside it, and only trials without one "
                "are run again."
            ) from error

    def _begun(self, name: str) -> int:
        """The study's number in the journal; it is entered if it is not there."""
        with contextlib.suppress(KeyError):
            return int(self._storage.get_study_id_from_name(name))
        logging, direction = self._optuna.logging, self._optuna.study.StudyDirection.MAXIMIZE
        loud = logging.get_verbosity()
        logging.set_verbosity(logging.WARNING)
        try:
            return int(self._storage.create_new_study([direction], name))
        except self._optuna.exceptions.DuplicatedStudyError:  # by another worker, this moment
            return int(self._storage.get_study_id_from_name(name))
        finally:
            logging.set_verbosity(loud)

    def entries(self) -> list[Entry]:
        """All that was added, in order."""
        return [_entry(trial) for trial in self._storage.get_all_trials(self._study, deepcopy=False)]

    def add(self, keys: Sequence[str]) -> None:
        """Trials that wait for a worker."""
        for key in keys:
            waiting = self._optuna.trial.create_trial(
                state=self._optuna.trial.TrialState.WAITING, user_attrs={"key": key}
            )
            self._storage.create_new_trial(self._study, template_trial=waiting)

    def claim(self, worker: str, keys: Collection[str]) -> Entry | None:
        """The first of these trials, in their order, that waits, now the worker's; None if there is none."""
        state = self._optuna.trial.TrialState
        order = {key: place for place, key in enumerate(keys)}
        found = self._storage.get_all_trials(self._study, deepcopy=False, states=(state.WAITING,))
        waiting = [trial for trial in found if trial.user_attrs.get("key") in order]
        for trial in sorted(waiting, key=lambda one: order[one.user_attrs["key"]]):
            with contextlib.suppress(self._optuna.exceptions.UpdateFinishedTrialError):
                if self._storage.set_trial_state_values(trial._trial_id, state.RUNNING):
                    self._storage.set_trial_user_attr(trial._trial_id, "worker", worker)
                    return _entry(self._storage.get_trial(trial._trial_id))
        return None

    def done(self, entry: Entry) -> None:
        """The trial has its result; if it was taken over meanwhile, nothing changes."""
        with contextlib.suppress(self._optuna.exceptions.UpdateFinishedTrialError):
            complete = self._optuna.trial.TrialState.COMPLETE
            self._storage.set_trial_state_values(entry.id, complete, [1.0])

    def fail(self, entry: Entry, error: str = "") -> None:
        """The trial raised an error; without one, its worker died."""
        with contextlib.suppress(self._optuna.exceptions.UpdateFinishedTrialError):
            if error:
                self._storage.set_trial_user_attr(entry.id, "error", error)
            self._storage.set_trial_state_values(entry.id, self._optuna.trial.TrialState.FAIL)


def _entry(trial: Any) -> Entry:
    attributes = trial.user_attrs
    error = str(attributes.get("error", ""))
    states: dict[str, State] = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "done"}
    state = states.get(trial.state.name, "failed" if error else "lost")
    return Entry(trial._trial_id, str(attributes.get("key")), state, str(attributes.get("worker", "")), error)


@contextlib.contextmanager
def held(lock: Any) -> Iterator[None]:
    """One of Optuna's file locks, held for a block."""
    try:
        lock.acquire()
    except OSError as error:
        raise DataError(f"cannot write the sweep's folder: {error.strerror or error}.") from error
    try:
        yield
    finally:
        lock.release()


def locked(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Only one process at a time is in such a block, whatever machine it runs on."""
    backends: Any = require("optuna.storages.journal", "search")
    return held(backends.JournalFileOpenLock(str(folder.resolve() / "study"), grace_period=_LOCK))


def _mend(path: Path) -> None:
    """Cut off a last line that a crash left unfinished; what it said never was."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        written = file.read()
        if written and not written.endswith(b"\n"):
            file.truncate(written.rfind(b"\n") + 1)

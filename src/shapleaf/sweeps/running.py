"""sweep: run the trials of a study, alone or with others, and gather what they found."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from .. import _progress, _store
from ..errors import DataError
from ..records.sweep import Sweep
from .journal import locked
from .processes import spawn
from .study import Study, bind
from .working import Book, work


def sweep(
    study: Study, folder: str | os.PathLike[str], *, workers: int = 1, patience: float = 120.0
) -> Sweep:
    """Run the trials of a study that have no result yet, and return the table of all.

    Call it again to go on after an interruption, or with a study that has grown; call it on several machines
    that share the folder to spread the work. Each trial is run by one worker. If that one dies, another takes
    the trial over, in the same folder. Results are files, written whole or not at all: no trial is lost or
    counted twice, and the table does not depend on who ran what. A trial that raises an error is listed in
    ``failed`` and tried again at the next call; the others go on.

    Args:
        study: what to try.
        folder: of this study alone: the journal, a folder for each trial, and at the end ``sweep.csv``,
            ``sweep.json`` and ``sweep.safetensors``.
        workers: processes on this machine; with more than one they share its cores, and the study's function
            must be importable from the current folder or Python's path.
        patience: seconds without a sign of life after which a worker on another machine is taken for dead.

    Raises:
        DataError: the folder belongs to another study or cannot be written; ``workers`` is below 1; the
            study's function cannot be imported; all workers died.
        MissingExtraError: Optuna is not installed: ``pip install 'shapleaf[search]'``.

    >>> import tempfile
    >>> toy = Study(name="toy", run="shapleaf.sweeps.toys:squared", trials=({"x": 2}, {"x": 3}))
    >>> sweep(toy, tempfile.mkdtemp()).column("square")
    (4, 9)
    """
    if workers < 1:
        raise DataError(f"workers must be at least 1, received {workers}.")
    if not patience > 0:
        raise DataError(f"patience must be above 0 seconds, received {patience}.")
    study.function()
    home = made(Path(folder))
    with locked(home):
        bind(study, home)
    book = Book(study, home)
    with _progress.progress(f"sweep {study.name}", len(study.trials)) as step:
        if workers == 1:
            work(study, home, patience=patience, seen=counter(book, step))
        else:
            spawn(study, home, workers, patience=patience, seen=counter(book, step))
    found = book.gather()
    found.save(home / "sweep.safetensors")
    found.to_csv(home / "sweep.csv")
    with _store.atomic(home / "sweep.json") as temporary:
        temporary.write_text(json.dumps(_plain(found), indent=1) + "\n", encoding="utf-8")
    return found


def made(folder: Path) -> Path:
    """The folder, which is there from now on.

    Raises:
        DataError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror or error}.") from error
    return folder


def counter(book: Book, step: Callable[[str], None]) -> Callable[[], None]:
    """Tells the progress bar of each trial that got its result, whoever ran it."""
    labels = dict(zip(book.study.keys, book.study.labels, strict=True))

    def seen() -> None:
        for key in [key for key in labels if book.result(key).exists()]:
            step(labels.pop(key))

    return seen


def _plain(found: Sweep) -> dict[str, object]:
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    failed = [{"trial": failure.trial, "error": failure.error} for failure in found.failed]
    return {"study": found.study, "rows": rows, "failed": failed}

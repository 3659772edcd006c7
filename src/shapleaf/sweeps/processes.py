"""Several workers on this machine, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import DataError
from .study import Study
from .working import work

_CODE = "from shapleaf.sweeps.processes import main; main()"
_POLL = 0.2


def spawn(
    study: Study, folder: Path, workers: int, *, patience: float, seen: Callable[[], None] = lambda: None
) -> None:
    """Run so many worker processes until the study is through; they share the cores.

    A worker that dies is not replaced: the others take its trial over. If this process dies, all of them end.

    Args:
        study: what to try; the folder is bound to it.
        folder: shared by all workers.
        workers: how many processes.
        patience: as :func:`shapleaf.sweeps.working.work` takes it.
        seen: called again and again meanwhile.

    Raises:
        DataError: all workers died; the message is what the last of them said.
    """
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    environment = {"OMP_NUM_THREADS": threads} | os.environ | {"SHAPLEAF_QUIET": "1"}
    (folder / "workers").mkdir(parents=True, exist_ok=True)
    logs = [folder / "workers" / f"{os.getpid()}-{number}.log" for number in range(workers)]
    found = list[subprocess.Popen[bytes]]()
    try:
        for log in logs:
            found.append(_started([str(folder), str(patience)], study, environment, log))
        while any(process.poll() is None for process in found):
            seen()
            time.sleep(_POLL)
    finally:
        for process in found:
            if process.poll() is None:
                process.terminate()
                process.wait()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
    seen()
    if all(process.returncode for process in found):
        said = logs[-1].read_text(encoding="utf-8", errors="replace").strip()
        last = said.splitlines()[-1] if said else f"exit status {found[-1].returncode}"
        raise DataError(f"all {workers} workers died: {last}. See {logs[-1]}.")
    for process, log in zip(found, logs, strict=True):
        if not process.returncode:
            log.unlink(missing_ok=True)


def _started(
    words: list[str], study: Study, environment: dict[str, str], log: Path
) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        command = [sys.executable, "-c", _CODE, *words]
        process = subprocess.Popen(  # noqa: S603 - this Python, this library
            command, stdin=subprocess.PIPE, stdout=file, stderr=file, env=environment
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # what killed it is in its log
        process.stdin.write(study.to_json().encode() + b"\n")
        process.stdin.flush()
    return process


def main() -> None:
    """A worker process: the study comes on standard input, its folder and patience as arguments.

    The input stays open for as long as the process lives that started the worker.
    """
    folder, patience = sys.argv[1:]
    study = Study.from_json(sys.stdin.readline())
    threading.Thread(target=_follow, name="follow", daemon=True).start()
    work(study, Path(folder), patience=float(patience))


def _follow() -> None:
    """End this process when its input does."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)

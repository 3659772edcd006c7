"""Leases: how workers show that they live, and how others see that one has died.

A worker rewrites a small file of its own again and again. Others look whether it changes, by their own clock,
so that clocks need not agree. A process on the same machine is also asked for directly.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError

_BEATS = 6
"""Beats within the patience of the others."""


def place() -> str:
    """This machine, boot and process namespace: where a process number means one process.

    >>> place() == place()
    True
    """
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


@contextlib.contextmanager
def lease(folder: Path, patience: float) -> Iterator[str]:
    """A worker's name, for as long as the block runs; the file of that name in ``folder`` keeps changing.

    Args:
        folder: where the leases are.
        patience: seconds without a change after which others take the worker for dead.

    Raises:
        DataError: the folder cannot be written.
    """
    name = f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    stop = threading.Event()

    def write(beat: int) -> None:
        temporary = folder / f".{name}"
        temporary.write_text(json.dumps({"place": place(), "pid": os.getpid(), "beat": beat}), "utf-8")
        os.replace(temporary, folder / name)

    def beat() -> None:
        count = 1
        while not stop.wait(patience / _BEATS):
            with contextlib.suppress(OSError):  # a disk may be full or away for a while
                write(count)
            count += 1

    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(0)
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror or error}.") from error
    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield name
    finally:
        stop.set()
        thread.join()
        (folder / name).unlink(missing_ok=True)


class Watch:
    """Sees who of the other workers has died.

    Args:
        folder: where the leases are.
        patience: seconds without a change after which a worker is taken for dead.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with lease(folder, patience=60) as name:
    ...     Watch(folder, patience=60).dead(name)
    False
    """

    def __init__(self, folder: Path, patience: float) -> None:
        self._folder, self._patience = folder, patience
        self._seen: dict[str, tuple[str, float]] = {}

    def dead(self, worker: str) -> bool:
        """Whether it is gone; of one without a lease, or that has stopped to renew it, only after a while."""
        try:
            text = (self._folder / worker).read_text(encoding="utf-8") if worker else ""
        except OSError:
            text = ""
        before, since = self._seen.get(worker, (None, 0.0))
        if text != before:
            self._seen[worker] = text, time.monotonic()
            return _ended(text)
        return _ended(text) or time.monotonic() - since > self._patience


def _ended(text: str) -> bool:
    """Whether the lease is of a process of this machine that has ended."""
    if not text or os.name != "posix":
        return False
    try:
        found = json.loads(text)
        if found["place"] == place():
            os.kill(found["pid"], 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError, KeyError, TypeError):
        return False  # it runs for another user; or the file is no lease
    return False

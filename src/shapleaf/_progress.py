"""Progress bars on long work: in terminals and notebooks, never in scripts or logs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

_quiet = False


def quiet(value: bool = True) -> None:
    """Switch all progress bars off (or on again); ``SHAPLEAF_QUIET=1`` does the same.

    >>> quiet()
    """
    global _quiet  # noqa: PLW0603 - a switch for the whole process
    _quiet = value


def _visible() -> bool:
    if _quiet or os.environ.get("SHAPLEAF_QUIET"):
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


_display: Any = None
"""The display that is open: bars within bars stand on it below each other."""


@contextlib.contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Callable[[str], None]]:
    """A bar for ``total`` steps; call what it yields after each one, with what was done."""
    if not _visible():
        yield lambda _: None
        return
    with _shown() as bars:
        task = bars.add_task(title, total=total)
        try:
            yield lambda text: bars.update(task, advance=1, description=f"{title} {text}".strip())
        finally:
            bars.refresh()
            bars.remove_task(task)


@contextlib.contextmanager
def _shown() -> Iterator[Any]:
    """The display that is open, or one that is open for this block."""
    global _display  # noqa: PLW0603 - a terminal has one
    if _display is not None:
        yield _display
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        _display = bars
        try:
            yield bars
        finally:
            _display = None

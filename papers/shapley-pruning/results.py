"""What the studies share: results that are kept on disk cell by cell, and how they are printed."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shapleaf as sl
from shapleaf._store import atomic

TRAINED = Path(__file__).resolve().parents[3] / "shared" / "data"

Cell = dict[str, Any]
Cells = dict[str, Cell]


class Results:
    """The finished cells of a study, written as JSON and as tables after each one.

    Args:
        json: where they are kept; cells found there are not run again.
        markdown: where the tables go.
        command: what makes the whole of it.
        settings: what the cells depend on.
        table: the text of ``markdown``, from everything that is in ``json``.

    Raises:
        SystemExit: ``json`` was made with other settings.
    """

    def __init__(
        self,
        json: Path,
        markdown: Path,
        command: str,
        settings: dict[str, Any],
        table: Callable[[dict[str, Any]], str],
    ) -> None:
        self.json, self.markdown, self.command, self.settings = json, markdown, command, settings
        self.table = table
        self.cells: Cells = {}
        self.intact: Cells = {}
        self._resume()

    def _resume(self) -> None:
        if self.json.exists():
            found = json.loads(self.json.read_text())
            if found["settings"] != self.settings:
                raise SystemExit(
                    f"{self.json} was made with {found['settings']}, not {self.settings}; "
                    "give another folder with --out, or remove it."
                )
            self.cells, self.intact = found["cells"], found["intact"]

    def add(self, key: str, cell: Cell, said: str) -> None:
        self.cells[key] = cell
        print(f"{key}: {said}", flush=True)
        self.write()

    def write(self) -> None:
        found = {
            "command": self.command,
            "settings": self.settings,
            "versions": versions(),
            "intact": self.intact,
            "cells": self.cells,
        }
        for path, text in ((self.json, compact(found)), (self.markdown, self.table(found))):
            with atomic(path) as new:
                new.write_text(f"{text}\n")


def compact(found: dict[str, Any]) -> str:
    """JSON with a line for every entry, and one for a whole list of numbers.

    >>> print(compact({"a": [1, 2.5], "b": {}}))
    {
     "a": [1, 2.5],
     "b": {}
    }
    """
    return re.sub(
        r"\[[^][{}\"]+\]",
        lambda numbers: f"[{' '.join(numbers[0][1:-1].split())}]",
        json.dumps(found, indent=1),
    )


def versions() -> dict[str, str]:
    return {
        "shapleaf": sl.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def made_by(found: dict[str, Any]) -> str:
    """The versions in words."""
    return ", ".join(f"{name} {version}" for name, version in found["versions"].items())


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard deviation; no ± for a single value.

    >>> spread([1.0, 3.0]), spread([2.0])
    ('2.00 ± 1.41', '2.00')
    """
    text = f"{np.mean(values):.{digits}f}"
    return f"{text} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else text


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is right-aligned."""
    lines = [f"| {' | '.join(row)} |" for row in (header, *rows)]
    return "\n".join([lines[0], "|---" + "|---:" * (len(header) - 1) + "|", *lines[1:]])

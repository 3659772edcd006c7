"""What the benchmarks share: rank correlation, the machine they ran on, and how results are kept."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

import shapleaf
from shapleaf._store import atomic

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Rank correlation; equal values share the mean of their ranks.

    >>> spearman([1, 2, 3, 4], [10, 30, 20, 40])
    0.8
    """
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1].round(12))


def ranks(values: ArrayLike) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs.

    >>> ranks([3.0, 1.0, 3.0]).tolist()
    [2.5, 1.0, 2.5]
    """
    _, which, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[which]


def environment() -> dict[str, str]:
    """Versions and processor, without which no time means anything."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.partition(": ")[2] for line in cpuinfo.read_text().splitlines() if "model name" in line]
    return {
        "shapleaf": shapleaf.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "processor": names[0] if names else platform.processor(),
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()}",
    }


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is right-aligned."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def save(folder: Path, name: str, found: dict[str, Any], markdown: str) -> None:
    """Write ``name.json`` and ``name.md``, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in (
        (folder / f"{name}.json", json.dumps(found, indent=1)),
        (folder / f"{name}.md", markdown),
    ):
        with atomic(path) as new:
            new.write_text(text.rstrip("\n") + "\n")

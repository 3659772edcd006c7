"""Trial functions that need no model, for examples and tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..records.sweep import Sweep


def squared(trial: Mapping[str, Any], folder: Path) -> Sweep:
    """The square of the trial's ``x``.

    >>> squared({"x": 3}, Path("unused")).column("square")
    (9,)
    """
    return Sweep.of("toy", [{"x": trial["x"], "square": trial["x"] ** 2}])

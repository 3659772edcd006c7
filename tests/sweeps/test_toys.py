"""The toy trial."""

from __future__ import annotations

from pathlib import Path

from shapleaf.sweeps.toys import squared


def test_it_squares() -> None:
    assert squared({"x": -4}, Path()).rows == ((-4, 16),)

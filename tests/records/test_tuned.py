"""What tuning found, and what it says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shapleaf.errors import DataError
from shapleaf.records import PruningCurves, Tried, Tuned

PARTS = ("reference", "selection", "test")


def tuned(*areas: float, **options: Any) -> Tuned:
    trials = tuple(
        Tried(number=n, choices={"linear": "Gamma", "linear gamma": 0.123456}, area=area)
        for n, area in enumerate(areas)
    )
    given = {
        "trials": trials,
        "preset": {"criterion": "LRP", "rules": {"name": "ZPlus"}, "absolute": None},
        "areas": {name: dict.fromkeys(PARTS, area) for name, area in (("tuned", 0.6), ("epsilon", 0.5))},
        "curves": PruningCurves(curves=()),
        "gain": (0.01, -0.02, 0.03),
    }
    return Tuned(**given | options)


def test_the_first_of_the_best() -> None:
    assert tuned(0.5, 0.7, 0.6, 0.7).best.number == 1


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        ((0.01, -0.02, 0.03), "0.010 (-0.020 to 0.030) on the test: it may be chance"),
        ((0.01, 0.0, 0.03), "it may be chance"),
        ((0.02, 0.01, 0.03), "it holds"),
        ((-0.02, -0.03, -0.01), "on the test: it is worse"),
    ],
)
def test_the_verdict(gain: tuple[float, float, float], said: str) -> None:
    found = tuned(0.5, 0.6, gain=gain)
    assert str(found).endswith(said)
    assert found.holds == ("holds" in said)
    assert "linear=Gamma, linear gamma=0.123\nthe gain of 0.100 over epsilon" in str(found)


def test_save_and_load(tmp_path: Path) -> None:
    found = tuned(0.5, 0.1 + 0.2)
    found.save(tmp_path / "tuned")
    assert Tuned.load(tmp_path / "tuned") == found


@pytest.mark.parametrize(
    "options",
    [
        {"trials": ()},
        {"areas": {"tuned": dict.fromkeys(PARTS, 0.5)}},
        {"areas": {name: {"test": 0.5} for name in ("tuned", "epsilon")}},
    ],
)
def test_incomplete(options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="a tuning has trials, and areas of tuned and epsilon"):
        tuned(0.5, **options)

"""ExcessError: look-up, printing and saving."""

from __future__ import annotations

from pathlib import Path

import pytest

from shapleaf.errors import DataError
from shapleaf.records import Excess, ExcessError, Slope


def found() -> ExcessError:
    point = Excess(
        subject="a", method="FT", net="0", removed=0.5, reference=0.12, value=0.14, difference=0.02,
        low=-0.01, high=0.05,
    )  # fmt: skip
    slope = Slope(method="FT", value=0.04, low=-0.02, high=0.1, points=1)
    return ExcessError(slopes=(slope,), points=(point,), settings={"seed": "0"})


def test_look_up() -> None:
    assert found()["FT"].value == 0.04
    with pytest.raises(DataError, match="no excess error of method 'WT'; there are: FT"):
        found()["WT"]


def test_it_prints_points() -> None:
    assert str(found()).splitlines()[3:] == [
        "FT           1                 4  -2.00 to 10.00      0.4",
        "seed=0",
    ]


def test_it_comes_back_from_a_file(tmp_path: Path) -> None:
    found().save(tmp_path / "excess")
    assert ExcessError.load(tmp_path / "excess") == found()

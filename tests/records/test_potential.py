"""Potential: look-up, printing and saving."""

from __future__ import annotations

from pathlib import Path

import pytest

from measured import chain, seen
from shapleaf import prune_potential
from shapleaf.errors import DataError
from shapleaf.records import Potential


def found() -> Potential:
    observed = [
        seen("clean", [8, 8, 40], 100, nominal=True),
        seen("fog 3", [20, 60, 60], 100, family="weather"),
    ]
    return prune_potential(chain([0.5, 0.9], observed), delta=[0.005, 0.5], resamples=50)


def test_look_up_by_scope_and_delta() -> None:
    potential = found()
    assert potential.deltas == (0.005, 0.5)
    assert potential.methods == ("WT",)
    assert potential.over("WT").mean == 0.5
    assert potential.over("WT", delta=0.5).mean == 0.9
    assert potential.over("WT", "family", "weather").weakest == "fog 3"
    assert potential.over("WT", "distribution", "fog 3").mean == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("FT",), "no potential of method 'FT' over nominal 'nominal'"),
        (("WT", "family", "noise"), "family 'noise'"),
    ],
)
def test_look_up_of_what_is_not_there(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        found().over(*arguments)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"delta 0.1; methods: WT; deltas: 0.005, 0.5"):
        found().over("WT", delta=0.1)


def test_it_prints_percent() -> None:
    text = str(found())
    assert text.startswith("Prune potential: % of the parameters that may be removed, higher is better\n")
    row = next(line for line in text.splitlines() if "weather (all)" in line)
    assert row.split() == ["WT", "0.5", "weather", "(all)", *["0", "0.0", "to", "0.0", "-"] * 2, "fog", "3"]


def test_it_comes_back_from_a_file(tmp_path: Path) -> None:
    potential = found()
    potential.save(tmp_path / "potential")
    assert Potential.load(tmp_path / "potential") == potential

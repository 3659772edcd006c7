"""The area that is maximised is that of the curve, to the last digit."""

from __future__ import annotations

import pytest

import shapleaf as sl
from harmed import PARTS, RATES, harmed
from shapleaf.data import Batches
from shapleaf.tuning import objective
from shapleaf.tuning.objective import Objective


def made(**options: object) -> Objective:
    model = harmed()
    names = ("reference", "selection", "test")
    held = {name: Batches(tuple(sl.batches(part))) for name, part in zip(names, PARTS, strict=True)}
    settings = sl.Tuning(**{"rates": RATES, **options})  # type: ignore[arg-type]
    return Objective(model, sl.trace(model, PARTS[0][0][:1]), held, settings)


def test_areas_by_hand() -> None:
    """z+ takes unit 2 and then 3 away: nothing, half and all are right."""
    found = made()
    zplus = sl.LRP(sl.ZPlus())
    assert found.curves("z", zplus, "selection").curves[0].accuracy.tolist() == [0, 50, 100]
    assert [found.area(one) for one in (zplus, sl.LRP(), zplus)] == [0.5, 0.0, 0.5]


def test_rate_zero_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, ...]] = []
    run = sl.pruning_curves

    def noted(*args: object, **options: object) -> object:
        asked.append(options["rates"])  # type: ignore[arg-type]
        return run(*args, **options)

    monkeypatch.setattr(objective, "pruning_curves", noted)
    found = made()
    assert found.area(sl.LRP(sl.ZPlus())) == found.area(sl.LRP(sl.ZPlus())) == 0.5
    assert asked == [RATES, RATES[1:]]
    assert made(rates=(0.25, 0.5)).area(sl.LRP(sl.ZPlus())) == 0.75
    assert made(rates=(0.0,)).area(sl.LRP()) == 0.0


def test_groups_and_aggregation_are_those_of_the_settings() -> None:
    found = made(groups=("0",), aggregate=sl.Mean()).scores(sl.LRP())
    assert [*found.values] == ["0"]
    assert found.values["0"].tolist() == pytest.approx([0.5, 0.5, 1.5, 1.5], rel=1e-6)

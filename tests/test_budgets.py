"""Budgets: exactly one of keep and remove, fractions or amounts."""

from __future__ import annotations

import pytest

import shapleaf as sl
from shapleaf.records import Cost

FULL = Cost(units=10, params=200, macs=3000)


@pytest.mark.parametrize(
    ("budget", "limit"),
    [
        (sl.Macs(keep=0.5), 1500),
        (sl.Macs(remove=0.25), 2250),
        (sl.Macs(keep=700), 700),
        (sl.Params(remove=50), 150),
        (sl.Units(keep=1.0), 10),
        (sl.Units(keep=1), 1),
    ],
)
def test_limits(budget: sl.Macs, limit: float) -> None:
    assert budget.limit(FULL) == limit


@pytest.mark.parametrize("kind", [sl.Units, sl.Params, sl.Macs])
def test_keep_and_remove_exclude_each_other(kind: type[sl.Macs]) -> None:
    for arguments in ({}, {"keep": 0.5, "remove": 0.5}):
        with pytest.raises(sl.BudgetError, match=rf"{kind.__name__} takes exactly one of keep= and remove="):
            kind(**arguments)


@pytest.mark.parametrize("value", [1.5, -0.1, -3])
def test_what_is_no_fraction_and_no_amount_is_refused(value: float) -> None:
    with pytest.raises(sl.BudgetError, match=str(value)):
        sl.Macs(keep=value)


def test_it_prints_as_it_is_written() -> None:
    assert str(sl.Macs(keep=0.5)) == "Macs(keep=0.5)"
    assert str(sl.Units(remove=3)) == "Units(remove=3)"

"""Removals of single units of a network in which what each costs is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from shapleaf.comparison.removals import Alone, ablated, agreement, pooled_area
from shapleaf.records import Correlation, Faithfulness, Group
from sides import WORTH, gain


def test_what_a_unit_costs_is_what_it_is_worth(case: Any, data: Any) -> None:
    one = case()
    found = ablated(one, one.graph.groups, data)["0"]
    assert found.units.tolist() == [0, 1, 2, 3]
    assert found.rises.tolist() == pytest.approx([3.5 * worth for worth in WORTH], abs=1e-12)


def test_some_units_are_drawn_by_seed(case: Any, data: Any) -> None:
    one = case(ablated=2)
    every = {
        tuple(ablated(one._replace(seed=k), one.graph.groups, data)["0"].units.tolist()) for k in range(9)
    }
    assert len(every) > 1
    assert all(len(set(units)) == 2 for units in every)
    found = ablated(one, one.graph.groups, data)["0"]
    assert found.rises.tolist() == pytest.approx([3.5 * WORTH[k] for k in found.units.tolist()], abs=1e-12)
    assert ablated(case(ablated=0), one.graph.groups, data) == {}


def test_agreement_looks_at_those_that_were_removed_alone() -> None:
    alone = {"a": Alone(torch.tensor([0, 2]), torch.tensor([1.0, 2.0])),
             "b": Alone(torch.tensor([1, 2, 3]), torch.tensor([3.0, 2.0, 1.0]))}  # fmt: skip
    scores = {"a": torch.tensor([5.0, 0.0, 6.0]), "b": torch.tensor([9.0, 1.0, 2.0, 3.0])}
    found = agreement(scores, alone)
    assert found.within == pytest.approx((2 * 1 + 3 * -1) / 5)
    # scores 5 6 1 2 3 rank 4 5 1 2 3, rises 1 2 3 2 1 rank 1.5 3.5 5 3.5 1.5
    assert found.overall == pytest.approx(-5 / (10 * 9) ** 0.5)


def rows(group: str, units: int, values: tuple[float | None, ...]) -> tuple[Correlation, ...]:
    return tuple(
        Correlation(
            group=group, criterion="mine", removed=n, units=units, sets=9, pooled=value, predicted=1, rise=1
        )
        for n, value in enumerate(values, 1)
    )


def test_sensitivity_is_averaged_over_groups_by_their_units() -> None:
    groups = [
        Group(name=name, size=size, slices=(), sites=()) for name, size in (("a", 4), ("b", 5), ("c", 4))
    ]
    found = Faithfulness(rows=(*rows("a", 4, (0.5, 0.5, 0.5)), *rows("b", 5, (0.8, 0.8, 0.8, 0.8)),
                               *rows("c", 4, (0.1, None, 0.1))))  # fmt: skip
    assert pooled_area(found, "mine", groups) == pytest.approx((4 * 0.5 + 5 * 0.8) / 9)
    assert pooled_area(found, "mine", groups[2:]) is None


def test_the_loss_is_that_of_the_settings(case: Any, data: Any) -> None:
    one = case(loss=lambda output, target: 2 * gain(output, target))
    assert ablated(one, one.graph.groups, data)["0"].rises.tolist() == pytest.approx([7 * w for w in WORTH])

"""Settings of a comparison that cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from shapleaf import Comparing, CriterionError, Logit, Relative, Tradeoff


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rates": (0, 1)}, r"rates=\[0, 1\]: expected ascending shares of the units, from 0 to below 1"),
        ({"rates": (0.5, 0)}, r"rates=\[0.5, 0\]: expected ascending"),
        ({"overlaps": (0.5, 1)}, r"overlaps=\[0.5, 1\]: shares of the units lie between 0 and 1"),
        ({"orders": ("first",)}, r"orders are \"least\", \"most\" or both, received \('first',\)"),
        ({"orders": ()}, r"orders are .* received \(\)"),
        ({"orders": "least"}, r"orders='least': expected a sequence, such as \('least',\)"),
        ({"groups": "conv*"}, r"groups='conv\*': expected a sequence, such as \('conv\*',\)"),
        ({"strategy": Tradeoff()}, r"Tradeoff\(\) goes by more .* pass orders=\(\"least\",\)"),
        ({"subsets": 1}, "subsets=1: a correlation needs 2; 0 leaves Sensitivity-n out"),
        ({"ablated": -1}, "ablated=-1: expected at least 0"),
        ({"examples": 0}, "examples=0: expected at least 1"),
        ({"draws": 0}, "draws=0: expected at least 1"),
        ({"loss": Relative(Logit())}, r"no value where units are removed; use loss=Logit\(of='true'\)"),
        ({"samples": (10, 0)}, r"samples=\[10, 0\]: numbers of examples are at least 1"),
    ],
)
def test_settings_out_of_range(given: dict[str, Any], said: str) -> None:
    with pytest.raises(CriterionError, match=said):
        Comparing(**given)


def test_every_part_can_be_left_out() -> None:
    bare = Comparing(rates=(), overlaps=(), subsets=0, ablated=0, samples=())
    assert (bare.rates, bare.subsets) == ((), 0)

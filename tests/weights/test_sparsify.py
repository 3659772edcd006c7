"""sparsify: budgets on the real count, ties, and bad input."""

from __future__ import annotations

import pytest

import shapleaf as sl
from shapleaf.weights import nonzeros
from zoo import resnet20


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.05, 100_000])
def test_o15_the_count_is_met(keep: float) -> None:
    model = resnet20()
    masks = sl.sparsify(model, sl.Nonzeros(keep=keep))
    total = nonzeros(model)
    target = int(keep * total) if keep < 1 else keep
    assert masks.after == nonzeros(sl.sparsified(model, masks)) == target
    assert masks.before == total

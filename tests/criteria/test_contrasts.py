"""DeepLIFT and Conductance as criteria: values, contract, configuration."""

from __future__ import annotations

import pytest

import shapleaf as sl
from shapleaf.errors import CriterionError
from shapleaf.testing import check_criterion

CRITERIA = [
    sl.DeepLIFT(),
    sl.DeepLIFT(target=sl.Logit()),
    sl.DeepLIFT(sl.Reference(), sl.LogitDifference(0, 2)),
    sl.Conductance(4),
    sl.Conductance(3, sl.Reference(0.5), sl.Logit(1)),
]


@pytest.mark.parametrize("criterion", CRITERIA, ids=repr)
def test_they_keep_the_contract(criterion: sl.Criterion) -> None:
    check_criterion(criterion)


def test_they_are_values() -> None:
    assert repr(sl.DeepLIFT(sl.Reference("mean"))) == "DeepLIFT(removal=Reference('mean'), target=Loss())"
    assert repr(sl.Conductance()) == "Conductance(points=32, baseline=Reference(0.0), target=Loss())"
    assert sl.DeepLIFT() == sl.DeepLIFT()
    assert sl.DeepLIFT() != sl.DeepLIFT(target=sl.Logit())


def test_bad_configuration() -> None:
    with pytest.raises(CriterionError, match="must be at least 1, received 0"):
        sl.Conductance(0)

"""Orderings and heat maps as records: what they derive, their checks, their tables, their files."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from shapleaf import DataError
from shapleaf.records import HeatMap, Ordering, Subject
from shapleaf.records.features import kept


@pytest.fixture
def ordering() -> Ordering:
    """Two 2 x 2 images; of the second the values of every other step are unknown."""
    return Ordering(
        order=torch.tensor([[0, 3, 1, 2], [3, 2, 1, 0]]),
        values=torch.tensor([[1.4, 1.3, 0.8, 0.0], [math.nan, 0.5, math.nan, 0.6]]),
        whole=torch.tensor([1.5, 0.9]),
        targets=torch.tensor([0, 1]),
        shape=(1, 2, 2),
        evaluations=20,
    )


@pytest.fixture
def heat() -> HeatMap:
    mean, spread = torch.tensor([[0.9, 0.8], [0.7, 0.6]]), torch.tensor([-0.02, 0.02])
    return HeatMap(
        subjects=(Subject(name="dense", role="reference"), Subject(name="half", removed=0.5)),
        confidence=mean,
        interval=mean[..., None] + spread,
        whole=torch.tensor([0.95, 0.9]),
        examples=250,
        kept=102,
        features=1024,
    )


def test_the_top_is_what_is_masked_last(ordering: Ordering) -> None:
    assert ordering.top(0.5).int().tolist() == [[[[0, 1], [1, 0]]], [[[1, 1], [0, 0]]]]
    assert ordering.top(0.25).sum().item() == 2
    assert bool(ordering.top(1.0).all())


@pytest.mark.parametrize(("share", "features", "count"), [(0.1, 1024, 102), (0.1, 256, 26), (0.01, 9, 1)])
def test_shares_are_rounded(share: float, features: int, count: int) -> None:
    assert kept(share, features) == count


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, math.nan])
def test_other_shares_are_refused(share: float, ordering: Ordering) -> None:
    with pytest.raises(DataError, match="share must be above 0 and at most 1"):
        ordering.top(share)


def test_sufficient_subsets_are_the_shortest_tails(ordering: Ordering) -> None:
    assert ordering.sufficient(1.0) == ((2, 1), None)
    assert ordering.sufficient(0.9)[1] == (0, 1, 2, 3)  # all of it is needed
    assert ordering.sufficient(0.55)[1] == ()  # the masked example alone is enough


def test_a_row_must_be_a_permutation(ordering: Ordering) -> None:
    with pytest.raises(DataError, match="permutation of 0 to 3"):
        dataclasses.replace(ordering, order=torch.tensor([[0, 0, 1, 2], [3, 2, 1, 0]]))
    with pytest.raises(DataError, match=r"4 features needs order and values of shape \(2, 4\)"):
        dataclasses.replace(ordering, values=ordering.values[:, 1:])


def test_tables(ordering: Ordering, heat: HeatMap) -> None:
    assert ordering.table()["rows"][1] == [1, 1, pytest.approx(0.9), None, 3, 0]
    assert heat.table()["header"] == ["features of", "dense", "half"]
    assert heat.table()["rows"][1] == ["half", "0.70 ± 0.02", "0.60 ± 0.02"]


def test_heat_maps_are_square(heat: HeatMap) -> None:
    with pytest.raises(DataError, match=r"confidence has shape \(1, 2\), expected \(2, 2\)"):
        dataclasses.replace(heat, confidence=heat.confidence[1:])


def test_round_trip(ordering: Ordering, heat: HeatMap, tmp_path: Path) -> None:
    for name, record in (("ordering", ordering), ("heat", heat)):
        record.save(tmp_path / name)
        assert type(record).load(tmp_path / name) == record

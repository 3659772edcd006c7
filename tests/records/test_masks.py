"""Masks: a bit for each weight, which models they fit, what a damaged file gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import shapleaf as sl
from shapleaf.records import Mask, Masks
from shapleaf.records.masks import fingerprint


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))


def masks() -> Masks:
    return sl.sparsify(model(), sl.Nonzeros(keep=20))


@given(
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=3), seed=st.integers(0, 99), factors=st.booleans()
)
def test_bits_come_back(shape: list[int], seed: int, factors: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(shape, generator=generator) > 0.5
    values = torch.rand(shape, generator=generator) + 1 if factors else None
    mask = Mask.of("w", keep, values)
    assert torch.equal(mask.keep(), keep)
    assert mask.kept == int(keep.sum())
    expected = keep.float() if values is None else keep * values
    assert torch.equal(mask.multiplier(), expected)


def test_it_prints_layer_by_layer() -> None:
    found = Masks(
        fingerprint="", before=50, after=12, made_by={"criterion": "Magnitude()"},
        masks=(Mask.of("fc.weight", torch.tensor([[True, False, True, True]])),),
    )  # fmt: skip
    assert str(found) == (
        "Masks\n"
        "parameter  weights  kept  kept %\n"
        "─────────  ───────  ────  ──────\n"
        "fc.weight        4     3  75.0%\n"
        "non-zero parameters 50 -> 12 (24.0%)\n"
        "criterion=Magnitude()"
    )
    assert found.keep == 0.24
    assert found["fc.weight"].kept == 3
    with pytest.raises(sl.PlanError, match="no parameter with a mask is named 'x'; there are: fc.weight"):
        found["x"]


def test_a_file_takes_one_bit_for_each_weight(tmp_path: Path) -> None:
    wide = nn.Linear(1000, 800)
    found = sl.sparsify(wide, sl.Nonzeros(keep=0.1))
    found.save(tmp_path / "masks")
    assert (tmp_path / "masks").stat().st_size < 100_000 + 1000
    assert Masks.load(tmp_path / "masks") == found


def test_the_fingerprint_is_the_graphs() -> None:
    net = model()
    assert fingerprint(net) == sl.trace(net, torch.zeros(2, 3)).fingerprint == masks().fingerprint


def test_other_models_are_refused() -> None:
    found = masks()
    found.check(model())
    for other, match in (
        (nn.Sequential(nn.Linear(3, 6)), r"0.weight is \(6, 3\), expected \(5, 3\)"),
        (nn.Sequential(nn.Linear(3, 5)), "3.weight is absent"),
        (
            nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.ReLU(), nn.Linear(5, 2)),
            "another model: names, shapes",
        ),
        (model().double(), "another model: names, shapes or dtypes"),
    ):
        with pytest.raises(sl.StaleGraphError, match=match):
            found.check(other)


def test_what_does_not_fit() -> None:
    good = Mask.of("w", torch.tensor([True, False, True]))
    for changes, match in (
        ({"bits": good.bits.int()}, r"mask of w is damaged: expected 1 bytes for 3 scalars, .* of int32"),
        ({"bits": torch.zeros(2, dtype=torch.uint8)}, "expected 1 bytes for 3 scalars"),
        ({"bits": torch.tensor([161], dtype=torch.uint8)}, "bits are set behind its last scalar"),
        ({"factors": torch.ones(3)}, "expected 2 factors"),
        ({"factors": torch.ones(2, dtype=torch.int64)}, "expected 2 factors"),
        ({"factors": torch.tensor([1.0, float("nan")])}, "a factor is not finite"),
    ):
        with pytest.raises(sl.PlanError, match=match):
            replace(good, **changes)
    with pytest.raises(sl.PlanError, match="two masks are of one parameter"):
        Masks(fingerprint="", masks=(good, good), before=3, after=2)
    with pytest.raises(sl.PlanError, match="counts 2 before and 3 after do not fit"):
        Masks(fingerprint="", masks=(good,), before=2, after=3)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "masks"
    masks().save(path)
    raw = path.read_bytes()
    path.write_bytes(raw[:-1])
    with pytest.raises(sl.DataError, match="damaged"):
        Masks.load(path)
    damaged = raw.replace(b"[5, 3]", b"[5, 9]")
    assert damaged != raw
    path.write_bytes(damaged)
    with pytest.raises(sl.DataError, match="mask of 0.weight is damaged: expected 6 bytes"):
        Masks.load(path)
    with pytest.raises(sl.DataError, match="holds a Masks, not a Plan"):
        sl.Plan.load(_saved(tmp_path))


def _saved(folder: Path) -> Path:
    masks().save(folder / "good")
    return folder / "good"

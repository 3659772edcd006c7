"""A cycle prints its points and survives storage; how it is made is tested with retraining."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from shapleaf.records import Cycle, Point


def made() -> Cycle:
    first = Point(keep=0.9, removed=0.1004, retrained=False, record="000.record.safetensors")
    second = Point(
        keep=0.8,
        removed=0.2,
        retrained=True,
        loss=0.5,
        batches="ab",
        record="001.record.safetensors",
        weights="001.weights.safetensors",
    )
    return Cycle(method="FT", mode="cascade", net="1", seed=3, dense=12345, points=(first, second))


def test_it_prints_its_points() -> None:
    assert str(made()) == (
        "Cycle: FT, cascade\n"
        "keep  removed  retrained  loss  weights\n"
        "────  ───────  ─────────  ────  ───────────────────────\n"
        " 0.9  10.04%   no            -  -\n"
        " 0.8  20%      yes         0.5  001.weights.safetensors\n"
        "of 12,345 parameters; net 1, seed 3"
    )


def test_it_survives_storage(tmp_path: Path) -> None:
    made().save(tmp_path / "cycle")
    assert Cycle.load(tmp_path / "cycle") == made()


def test_only_what_was_retrained_is_a_candidate(tmp_path: Path) -> None:
    (one,) = made().candidates(nn.Identity(), tmp_path)
    assert (one.name, one.method, one.removed, one.net, one.role) == (
        "FT 0.8 net 1",
        "FT",
        0.2,
        "1",
        "pruned",
    )

"""A training prints epoch by epoch and survives storage."""

from __future__ import annotations

from pathlib import Path

from shapleaf.records import Training


def test_epochs_are_counted_from_the_start_of_the_recipe(tmp_path: Path) -> None:
    training = Training(
        losses=(1.5,), rates=(0.05,), seconds=(2.0,), batches="ab", settings={"start": "3", "seed": "0"}
    )
    assert str(training) == (
        "Training\n"
        "epoch  loss  learning rate  seconds\n"
        "─────  ────  ─────────────  ───────\n"
        "    4   1.5           0.05        2\n"
        "start=3, seed=0"
    )
    training.save(tmp_path / "training")
    assert Training.load(tmp_path / "training") == training

"""Networks of a cycle, built again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import shapleaf as sl
from chains import RECIPE, images, same, small
from shapleaf.retraining import Retraining, cycle
from shapleaf.retraining.rebuilding import candidates, rebuilt, shaped

SAMPLE = images(8, seed=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[sl.Cycle, Path]:
    path = tmp_path_factory.mktemp("cycle")
    settings = Retraining(keeps=(0.7, 0.5, 0.3), recipe=RECIPE, retrains=2)
    return cycle(small(), "FT", settings, images(), sample=SAMPLE, path=path, net="b"), path


def test_only_the_architecture_of_the_model_matters(made: tuple[sl.Cycle, Path]) -> None:
    record, path = made
    model = small(7).train()
    one, two = candidates(record, model, path)
    assert (one.name, two.name) == ("FT 0.5 net b", "FT 0.3 net b")
    assert {one.method, two.method} == {"FT"}
    assert {one.role, two.role} == {"pruned"}
    assert same(one.load(), rebuilt(small(), record, 1, path))
    assert same(model, small(7))
    assert model.training
    assert not one.load().training
    assert sum(p.numel() for p in two.load().parameters()) < sum(p.numel() for p in one.load().parameters())


def test_a_shape_without_its_weights(made: tuple[sl.Cycle, Path]) -> None:
    record, path = made
    pruned = shaped(small(7), record, 0, path)
    assert pruned[0].out_channels < 8
    rows = {tuple(row.flatten().tolist()) for row in small(7)[0].weight}
    assert {tuple(row.flatten().tolist()) for row in pruned[0].weight} <= rows


def test_what_was_not_kept_and_what_does_not_fit(made: tuple[sl.Cycle, Path], tmp_path: Path) -> None:
    record, path = made
    with pytest.raises(sl.DataError, match="point 0 of the cycle was not retrained"):
        rebuilt(small(), record, 0, path)
    with pytest.raises(sl.StaleGraphError):
        rebuilt(nn.Linear(4, 2), record, 1, path)
    with pytest.raises(sl.DataError, match="holds the weights of another network"):
        rebuilt(small(), record, 1, path, weights=record.points[2].weights)
    with pytest.raises(sl.DataError, match="does not exist"):
        rebuilt(small(), record, 1, tmp_path)


def test_a_folder_may_move(made: tuple[sl.Cycle, Path], tmp_path: Path) -> None:
    record, path = made
    for file in path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    one = sl.Cycle.load(tmp_path / "cycle.safetensors").candidates(small(), tmp_path)[0]
    inputs = images(4)[0]
    with torch.no_grad():
        assert torch.equal(one.load()(inputs), rebuilt(small(), record, 1, path)(inputs))

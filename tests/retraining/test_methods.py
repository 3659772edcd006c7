"""Methods under one protocol: what stays, what is recorded, and that it can be done again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import shapleaf as sl
from chains import images, same, small
from shapleaf.records import Receipt
from shapleaf.retraining import METHODS, FilterPruning, Method, NoPruning
from shapleaf.retraining.methods import holding, load_record, redo

SAMPLE = images(16, seed=2)


def size(model: nn.Module) -> int:
    return sum(int(parameter.count_nonzero()) for parameter in model.parameters())


@pytest.mark.parametrize("name", [*METHODS])
def test_what_stays_and_doing_it_again(name: str, tmp_path: Path) -> None:
    method, model = METHODS[name], small()
    assert (method.name, isinstance(method, Method)) == (name, True)
    before = small()
    method.check(model, 200, SAMPLE)
    pruned, record = method.prune(model, 200, SAMPLE, 0)
    assert same(model, before)
    if name == "control":
        assert record is None
        assert same(pruned, model)
        return
    assert 150 < size(pruned) <= 200
    assert record is not None
    record.save(tmp_path / "record")
    again = redo(small(3), load_record(tmp_path / "record"))
    assert [p.shape for p in again.parameters()] == [p.shape for p in pruned.parameters()]
    if name not in ("Shapley+refit", "SiPP"):
        again = redo(small(), load_record(tmp_path / "record"))
        assert same(again, pruned)
    second, record = method.prune(pruned, 120, SAMPLE, 0)
    assert size(second) <= 120 < size(pruned)
    with pytest.raises(sl.BudgetError):
        method.check(model, 3, SAMPLE)


def test_ft_keeps_the_filters_of_the_largest_norms() -> None:
    model = small()
    norms = model[0].weight.abs().sum((1, 2, 3))
    pruned = METHODS["FT"].prune(model, 200, SAMPLE, 0).model
    kept = norms.argsort(descending=True)[: len(pruned[0].weight)].sort().values
    assert torch.equal(pruned[0].weight, model[0].weight[kept])
    assert (
        abs(len(pruned[0].weight) / 8 - pruned[5].out_features / 8) <= 1 / 8
    )  # the same share of every layer


def test_random_units_are_others_for_another_seed() -> None:
    chosen = {
        tuple(METHODS["random"].prune(small(), 200, SAMPLE, seed).model[0].weight[:, 0, 0, 0].tolist())
        for seed in range(4)
    }
    assert len(chosen) > 1


def test_refitting_brings_the_outputs_back() -> None:
    model = small()
    gaps = []
    for name in ("Shapley", "Shapley+refit"):
        pruned = METHODS[name].prune(model, 200, SAMPLE, 0).model.eval()
        gaps.append(float((pruned(SAMPLE[0]) - model(SAMPLE[0])).square().sum().detach()))
    assert gaps[1] < 0.5 * gaps[0]


def test_units_that_were_cut_out_need_no_hold() -> None:
    record = METHODS["FT"].prune(small(), 200, SAMPLE, 0).record
    assert isinstance(record, Receipt)
    assert holding(record) is None
    assert holding(None) is None


def test_they_print_alike_in_every_process() -> None:
    assert repr(METHODS["Shapley+refit"]).startswith("FilterPruning(name='Shapley+refit', criterion=Shapley(")
    assert repr(METHODS["Shapley+refit"]).endswith(
        "compensate=shapleaf.surgery.refitting.LeastSquares, loss=shapleaf._context.cross_entropy)"
    )
    assert FilterPruning("FT", sl.WeightNorm(1)) == METHODS["FT"]
    assert NoPruning() == METHODS["control"]


def test_names_and_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(sl.DataError, match="no method is named 'ft'; there are: .*FT"):
        METHODS["ft"]
    sl.Cycle(method="FT", mode="cascade").save(tmp_path / "cycle")
    with pytest.raises(sl.DataError, match="holds a Cycle instead of what a step pruned"):
        load_record(tmp_path / "cycle")
    with pytest.raises(sl.DataError, match="does not exist"):
        load_record(tmp_path / "absent")
    (tmp_path / "damaged").write_bytes(b"nothing")
    with pytest.raises(sl.DataError, match="or is damaged"):
        load_record(tmp_path / "damaged")

"""Methods under one protocol: what stays, what is recorded, and that it can be done again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import shapleaf as sl
from chains import images, same, small
from shapleaf.records import Masks, Receipt
from shapleaf.retraining import METHODS, FilterPruning, Method, NoPruning, WeightPruning
from shapleaf.retraining.methods import holding, load_record, redo
from shapleaf.weights import SiPP

INPUTS = images(16, seed=2)[0]
with torch.no_grad():
    SAMPLE = INPUTS, small()(INPUTS).argmax(1)


def size(model: nn.Module) -> int:
    return sum(int(parameter.count_nonzero()) for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore:compensation made the loss")  # of 16 examples
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
    second, _ = method.prune(pruned, 120, SAMPLE, 0)
    assert size(second) <= 120 < size(pruned)
    with pytest.raises(sl.BudgetError):
        method.check(model, 3, SAMPLE)


def test_ft_keeps_the_filters_of_the_largest_norms() -> None:
    model = small()
    norms = model[0].weight.abs().sum((1, 2, 3))
    pruned = METHODS["FT"].prune(model, 200, SAMPLE, 0).model
    kept = norms.argsort(descending=True)[: len(pruned[0].weight)].sort().values
    assert torch.equal(pruned[0].weight, model[0].weight[kept])
    assert abs(len(pruned[0].weight) / 8 - pruned[5].out_features / 8) <= 1 / 8


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


def test_wt_keeps_the_largest_weights_of_all_layers() -> None:
    model = small()
    pruned, record = METHODS["WT"].prune(model, 200, None, 0)  # nothing is swept
    assert isinstance(record, Masks)
    weights = torch.cat([model[place].weight.abs().flatten() for place in (0, 5, 7)])
    kept = torch.cat([pruned[place].weight.flatten() for place in (0, 5, 7)]) != 0
    assert size(pruned) == 200 == size(model) - int((~kept).sum())
    assert weights[kept].min() > weights[~kept].max()


def test_held_weights_are_not_multiplied_twice() -> None:
    """Draws scale what they keep; the pruned network has that in its weights already."""
    method, model = WeightPruning("drawn", SiPP(mode="random")), small()
    pruned, record = method.prune(model, 200, SAMPLE, 0)
    assert any(mask.factors is not None for mask in record)
    before = {name: value.clone() for name, value in pruned.state_dict().items()}
    optimizer = torch.optim.SGD(pruned.parameters(), lr=0.1, momentum=0.9)
    hold = holding([record])
    assert hold is not None
    held = hold(pruned, optimizer)
    assert all(torch.equal(value, before[name]) for name, value in pruned.state_dict().items())
    for _ in range(3):
        pruned(SAMPLE[0]).square().sum().backward()
        optimizer.step()
    assert not torch.equal(pruned[0].weight, before["0.weight"])
    assert bool((pruned[0].weight[before["0.weight"] == 0] == 0).all())
    held.remove()
    early = redo(small(3), record)
    assert torch.equal(early[0].weight, small(3)[0].weight * (before["0.weight"] != 0))


def test_what_any_step_pruned_is_held() -> None:
    """The masks of a step need not name what an earlier one found dead."""
    model = small()
    first = sl.sparsify(model, sl.Nonzeros(keep=340), layers=["0"])
    second = sl.sparsify(model, sl.Nonzeros(keep=340), layers=["5"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hold = holding([first, second])
    assert hold is not None
    hold(model, optimizer)
    model(SAMPLE[0]).square().sum().backward()
    optimizer.step()
    for masks, name in ((first, "0.weight"), (second, "5.weight")):
        assert bool((model.get_parameter(name)[~masks[name].keep()] == 0).all())
        assert bool((model.get_parameter(name)[masks[name].keep()] != 0).any())


def test_units_that_were_cut_out_need_no_hold() -> None:
    record = METHODS["FT"].prune(small(), 200, SAMPLE, 0).record
    assert isinstance(record, Receipt)
    assert holding([record]) is None
    assert holding([]) is None


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

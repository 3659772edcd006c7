"""sparsify: budgets on the real count, layers that are left alone, and bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf.data import Batch
from shapleaf.weights import nonzeros
from zoo import NETS, example, resnet20, settle, state


def relus(width: int = 40) -> nn.Module:
    return settle(
        nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))
    )


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.05, 100_000, 1.0])
def test_o15_the_count_is_met(keep: float) -> None:
    model = resnet20()
    masks = sl.sparsify(model, sl.Nonzeros(keep=keep))
    total = nonzeros(model)
    target = int(keep * total) if isinstance(keep, float) else keep
    assert masks.after == nonzeros(sl.sparsified(model, masks)) == target
    assert masks.before == total


@pytest.mark.parametrize("keep", [0.8, 0.65, 0.5])
@pytest.mark.parametrize("criterion", [sl.Magnitude(), sl.SiPP(), sl.SiPP("random"), sl.SiPP("hybrid")])
def test_o15_the_real_count_is_met_after_the_sweep(keep: float, criterion: Any) -> None:
    model, data = relus(), example(30, 8)
    budget = sl.Nonzeros(keep=keep)
    masks = sl.sparsify(model, budget, criterion, data)
    target = budget.most(masks.before)
    assert masks.after == nonzeros(sl.sparsified(model, masks))  # an independent count
    unit = 40 + 1 + 40  # what goes at once when a unit dies
    assert target - unit <= masks.after <= target
    unswept = sl.sparsify(model, budget, criterion, data, sweep=False)
    assert {mask.parameter for mask in unswept} == {"0.weight", "2.weight", "4.weight"}


@pytest.mark.parametrize("keep", [0.5, 0.2])
def test_o15_within_half_a_percent_on_resnet20(keep: float) -> None:
    model, data = resnet20(), torch.randn(3, 3, 16, 16)
    masks = sl.sparsify(model, sl.Nonzeros(keep=keep), sl.SiPP(), data)
    assert masks.after == nonzeros(sl.sparsified(model, masks))
    assert 0.995 * keep <= masks.keep <= keep


def test_o15_the_sweep_changes_no_output_and_frees_weights() -> None:
    model, data = relus(), example(30, 8)
    swept = sl.sparsify(model, sl.Nonzeros(keep=0.08), data=data)
    plain = sl.sparsify(model, sl.Nonzeros(keep=0.08), data=data, sweep=False)
    biases = [mask for mask in swept if mask.parameter.endswith("bias")]
    assert biases
    weights = sum(mask.kept for mask in swept if mask.parameter.endswith("weight"))
    assert plain.after >= swept.after
    assert weights > sum(mask.kept for mask in plain) - sum(mask.size - mask.kept for mask in biases)
    assert swept.made_by["sweep"] == "dead parameters"
    assert "sweep" not in plain.made_by
    only = sl.sparsified(model, swept)
    for mask in biases:
        only.get_parameter(mask.parameter).data = model.get_parameter(mask.parameter).data
    whole = sl.sparsified(model, swept)
    assert torch.allclose(only(data), whole(data), atol=1e-12)


def test_o15_the_closest_from_below_where_grains_are_coarse() -> None:
    """Half of the weights read inputs that are always zero: nothing makes them count."""
    model = nn.Linear(4, 50, bias=False).double()
    data = example(20, 4)
    data[:, 2:] = 0
    masks = sl.sparsify(model, sl.Nonzeros(keep=0.9), data=data)
    assert (masks.before, masks.after) == (200, 100)
    assert sl.sparsify(model, sl.Nonzeros(keep=0.9), data=data, sweep=False).after == 180


def test_pruning_again_counts_what_is_left() -> None:
    model = resnet20()
    once = sl.sparsified(model, sl.sparsify(model, sl.Nonzeros(keep=0.5)))
    again = sl.sparsify(once, sl.Nonzeros(keep=0.5))
    assert again.before == nonzeros(once) == int(0.5 * nonzeros(model))
    direct = sl.sparsify(model, sl.Nonzeros(keep=again.after))
    assert all(torch.equal(a.keep(), b.keep()) for a, b in zip(again, direct, strict=True))


def test_layers_that_are_left_alone() -> None:
    model, data = relus(), example(30, 8)
    masks = sl.sparsify(model, sl.Nonzeros(keep=0.5), layers=["2"])
    assert [mask.parameter for mask in masks] == ["2.weight"]
    assert masks.after == int(0.5 * masks.before)
    swept = sl.sparsify(model, sl.Nonzeros(keep=0.3), data=data, layers=["2"])
    assert {mask.parameter for mask in swept} <= {"2.weight", "2.bias"}


def test_tied_weights_count_once() -> None:
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.ReLU(), nn.Linear(6, 6, bias=False))
    model[2].weight = model[0].weight
    masks = sl.sparsify(model, sl.Nonzeros(keep=0.5), data=torch.randn(9, 6), sweep=False)
    assert (masks.before, masks.after) == (36, 18)
    sparse = sl.sparsified(model, masks)
    assert sparse[2].weight is sparse[0].weight


def test_equal_weights_go_in_order() -> None:
    model = nn.Linear(4, 2, bias=False)
    nn.init.ones_(model.weight)
    keep = sl.sparsify(model, sl.Nonzeros(keep=3))["weight"].keep()
    assert keep.tolist() == [[True, True, True, False], [False] * 4]


@pytest.mark.parametrize("name", [name for name in NETS if name != "keywords"])  # whose data are no batch
def test_any_network(name: str) -> None:
    model, inputs = NETS[name]()
    before = state(model)
    for criterion in (sl.Magnitude(), sl.SiPP(), sl.SiPP("random")):
        masks = sl.sparsify(model, sl.Nonzeros(keep=0.8), criterion, [Batch(inputs)])
        assert state(model) == before
        assert masks.after == nonzeros(sl.sparsified(model, masks)) <= 0.8 * masks.before


def test_data_that_can_be_gone_through_only_once() -> None:
    with pytest.raises(sl.DataError, match="gone through several times"):
        sl.sparsify(relus(), sl.Nonzeros(keep=0.3), sl.SiPP(), iter([example(30, 8)]))


def test_bad_input() -> None:
    model = relus()
    with pytest.raises(sl.BudgetError, match=r"takes a Nonzeros budget, received Params\(keep=0.5\)"):
        sl.sparsify(model, sl.Params(keep=0.5))  # type: ignore[arg-type]
    with pytest.raises(
        sl.BudgetError, match=r"83 of them are not pruned; the nearest is Nonzeros\(keep=83\)"
    ):
        sl.sparsify(model, sl.Nonzeros(keep=82))
    assert sl.sparsify(model, sl.Nonzeros(keep=83)).after == 83
    with pytest.raises(sl.CriterionError, match=r"WeightNorm\(p=1.0\) is no criterion for single weights"):
        sl.sparsify(model, sl.Nonzeros(keep=0.5), sl.WeightNorm())  # type: ignore[arg-type]
    with pytest.raises(sl.PlanError, match="ReLU has no weights of linear layers"):
        sl.sparsify(nn.ReLU(), sl.Nonzeros(keep=0.5))
    with pytest.raises(sl.PlanError, match="no layer is named 'x'"):
        sl.sparsify(model, sl.Nonzeros(keep=0.5), layers=["x"])
    with pytest.raises(sl.DataError, match="the data are empty"):
        sl.sparsify(model, sl.Nonzeros(keep=0.5), sl.SiPP(), [])
    model[2].weight.data[0, 0] = float("nan")
    with pytest.raises(sl.CriterionError, match="2.weight holds weights that are not finite"):
        sl.sparsify(model, sl.Nonzeros(keep=0.5))

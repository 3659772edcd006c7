"""Magnitude, Snip and SiPP: the numbers of the spec."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shapleaf as sl
from shapleaf.sensitivity import sensitivities
from shapleaf.weights import Magnitude, SiPP, Snip, WeightCriterion, WeightProbe, nonzeros, top
from zoo import NETS, conv, example, settle, state


def test_o5_magnitude_keeps_the_largest_of_all_layers_together() -> None:
    model, _inputs = NETS["plain"]()
    masks = sl.sparsify(model, sl.Nonzeros(keep=0.3), Magnitude())
    weights = torch.cat([p.detach().flatten() for n, p in model.named_parameters() if p.ndim > 1])
    others = nonzeros(model) - len(weights)
    count = masks.after - others
    expected = torch.zeros(len(weights), dtype=torch.bool)
    expected[weights.abs().topk(count).indices] = True
    assert torch.equal(torch.cat([mask.keep().flatten() for mask in masks]), expected)
    assert masks.after == int(0.3 * masks.before)


def linear(*rows: list[float]) -> nn.Module:
    model = nn.Linear(len(rows[0]), len(rows), bias=False).double()
    model.weight.data = torch.tensor([*rows], dtype=torch.float64)
    return model


def ranked(model: nn.Module, criterion: WeightCriterion, data: Any) -> list[int]:
    """Which weights go first, by the budget that they just fit in."""
    size = model.weight.numel()
    kept = [
        sl.sparsify(model, sl.Nonzeros(keep=n), criterion, data)["weight"].keep() for n in range(size + 1)
    ]
    return [int((kept[n + 1].int() - kept[n].int()).argmax()) for n in range(size)]


def half_square(out: Tensor, target: Tensor) -> Tensor:
    return (out - target).square().sum(1) / 2


def snip(model: nn.Module, data: Any) -> dict[str, Tensor]:
    """The scores: what top is given."""
    seen: dict[str, Tensor] = {}

    def spy(probe: WeightProbe, scores: dict[str, Tensor]) -> Any:
        seen.update(scores)
        return top(probe, scores)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shapleaf.weights.criteria.top", spy)
        Snip(loss=half_square).choose(WeightProbe(model, {"weight": model.weight.detach()}, data))
    return seen


def test_o5_snip_of_one_weight() -> None:
    data = (torch.tensor([[3.0]]).double(), torch.tensor([[1.0]]).double())
    assert snip(linear([2.0]), data)["weight"].tolist() == [[30.0]]


def test_o5_snip_weighs_batches_by_their_size() -> None:
    model = linear([2.0])
    x, y = example(4, 1), example(4, 1, seed=2)
    gradients = [((2 * a - b) * a) for a, b in zip(x, y, strict=True)]
    g1, g2 = gradients[0], torch.stack(gradients[1:]).mean()
    expected = float((2 * (g1 + 3 * g2) / 4).abs())
    found = snip(model, [(x[:1], y[:1]), (x[1:], y[1:])])
    assert float(found["weight"]) == pytest.approx(expected, rel=1e-12)


def test_snip_leaves_the_model_and_its_gradients_alone() -> None:
    model, inputs = NETS["plain"]()
    model.train().requires_grad_(False)
    before = state(model)
    data = (inputs.repeat(4, 1, 1, 1), torch.tensor([0, 1, 2, 0]))
    sl.sparsify(model, sl.Nonzeros(keep=0.5), Snip(), data)
    assert state(model) == before


def test_snip_needs_labels() -> None:
    model, inputs = NETS["plain"]()
    with pytest.raises(sl.DataError, match=r"Snip\(\) needs data"):
        sl.sparsify(model, sl.Nonzeros(keep=0.5), Snip())
    with pytest.raises(sl.DataError, match="target|label"):
        sl.sparsify(model, sl.Nonzeros(keep=0.5), Snip(), inputs)
    with pytest.raises(sl.DataError, match="labels run from 7 to 7, but the model has 3 classes"):
        sl.sparsify(model, sl.Nonzeros(keep=0.5), Snip(), (inputs, torch.tensor([7])))


def test_sipp_ranks_by_relative_contribution() -> None:
    """O1: contributions [[.4, 1, 1], [1, 0, 1]]; among equals the larger weight goes first."""
    model = linear([1, -2, 3], [0.5, 0, -1])
    data = torch.tensor([[1, 2, 0.5], [0, 1, 1]]).double()
    masks = sl.sparsify(model, sl.Nonzeros(keep=4), SiPP(), data)
    assert masks["weight"].keep().tolist() == [[False, True, True], [True, False, True]]
    assert ranked(linear([1, -2, 3]), SiPP(), data) == [2, 1, 0]


def test_sipp_averages_places_and_takes_the_largest_when_it_draws() -> None:
    """O2: averaged, the first channel counts (.625, .375), at most (.75, .5)."""
    model = settle(conv(2, 1, 1, bias=False))
    model.weight.data.fill_(1)
    data = torch.tensor([[[[1.0, 3.0]], [[1.0, 1.0]]]]).double()
    found = {
        places: sensitivities(model, data, places=places)["weight"].scores.flatten().tolist()
        for places in ("mean", "max")
    }
    assert found == {"mean": [0.625, 0.375], "max": [0.75, 0.5]}
    assert sl.sparsify(model, sl.Nonzeros(keep=1), SiPP(), data)["weight"].keep().flatten().tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize("mode", ["deterministic", "random", "hybrid"])
def test_sipp_on_a_network(mode: Any) -> None:
    model, _ = NETS["plain"]()
    before = state(model)
    data = example(12, 3, 8, 8)
    masks = sl.sparsify(model, sl.Nonzeros(keep=0.5), SiPP(mode), data, seed=3)
    assert state(model) == before
    assert masks == sl.sparsify(model, sl.Nonzeros(keep=0.5), SiPP(mode), [data[:5], data[5:]], seed=3)
    assert masks.after == nonzeros(sl.sparsified(model, masks))
    assert 0.95 * 0.5 * masks.before <= masks.after <= 0.5 * masks.before
    if mode == "deterministic":
        assert all(mask.factors is None for mask in masks)
    if mode == "random":
        assert masks != sl.sparsify(model, sl.Nonzeros(keep=0.5), SiPP(mode), data, seed=4)
        drawn = torch.cat([mask.factors for mask in masks if mask.factors is not None])
        assert bool((drawn != 1).any())


def test_what_sipp_refuses() -> None:
    with pytest.raises(sl.CriterionError, match="mode must be 'deterministic', 'random' or 'hybrid'"):
        SiPP("best")  # type: ignore[arg-type]
    with pytest.raises(sl.CriterionError, match="delta is a chance between 0 and 1, received 0"):
        SiPP(delta=0)
    with pytest.raises(sl.DataError, match=r"SiPP\(mode='deterministic', delta=1e-16\) needs data"):
        sl.sparsify(linear([1.0, 2]), sl.Nonzeros(keep=1), SiPP())

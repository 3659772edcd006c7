"""Relative contributions: the numbers of the spec, what they do not depend on, and every kind of layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import shapleaf as sl
from shapleaf import sensitivity
from shapleaf.linear import Linear, reading
from shapleaf.sensitivity import channel_contributions, contributions, sensitivities
from zoo import Apply, Weights, conv, example, settle, state


def layer(weight: Any, inputs: Any) -> Linear:
    return Linear(torch.tensor(inputs).double(), torch.tensor(weight).double())


def convolution(weight: Any, inputs: Any) -> Linear:
    found = reading(":conv2d#0", (torch.tensor(inputs).double(), torch.tensor(weight).double()), {})
    assert found is not None
    return found


def slowly(layer: Linear, places: str) -> Tensor:
    """The definition, one weight at a time."""
    rows, matrix = layer.rows(layer.input), layer.matrix()
    found = torch.zeros_like(matrix)
    for group, outputs in enumerate(matrix.mT):
        for i, weights in enumerate(outputs):
            for row in rows[:, group]:
                mixed = bool((row < 0).any())
                halves = [row.clamp(min=0), (-row).clamp(min=0)] if mixed else [row]
                for half in halves:
                    terms = weights * half  # places, features
                    share = torch.zeros_like(terms)
                    for sign in (1, -1):
                        mine = (sign * terms).clamp(min=0)
                        total = mine.sum(1, keepdim=True)
                        share += torch.where(total > 0, mine / total, 0)
                    reduced = share.mean(0) if places == "mean" else share.amax(0)
                    found[group, :, i] = torch.maximum(found[group, :, i], reduced)
    return found


def test_o1_of_a_linear_layer() -> None:
    two = layer([[1, -2, 3], [0.5, 0, -1]], [[1, 2, 0.5], [0, 1, 1]])
    expected = torch.tensor([[0.4, 1, 1], [1, 0, 1]], dtype=torch.float64)
    assert torch.allclose(two.weights(contributions(two)), expected, rtol=1e-12)
    assert channel_contributions(two).tolist() == [1, 1, 1]
    one = contributions(layer([[1, -2, 3]], [[1, 2, 0.5]]))[0, :, 0]
    assert torch.allclose(one, torch.tensor([0.4, 1, 0.6], dtype=torch.float64), rtol=1e-12)


def test_o2_places_are_averaged_or_the_largest_is_taken() -> None:
    two = convolution([[[[1.0]], [[1.0]]]], [[[[1.0, 3.0]], [[1.0, 1.0]]]])
    assert contributions(two, "mean").flatten().tolist() == [0.625, 0.375]
    assert contributions(two, "max").flatten().tolist() == [0.75, 0.5]


def test_o3_negative_inputs_make_two_examples_of_one() -> None:
    w = [[2, 1, -1]]
    assert contributions(layer(w, [[1, -1, -3]])).flatten().tolist() == [1, 1, 1]
    expected = torch.tensor([2 / 3, 1 / 3, 1]).double()
    assert torch.allclose(contributions(layer(w, [[1, 1, 1]])).flatten(), expected)


def test_o3_the_kernel_of_a_channel() -> None:
    weight = torch.ones(1, 2, 2, 2)
    weight[0, 1] = torch.tensor([[3.0, 0], [0, 0]])
    found = convolution(weight.tolist(), torch.ones(1, 2, 2, 2).tolist())
    sevenths = torch.tensor([1, 3]).double() / 7
    assert torch.allclose(channel_contributions(found, "max"), sevenths)
    assert torch.allclose(channel_contributions(found, "sum"), torch.tensor([4, 3]).double() / 7)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), scale=st.sampled_from([1e-9, 0.3, 1e6]))
def test_o4_scales_and_more_examples(seed: int, scale: float) -> None:
    a, w = example(5, 4, seed=seed), example(3, 4, seed=seed + 1)
    a[:, 2] = 0  # a dead channel
    base = contributions(Linear(a, w))
    rows = torch.tensor([scale, 1, 2.0]).double()[:, None]
    for other in (Linear(a, w * rows), Linear(a * scale, w), Linear(a, w, torch.ones(3).double())):
        assert torch.allclose(contributions(other), base, rtol=1e-12)
    assert bool(((base >= 0) & (base <= 1)).all())
    assert not base[0, 2].any()
    assert bool((contributions(Linear(a[:3], w)) <= base).all())


def test_o4_the_weights_of_one_sign_share_one() -> None:
    w = example(3, 6)
    one = Linear(example(1, 6, seed=2).abs(), w)
    share = contributions(one)[0].T
    for sign in (w > 0, w < 0):
        assert torch.allclose((share * sign).sum(1), sign.any(1).double(), rtol=1e-12)


def test_o4_the_mean_over_places_is_at_most_the_largest() -> None:
    found = convolution(example(4, 3, 3, 3).tolist(), example(2, 3, 6, 6).tolist())
    assert bool((contributions(found, "mean") <= contributions(found, "max") + 1e-12).all())


LAYERS = {
    "linear": ("linear", (example(4, 5), example(3, 5)), {}),
    "tokens": ("linear", (example(2, 7, 5), example(3, 5)), {}),
    "mm": ("mm", (example(4, 5), example(5, 3)), {}),
    "addmm": ("addmm", (example(3), example(4, 5), example(5, 3)), {}),
    "conv1d": ("conv1d", (example(2, 4, 9), example(6, 2, 3)), {"groups": 2, "padding": 1}),
    "conv2d": ("conv2d", (example(3, 3, 6, 6), example(4, 3, 3, 3)), {"stride": 2, "padding": 1}),
    "depthwise": ("conv2d", (example(3, 4, 5, 5), example(4, 1, 3, 3)), {"groups": 4}),
    "conv3d": ("conv3d", (example(2, 2, 4, 4, 4), example(3, 2, 2, 2, 2)), {}),
    "transposed": (
        "conv_transpose2d",
        (example(2, 4, 3, 3), example(4, 2, 3, 3)),
        {"groups": 2, "stride": 2},
    ),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("places", ["mean", "max"])
def test_every_layer_follows_the_definition(kind: str, places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    function, args, kwargs = LAYERS[kind]
    found = reading(f":{function}#0", args, kwargs)
    assert found is not None
    expected = slowly(found, places)
    assert torch.allclose(contributions(found, places), expected, rtol=1e-9)
    monkeypatch.setattr(sensitivity, "ROWS", 1)
    monkeypatch.setattr(sensitivity, "CELLS", 7)
    assert torch.allclose(contributions(found, places), expected, rtol=1e-9)  # however it is cut up
    assert bool((expected > 0).any())


def test_channels_of_groups_and_given_owners() -> None:
    function, args, kwargs = LAYERS["conv1d"]
    found = reading(f":{function}#0", args, kwargs)
    assert found is not None
    largest = contributions(found).amax(2).view(4, 3)
    assert torch.equal(channel_contributions(found), largest.amax(1))
    owners = torch.tensor([[1, 1, 1, 0, 0, 0], [-1, -1, -1, 0, 0, 0]])
    assert torch.equal(channel_contributions(found, owners=owners), largest.amax(1)[[1, 0]].maximum(
        torch.tensor([largest[3].max(), 0.0])))  # fmt: skip
    summed = channel_contributions(found, "sum")
    assert bool((summed >= largest.amax(1)).all() & (summed <= 1).all())
    assert torch.allclose(channel_contributions(found, "sum", owners)[1], summed[0])


def test_a_model_gives_every_weight_its_score() -> None:
    model = settle(nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)))
    inputs = example(20, 3, 4, 4)
    before = state(model)
    found = sensitivities(model, [inputs[:13], inputs[13:]])
    assert state(model) == before
    assert [*found] == ["0.weight", "4.weight"]
    with torch.no_grad():
        hidden = model[:4](inputs)
    expected = contributions(Linear(hidden, model[4].weight))[0].T
    assert torch.allclose(found["4.weight"].scores, expected, rtol=1e-9)
    assert (found["0.weight"].places, found["0.weight"].kernel) == (16, 9)
    assert (found["4.weight"].places, found["4.weight"].kernel) == (1, 1)
    assert found["0.weight"].outputs[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    whole = sensitivities(model, inputs)
    assert all(torch.allclose(found[name].scores, whole[name].scores, rtol=1e-12) for name in found)


def test_views_and_shared_weights() -> None:
    """Attention reads thirds of one tensor; a product may read a transposed one, or one twice."""
    attention = settle(nn.MultiheadAttention(4, 2, batch_first=True))
    x = example(3, 5, 4)
    found = sensitivities(Apply(lambda self, x: self.a(x, x, x)[0], a=attention), x)
    third = contributions(Linear(x, attention.in_proj_weight[4:8]))[0].T
    assert torch.allclose(found["a.in_proj_weight"].scores[4:8], third, rtol=1e-9)
    assert found["a.in_proj_weight"].outputs[:, 0].tolist() == [*range(12)]

    tied = settle(Weights(lambda self, x: (x @ self.w).relu() @ self.w.T, w=(4, 6)))
    inputs = example(3, 4)
    scores = sensitivities(tied, inputs)["w"].scores
    with torch.no_grad():
        up = contributions(Linear(inputs, tied.w, across=True))[0]
        down = contributions(Linear((inputs @ tied.w).relu(), tied.w.T, across=True))[0].T
    assert torch.allclose(scores, torch.maximum(up, down), rtol=1e-9)


def test_low_precision_is_widened() -> None:
    model = nn.Linear(6, 4).bfloat16()
    assert sensitivities(model, torch.randn(5, 6).bfloat16())["weight"].scores.dtype == torch.float32


def test_empty_data() -> None:
    with pytest.raises(sl.DataError, match="the data are empty"):
        sensitivities(nn.Linear(3, 2), [])


def test_values_that_are_not_finite() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].weight.data[0, 0] = float("inf")
    with pytest.raises(sl.CriterionError, match="what 0.weight is multiplied with is not finite"):
        sensitivities(model, torch.ones(2, 3))
    model[0].weight.data[0, 0] = 1
    model[0].bias.data[0] = float("nan")
    with pytest.raises(sl.CriterionError, match="what 1.weight is multiplied with is not finite"):
        sensitivities(model, torch.ones(2, 3))


def test_layouts_and_recurrence() -> None:
    """Weights in channels-last order; the steps of an LSTM."""
    model = settle(nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 2)))
    inputs = example(3, 3, 5, 5)
    plain = sensitivities(model, inputs)
    last = sensitivities(model.to(memory_format=torch.channels_last), inputs)
    assert all(torch.allclose(plain[name].scores, last[name].scores, rtol=1e-9) for name in plain)
    assert all(torch.equal(plain[name].outputs, last[name].outputs) for name in plain)

    lstm = settle(nn.LSTM(3, 2, batch_first=True))
    found = sensitivities(Apply(lambda self, x: self.a(x)[0], a=lstm), example(2, 5, 3))
    assert [*found] == ["a.weight_ih_l0", "a.weight_hh_l0"]
    assert (found["a.weight_ih_l0"].places, found["a.weight_hh_l0"].places) == (5, 5)
    assert found["a.weight_hh_l0"].outputs[:, 0].tolist() == [*range(8)]

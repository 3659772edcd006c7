"""Positions that stay, tensors that keep their identity, and putting everything back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf.cuts import slicing
from zoo import NETS, example, forward, lived_in, settle, state


def test_cuts_are_what_no_group_removes() -> None:
    model, inputs = NETS["dense"]()
    graph = sl.trace(model, inputs)
    cuts = slicing.cuts(sl.plan(graph, {"stem": [0, 4], "a.2": [1], "b.2": [0, 1, 2, 3]}))
    kept = {name: {dim: positions.tolist() for dim, positions in axes.items()} for name, axes in cuts.items()}
    assert {name: axes for name, axes in kept.items() if "weight" in name} == {
        "stem.weight": {0: [0, 4]}, "a.0.weight": {0: [0, 4]}, "a.2.weight": {0: [1], 1: [0, 4]},
        "b.0.weight": {0: [0, 4, 6]}, "b.2.weight": {1: [0, 4, 6]},
        "head.0.weight": {0: [0, 4, 6, 9, 10, 11, 12]}, "head.1.2.weight": {1: [0, 4, 6, 9, 10, 11, 12]},
    }  # fmt: skip
    assert slicing.cuts(sl.plan(graph, {})) == {}


def test_cut_takes_all_axes_and_owns_its_memory() -> None:
    tensor = torch.arange(12.0).view(3, 4)
    out = slicing.cut(tensor, {0: torch.tensor([0, 2]), 1: torch.tensor([1, 3])})
    assert out.tolist() == [[1, 3], [9, 11]]
    out += 1
    assert tensor[0, 1] == 1


@pytest.mark.parametrize("layout", [torch.channels_last, torch.channels_last_3d, torch.contiguous_format])
def test_the_memory_format_is_kept(layout: torch.memory_format) -> None:
    rank = 5 if layout is torch.channels_last_3d else 4
    tensor = torch.rand(6, 4, *[3] * (rank - 2)).contiguous(memory_format=layout)
    out = slicing.cut(tensor, {0: torch.tensor([0, 2, 5]), 1: torch.tensor([1, 2])})
    assert out.is_contiguous(memory_format=layout)
    assert torch.equal(out, tensor[[0, 2, 5]][:, [1, 2]])


def test_other_strides_become_plain() -> None:
    out = slicing.cut(torch.rand(2, 3, 4, 5).permute(3, 2, 1, 0), {0: torch.tensor([0, 1])})
    assert out.is_contiguous()


def test_parameters_buffers_and_gradients_keep_their_identity() -> None:
    model = settle(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    model(example(5, 3)).sum().backward()
    weight, mean, gradient = model[0].weight, model[1].running_mean, model[0].weight.grad.clone()
    rows = torch.tensor([1, 2])
    slicing.slice_tensors(model, {"0.weight": {0: rows}, "1.running_mean": {0: rows}})
    assert model[0].weight is weight
    assert model[1].running_mean is mean
    assert torch.equal(weight.grad, gradient[1:3])
    assert mean.shape == (2,)
    assert weight.is_leaf
    assert weight.requires_grad


def test_backward_works_on_the_same_parameters_even_while_an_old_graph_lives() -> None:
    """Autograd remembers the old shape in the old graph's accumulators."""
    model, inputs = NETS["mlp"]()
    called = []
    model[0].weight.register_post_accumulate_grad_hook(lambda _: called.append("hook"))
    old = sum(t.sum() for t in forward(model, inputs))
    old.backward(retain_graph=True)
    sl.prune_(model, sl.plan(sl.trace(model, inputs), {"0": [0, 3], "2": [1]}))
    before = [p.grad.clone() for p in model.parameters()]
    sum(t.sum() for t in forward(model, inputs)).backward()
    assert all(p.grad.shape == p.shape for p in model.parameters())
    fresh = [p.grad - b for p, b in zip(model.parameters(), before, strict=True)]
    model.zero_grad()
    sum(t.sum() for t in forward(model, inputs)).backward()
    for gradient, parameter in zip(fresh, model.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, atol=1e-12)
    assert called == ["hook"] * 3
    assert old is not None


def test_everything_is_put_back_after_an_exception() -> None:
    model, inputs = NETS["plain"]()
    lived_in(model, inputs)
    before, bias = state(model), model[4].bias
    with pytest.raises(KeyboardInterrupt), slicing.restored_on_failure(model):  # noqa: PT012
        slicing.slice_tensors(
            model, {"0.weight": {0: torch.tensor([0])}, "1.running_var": {0: torch.tensor([0])}}
        )
        model[4].bias = nn.Parameter(torch.zeros(8))
        model[0].weight.grad = None
        model[0].out_channels, model[0].added = 1, 2
        model[0].register_parameter("more", nn.Parameter(torch.zeros(1)))
        model[1].__class__ = nn.BatchNorm3d
        raise KeyboardInterrupt
    assert bias is model[4].bias is None
    assert (type(model[1]), model[0].out_channels) == (nn.BatchNorm2d, 6)
    assert not hasattr(model[0], "added")
    assert state(model) == before

"""Held weights stay exactly zero, whatever an optimizer does; nothing else is touched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf.records import Mask, Masks
from shapleaf.records.masks import fingerprint
from shapleaf.weights import nonzeros
from zoo import conv, example, settle, state


def network() -> nn.Module:
    return settle(
        nn.Sequential(conv(3, 6), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4))
    ).float()


INPUTS = example(8, 3, 4, 4).float()


def loss(model: nn.Module) -> torch.Tensor:
    return nn.functional.cross_entropy(model(INPUTS), torch.arange(8) % 4)


def held_at_zero(model: nn.Module, masks: Masks) -> bool:
    named = dict(model.named_parameters())
    return not any(bool(named[mask.parameter][~mask.keep()].any()) for mask in masks)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=1e-2),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_o16_weights_stay_exactly_zero(kind: str) -> None:
    model = network().train()
    optimizer = OPTIMIZERS[kind](model.parameters())
    loss(model).backward()
    optimizer.step()  # its state knows the weights that go
    masks = sl.sparsify(model, sl.Nonzeros(keep=0.4))
    start = copy.deepcopy(model.state_dict())
    with sl.hold(model, masks, optimizer):
        for _ in range(5):
            optimizer.zero_grad()
            loss(model).backward()
            optimizer.step()
            assert held_at_zero(model, masks)
    name = "4.weight"
    buffers = [v for v in optimizer.state[model[4].weight].values() if v.shape == model[4].weight.shape]
    assert any(bool(value[~masks[name].keep()].any()) for value in buffers)  # it would have moved them
    kept = masks[name].keep()
    assert not torch.equal(model[4].weight[kept], start[name][kept])  # the others learn
    assert nonzeros(model) == masks.after


@pytest.mark.parametrize("scaled", [True, False])
def test_o16_with_mixed_precision(scaled: bool) -> None:
    model = network().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)
    masks = sl.sparsify(model, sl.Nonzeros(keep=0.4))
    held = sl.hold(model, masks, optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(model)
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        assert held_at_zero(model, masks)
    held.remove()


def test_h1_what_happens_to_be_zero_is_not_held() -> None:
    """The reference code holds all that is zero when retraining begins, new biases among it."""
    model = network().train()
    torch.nn.init.zeros_(model[4].bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with sl.hold(model, sl.sparsify(model, sl.Nonzeros(keep=0.4)), optimizer):
        loss(model).backward()
        optimizer.step()
    assert bool(model[4].bias.all())


def test_several_optimizers_and_any_optimizer() -> None:
    for given in ("both", "any"):
        model = network().train()
        masks = sl.sparsify(model, sl.Nonzeros(keep=0.4))
        two = [torch.optim.SGD(model[0].parameters(), 0.1), torch.optim.Adam(model[4].parameters(), 0.1)]
        with sl.hold(model, masks, two if given == "both" else None):
            for optimizer in two:
                loss(model).backward()
                optimizer.step()
                assert held_at_zero(model, masks)


def test_after_removal_weights_are_free() -> None:
    model = network().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    masks = sl.sparsify(model, sl.Nonzeros(keep=0.4))
    held = sl.hold(model, masks, optimizer)
    held.remove()
    held.remove()
    assert held_at_zero(model, masks)
    assert not optimizer._optimizer_step_post_hooks
    loss(model).backward()
    optimizer.step()
    assert not held_at_zero(model, masks)


def test_restoring_gives_every_value_back() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    held = sl.hold(model, sl.sparsify(model, sl.Nonzeros(keep=0.4)))
    assert nonzeros(model) < 400
    held.remove(restore=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_error_in_the_block_ends_it_too() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(KeyError), sl.hold(model, sl.sparsify(model, sl.Nonzeros(keep=0.4)), optimizer):
        raise KeyError
    assert not optimizer._optimizer_step_post_hooks


def test_the_model_gets_no_attribute_or_hook() -> None:
    model = network()
    seen = {name: {*vars(module)} for name, module in model.named_modules()}
    with sl.hold(model, sl.sparsify(model, sl.Nonzeros(keep=0.4))):
        assert {name: {*vars(module)} for name, module in model.named_modules()} == seen
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        assert not any(p._backward_hooks for p in model.parameters())
        copy.deepcopy(model)


def factored() -> tuple[nn.Module, Masks]:
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[3.0, 5.0]])
    mask = Mask.of("weight", torch.tensor([[True, False]]), torch.tensor([[2.0, 9.0]]))
    return model, Masks(fingerprint=fingerprint(model), masks=(mask,), before=2, after=1)


def test_factors_are_applied_once() -> None:
    model, masks = factored()
    assert sl.sparsified(model, masks).weight.tolist() == [[6, 0]]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    held = sl.hold(model, masks, optimizer)
    assert model.weight.tolist() == [[6, 0]]
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert model.weight.tolist() == [[5.5, 0]]
    held.remove(restore=True)
    assert model.weight.tolist() == [[3, 5]]


def test_a_copy_is_pruned_and_the_model_left_alone() -> None:
    model = network()
    before = state(model)
    masks = sl.sparsify(model, sl.Nonzeros(keep=0.4))
    sparse = sl.sparsified(model, masks)
    assert state(model) == before
    assert nonzeros(sparse) == masks.after
    assert torch.equal(sparse[4].weight, model[4].weight * masks["4.weight"].keep())


def test_what_does_not_fit() -> None:
    model = network()
    masks = sl.sparsify(model, sl.Nonzeros(keep=0.4))
    other: Any = nn.Linear(3, 2)
    for verb in (sl.hold, sl.sparsified):
        with pytest.raises(sl.StaleGraphError, match="belong to another model"):
            verb(other, masks)
    with pytest.raises(sl.PlanError, match="this SGD has none of the masked parameters"):
        sl.hold(model, masks, torch.optim.SGD(other.parameters(), lr=0.1))
    with pytest.raises(sl.PlanError, match="no optimizer in the list"):
        sl.hold(model, masks, [])
    held = sl.hold(model, masks)
    model[4] = nn.Linear(96, 5)
    with pytest.raises(
        sl.StaleGraphError, match=r"4.weight has the shape \(5, 96\), but is held as \(4, 96\)"
    ):
        held.apply()
    held.remove()

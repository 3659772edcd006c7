"""After prune_ an optimizer goes on as if its state had been built sliced."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

import shapleaf as sl
from shapleaf.cuts import slicing
from shapleaf.surgery import optimizers
from zoo import NETS, example, forward, half_plan, random_plan, settle, state

Build = Callable[[nn.Module], Optimizer]


def two_groups(model: nn.Module, kind: Any, **options: Any) -> Optimizer:
    parameters = [*model.parameters()]
    return kind(
        [{"params": parameters[::2], "lr": 0.003}, {"params": parameters[1::2], "weight_decay": 0.1}],
        **options,
    )


OPTIMIZERS: dict[str, Build] = {
    "SGD": lambda m: SGD(m.parameters(), lr=0.002),
    "SGD with momentum": lambda m: SGD(m.parameters(), lr=0.002, momentum=0.9, nesterov=True),
    "Adam": lambda m: Adam(m.parameters(), lr=0.01),
    "AdamW": lambda m: AdamW(m.parameters(), lr=0.01, amsgrad=True, weight_decay=0.1),
    "AdamW, one by one": lambda m: AdamW(m.parameters(), lr=0.01, foreach=False),
    "SGD in two groups": lambda m: two_groups(m, SGD, momentum=0.9),
    "AdamW in two groups": lambda m: two_groups(m, AdamW, amsgrad=True),
    "RMSprop": lambda m: RMSprop(m.parameters(), momentum=0.5, centered=True),
    "Adagrad": lambda m: Adagrad(m.parameters()),
    "some parameters only": lambda m: Adam([*m.parameters()][-4:]),
}


def step(model: nn.Module, optimizer: Optimizer, inputs: Any, seed: int) -> None:
    torch.manual_seed(seed)
    optimizer.zero_grad()
    sum(((t - torch.randn_like(t)) ** 2).sum() for t in forward(model, inputs)).backward()
    optimizer.step()


def sliced_by_hand(
    model: nn.Module, optimizer: Optimizer, plan: sl.Plan, build: Build
) -> tuple[nn.Module, Optimizer]:
    """A pruned copy with new parameters, and a new optimizer whose state is indexed position by position."""
    pruned = sl.prune(model, plan).model
    other = build(pruned)
    cuts = slicing.cuts(plan)
    old = dict(model.named_parameters())
    for name, parameter in pruned.named_parameters():
        for key, value in optimizer.state.get(old[name], {}).items():
            part = value.clone() if isinstance(value, Tensor) else value
            if isinstance(part, Tensor) and part.shape == old[name].shape:
                for dim, kept in cuts.get(name, {}).items():
                    part = torch.stack([part.select(dim, int(i)) for i in kept], dim)
            other.state[parameter][key] = part
    return pruned, other


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("net", ["plain", "residual", "tied"])
def test_the_next_steps_are_those_of_a_state_built_sliced(name: str, net: str) -> None:
    model, inputs = NETS[net]()
    inputs = torch.cat([inputs, inputs + 1])
    optimizer = OPTIMIZERS[name](model)
    for seed in range(3):
        step(model, optimizer, inputs, seed)
    plan = random_plan(sl.trace(model, inputs), 1)
    other, reference = sliced_by_hand(model, optimizer, plan, OPTIMIZERS[name])
    parameters = [*model.parameters()]
    sl.prune_(model, plan, optimizer=optimizer)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    for seed in range(3, 6):
        step(model, optimizer, inputs, seed)
        step(other, reference, inputs, seed)
        for (key, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b), (key, seed)
            assert bool(a.isfinite().all()), (key, seed)


def test_the_optimizers_own_state_dict_can_be_saved_and_loaded() -> None:
    model, inputs = NETS["mlp"]()
    optimizer = Adam(model.parameters())
    step(model, optimizer, inputs, 0)
    sl.prune_(model, half_plan(sl.trace(model, inputs)), optimizer=optimizer)
    again = Adam(copy.deepcopy(model).parameters())
    again.load_state_dict(optimizer.state_dict())
    shapes = [[tuple(v.shape) for v in s.values()] for s in again.state.values()]
    assert shapes == [[(), tuple(p.shape), tuple(p.shape)] for p in model.parameters()]


def test_an_optimizer_without_state_yet_is_fine() -> None:
    model, inputs = NETS["mlp"]()
    optimizer = Adam(model.parameters())
    sl.prune_(model, half_plan(sl.trace(model, inputs)), optimizer=optimizer)
    step(model, optimizer, inputs, 0)


def test_the_optimizer_of_another_model_is_refused() -> None:
    model, inputs = NETS["mlp"]()
    other = copy.deepcopy(model)
    optimizer = SGD(other.parameters(), lr=0.1, momentum=0.9)
    step(other, optimizer, inputs, 0)
    before, theirs = state(model), state(other, optimizer)
    with pytest.raises(sl.PlanError, match="this SGD holds no parameter of the model"):
        sl.prune_(model, half_plan(sl.trace(model, inputs)), optimizer=optimizer)
    assert state(model) == before
    assert state(other, optimizer) == theirs


def test_the_optimizer_of_the_head_alone_is_fine_wherever_the_cut_is() -> None:
    model, inputs = NETS["mlp"]()
    optimizer = Adam(model[4].parameters())
    step(model, optimizer, inputs, 0)
    sl.prune_(model, sl.plan(sl.trace(model, inputs), {"0": [1, 2]}), optimizer=optimizer)
    assert [(*p.shape,) for p in optimizer.param_groups[0]["params"]] == [(3, 6), (3,)]
    step(model, optimizer, inputs, 1)
    sl.prune_(model, sl.plan(sl.trace(model, inputs), {"2": [1, 2]}), optimizer=optimizer)
    assert optimizer.state[model[4].weight]["exp_avg"].shape == (3, 2)
    step(model, optimizer, inputs, 2)


def test_a_bias_that_compensation_adds_joins_its_weights_group() -> None:
    model = settle(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3, bias=False)))
    optimizer = SGD([{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.5}], lr=0.1)
    inputs = example(30, 4)
    plan = sl.plan(sl.trace(model, inputs[:2]), {"0": range(5)})
    sl.prune_(model, plan, optimizer=optimizer, compensate=sl.LeastSquares(inputs))
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]
    assert optimizer.param_groups[1]["params"][1] is model[2].bias


class Listing(SGD):
    """Keeps a list of tensors, as LBFGS does."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        first = self.param_groups[0]["params"][0]
        self.state[first]["history"] = [first.detach().clone()]


ODD: dict[str, tuple[Build, str]] = {
    "factored": (
        lambda m: torch.optim.Adafactor(m.parameters()),
        "Adafactor keeps 'row_var', a tensor of shape",
    ),
    "flat": (lambda m: torch.optim.LBFGS(m.parameters(), max_iter=1), "LBFGS keeps 'd', a tensor of shape"),
    "a list": (lambda m: Listing(m.parameters(), lr=0.1), "Listing keeps 'history', a list"),
}


@pytest.mark.parametrize("name", ODD)
def test_state_of_another_shape_is_refused_and_nothing_changes(name: str) -> None:
    build, message = ODD[name]
    model, inputs = NETS["mlp"]()
    optimizer = build(model)
    sum(t.sum() for t in forward(model, inputs)).backward()
    optimizer.step(lambda: sum((t**2).sum() for t in forward(model, inputs)))  # type: ignore[arg-type, return-value]
    before = state(model, optimizer)
    with pytest.raises(sl.PlanError, match=message):
        sl.prune_(model, half_plan(sl.trace(model, inputs)), optimizer=optimizer)
    assert state(model, optimizer) == before


def test_the_state_is_put_back_after_an_exception() -> None:
    model, inputs = NETS["mlp"]()
    optimizer = Adam(model.parameters())
    step(model, optimizer, inputs, 0)
    before = state(model, optimizer)
    with pytest.raises(KeyboardInterrupt), optimizers.restored_on_failure(optimizer):  # noqa: PT012
        optimizers.slice_state(optimizer, model, {"0.weight": {0: torch.tensor([0, 1])}})
        assert optimizer.state[model[0].weight]["exp_avg"].shape == (2, 5)
        raise KeyboardInterrupt
    assert state(model, optimizer) == before

"""Distill: the pruned network learns from the intact one, and nothing else notices."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.surgery.distillation import _Match, shift_and_flip
from zoo import Apply, conv, example, gap, half_plan, head, lived_in, run, settle, state

X = example(60, 6, seed=3).float()
MAPS = example(12, 3, 8, 8, seed=3).float()


def mlp() -> nn.Module:
    return settle(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))).float()


def cnn() -> nn.Module:
    return settle(
        nn.Sequential(
            conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 6), nn.BatchNorm2d(6), nn.ReLU(), head(6)
        )
    ).float()


def distilled(model: nn.Module, data: Any, **options: Any) -> sl.Pruned:
    inputs = data if isinstance(data, Tensor) else X
    plan = half_plan(sl.trace(model, inputs[:2]))
    return sl.prune(model, plan, compensate=sl.Distill(data, **{"steps": 30, **options}))


def test_the_error_on_the_calibration_data_falls() -> None:
    receipt = distilled(mlp(), X, steps=100).receipt
    first, last = (effect.error for effect in receipt.effects)
    assert first is not None
    assert last is not None
    assert last < first / 2
    assert receipt.compensation.startswith("Distill(steps=100,")


def test_labels_are_not_looked_at() -> None:
    a = distilled(mlp(), X).model
    b = distilled(mlp(), [(X, torch.arange(60) % 3)]).model
    assert gap(run(a, X), run(b, X)) == 0


def test_a_seed_names_every_draw() -> None:
    """Whatever was drawn before, and however the examples come."""
    model = mlp()
    a = distilled(model, X).model
    torch.rand(7)
    b = distilled(model, [X[:13], X[13:]]).model
    c = distilled(model, X, seed=1).model
    assert gap(run(a, X), run(b, X)) == 0
    assert gap(run(a, X), run(c, X)) > 0


@pytest.mark.parametrize("build", [mlp, cnn])
def test_nothing_of_the_users_changes(build: Any) -> None:
    data = X if build is mlp else MAPS
    model = lived_in(build(), data)
    before = state(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the network is not trained
        pruned = distilled(model, data).model
    assert state(model) == before
    assert [m.training for m in pruned.modules()] == [m.training for m in model.modules()]
    assert [p.requires_grad for p in pruned.parameters()] == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in pruned.parameters())


def test_dropout_is_off() -> None:
    model, same = mlp(), mlp()
    same[2].p = 0.0
    assert gap(run(distilled(model.train(), X).model.eval(), X), run(distilled(same, X).model, X)) == 0


def test_frozen_parameters_learn_and_stay_frozen() -> None:
    model = mlp()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    pruned, receipt = distilled(model, X)
    assert not any(p.requires_grad for p in pruned.parameters())
    assert receipt.effects[1].error < receipt.effects[0].error


def test_in_place_gradients_come_back_and_optimizers_go_on() -> None:
    model = mlp()
    plan = half_plan(sl.trace(model, X[:2]))
    expected = sl.prune(model, plan, compensate=sl.Distill(X, steps=5)).model
    optimizer = torch.optim.Adam(model.parameters())
    identities = [id(p) for p in model.parameters()]
    sl.prune_(model, plan, optimizer=optimizer, compensate=sl.Distill(X, steps=5))
    assert [id(p) for p in model.parameters()] == identities
    assert gap(run(expected, X), run(model, X)) < 1e-6
    assert not optimizer.state
    model(X).sum().backward()
    optimizer.step()


def test_a_failure_in_the_middle_undoes_everything() -> None:
    model = mlp()
    calls = []

    def augment(inputs: Any, random: np.random.Generator) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return inputs

    plan, before = half_plan(sl.trace(model, X[:2])), state(model)
    with pytest.raises(KeyboardInterrupt):
        sl.prune_(model, plan, compensate=sl.Distill(X, steps=5, augment=augment))
    after = state(model)
    # Steps were taken in place, which torch counts; but on other storage.
    assert {**after, "flags": 0} == {**before, "flags": 0}
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("lr", [1e30])
def test_a_learning_rate_too_high_is_refused_with_the_fix_or_warned_of(lr: float) -> None:
    model = mlp()
    before = state(model)
    with pytest.raises((sl.PlanError, UserWarning), match=r"Lower lr=1e\+30|not finite|made the error"):
        distilled(model, X, lr=lr)
    assert state(model) == before


def test_augmentation_gets_a_generator_of_its_own() -> None:
    """Both networks see what it returns; draws are named by step."""
    drawn: list[float] = []
    seen: list[Tensor] = []

    def augment(inputs: Any, random: np.random.Generator) -> Any:
        drawn.append(float(random.random()))
        seen.append(inputs)
        return inputs + 1

    model = mlp()
    distilled(model, X, steps=4, augment=augment, batch=20)
    assert len(drawn) == len(set(drawn)) == 4
    assert {tuple(row) for batch in seen[:3] for row in batch.tolist()} == {tuple(row) for row in X.tolist()}
    first = copy.copy(drawn)
    drawn.clear()
    distilled(model, X, steps=4, augment=augment, batch=20)
    assert drawn == first


def test_without_augmentation_and_without_blocks() -> None:
    model = cnn()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the network is not trained
        a, b, c = (
            distilled(model, MAPS, steps=5, **options).model
            for options in ({}, {"augment": None}, {"augment": None, "blocks": 0.0})
        )
    assert gap(run(a, MAPS), run(b, MAPS)) > 0
    assert gap(run(b, MAPS), run(c, MAPS)) > 0


def test_inputs_in_dictionaries_and_tuples() -> None:
    def call(self: Any, x: Tensor, y: Tensor) -> Tensor:
        return self.c(F.relu(self.a(x) + self.b(y)))

    model = settle(Apply(call, a=nn.Linear(6, 12), b=nn.Linear(4, 12), c=nn.Linear(12, 2))).float()
    x, y = X, example(60, 4, seed=8).float()
    results = []
    for inputs, data in (
        ({"x": x[:2], "y": y[:2]}, [({"x": x, "y": y}, None)]),
        ((x[:2], y[:2]), [((x, y), None)]),
    ):
        plan = half_plan(sl.trace(model, inputs))
        pruned, receipt = sl.prune(model, plan, compensate=sl.Distill(data, steps=60))
        first, last = (effect.error for effect in receipt.effects)
        assert first is not None
        assert last is not None
        assert last < first
        results.append(pruned(x, y))
    assert torch.allclose(*results, atol=1e-5)


def test_projections_that_are_parts_of_one_weight() -> None:
    """As of cross-attention, where the stream and the heads lose units."""
    x, context = example(40, 5, 6, seed=3).float(), example(40, 4, 6, seed=8).float()
    cross = Apply(
        lambda self, q, k: self.out(self.mix(self.a(q), h := self.b(k), h)[0].mean(1)),
        a=nn.Linear(6, 16), b=nn.Linear(6, 16), mix=nn.MultiheadAttention(16, 4, batch_first=True),
        out=nn.Linear(16, 3),
    )  # fmt: skip
    model = settle(cross).float()
    plan = half_plan(sl.trace(model, (x[:2], context[:2])))
    assert {"a", "mix"} <= {*plan.pruned}
    receipt = sl.prune(model, plan, compensate=sl.Distill([((x, context), None)], steps=60)).receipt
    assert receipt.effects[1].error < receipt.effects[0].error


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_learns_whatever_the_users_mode(mode: Any) -> None:
    """And a model pruned in place can be trained afterwards."""
    expected = distilled(mlp(), X).model
    model, same = mlp(), mlp()
    plan = half_plan(sl.trace(model, X[:2]))
    with mode():
        found = distilled(same, X.clone()).model
        sl.prune_(model, plan, compensate=(sl.LeastSquares(X), sl.Distill(X, steps=3)))
    assert gap(run(expected, X), run(found, X)) == 0
    model(X).sum().backward()
    assert model[0].weight.grad is not None


def test_parameters_made_in_inference_mode_learn_in_a_copy() -> None:
    with torch.inference_mode():
        model = mlp()
        plan = half_plan(sl.trace(model, X[:2]))
        receipt = sl.prune(model, plan, compensate=sl.Distill(X, steps=60)).receipt
        with pytest.raises(sl.PlanError, match="made in inference mode; of those prune a copy"):
            sl.prune_(model, plan, compensate=sl.Distill(X, steps=60))
    assert receipt.effects[1].error < receipt.effects[0].error


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.05)])
def test_half_precision_learns_nearly_as_single(dtype: torch.dtype, tolerance: float) -> None:
    pruned, receipt = distilled(mlp().to(dtype), X.to(dtype), steps=100)
    single = distilled(mlp(), X, steps=100).receipt.effects
    assert {p.dtype for p in pruned.parameters()} == {dtype}
    assert receipt.effects[1].error < receipt.effects[0].error
    assert receipt.effects[1].error == pytest.approx(single[1].error, abs=tolerance)


def test_an_output_that_is_the_same_for_all_examples_counts_by_its_size() -> None:
    """As of a learned query that goes through the same layers."""

    def call(self: Any, x: Tensor) -> Tensor:
        query = self.prompt.weight + x.new_zeros(len(x), 1)
        return self.out(self.b(F.relu(self.a(x))) * self.b(F.relu(self.a(query))).sigmoid())

    model = settle(
        Apply(call, prompt=nn.Linear(6, 1, bias=False), a=nn.Linear(6, 16), b=nn.Linear(16, 5),
              out=nn.Linear(5, 3))
    ).float()  # fmt: skip
    plan = sl.plan(sl.trace(model, X[:2]), {"a": range(8)})
    pruned = sl.prune(model, plan).model
    distance = float(_Match(model, pruned, plan, 1.0)(X).detach())
    with torch.no_grad():
        before, now = (net.b(F.relu(net.a(net.prompt.weight))) for net in (model, pruned))
        query = (now - before).square().mean() / before.square().mean()
        aim, found = (net.b(F.relu(net.a(X))) for net in (model, pruned))
        stream = (found - aim).square().mean() / aim.var(0, correction=0).mean()
        out = (pruned(X) - model(X)).square().mean() / model(X).var(0, correction=0).mean()
    assert distance == pytest.approx(float(out + (query + stream) / 2), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps=-1: expected a whole number of at least 0"),
        ({"steps": 1.5}, "steps=1.5: expected a whole"),
        ({"batch": 0}, "batch=0: expected a whole number of at least 1"),
        ({"lr": float("nan")}, "lr=nan: expected a finite"),
        ({"blocks": -1.0}, "blocks=-1.0: expected a finite number of at least 0"),
    ],
)
def test_arguments_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(sl.PlanError, match=message):
        sl.Distill(X, **options)


def test_steps_with_too_few_examples() -> None:
    for nothing in (lambda inputs, random: inputs[:0], lambda inputs, random: None):
        with pytest.raises(sl.PlanError, match="augment returned no examples where it was given 32"):
            distilled(mlp(), X, augment=nothing)
    model = settle(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))).float()
    plan = half_plan(sl.trace(model, X[:2]))
    for data, options in ((X[:1], {}), (X, {"batch": 1})):
        with pytest.raises(sl.PlanError, match=r"give Distill more examples, and more than one .*batch="):
            sl.prune(model, plan, compensate=sl.Distill(data, steps=2, **options))


def test_fewer_examples_than_a_batch() -> None:
    _, receipt = distilled(mlp(), X[:3], steps=20)
    assert receipt.effects[1].error < receipt.effects[0].error


def test_a_program_learns() -> None:
    model = mlp()
    exported = sl.program(model, X)
    first, last = (effect.error for effect in distilled(exported, X, steps=60).receipt.effects)
    assert last < first


def test_shift_and_flip_by_hand() -> None:
    """Every image is itself, shifted by at most an eighth and perhaps mirrored; borders repeat."""
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    possible = set()
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    for dy in range(3):
        for dx in range(3):
            moved = padded[..., dy : dy + 8, dx : dx + 8]
            possible |= {tuple(m.flatten().tolist()) for m in (moved, moved.flip(3))}
    batch = image.expand(200, 1, 8, 8)
    found = {tuple(one.flatten().tolist()) for one in shift_and_flip(batch, np.random.default_rng(0))}
    assert found == possible


def test_other_inputs_are_not_augmented() -> None:
    for inputs in (X, torch.ones(2, 3, 8, 8, dtype=torch.int64), {"x": MAPS}):
        assert shift_and_flip(inputs, np.random.default_rng(0)) is inputs

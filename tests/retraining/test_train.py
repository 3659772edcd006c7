"""Training: a step by hand, and the same weights whenever and however it was interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import shapleaf as sl
from shapleaf.retraining import Constant, Milestones, Recipe, train
from shapleaf.retraining.checkpoints import read

module = sys.modules["shapleaf.retraining.train"]


def net(seed: int = 0) -> nn.Sequential:
    """With all that makes resuming hard: statistics of batches, dropout, momentum."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64, 3),
    )


def digits(n: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 1, 4, 4, generator=generator), torch.randint(3, (n,), generator=generator)


RECIPE = Recipe(
    epochs=3,
    batch=16,
    lr=0.05,
    warmup=1,
    decay=Milestones((2,)),
    augment=sl.CropFlip(pad=1),
    weight_decay=1e-3,
)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_step_by_hand() -> None:
    """Squares of a weight of 1 at inputs of 1 with targets 0: the gradient is 2 w + decay w."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    recipe = Recipe(
        epochs=2,
        batch=4,
        lr=0.1,
        momentum=0.5,
        weight_decay=0.2,
        decay=Constant(),
        loss=lambda output, target: (output[:, 0] - target) ** 2,
    )
    data = torch.ones(4, 1, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    training = train(model, data, recipe)
    # g = 2.2, w = 0.78; g = 1.716, velocity 0.5 * 2.2 + 1.716 = 2.816, w = 0.4984
    assert model.weight.item() == pytest.approx(0.4984, abs=1e-12)
    assert training.losses == pytest.approx((1.0, 0.78**2))
    assert training.rates == (0.1, 0.1)


def test_it_leaves_modes_randomness_and_gradients_alone() -> None:
    model = net().eval()
    model[1].train()
    flags = [m.training for m in model.modules()]
    state = torch.get_rng_state()
    training = train(model, digits(), RECIPE)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert int(model[1].num_batches_tracked) == 12  # four batches of 50 in each of three epochs
    assert training.rates == pytest.approx((0.05 * 3 / 4, 0.05, 0.005))


def test_the_same_seed_and_kind_of_data_the_same_weights() -> None:
    one, two, three = net(), net(), net()
    first = train(one, digits(), RECIPE)
    second = train(two, TensorDataset(*digits()), RECIPE)
    third = train(three, digits(), RECIPE, seed=1)
    assert same(one, two)
    assert first.batches == second.batches != third.batches
    assert not same(one, three)


def test_every_example_is_seen_once_an_epoch() -> None:
    seen: list[tuple[int, tuple[int, ...]]] = []

    def spy(images: torch.Tensor, ids: tuple[int, ...], epoch: int) -> torch.Tensor:
        seen.append((epoch, ids))
        return images

    train(net(), digits(), replace(RECIPE, augment=spy, start=1))
    for epoch in (1, 2):
        assert sorted(i for e, ids in seen if e == epoch for i in ids) == list(range(50))
    assert {epoch for epoch, _ in seen} == {1, 2}
    orders = [[i for e, ids in seen if e == epoch for i in ids] for epoch in (1, 2)]
    assert orders[0] != orders[1]


class Killed(Exception):
    pass


@dataclass(frozen=True)
class Failing:
    """Ends the process, as it were, before a batch; prints as what it is not."""

    at: int
    how: Callable[[], None]
    count: list[int]

    def __call__(self, images: torch.Tensor, ids: tuple[int, ...], epoch: int) -> torch.Tensor:
        self.count.append(1)
        if len(self.count) > self.at:
            self.how()
        return sl.CropFlip(pad=1)(images, ids, epoch)

    def __repr__(self) -> str:
        return repr(RECIPE.augment)


def dies() -> None:
    raise Killed


@pytest.mark.parametrize("every", [0.0, 60.0])
@pytest.mark.parametrize("at", [0, 1, 3, 4, 6, 11])
def test_killed_and_resumed_it_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, every: float
) -> None:
    """With checkpoints after each step and after each epoch; killed in the middle and at its border."""
    whole = net()
    expected = train(whole, digits(), RECIPE)
    monkeypatch.setattr(module, "SAVE_EVERY", every)
    with pytest.raises(Killed):
        train(net(), digits(), replace(RECIPE, augment=Failing(at, dies, [])), path=tmp_path)
    resumed, seen = net(), list[int]()
    training = train(resumed, digits(), replace(RECIPE, augment=Failing(99, dies, seen)), path=tmp_path)
    assert same(whole, resumed)
    assert (training.losses, training.rates, training.batches) == (
        expected.losses,
        expected.rates,
        expected.batches,
    )
    done = at if every == 0 else at // 4 * 4
    assert len(seen) == 12 - done  # nothing was done twice but what no checkpoint had


@pytest.mark.slow  # that of the cycles kills one, too
def test_a_process_killed_outright(tmp_path: Path) -> None:
    script = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
import test_train as t
t.module.SAVE_EVERY = 0.0
t.train(
    t.net(), t.digits(),
    t.replace(t.RECIPE, augment=t.Failing(6, lambda: os.kill(os.getpid(), signal.SIGKILL), [])),
    path=sys.argv[1],
)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)], check=False, env=os.environ
    )
    assert done.returncode == -signal.SIGKILL
    whole, resumed = net(), net()
    train(whole, digits(), RECIPE)
    train(resumed, digits(), RECIPE, path=tmp_path)
    assert same(whole, resumed)


def test_a_finished_training_is_read(tmp_path: Path) -> None:
    one, two = net(), net()
    first = train(one, digits(), RECIPE, path=tmp_path)
    second = train(two, digits(), replace(RECIPE, augment=Failing(0, dies, [])), path=tmp_path)
    assert same(one, two)
    assert first == second


def test_snapshots(tmp_path: Path) -> None:
    """What follows the first epoch does not change it."""
    train(net(), digits(), RECIPE, path=tmp_path, snapshots=(1, 3))
    early = net()
    train(early, digits(), replace(RECIPE, epochs=2), path=tmp_path / "b", snapshots=(1,))
    a, b = (read(folder / "epoch-001.safetensors") for folder in (tmp_path, tmp_path / "b"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (tmp_path / "epoch-003.safetensors").exists()
    with pytest.raises(sl.DataError, match="snapshots need a folder"):
        train(net(), digits(), RECIPE, snapshots=(1,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": replace(RECIPE, lr=0.04)}, "holds a training with other settings, recipe="),
        ({"seed": 1}, "seed=0, expected 1"),
        ({"data": digits(49)}, "examples=50, expected 49"),
        ({"data": (digits()[0] + 1, digits()[1])}, "other settings, data="),
        ({"model": net(1)}, "weights=.*the same weights as then"),
    ],
)
def test_a_foreign_folder_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    train(net(), digits(), RECIPE, path=tmp_path)
    arguments = {"model": net(), "data": digits(), "recipe": RECIPE, "path": tmp_path, **change}
    with pytest.raises(sl.DataError, match=message):
        train(**arguments)


def test_a_loss_that_is_not_finite_stops_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        value = nn.functional.cross_entropy(output, target, reduction="none")
        return value * float("nan") if len(calls) == 7 else value

    calls = list[int]()
    with pytest.raises(
        sl.CriterionError, match=r"stopped in epoch 2, step 3 of 4: .*nan.*Lower lr=0\.05.*last chec"
    ):
        train(net(), digits(), replace(RECIPE, loss=loss), path=tmp_path)
    resumed = net()
    training = train(resumed, digits(), replace(RECIPE, loss=loss), path=tmp_path)
    assert len(training.losses) == 3
    assert len(calls) == 7 + 8
    del calls[:]
    broken = net().eval()
    with pytest.raises(sl.CriterionError, match="Pass path= to keep checkpoints"):
        train(broken, digits(), replace(RECIPE, loss=loss))
    assert not broken.training
    assert all(parameter.grad is None for parameter in broken.parameters())


def test_what_is_held_is_let_go_in_the_end() -> None:
    events = list[str]()

    class Held:
        def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
            assert not optimizer.state
            self.hook = optimizer.register_step_post_hook(lambda *_: events.append("step"))

        def remove(self) -> None:
            self.hook.remove()
            events.append("removed")

    train(net(), digits(), replace(RECIPE, epochs=2), hold=Held)
    assert events == ["step"] * 8 + ["removed"]
    with pytest.raises(Killed):
        train(net(), digits(), replace(RECIPE, augment=Failing(1, dies, [])), hold=Held)
    assert events[-2:] == ["step", "removed"]

"""Learning rates by their numbers, and the paper's table."""

from __future__ import annotations

import math
from functools import partial

import pytest
from torch import nn

import shapleaf as sl
from shapleaf.retraining import (
    RECIPES,
    Constant,
    Cosine,
    CropFlip,
    Decay,
    Every,
    Milestones,
    Poly,
    Recipe,
    learning_rate,
)

STEPS = 391  # of 50,000 examples in batches of 128


def test_o17_the_rate_of_a_retrain() -> None:
    recipe = RECIPES["cifar-resnet"]
    assert learning_rate(recipe, 0, STEPS) == 0
    for epoch, rate in ((5, 0.1), (90.99, 0.1), (91, 0.01), (135.99, 0.01), (136, 0.001), (181.99, 0.001)):
        assert learning_rate(recipe, round(epoch * STEPS), STEPS) == pytest.approx(rate, rel=1e-12)


def test_warmup_is_a_line_per_step_and_overrides_the_decay() -> None:
    recipe = Recipe(epochs=10, lr=0.4, warmup=2, decay=Milestones((1,)))
    # 8 steps of warmup; the milestone at step 4 does not show before they are over
    rates = [learning_rate(recipe, step, 4) for step in range(10)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.04, 0.04])


@pytest.mark.parametrize(
    ("decay", "factors"),  # after 0, 2.5, 5, 7.5, 10 of 10 epochs
    [
        (Constant(), [1, 1, 1, 1, 1]),
        (Milestones((5, 7.5), 0.2), [1, 1, 0.2, 0.04, 0.04]),
        (Every(2, 0.5), [1, 0.5, 0.25, 0.125, 1 / 32]),
        (Poly(0.9), [1, 0.75**0.9, 0.5**0.9, 0.25**0.9, 0]),
        (Cosine(), [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
    ],
)
def test_decays(decay: Decay, factors: list[float]) -> None:
    assert [decay.factor(epoch, 10) for epoch in (0, 2.5, 5, 7.5, 10)] == pytest.approx(factors, abs=1e-15)
    assert isinstance(decay, Decay)


def test_the_papers_table() -> None:
    """Networks, batch, rate, decay of weights, Nesterov, epochs, warmup as in the configurations."""
    table = {
        "cifar-resnet": (128, 0.1, 1e-4, False, 182, 5),
        "cifar-vgg16": (256, 0.05, 5e-4, False, 300, 10),
        "cifar-vgg16-retrain": (256, 0.05, 5e-4, False, 150, 10),
        "cifar-wrn16-8": (128, 0.1, 5e-4, True, 200, 5),
        "cifar-densenet22": (64, 0.1, 1e-4, True, 300, 10),
        "imagenet-resnet": (256, 0.1, 1e-4, False, 90, 5),
        "voc-deeplabv3": (16, 0.02, 1e-4, False, 45, 0),
    }
    found = {
        name: (r.batch, r.lr, r.weight_decay, r.nesterov, r.epochs, r.warmup) for name, r in RECIPES.items()
    }
    assert found == table
    assert {r.momentum for r in RECIPES.values()} == {0.9}
    assert isinstance(RECIPES["cifar-resnet"].augment, CropFlip)


def test_it_prints_alike_in_every_process() -> None:
    recipe = Recipe(epochs=3)
    assert repr(recipe) == (
        "Recipe(epochs=3, batch=128, lr=0.1, momentum=0.9, weight_decay=0.0001, nesterov=False, "
        "decay=Cosine(), warmup=0, start=0, augment=None, loss=shapleaf._context.cross_entropy)"
    )
    assert recipe == Recipe(epochs=3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs=0 must be a whole number, at least 1"),
        ({"epochs": 2.0}, "epochs=2.0 must be a whole number"),
        ({"epochs": 2, "batch": True}, "batch=True must be a whole number"),
        ({"epochs": 2, "start": 2}, "start=2 must be before the end, epochs=2"),
        ({"epochs": 2, "lr": -0.1}, "lr=-0.1 must be a number, at least 0"),
        ({"epochs": 2, "warmup": math.nan}, "warmup=nan must be a number"),
        ({"epochs": 2, "weight_decay": math.inf}, "weight_decay=inf must be a number"),
        ({"epochs": 2, "nesterov": True, "momentum": 0.0}, "nesterov=True needs a momentum"),
    ],
)
def test_no_such_recipe(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(sl.DataError, match=message):
        Recipe(**wrong)


def test_a_recipe_prints_alike_in_every_process() -> None:
    """Else a training with a loss made by partial would never be gone on with."""
    smoothed = partial(nn.functional.cross_entropy, label_smoothing=0.1, reduction="none")
    told = repr(Recipe(epochs=1, loss=smoothed))
    assert "loss=functools.partial(<function cross_entropy>, label_smoothing=0.1" in told
    assert " at 0x" not in told

"""Attacks against loops over single examples, with nothing shared but the random start."""

import copy

import pytest
import torch
from torch import nn

from shapleaf.data import Batch
from shapleaf.errors import CriterionError, DataError
from shapleaf.shifts import FGSM, PGD
from shapleaf.shifts.draws import Draws

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)
EPS = 8 / 255


def net(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(6 * 36, 4)
    ).to(dtype)


def batch(count=5, dtype=torch.float64, first=0):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, 8, 8, generator=generator, dtype=torch.float64).to(dtype)
    images[:, :, 0] = 0  # the border of the range
    images[:, :, 1] = 1
    mean, std = (torch.tensor(value, dtype=dtype).view(3, 1, 1) for value in (MEAN, STD))
    return Batch((images - mean) / std, torch.arange(count) % 4, first)


def loss_and_gradient(model, inputs, label):
    inputs = inputs.clone().requires_grad_()
    loss = -model(inputs[None]).log_softmax(1)[0, label]
    return float(loss.detach()), torch.autograd.grad(loss, inputs)[0]


def projected(moved, start, eps):
    """Value by value."""
    moved = moved.clone()
    for channel in range(3):
        far = eps / STD[channel]
        low, high = (0 - MEAN[channel]) / STD[channel], (1 - MEAN[channel]) / STD[channel]
        for row in range(8):
            for col in range(8):
                centre = float(start[channel, row, col])
                value = min(max(float(moved[channel, row, col]), centre - far), centre + far)
                moved[channel, row, col] = min(max(value, low), high)
    return moved


def test_fgsm_is_a_loop():
    model, given = net().eval(), batch()
    found = FGSM(EPS, MEAN, STD).perturb(model, given)
    std = torch.tensor(STD, dtype=torch.float64).view(3, 1, 1)
    for example in range(5):
        _, gradient = loss_and_gradient(model, given.inputs[example], given.target[example])
        expected = projected(given.inputs[example] + EPS / std * gradient.sign(), given.inputs[example], EPS)
        assert torch.allclose(found.inputs[example], expected, atol=1e-12)
    assert (found.target, found.first) == (given.target, given.first)


@pytest.mark.parametrize("restarts", [1, 3])
def test_pgd_is_a_loop(restarts):
    model, given = net().eval(), batch(3, first=4)
    found = PGD(EPS, step=0.01, steps=4, restarts=restarts, seed=2, mean=MEAN, std=STD).perturb(model, given)
    std = torch.tensor(STD, dtype=torch.float64).view(3, 1, 1)
    for example in range(3):
        candidates = []
        for restart in range(restarts):
            start = 2 * Draws(2, "pgd", restart, ids=(4 + example,)).uniform(3, 8, 8)[0] - 1
            moved = projected(given.inputs[example] + EPS / std * start, given.inputs[example], EPS)
            for _ in range(4):
                _, gradient = loss_and_gradient(model, moved, given.target[example])
                moved = projected(moved + 0.01 / std * gradient.sign(), given.inputs[example], EPS)
            candidates.append((loss_and_gradient(model, moved, given.target[example])[0], moved))
        best = max(candidates, key=lambda candidate: candidate[0])[1]
        assert torch.allclose(found.inputs[example], best, atol=1e-12)


@pytest.mark.parametrize("attack", [FGSM(EPS, MEAN, STD), PGD(EPS, mean=MEAN, std=STD)])
def test_attacks_stay_near_and_in_range_and_raise_the_loss(attack):
    model, given = net(torch.float32).eval(), batch(dtype=torch.float32)
    found = attack.perturb(model, given).inputs
    assert found.dtype == torch.float32
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    before, after = given.inputs * std + mean, found * std + mean
    assert float((after - before).abs().max()) == pytest.approx(EPS, abs=1e-6)
    assert float(after.min()) >= -1e-6
    assert float(after.max()) <= 1 + 1e-6
    losses = [nn.functional.cross_entropy(model(x), given.target).item() for x in (given.inputs, found)]
    assert losses[1] > losses[0] + 0.1


def test_more_steps_and_restarts_are_stronger():
    model, given = net().eval(), batch(8)

    def loss(attack):
        with torch.no_grad():
            return float(
                nn.functional.cross_entropy(model(attack.perturb(model, given).inputs), given.target)
            )

    one, many = (loss(PGD(EPS, steps=steps, mean=MEAN, std=STD)) for steps in (1, 10))
    assert loss(PGD(EPS, steps=10, restarts=3, mean=MEAN, std=STD)) >= many > one


def test_zero_eps_changes_nothing():
    given = batch()
    for attack in (FGSM(0, MEAN, STD), PGD(0, mean=MEAN, std=STD), PGD(0, step=0.1, mean=MEAN, std=STD)):
        assert torch.equal(attack.perturb(net(), given).inputs, given.inputs)


@pytest.mark.parametrize("attack", [FGSM(EPS, MEAN, STD), PGD(EPS, steps=2, mean=MEAN, std=STD)])
@pytest.mark.parametrize("surroundings", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_model_is_left_as_it_was_found(attack, surroundings):
    model, given = net().train(), batch()
    model[3].eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[5].weight.requires_grad_(False)
    before, inputs = copy.deepcopy(model.state_dict()), given.inputs.clone()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    with surroundings():
        found = attack.perturb(model, given)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [parameter.grad is None for parameter in model.parameters()] == [False, *[True] * 5]
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert [parameter.requires_grad for parameter in model.parameters()] == [*[True] * 4, False, True]
    assert torch.equal(given.inputs, inputs)
    assert not found.inputs.requires_grad
    assert torch.equal(found.inputs, attack.perturb(net().eval(), given).inputs)


def test_random_starts_belong_to_the_example():
    model, attack = net().eval(), PGD(EPS, steps=2, mean=MEAN, std=STD)
    given = batch(6)
    parts = torch.cat([attack.perturb(model, given[start : start + 2]).inputs for start in (0, 2, 4)])
    assert torch.allclose(attack.perturb(model, given).inputs, parts, atol=1e-12)
    other = PGD(EPS, steps=2, seed=1, mean=MEAN, std=STD).perturb(model, given).inputs
    assert not torch.allclose(other, parts)


def test_images_may_be_named():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net().eval()

        def forward(self, pixel_values):
            return {"logits": self.net(pixel_values)}

    given = batch()
    named = Batch({"pixel_values": given.inputs}, given.target)
    attack = FGSM(EPS, MEAN, STD)
    found = attack.perturb(Wrapped(), named).inputs["pixel_values"]
    assert torch.equal(found, attack.perturb(net().eval(), given).inputs)


def test_names():
    assert FGSM(8 / 255).name == "FGSM 8/255"
    assert FGSM(0.3).name == "FGSM 0.3"
    assert PGD(2 / 255, steps=20).name == "PGD-20 2/255"
    assert FGSM(0).name == "FGSM 0"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FGSM(-0.1), "eps must be a finite number of at least 0"),
        (lambda: PGD(float("nan")), "eps must be"),
        (lambda: PGD(0.1, step=0), "step must be above 0"),
        (lambda: PGD(0.1, steps=0), "steps and restarts must be at least 1, received 0 and 1"),
        (lambda: FGSM(0.1, mean=(0.5,)), "both mean and std"),
    ],
)
def test_what_is_no_attack(make, message):
    with pytest.raises(DataError, match=message):
        make()


def test_what_cannot_be_attacked():
    given = batch()
    with pytest.raises(DataError, match=r"FGSM 0.1 needs images in \[0, 1\], received -2.* pass the mean="):
        FGSM(0.1).perturb(net(), given)
    with pytest.raises(DataError, match="needs labels, but the batch at example 0 has none"):
        FGSM(0.1, MEAN, STD).perturb(net(), Batch(given.inputs))
    with pytest.raises(DataError, match="mean and std are of 3 channels"):
        FGSM(0.1, MEAN, STD).perturb(net(), Batch(given.inputs[:, :1], given.target))
    with pytest.raises(DataError, match="labels run from 0 to 3, but the model has 2 classes"):
        FGSM(0.1, MEAN, STD).perturb(nn.Sequential(nn.Flatten(), nn.Linear(192, 2).double()), given)

    class Steps(nn.Module):
        def forward(self, inputs):
            return inputs.detach().flatten(1)[:, :4]

    with pytest.raises(CriterionError, match="differentiable"):
        FGSM(0.1, MEAN, STD).perturb(Steps(), given)

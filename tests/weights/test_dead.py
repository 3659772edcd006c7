"""Dead parameters: only what the outputs do not notice, and constants are no such thing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import shapleaf as sl
from shapleaf.weights import dead, nonzeros
from zoo import Apply, conv, example, settle, state


def chain(act: nn.Module, bias: float = 1.0) -> nn.Module:
    model = settle(nn.Sequential(nn.Linear(3, 4), act, nn.Linear(4, 2)))
    model[0].bias.data.fill_(bias)
    return model


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def test_what_nothing_reads_is_dead() -> None:
    model = chain(nn.ReLU(), bias=20)
    model[2].weight.data[:, 1] = 0
    before = state(model)
    found = dead(model, example(9, 3), names(model))
    assert state(model) == before
    assert [*found] == ["0.weight", "0.bias"]
    assert found["0.weight"].tolist() == [[i == 1] * 3 for i in range(4)]
    assert found["0.bias"].tolist() == [False, True, False, False]


def test_what_reads_zeros_is_dead() -> None:
    model = chain(nn.ReLU(), bias=20)
    model[0].bias.data[2] = -20  # its ReLU is off
    inputs = example(9, 3)
    inputs[:, 0] = 0
    found = dead(model, [inputs[:4], inputs[4:]], names(model))
    assert found["0.weight"].tolist() == [[True, i == 2, i == 2] for i in range(4)]
    assert found["2.weight"].tolist() == [[False, False, True, False]] * 2
    assert found["0.bias"].tolist() == [False, False, True, False]


def test_all_data_count() -> None:
    model = nn.Linear(2, 1, bias=False)
    data = torch.eye(2)
    assert dead(model, data, ["weight"]) == {}
    assert dead(model, data[:1], ["weight"])["weight"].tolist() == [[False, True]]


def test_h1_constant_inputs_are_not_dropped() -> None:
    """The reference drops what reads a constant: here relu(bias) and a BatchNorm's offset feed a layer."""
    model = settle(
        nn.Sequential(
            conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 5), nn.Tanh(), nn.Flatten(), nn.Linear(80, 3)
        )
    )
    with torch.no_grad():
        model[0].weight[1] = 0  # a pruned filter: its channel is relu(norm(bias)), the same everywhere
        model[1].bias.fill_(0.8)
    data = example(6, 3, 4, 4)
    hidden = model[:3](data)[:, 1].detach()
    assert float(hidden.std()) < 1e-12 < float(hidden.mean())
    found = dead(model, data, names(model))
    assert not found.get("3.weight", torch.zeros(5, 4, 3, 3))[:, 1].any()
    masks = sl.sparsify(model, sl.Nonzeros(keep=nonzeros(model)), sl.Magnitude(), data)
    assert torch.equal(sl.sparsified(model, masks)(data), model(data))
    assert "3.weight" in {mask.parameter for mask in masks}


def test_saturated_activations_are_not_dropped() -> None:
    """Their gradient is zero, but without their weights they would return something else."""
    model = chain(nn.Hardtanh(), bias=50)
    data = example(9, 3)
    found = dead(model, data, names(model))
    assert "0.bias" not in found
    copy = settle(chain(nn.Hardtanh()))
    copy.load_state_dict(model.state_dict())
    with torch.no_grad():
        for name, gone in found.items():
            copy.get_parameter(name)[gone] = 0
    assert torch.equal(copy(data), model(data))


def test_one_saturated_tensor_does_not_save_the_others() -> None:
    model = settle(nn.Sequential(nn.Linear(3, 2), nn.Hardtanh(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))
    model[0].bias.data.fill_(50)
    model[2].bias.data[:] = torch.tensor([-50.0, 50])
    found = dead(model, example(5, 3), names(model))
    assert "0.bias" not in found
    assert found["4.weight"].tolist() == [[True, False]] * 2


def test_what_eval_mode_does_not_use_is_not_dead() -> None:
    model = Apply(
        lambda self, x: (self.a(x), self.b(x)) if self.training else self.a(x),
        a=nn.Linear(3, 2), b=nn.Linear(3, 2),
    ).double()  # fmt: skip
    assert dead(model, example(4, 3), names(model)) == {}


def test_probabilities_do_not_cancel() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Softmax(1)).double()
    assert dead(model, example(4, 3), names(model)) == {}


def test_a_model_without_gradient() -> None:
    class Hard(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x).argmax(1)

    with pytest.raises(sl.CriterionError, match=r"use sparsify\(sweep=False\)"):
        dead(Hard(), torch.ones(2, 3), ["fc.weight"])


def test_a_norm_goes_before_what_it_reads() -> None:
    """Behind a norm whose ReLU is off only all of a unit's parameters together can go, and only the norm's
    scale alone; a saturated layer elsewhere makes them be tried by halves."""
    model = settle(
        nn.Sequential(
            nn.Linear(3, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 2), nn.Hardtanh(), nn.Linear(2, 2)
        )
    )
    with torch.no_grad():
        model[1].running_mean.copy_(torch.tensor([-90.0, 0]))  # zero becomes large, unless the scale is zero
        model[0].bias.copy_(torch.tensor([-500.0, 20]))
        model[1].bias.fill_(-1)
        model[3].bias.copy_(torch.tensor([50.0, 0]))
        model[3].weight.mul_(0.01)
    data = example(7, 3)
    assert not model[:3](data)[:, 0].any()
    found = dead(model, data, names(model))
    for name in ("0.weight", "1.weight", "1.bias", "0.bias"):
        assert found[name].flatten(1 if found[name].ndim > 1 else 0).tolist() in (
            [True, False],
            [[True] * 3, [False] * 3],
        )
    assert "3.bias" not in found
    assert found["3.weight"].tolist()[1] == [True, False]


def test_corners_of_a_kernel_that_read_padding_only() -> None:
    model = nn.Sequential(conv(2, 3), nn.Flatten()).double()
    found = dead(model, example(4, 2, 1, 1), names(model))
    centre = torch.zeros(3, 3, dtype=torch.bool)
    centre[1, 1] = True
    assert torch.equal(found["0.weight"], (~centre).expand(3, 2, 3, 3))

"""PFP: the numbers of the spec through real layers, and how many examples are enough."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from zoo import NETS, Apply, conv, example, head, settle, state

KERNELS = ("max", "sum")


def pfp(model: nn.Module, data: Any, kernel: Any = "max", **options: Any) -> sl.Scores:
    inputs = data[0] if isinstance(data, list | tuple) else data
    return sl.attribute(model, sl.trace(model, inputs[:1]), data, sl.PFP(kernel), **options)


def before(layer: nn.Module, units: int) -> nn.Module:
    """A layer that reads units which are the inputs themselves."""
    model = nn.Sequential(nn.Linear(units, units, bias=False), layer).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(units))
    return model


def linear(weight: Any, bias: float = 0.0) -> nn.Linear:
    rows = torch.tensor(weight).double()
    layer = nn.Linear(rows.shape[1], rows.shape[0]).double()
    with torch.no_grad():
        layer.weight.copy_(rows)
        layer.bias.fill_(bias)
    return layer


@pytest.mark.parametrize("bias", [0.0, 7.0])
@pytest.mark.parametrize("kernel", KERNELS)
def test_o1_channels_of_a_linear_layer(kernel: str, bias: float) -> None:
    model = before(linear([[1, -2, 3], [0.5, 0, -1]], bias), 3)
    data = torch.tensor([[1, 2, 0.5], [0, 1, 1]]).double()
    assert pfp(model, data, kernel).values["0"].tolist() == [1, 1, 1]
    one = before(linear([[1, -2, 3]], bias), 3)
    assert pfp(one, data[:1], kernel).values["0"].tolist() == pytest.approx([0.4, 1, 0.6])


def test_o3_negative_inputs() -> None:
    model = before(linear([[2, 1, -1]]), 3)
    for inputs, expected in (([1.0, -1, -3], [1, 1, 1]), ([1.0, 1, 1], [2 / 3, 1 / 3, 1])):
        found = pfp(model, torch.tensor([inputs]).double()).values["0"].tolist()
        assert found == pytest.approx(expected)


@pytest.mark.parametrize(("kernel", "expected"), [("max", [1 / 7, 3 / 7]), ("sum", [4 / 7, 3 / 7])])
def test_o3_a_kernel_counts_by_its_largest_weight_or_its_sum(kernel: str, expected: list[float]) -> None:
    """Four weights of one against one of three."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 2), nn.Flatten()).double()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[1].weight.zero_()
        model[1].weight[0, 0] = 1.0
        model[1].weight[0, 1, 0, 0] = 3.0
    data = torch.ones(2, 1, 2, 2).double()
    assert pfp(model, data, kernel).values["0"].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("kernel", "expected"), [("max", [0.4, 0.5]), ("sum", [0.5, 0.5])])
def test_a_flattened_map_is_one_unit(kernel: str, expected: list[float]) -> None:
    """What the classifier reads of a channel, 1 + 4 and 0 + 5 of ten, as PFP does with kernels."""
    model = nn.Sequential(nn.Conv1d(1, 2, 1, bias=False), nn.Flatten(), linear([[1, 4, 0, 5]])).double()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    assert pfp(model, torch.ones(1, 1, 2).double(), kernel).values["0"].tolist() == pytest.approx(expected)


def test_the_largest_of_several_readers_counts() -> None:
    def call(self: Any, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(h) + self.c(h)

    readers = {"b": linear([[1, 2, 1]]), "c": linear([[3, 1, 0]])}
    model = Apply(call, a=linear(torch.eye(3).tolist()), **readers)
    found = pfp(model, torch.ones(1, 3).double()).values["a"].tolist()
    assert found == pytest.approx([3 / 4, 2 / 4, 1 / 4])


def small() -> nn.Module:
    return settle(
        nn.Sequential(
            conv(3, 6), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), conv(6, 5), nn.ReLU(), head(5)
        )
    )


MAPS = example(10, 3, 8, 8)


@pytest.mark.parametrize("kernel", KERNELS)
def test_o4_scores_do_not_depend_on_batches_and_only_rise_with_examples(kernel: str) -> None:
    model = small()
    kept = state(model)
    whole = pfp(model, MAPS, kernel)
    parts = pfp(model, [MAPS[:1], MAPS[1:4], MAPS[4:]], kernel)
    fewer = pfp(model, MAPS[:4], kernel)
    for name, values in whole.values.items():
        assert torch.allclose(parts.values[name], values, rtol=1e-12)
        assert (fewer.values[name] <= values + 1e-12).all()
        assert ((values > 0) & (values <= 1)).all()
    assert state(model) == kept
    assert (whole.samples, whole.settings["aggregate"]) == (10, "none")


def test_o4_scales_do_not_matter_and_dead_units_are_nothing() -> None:
    model = small()
    whole = pfp(model, MAPS).values
    with torch.no_grad():
        model[4].weight.mul_(torch.tensor([3.0, 0.1, 2.0, 5.0, 1.0]).view(-1, 1, 1, 1))
        model[4].bias.fill_(-2.0)
    assert torch.allclose(pfp(model, MAPS).values["0"], whole["0"])
    with torch.no_grad():
        model[1].weight[2], model[1].bias[2] = 0.0, -1.0  # never above zero
    assert pfp(model, MAPS).values["0"].argmin() == 2
    assert pfp(model, MAPS).values["0"][2] == 0


def test_against_the_definition() -> None:
    """All places, outputs and features of a convolution, one by one."""
    model = settle(nn.Sequential(conv(3, 4), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2, padding=1), head(5)))
    read = F.relu(model[0](MAPS[:3]))
    rows = F.unfold(read, 3, stride=2, padding=1).mT.unflatten(
        2, (4, 9)
    )  # examples, places, channels, kernel
    expected = {kernel: torch.zeros(4).double() for kernel in KERNELS}
    for weight in model[2].weight.detach().unflatten(1, (4,)).flatten(2):
        for sign in (1, -1):
            terms = rows * (sign * weight).clamp(min=0)
            share = terms / terms.sum((2, 3), keepdim=True).clamp_min(1e-300)
            expected["max"] = expected["max"].maximum(share.amax((0, 1, 3)))
            expected["sum"] = expected["sum"].maximum(share.sum(3).amax((0, 1)))
    for kernel, values in expected.items():
        assert torch.allclose(pfp(model, MAPS[:3], kernel).values["0"], values)


@pytest.mark.parametrize("name", sorted(set(NETS) - {"functional"}))
def test_every_net_is_scored_and_allocated(name: str) -> None:
    model, inputs = NETS[name]()
    if isinstance(inputs, dict):
        inputs = {key: value for key, value in inputs.items() if isinstance(value, Tensor)}
    graph, kept = sl.trace(model, inputs), state(model)
    read = [group.name for group in graph if any(site.weight for site in group.sites)]
    for kernel in KERNELS:
        scores = sl.attribute(model, graph, [(inputs, None)], sl.PFP(kernel), groups=read)
        for values in scores.values.values():
            assert ((values >= 0) & (values <= 1 + 1e-9)).all()
    assert state(model) == kept
    plan = sl.allocate(scores, sl.Units(keep=0.5), strategy=sl.ErrorLevel(), multiple_of=1)
    assert plan.after.units < plan.before.units
    sl.prune(model, plan)


def test_h1_inputs_are_never_pruned() -> None:
    """The reference code cuts the first layer's three colours; here they are no units of any group."""
    model = small()
    scores = pfp(model, MAPS)
    plan = sl.allocate(scores, sl.Params(keep=0.1), strategy=sl.ErrorLevel(), multiple_of=1)
    pruned = sl.prune(model, plan).model
    assert pruned[0].in_channels == 3
    assert pruned[0].out_channels < 6
    assert pruned[6][2].out_features == 3
    assert pruned(MAPS).shape == (10, 3)


def test_a_group_that_no_weights_read_is_refused() -> None:
    model = settle(Apply(lambda self, x: F.relu(self.a(x)).sum(1, keepdim=True), a=nn.Linear(6, 8)))
    with pytest.raises(sl.CriterionError, match="group a is read by no layer with weights"):
        pfp(model, example(5, 6))


def test_bad_arguments() -> None:
    with pytest.raises(sl.CriterionError, match='"max" or "sum", received'):
        sl.PFP("mean")
    with pytest.raises(sl.DataError, match="data"):
        sl.attribute(small(), sl.trace(small(), MAPS[:1]), None, sl.PFP())
    with pytest.raises(sl.StaleGraphError):
        sl.attribute(small(), sl.trace(mlp(), torch.zeros(1, 1, 28, 28)), MAPS, sl.PFP())
    with pytest.raises(sl.CriterionError, match="probability"):
        sl.sample_size(nn.Linear(2, 2), torch.zeros(1, 2), delta=0.0)
    with pytest.raises(sl.DataError, match="no layer that multiplies"):
        sl.sample_size(nn.ReLU(), torch.zeros(1, 2))


class Block(nn.Module):
    """Two convolutions, and a 1 x 1 one beside them where the shape changes."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        stride = o // i
        self.a, self.b = conv(i, o, stride=stride, bias=False), conv(o, o, bias=False)
        self.side = nn.Conv2d(i, o, 1, stride=stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.side(x) + self.b(F.relu(self.a(x))))


def resnet20() -> nn.Module:
    widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    blocks = [Block(i, o) for i, o in pairwise(widths)]
    return nn.Sequential(conv(3, 16, bias=False), *blocks, head(64, 10))


def vgg16() -> nn.Module:
    layers: list[nn.Module] = []
    width = 3
    for block in ([64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3):
        for out in block:
            layers += [conv(width, out), nn.BatchNorm2d(out), nn.ReLU()]
            width = out
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))


def mlp() -> nn.Module:
    layers = [nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
    return nn.Sequential(nn.Flatten(), *layers)


@pytest.mark.parametrize(
    ("build", "shape", "expected"),
    [(resnet20, (3, 32, 32), 183), (vgg16, (3, 32, 32), 188), (mlp, (1, 28, 28), 152)],
)
def test_o12_sample_size(build: Any, shape: tuple[int, ...], expected: int) -> None:
    model = build()
    assert sl.sample_size(model, torch.zeros(1, *shape)) == expected
    assert sl.sample_size(model, torch.zeros(2, *shape)) == expected
    assert sl.sample_size(model, torch.zeros(1, *shape), available=100) == 50
    assert sl.sample_size(model, torch.zeros(1, *shape), available=10_000) == expected


def test_o12_depthwise_layers_do_not_count() -> None:
    plain = nn.Sequential(conv(3, 4), head(4))
    depthwise = nn.Sequential(conv(3, 4), conv(4, 4, groups=4), head(4))
    inputs = torch.zeros(1, 3, 6, 6)
    assert sl.sample_size(plain, inputs) == sl.sample_size(depthwise, inputs)

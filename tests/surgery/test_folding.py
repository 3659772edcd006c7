"""Mean folding: what removed units gave on average, given by what stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.masking import Masked
from zoo import NETS, Apply, conv, example, gap, half_plan, head, random_plan, run, settle, state

VECTORS, MAPS = example(40, 6, seed=3), example(12, 3, 6, 6, seed=3)


def folded(model: nn.Module, data: Tensor, seed: int = 0) -> tuple[nn.Module, Masked, sl.Receipt]:
    """The model pruned with means folded in, the model masked with those means, and the receipt."""
    plan = random_plan(sl.trace(model, data[:2]), seed)
    assert plan.pruned
    pruned, receipt = sl.prune(model, plan, compensate=sl.FoldMean([data]))
    return pruned, sl.masked(model, plan, removal=sl.CalibrationMean([data])), receipt


def linear(bias: bool = True) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7, bias=bias), nn.ReLU(), nn.Linear(7, 3, bias=bias)
    )


def chain(*layers: nn.Module) -> Callable[[], nn.Module]:
    """ReLU between these layers."""
    return lambda: nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])


def joined() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.c(torch.cat([F.relu(self.a(x)), torch.tanh(self.b(x))], 1))

    return Apply(run, a=nn.Linear(6, 5), b=nn.Linear(6, 4), c=nn.Linear(9, 2, bias=False))


def normalised(norm: nn.Module, *layers: nn.Module) -> Callable[[], nn.Module]:
    """A convolution or Linear without bias, read by a BatchNorm."""
    first, second, last = layers
    return lambda: nn.Sequential(first, nn.ReLU(), second, norm, nn.ReLU(), last)


def attending(same: bool) -> nn.Module:
    """Attention that reads units, and whose heads are units: biases whole, and in parts."""

    def run(self: Any, x: Tensor) -> Tensor:
        q, k = self.q(x), self.k(x)
        read = (q, q, q) if same else (q, k, k + 1)
        return self.out(self.attention(*read)[0])

    layers = {name: nn.Linear(6, 8) for name in "qk"}
    return Apply(run, **layers, attention=nn.MultiheadAttention(8, 4, batch_first=True), out=nn.Linear(8, 2))


def fused() -> nn.Module:
    """``addmm`` with the bias first, as GPT-2 has it."""

    def run(self: Any, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, F.relu(self.a(x)), self.weight)

    model = Apply(run, a=nn.Linear(6, 8))
    model.weight, model.bias = nn.Parameter(torch.randn(8, 3)), nn.Parameter(torch.randn(3))
    return model


EXACT: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "linear": (linear, VECTORS),
    "linear without bias": (lambda: linear(bias=False), VECTORS),
    "linear behind maps": (
        lambda: nn.Sequential(conv(3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3, bias=False)),
        MAPS,
    ),
    "unpadded": (chain(conv(3, 5), conv(5, 6, padding=0), conv(6, 2, 1, bias=False)), MAPS),
    "into BatchNorm": (normalised(nn.BatchNorm2d(6), conv(3, 5), conv(5, 6, 1, bias=False), head(6)), MAPS),
    "into a BatchNorm without affine": (
        normalised(
            nn.BatchNorm1d(5, affine=False), nn.Linear(6, 8), nn.Linear(8, 5, bias=False), nn.Linear(5, 2)
        ),
        VECTORS,
    ),
    "transposed": (chain(conv(3, 5), nn.ConvTranspose2d(5, 6, 1), head(6)), MAPS),
    "transposed without bias": (chain(conv(3, 5), nn.ConvTranspose2d(5, 6, 1, bias=False), head(6)), MAPS),
    "two groups in one argument": (joined, VECTORS),
    "attention to itself": (lambda: attending(same=True), example(5, 7, 6, seed=3)),
    "attention to others": (lambda: attending(same=False), example(5, 7, 6, seed=3)),
    "addmm": (fused, VECTORS),
    "one dimension": (chain(nn.Conv1d(3, 5, 3), nn.Conv1d(5, 4, 3, bias=False)), MAPS.flatten(2)),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("seed", [0, 1])
def test_folding_is_masking_by_means(name: str, seed: int) -> None:
    build, data = EXACT[name]
    pruned, masked, _ = folded(settle(build()), data, seed)
    x = data + 1
    assert gap(run(masked, x), run(pruned, x)) < 1e-12


def test_by_hand() -> None:
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [3.0]]))
        model[1].weight.copy_(torch.tensor([[1.0, 10.0]]))
        model[1].bias.fill_(0.5)
    data = torch.tensor([[1.0], [2.0], [6.0]]).double()  # unit 1 has mean 9
    plan = sl.plan(sl.trace(model, data), {"0": [0]})
    pruned = sl.prune(model, plan, compensate=sl.FoldMean([data])).model
    assert pruned[1].bias.item() == 90.5
    assert pruned(data).flatten().tolist() == [91.5, 92.5, 96.5]


def test_behind_padding_the_mean_over_all_places_is_folded() -> None:
    """The border differs, the average does not."""
    model = settle(nn.Sequential(conv(3, 5), nn.ReLU(), conv(5, 6)))
    pruned, masked, _ = folded(model, MAPS)
    expected, received = run(masked, MAPS)[0], run(pruned, MAPS)[0]
    assert gap([expected.mean((0, 2, 3))], [received.mean((0, 2, 3))]) < 1e-12
    assert gap([expected], [received]) > 1e-3


def test_where_the_mean_goes() -> None:
    """Into the bias; else into the BatchNorm that alone reads the consumer; else into a new bias."""

    def run(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.h(F.relu(self.norm(self.b(x))) + self.c(x) + self.d(x))

    build = lambda: settle(  # noqa: E731
        Apply(
            run,
            a=conv(3, 5),
            b=conv(5, 6, bias=False),
            norm=nn.BatchNorm2d(6),
            c=conv(5, 6, bias=False),
            d=conv(5, 6),
            h=head(6),
        )
    )
    model = build()
    plan = sl.plan(sl.trace(model, MAPS[:1]), {"a": [0, 2]})
    pruned, receipt = sl.prune(model, plan, compensate=sl.FoldMean([MAPS]))
    assert receipt.biases == (("c", 6),)
    assert receipt.compensation == "FoldMean()"
    assert pruned.b.bias is None
    assert pruned.c.bias.shape == (6,)
    assert pruned.c.bias.dtype == torch.float64
    assert not torch.equal(pruned.norm.running_mean, model.norm.running_mean)
    assert not torch.equal(pruned.d.bias, model.d.bias)
    assert model.c.bias is None
    again = sl.replay(build(), receipt)
    again.load_state_dict(pruned.state_dict(), strict=True)
    assert torch.equal(again(MAPS), pruned(MAPS))


def test_a_new_bias_is_cut_like_the_outputs_of_its_weight() -> None:
    for layer in (conv(5, 6, 1, bias=False), nn.ConvTranspose2d(5, 6, 1, bias=False)):
        model = settle(nn.Sequential(conv(3, 5), nn.ReLU(), layer, nn.ReLU(), head(6)))
        plan = sl.plan(sl.trace(model, MAPS[:1]), {"0": [0, 2], "2": [1, 3, 4]})
        pruned, receipt = sl.prune(model, plan, compensate=sl.FoldMean([MAPS]))
        assert pruned[2].bias.shape == (3,)
        assert receipt.biases == (("2", 3),)
        masked = sl.masked(model, plan, removal=sl.CalibrationMean([MAPS]))
        assert gap(run(masked, MAPS), run(pruned, MAPS)) < 1e-12


def test_a_frozen_weight_gets_a_frozen_bias() -> None:
    model = settle(linear(bias=False))
    model[2].weight.requires_grad_(False)
    pruned, _, _ = folded(model, VECTORS)
    assert not pruned[2].bias.requires_grad
    assert pruned[4].bias.requires_grad


def test_a_shared_module_gets_the_average_over_its_calls() -> None:
    model, _ = NETS["shared"]()
    plan = sl.plan(sl.trace(model, VECTORS[:2]), {"first": [0, 3, 5]})
    pruned = sl.prune(model, plan, compensate=sl.FoldMean([VECTORS])).model
    means = []
    with torch.no_grad():
        x = model.first(VECTORS).relu()
        means.append(x.mean(0))
        means.append(model.twice(x).relu().mean(0))
    gone = [1, 2, 4, 6, 7]
    shift = sum(model.twice.weight[:, gone] @ mean[gone] for mean in means) / 2
    assert torch.allclose(pruned.twice.bias, (model.twice.bias + shift)[[0, 3, 5]], atol=1e-12)


@pytest.mark.filterwarnings("ignore:compensation made the error")  # the network is not trained
def test_two_calls_with_a_batch_norm_each_get_their_own() -> None:
    def run_(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.h(F.relu(self.n1(self.b(x))) + F.relu(self.n2(self.b(x * x))))

    model = settle(
        Apply(
            run_,
            a=conv(3, 5),
            b=conv(5, 6, 1, bias=False),
            n1=nn.BatchNorm2d(6),
            n2=nn.BatchNorm2d(6),
            h=head(6),
        )
    )
    plan = sl.plan(sl.trace(model, MAPS[:1]), {"a": [0, 3]})
    pruned, receipt = sl.prune(model, plan, compensate=sl.FoldMean([MAPS]))
    masked = sl.masked(model, plan, removal=sl.CalibrationMean([MAPS]))
    assert gap(run(masked, MAPS), run(pruned, MAPS)) < 1e-12
    assert receipt.biases == ()


def test_two_convolutions_before_one_batch_norm_get_biases() -> None:
    def run_(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.h(F.relu(self.n(self.b(x))) + F.relu(self.n(self.c(x * x))))

    model = settle(
        Apply(
            run_,
            a=conv(3, 5),
            b=conv(5, 6, 1, bias=False),
            c=conv(5, 6, 1, bias=False),
            n=nn.BatchNorm2d(6),
            h=head(6),
        )
    )
    plan = sl.plan(sl.trace(model, MAPS[:1]), {"a": [0, 3]})
    pruned, receipt = sl.prune(model, plan, compensate=sl.FoldMean([MAPS]))
    masked = sl.masked(model, plan, removal=sl.CalibrationMean([MAPS]))
    assert gap(run(masked, MAPS), run(pruned, MAPS)) < 1e-12
    assert receipt.biases == (("b", 6), ("c", 6))


def test_a_tied_weight_gives_each_module_its_own_mean() -> None:
    def run_(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.b(x) * self.c(x * x)

    model = Apply(run_, a=nn.Linear(6, 8), b=nn.Linear(8, 3), c=nn.Linear(8, 3, bias=False))
    model.c.weight = model.b.weight
    settle(model)
    pruned, masked, receipt = folded(model, VECTORS)
    assert gap(run(masked, VECTORS), run(pruned, VECTORS)) < 1e-12
    assert receipt.biases == (("c", 3),)
    assert pruned.b.weight is pruned.c.weight


def test_consumers_without_weights_get_nothing() -> None:
    model = settle(
        Apply(
            lambda self, x: self.b(x) * F.relu(self.a(x)).sum(1, keepdim=True),
            a=nn.Linear(6, 8),
            b=nn.Linear(6, 2),
        )
    )
    plan = half_plan(sl.trace(model, VECTORS[:1]))
    pruned, receipt = sl.prune(model, plan, compensate=sl.FoldMean([VECTORS]))
    assert receipt.biases == ()
    assert torch.equal(pruned.b.bias, model.b.bias)


class Rotated(nn.Linear):
    """Reads with another parameter than the one its bias was made for."""

    def __init__(self) -> None:
        super().__init__(6, 6)
        self.rotation = nn.Parameter(torch.zeros(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.rotation)


def test_weights_without_a_layer_are_refused() -> None:
    """Also those of a layer that something else reads in another way."""
    functional, _ = NETS["functional"]()
    transposed = settle(
        Apply(lambda self, x: F.linear(F.relu(self.a(x)), self.a.weight.t()), a=nn.Linear(6, 6))
    )
    rotated = settle(nn.Sequential(nn.Linear(6, 6), nn.ReLU(), Rotated()))
    for model, reader in (
        (functional, "w2, which :"),
        (transposed, "a.weight, which :linear#0"),
        (rotated, "2.rotation, which 2:linear#0"),
    ):
        plan = half_plan(sl.trace(model, VECTORS[:2]))
        before = state(model)
        with pytest.raises(sl.PlanError, match=f"no place for a mean behind {reader}"):
            sl.prune_(model, plan, compensate=sl.FoldMean([VECTORS]))
        assert state(model) == before


def test_data_needs_no_labels_and_comes_in_any_batches() -> None:
    model = settle(linear())
    plan = half_plan(sl.trace(model, VECTORS[:1]))
    labelled = [(VECTORS[:7], torch.zeros(7)), (VECTORS[7:], torch.zeros(33))]
    for data in ([VECTORS[:25], VECTORS[25:]], labelled, (VECTORS, torch.zeros(40))):
        a = sl.prune(model, plan, compensate=sl.FoldMean([VECTORS])).model
        b = sl.prune(model, plan, compensate=sl.FoldMean(data)).model
        assert gap(run(a, VECTORS), run(b, VECTORS)) < 1e-12


def test_nothing_to_prune_folds_nothing() -> None:
    model = settle(linear(bias=False))
    pruned, receipt = sl.prune(
        model, sl.plan(sl.trace(model, VECTORS[:1]), {}), compensate=sl.FoldMean([VECTORS])
    )
    assert receipt.biases == ()
    assert torch.equal(pruned(VECTORS), model(VECTORS))


def test_in_place_the_compensated_model_trains_on() -> None:
    model = settle(linear(bias=False))
    plan = half_plan(sl.trace(model, VECTORS[:1]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model(VECTORS).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    masked = run(sl.masked(model, plan, removal=sl.CalibrationMean([VECTORS])), VECTORS)
    receipt = sl.prune_(model, plan, optimizer=optimizer, compensate=sl.FoldMean([VECTORS]))
    assert gap(masked, run(model, VECTORS)) < 1e-12
    assert receipt.biases == (("2", 4), ("4", 3))
    model(VECTORS).sum().backward()
    optimizer.step()

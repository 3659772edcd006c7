"""Units that tell nothing: found wherever they are, and removed without a trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf import _context
from zoo import NETS, Apply, conv, example, head, settle, state

MAPS = example(12, 3, 8, 8)


# Leaky activations, so that nothing is constant by chance.


def unpadded(i: int, o: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, **options)


def silence(layer: Any, *units: int) -> None:
    """Only the bias is left of some filters."""
    with torch.no_grad():
        layer.weight[list(units)] = 0.0


def removed(model: nn.Module, data: Any = MAPS, **options: Any) -> tuple[sl.Plan, sl.records.Receipt, float]:
    """The plan, the receipt, and by how much the outputs change, relative to the largest."""
    kept = state(model)
    plan = sl.idle(model, sl.trace(model, data[:1]), data, **options)
    pruned, receipt = sl.prune(model, plan, compensate=sl.FoldMean(data))
    assert state(model) == kept
    with torch.no_grad():
        before, after = model(data), pruned(data)
    return plan, receipt, float((after - before).abs().max() / before.abs().max())


def chain() -> nn.Module:
    """Biases of convolutions, and BatchNorms whose beta is not zero."""
    layers = [unpadded(3, 6), nn.BatchNorm2d(6), nn.LeakyReLU(), unpadded(6, 5), nn.LeakyReLU()]
    model = settle(
        nn.Sequential(*layers, unpadded(5, 4, bias=False), nn.BatchNorm2d(4), nn.LeakyReLU(), head(4))
    )
    silence(model[0], 1, 4)
    silence(model[3], 2)
    silence(model[5], 0, 3)
    with torch.no_grad():
        model[1].bias[1], model[1].bias[4], model[3].bias[2] = 3.0, -3.0, 0.7
        model[6].bias[0], model[6].bias[3] = 2.0, 1.5
    return model


def test_o14_plain_chain() -> None:
    plan, receipt, change = removed(chain())
    assert plan.keep == {"0": (0, 2, 3, 5), "3": (0, 1, 3, 4), "5": (1, 2)}
    assert change < 1e-12
    assert receipt.effects[-1].error < 1e-20
    assert receipt.effects[0].error > 1e-3  # dropped and not folded, as the reference code does


def residual() -> nn.Module:
    def call(self: Any, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.bn0(self.stem(x)))
        x = F.leaky_relu(x + self.bn2(self.b(F.leaky_relu(self.bn1(self.a(x))))))
        return self.head(x)

    model = settle(
        Apply(
            call, stem=conv(3, 6, 1), bn0=nn.BatchNorm2d(6), a=conv(6, 5, 1), bn1=nn.BatchNorm2d(5),
            b=conv(5, 6, 1, bias=False), bn2=nn.BatchNorm2d(6), head=head(6),
        )
    )  # fmt: skip
    silence(model.a, 0, 2)
    silence(model.stem, 1, 3)  # of the stream's units 1 only is constant in both of its parts
    silence(model.b, 1, 5)
    with torch.no_grad():
        model.bn1.bias[0], model.bn0.bias[1], model.bn0.bias[3], model.bn2.bias[1] = 1.0, 2.0, 1.0, 0.5
    return model


def test_o14_residual() -> None:
    plan, _, change = removed(residual())
    assert plan.keep["a"] == (1, 3, 4)
    assert plan.keep["stem"] == (0, 2, 3, 4, 5)
    assert change < 1e-12


def concat() -> nn.Module:
    def call(self: Any, x: Tensor) -> Tensor:
        a, b = F.leaky_relu(self.a(x)), torch.tanh(self.b(x))
        return self.head(F.leaky_relu(self.c(torch.cat([a, b], 1))))

    model = settle(Apply(call, a=conv(3, 4), b=conv(3, 5), c=unpadded(9, 6), head=head(6)))
    silence(model.a, 1)
    silence(model.b, 0, 4)
    with torch.no_grad():
        model.a.bias[1], model.b.bias[0], model.b.bias[4] = 0.8, -0.5, 2.0
    return model


def test_o14_concat() -> None:
    plan, _, change = removed(concat())
    assert (plan.keep["a"], plan.keep["b"]) == ((0, 2, 3), (1, 2, 3))
    assert change < 1e-12


def depthwise() -> nn.Module:
    layers = [unpadded(3, 6), nn.BatchNorm2d(6), nn.ReLU6(), unpadded(6, 6, groups=6), nn.BatchNorm2d(6)]
    model = settle(nn.Sequential(*layers, nn.ReLU6(), conv(6, 4, 1), nn.ReLU6(), head(4)))
    silence(model[0], 2)
    silence(model[3], 5)
    with torch.no_grad():
        model[1].bias[2], model[4].bias[2], model[4].bias[5] = 1.0, 1.0, 1.0
    return model


def test_o14_depthwise() -> None:
    """A constant stays one behind a depthwise convolution; one whose own kernel is zero is one, too."""
    plan, _, change = removed(depthwise())
    assert plan.keep["0"] == (0, 1, 3, 4)
    assert change < 1e-12


@pytest.mark.parametrize("build", [chain, residual, concat, depthwise])
def test_o14_masked_equals_removed(build: Any) -> None:
    model = build()
    plan = sl.idle(model, sl.trace(model, MAPS[:1]), MAPS)
    folded = sl.masked(model, plan, removal=sl.CalibrationMean(MAPS))
    pruned = sl.prune(model, plan, compensate=sl.FoldMean(MAPS)).model
    other = example(5, 3, 8, 8, seed=9)  # constants are the same on data that were not seen
    with torch.no_grad():
        assert torch.allclose(pruned(other), folded(other), rtol=1e-10)
        assert torch.allclose(pruned(other), model(other), rtol=1e-10)


def bordered(**options: Any) -> nn.Module:
    """A constant that is not zero, one that is, and a convolution that pads both."""
    model = settle(nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 5, **options), nn.ReLU(), head(5)))
    silence(model[0], 1, 4)
    with torch.no_grad():
        model[0].bias[1], model[0].bias[4] = 1.5, -1.0
    return model


def test_h1_a_constant_ends_at_a_padded_border() -> None:
    """It cannot go into a bias and stays, unless asked for; then the receipt tells what it costs."""
    plan, _, change = removed(bordered())
    assert plan.keep["0"] == (0, 1, 2, 3, 5)  # zero is zero behind the border, too
    assert change < 1e-12
    model = bordered()
    plan, receipt, change = removed(model, padded=True)
    assert plan.keep["0"] == (0, 2, 3, 5)
    assert change > 1e-3
    pruned = sl.prune(model, plan, compensate=sl.FoldMean(MAPS)).model
    with torch.no_grad():
        gap, spread = pruned(MAPS) - model(MAPS), model(MAPS) - model(MAPS).mean(0)
    error = float(gap.square().sum() / spread.square().sum())
    assert receipt.effects[-1].error == pytest.approx(error, rel=1e-6)
    assert 0 < error < receipt.effects[0].error  # better than nothing


def test_h1_the_mean_over_all_places_is_what_folding_gives_at_a_border() -> None:
    """Before the next activation: right on average over the map, too much outside, too little within."""
    model = nn.Sequential(conv(1, 2), conv(2, 1)).double()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0, 1, 1] = 1.0
        model[0].bias.copy_(torch.tensor([0.0, 1.0]))
        model[1].weight.fill_(1.0)
    data = example(4, 1, 4, 4)
    plan = sl.plan(sl.trace(model, data[:1]), {"0": [0]})
    pruned = sl.prune(model, plan, compensate=sl.FoldMean(data)).model
    # Of nine ones a corner sees four, an edge six: (4 * 4 + 8 * 6 + 4 * 9) / 16 = 6.25 on average.
    gap = (pruned(data) - model(data))[0, 0]
    assert gap[0, 0].item() == pytest.approx(6.25 - 4)
    assert gap[0, 1].item() == pytest.approx(6.25 - 6)
    assert gap[1, 1].item() == pytest.approx(6.25 - 9)
    assert gap.mean().item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("mode", ["replicate", "reflect", "circular"])
def test_padding_by_what_is_there_keeps_a_constant(mode: str) -> None:
    plan, _, change = removed(bordered(padding_mode=mode))
    assert plan.keep["0"] == (0, 2, 3, 5)
    assert change < 1e-12


def test_a_flattened_map_folds_place_by_place() -> None:
    """The border is constant, too, only another one: behind flattening each feature has its own weight."""
    layers = [conv(3, 6), nn.ReLU(), conv(6, 6, groups=6), nn.Flatten(), nn.Linear(6 * 64, 3)]
    model = settle(nn.Sequential(*layers))
    silence(model[0], 1)
    with torch.no_grad():
        model[0].bias[1] = 1.0
    plan, _, change = removed(model)
    assert plan.keep["0"] == (0, 2, 3, 4, 5)
    assert change < 1e-12


def test_what_nothing_reads_goes() -> None:
    model = settle(nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 5), nn.ReLU(), head(5)))
    with torch.no_grad():
        model[2].weight[:, 3] = 0.0
    plan, _, change = removed(model)
    assert plan.keep == {"0": (0, 1, 2, 4, 5), "2": (0, 1, 2, 3, 4)}
    assert change < 1e-12


def test_two_calls_of_a_layer_share_its_bias() -> None:
    """A unit may be constant in both and yet not the same: then no bias holds both."""

    def call(self: Any, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(h) + self.b(self.factor * h).tanh()

    for factor, kept in ((2.0, (0, 1, 2, 3)), (1.0, (0, 1, 3))):
        model = settle(Apply(call, a=nn.Linear(5, 4), b=nn.Linear(4, 3)))
        model.factor = factor
        silence(model.a, 2)
        plan, _, change = removed(model, example(9, 5))
        assert plan.keep["a"] == kept
        assert change < 1e-12


def test_an_idle_group_keeps_one() -> None:
    model = settle(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)))
    silence(model[0], 0, 1, 2, 3)
    plan, _, change = removed(model, example(9, 5))
    assert plan.keep == {"0": (0,)}
    assert change < 1e-12


def test_tied_groups_lose_equal_shares() -> None:
    model, inputs = NETS["branches"]()
    data = example(20, *inputs.shape[1:])
    graph = sl.trace(model, inputs)
    first, second = graph.ties[0]
    silence(model.first, 1, 2, 8)  # of the first group two, of the second one
    plan = sl.idle(model, graph, data)
    assert [len(plan.keep[name]) for name in (first, second)] == [5, 5]
    pruned = sl.prune(model, plan, compensate=sl.FoldMean(data)).model
    with torch.no_grad():
        assert torch.allclose(pruned(data), model(data), rtol=1e-10)


def test_what_a_norm_reads_as_a_whole_stays() -> None:
    model = settle(
        nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 4), nn.LeakyReLU(), nn.Linear(4, 2))
    )
    silence(model[0], 1)
    silence(model[2], 1)
    plan, _, change = removed(model, example(9, 5))
    assert plan.keep == {"0": (0, 1, 2, 3, 4, 5), "2": (0, 2, 3)}
    assert change < 1e-12


def test_tolerance_is_relative() -> None:
    model = settle(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)))
    with torch.no_grad():
        model[0].weight[1] *= 1e-9
        model[0].bias[1] = 100.0
    data = example(30, 5)
    graph = sl.trace(model, data[:1])
    assert sl.idle(model, graph, data).pruned == ()
    assert sl.idle(model, graph, data, tolerance=1e-8).keep["0"] == (0, 2, 3)
    assert sl.idle(model, graph, data, tolerance=1e-8).made_by["tolerance"] == "1e-08"


@pytest.mark.parametrize("name", sorted(set(NETS) - {"dict_input", "keywords", "two_inputs"}))
def test_every_net_is_unchanged(name: str) -> None:
    """A random net on two examples of which some parts never change: whatever goes, nothing is lost."""
    model, inputs = NETS[name]()
    if name in ("autoencoder", "functional"):  # raw weights, with no bias that a constant could go into
        data = example(16, *inputs.shape[1:])
        assert not sl.idle(model, sl.trace(model, inputs), data).pruned
        return
    if inputs.is_floating_point():
        data = example(16, *inputs.shape[1:])
    else:
        data = torch.randint(int(inputs.max()) + 1, (16, *inputs.shape[1:]))
    graph, kept = sl.trace(model, inputs), state(model)
    plan = sl.idle(model, graph, data)
    pruned = sl.prune(model, plan, compensate=sl.FoldMean(data)).model
    assert state(model) == kept
    with torch.no_grad():
        out, expected = (_context.tensors(m(data)) for m in (pruned, model))
    for a, b in zip(out, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("keep", [0.3, 0.1])
def test_single_weights_gone_make_whole_units_go(keep: float) -> None:
    """A sparse network becomes a smaller one of the same outputs, for nothing."""
    layers = [unpadded(3, 12), nn.BatchNorm2d(12), nn.ReLU(), unpadded(12, 16), nn.BatchNorm2d(16), nn.ReLU()]
    model = settle(nn.Sequential(*layers, head(16)))
    with torch.no_grad():  # some filters are small, so that all their weights go
        model[0].weight *= torch.linspace(0.01, 1, 12).view(-1, 1, 1, 1)
        model[3].weight *= torch.linspace(0.01, 1, 16).view(-1, 1, 1, 1)
    sparse = sl.sparsified(model, sl.sparsify(model, sl.Nonzeros(keep=keep), sweep=False))
    plan, receipt, change = removed(sparse)
    assert plan.after.params < plan.before.params
    assert change < 1e-12
    assert receipt.effects[-1].error < 1e-20
    gone = [unit for unit in range(12) if not sparse[0].weight[unit].any()]
    assert gone
    assert not {*gone} & {*plan.keep["0"]}


def test_batches_do_not_matter() -> None:
    model = chain()
    graph = sl.trace(model, MAPS[:1])
    assert sl.idle(model, graph, MAPS) == sl.idle(model, graph, [MAPS[:1], MAPS[1:7], MAPS[7:]])


def test_what_is_no_number_is_no_constant() -> None:
    model = settle(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)))
    with torch.no_grad():
        model[0].bias[1] = torch.nan
        model[0].bias[2] = torch.inf
    data = example(9, 5)
    assert not sl.idle(model, sl.trace(model, data[:1]), data).pruned


def test_data_on_which_the_model_runs_otherwise() -> None:
    def call(self: Any, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(h) if len(x) < 9 else self.c(h)

    model = settle(Apply(call, a=nn.Linear(5, 4), b=nn.Linear(4, 3), c=nn.Linear(4, 3)))
    graph = sl.trace(model, example(2, 5))
    with pytest.raises(sl.PlanError, match="does not call b:linear#0 on these data"):
        sl.idle(model, graph, example(9, 5))


def test_bad_input() -> None:
    model = chain()
    graph = sl.trace(model, MAPS[:1])
    with pytest.raises(sl.DataError, match="two examples or more"):
        sl.idle(model, graph, MAPS[:1])
    with pytest.raises(sl.PlanError, match="not negative"):
        sl.idle(model, graph, MAPS, tolerance=-1.0)
    with pytest.raises(sl.StaleGraphError):
        sl.idle(residual(), graph, MAPS)

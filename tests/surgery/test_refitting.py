"""LeastSquares: loops by hand, exact recovery, and every kind of layer that reads units."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf import _ridge
from zoo import NETS, Apply, conv, example, gap, half_plan, head, random_plan, run, settle, state

VECTORS, MAPS, TOKENS = example(60, 6, seed=3), example(24, 3, 6, 6, seed=3), example(20, 5, 6, seed=3)
Build = Callable[[], nn.Module]


@pytest.fixture
def nearly_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """No penalty to speak of."""
    monkeypatch.setattr(_ridge, "PENALTIES", (1e-11,))


def refitted(model: nn.Module, keep: dict[str, Any], data: Any, **options: Any) -> sl.Pruned:
    inputs = data[0] if isinstance(data, list | tuple) else data
    inputs = inputs[0] if isinstance(inputs, list | tuple) else inputs
    plan = sl.plan(sl.trace(model, inputs[:2]), keep)
    return sl.prune(model, plan, compensate=sl.LeastSquares(data, **options))


def twins(model: nn.Module, first: str, *, pairs: int) -> nn.Module:
    """Outputs 2k and 2k + 1 of a layer become equal."""
    layer = model.get_submodule(first)
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    with torch.no_grad():
        for tensor, dim in ((layer.weight, axis), (layer.bias, 0)):
            even = tensor.index_select(dim, torch.arange(0, 2 * pairs, 2))
            tensor.copy_(even.repeat_interleave(2, dim))
    return model


# ---------------------------------------------------------------- by hand


def test_against_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row of a convolution gathered by hand; the equations of one penalty solved."""
    monkeypatch.setattr(_ridge, "PENALTIES", (0.05,))
    monkeypatch.setattr(_ridge, "_FINER", 1.0)
    model = settle(nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 2), nn.Flatten(), nn.Linear(72, 2)))
    keep = [0, 1, 2, 3]
    pruned = refitted(model, {"0": keep}, MAPS).model
    places = [*itertools.product(range(24), range(6), range(6))]
    with torch.no_grad():
        read = model[1](model[0](MAPS))
        padded, out = F.pad(read[:, keep], (1, 1, 1, 1)), model[2](read)
        rows = torch.stack([padded[e, :, y : y + 3, x : x + 3].flatten() for e, y, x in places])
        wanted = torch.stack([out[e, :, y, x] for e, y, x in places])
        weight = model[2].weight[:, keep].flatten(1).T
        missing = wanted - rows @ weight - model[2].bias
        centre, aim = rows.mean(0), missing.mean(0)
        x, y = rows - centre, missing - aim
        own = x.square().sum(0)
        change = torch.linalg.solve(x.T @ x + 0.05 * torch.diag(own + 1e-3 * own.mean()), x.T @ y)
    assert torch.allclose(pruned[2].weight.flatten(1).T, weight + change, atol=1e-10)
    assert torch.allclose(pruned[2].bias, model[2].bias + aim - centre @ change, atol=1e-10)


def test_by_hand() -> None:
    """Unit 1 is three times unit 0: its weight of 10 becomes 30 more on unit 0."""
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [3.0]]))
        model[1].weight.copy_(torch.tensor([[1.0, 10.0]]))
        model[1].bias.fill_(0.5)
    pruned = refitted(model, {"0": [0]}, torch.tensor([[1.0], [2.0], [6.0], [7.0]]).double()).model
    assert pruned[1].weight.item() == pytest.approx(31, rel=1e-3)
    assert pruned[1].bias.item() == pytest.approx(0.5, abs=0.2)


# ---------------------------------------------------------------- exact recovery


def fused() -> nn.Module:
    """``addmm`` with the bias first, as GPT-2 has it."""
    model = Apply(lambda self, x: torch.addmm(self.bias, F.relu(self.a(x)), self.weight), a=nn.Linear(6, 8))
    model.weight, model.bias = nn.Parameter(torch.randn(8, 3)), nn.Parameter(torch.randn(3))
    return model


def attending(same: bool) -> nn.Module:
    """The units are what attention reads: its input projections are refitted."""

    def call(self: Any, x: Tensor) -> Tensor:
        q, k = self.a(x), self.k(x)
        return self.out(self.attention(*((q, q, q) if same else (q, k, k)))[0])

    attention = nn.MultiheadAttention(
        8, 2, batch_first=True, kdim=None if same else 6, vdim=None if same else 6
    )
    return Apply(call, a=nn.Linear(6, 8), k=nn.Linear(6, 6), attention=attention, out=nn.Linear(8, 2))


def recurrent(kind: str) -> nn.Module:
    def call(self: Any, x: Tensor) -> Tensor:
        return self.c(self.b(torch.tanh(self.a(x)))[0][:, -1])

    layer = getattr(nn, kind)(8, 4, batch_first=True)
    return Apply(call, a=nn.Linear(6, 8), b=layer, c=nn.Linear(4, 2))


def twice() -> nn.Module:
    """One layer that reads two layers' units: both calls in one regression."""
    return Apply(
        lambda self, x: self.b(F.relu(self.a(x))) + self.b(F.relu(self.a(-x))).tanh(),
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 3),
    )


EXACT: dict[str, tuple[Build, Tensor]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), VECTORS),
    "behind maps": (
        lambda: nn.Sequential(conv(3, 8), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(32, 3)),
        MAPS,
    ),
    "convolution": (
        lambda: nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 4, stride=2, dilation=2, padding=2), head(4)),
        MAPS,
    ),
    "transposed": (
        lambda: nn.Sequential(conv(3, 8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3, stride=2), head(4)),
        MAPS,
    ),
    "addmm": (fused, VECTORS),
    "attention to itself": (lambda: attending(same=True), TOKENS),
    "attention to others": (lambda: attending(same=False), TOKENS),
    "LSTM": (lambda: recurrent("LSTM"), TOKENS),
    "GRU": (lambda: recurrent("GRU"), TOKENS),
    "two calls of one layer": (twice, VECTORS),
}
FIRST = dict.fromkeys(("linear", "behind maps", "convolution", "transposed"), "0")


@pytest.mark.usefixtures("nearly_free")
@pytest.mark.parametrize("name", EXACT)
def test_what_others_say_too_is_not_lost(name: str) -> None:
    """Of every two equal units one goes; the network stays the same, on other data as well."""
    build, data = EXACT[name]
    torch.manual_seed(1)
    first = FIRST.get(name, "a")
    model = twins(settle(build()), first, pairs=4)
    before = state(model)
    pruned = refitted(model, {first: [0, 3, 4, 7]}, data).model
    other = data.flip(-1) + 0.3
    assert gap(run(model, data), run(pruned, data)) < 1e-6
    assert gap(run(model, other), run(pruned, other)) < 1e-6
    assert state(model) == before


@pytest.mark.usefixtures("nearly_free")
def test_a_grouped_convolution_loses_whole_groups_and_the_next_layer_makes_up() -> None:
    for layer in (conv(8, 6, groups=2), nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)):
        model = settle(nn.Sequential(conv(3, 8), nn.ReLU(), layer, nn.ReLU(), head(6)))
        with torch.no_grad():
            for tensor in (*model[0].parameters(), *layer.parameters()):
                half = len(tensor) // 2
                tensor[half:] = tensor[:half]
        graph = sl.trace(model, MAPS[:2])
        assert [group.size for group in graph] == [2]
        pruned = refitted(model, {graph.groups[0].name: [1]}, MAPS).model
        assert gap(run(model, MAPS), run(pruned, MAPS)) < 1e-6


@pytest.mark.usefixtures("nearly_free")
def test_a_unit_that_never_changes_goes_into_the_bias() -> None:
    model = settle(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)))
    with torch.no_grad():
        model[0].weight[2] = 0
        model[0].bias[2] = 1.5
    pruned = refitted(model, {"0": [0, 1, 3]}, VECTORS).model
    assert torch.allclose(pruned[2].bias, model[2].bias + 1.5 * model[2].weight[:, 2], atol=1e-6)


@pytest.mark.usefixtures("nearly_free")
def test_a_layer_without_bias_and_without_norm_gets_one() -> None:
    def build() -> nn.Module:
        return settle(
            nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 5, bias=False), nn.Linear(5, 2))
        )

    model = build()
    with torch.no_grad():
        model[0].weight[4:] = 0  # their units are constant
    pruned, receipt = refitted(model, {"0": range(4), "2": [0, 1, 4]}, VECTORS)
    assert receipt.biases == (("2", 3),)
    fresh = sl.replay(build(), receipt)
    fresh.load_state_dict(pruned.state_dict(), strict=True)
    assert gap(run(pruned, VECTORS), run(fresh, VECTORS)) == 0
    shift = torch.sigmoid(model[0].bias[4:]) @ model[2].weight[[0, 1, 4], 4:].T
    assert torch.allclose(pruned[2].bias, shift, atol=1e-5)


@pytest.mark.usefixtures("nearly_free")
def test_behind_a_convolution_without_bias_the_running_mean_takes_the_shift() -> None:
    model = settle(
        nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6, bias=False, padding=0), nn.BatchNorm2d(6), head(6))
    )
    with torch.no_grad():
        model[0].weight[5] = 0
        model[0].bias[5] = 2.0
    pruned, receipt = refitted(model, {"0": [0, 1, 2, 3, 4, 6, 7], "2": [1, 2, 5]}, MAPS)
    assert receipt.biases == ()
    assert pruned[2].bias is None
    kept = [1, 2, 5]
    shift = 2 * model[2].weight[kept, 5].sum((1, 2))
    assert torch.allclose(pruned[3].running_mean, model[3].running_mean[kept] - shift, atol=1e-5)
    assert torch.equal(pruned[3].running_var, model[3].running_var[kept])
    with torch.no_grad():
        expected, found = model[:4](MAPS)[:, kept], pruned[:4](MAPS)
    assert torch.allclose(expected, found, atol=1e-6)


@pytest.mark.usefixtures("nearly_free")
@pytest.mark.parametrize("norm", [True, False])
def test_a_residual_branch_makes_up_for_what_the_shortcut_lost(norm: bool) -> None:
    """The shortcut loses what it cannot make up for itself; what the branch reads spans it."""

    def call(self: Any, x: Tensor) -> Tensor:
        h = self.short(F.relu(self.a(x)))
        branch = self.b(self.c(x))
        return self.out(h + (self.norm(branch) if norm else branch))

    def build() -> nn.Module:
        return settle(
            Apply(call, a=nn.Linear(6, 8), short=nn.Linear(8, 4), c=nn.Linear(6, 7), b=nn.Linear(7, 4),
                  norm=nn.BatchNorm1d(4), out=nn.Linear(4, 2))
        )  # fmt: skip

    model = build()
    with torch.no_grad():
        model.c.weight[:6] = torch.eye(6)
        model.c.weight[6] = model.c.weight[0]
        model.c.bias[6] = model.c.bias[0]
        model.a.bias.fill_(50.0)  # no ReLU is off, and all is linear
    keep = {"a": [0, 1, 2], "c": range(6)}
    pruned, receipt = refitted(model, keep, VECTORS)
    assert gap(run(model, VECTORS), run(pruned, VECTORS)) < 1e-5
    alone = sl.prune(model, receipt.plan).model
    short = refitted(model, {"a": [0, 1, 2]}, VECTORS).model.short
    with torch.no_grad():  # the shortcut alone could not have done it
        lost = model.short(F.relu(model.a(VECTORS))) - short(F.relu(pruned.a(VECTORS)))
    assert lost.abs().max() > 1e-2
    assert gap(run(model, VECTORS), run(alone, VECTORS)) > 1e-2


def test_a_branch_that_is_also_read_alone_does_not_make_up_for_the_shortcut() -> None:
    """Its other reader would get what the shortcut lost."""

    def call(self: Any, x: Tensor) -> Tensor:
        h = self.b(F.relu(self.c(x)))
        return 0.01 * self.out(h + self.short(F.relu(self.a(x)))) + self.alone(h)

    model = settle(
        Apply(call, a=nn.Linear(6, 16), short=nn.Linear(16, 4), c=nn.Linear(6, 16), b=nn.Linear(16, 4),
              out=nn.Linear(4, 2), alone=nn.Linear(4, 2))
    )  # fmt: skip
    both, one = (
        refitted(model, keep, VECTORS).model.b for keep in ({"a": [0], "c": range(12)}, {"c": range(12)})
    )
    assert torch.equal(both.weight, one.weight)
    assert torch.equal(both.bias, one.bias)


def test_parts_of_a_weight_whichever_way_they_are_multiplied_by() -> None:
    def network(product: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
        def call(self: Any, x: Tensor) -> Tensor:
            h, half = F.relu(self.a(x)), self.w.weight.shape[0] // 2
            return self.out(product(h, self.w.weight[:half]) * product(h, self.w.weight[half:]))

        return settle(Apply(call, a=nn.Linear(6, 10), w=nn.Linear(10, 8, bias=False), out=nn.Linear(4, 2)))

    keep = {"a": range(6), "w": [0, 3]}
    a, b = (refitted(network(product), keep, VECTORS).model for product in (F.linear, lambda h, w: h @ w.T))
    assert a.w.weight.shape == (4, 6)
    assert torch.allclose(a.w.weight, b.w.weight)


@pytest.mark.parametrize("tokens", [3, 5])
def test_a_norm_over_tokens_does_not_take_the_shift_of_channels(tokens: int) -> None:
    """It goes into a bias of the layer, and the error falls."""
    read, norm = nn.Linear(8, 5, bias=False), nn.BatchNorm1d(tokens)
    model = settle(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), read, norm, nn.ReLU(), nn.Linear(5, 2)))
    x = example(200, tokens, 6)
    pruned, receipt = refitted(model, {"0": range(4)}, x)
    assert receipt.biases == (("2", 5),)
    assert torch.equal(pruned[3].running_mean, model[3].running_mean)
    alone = sl.prune(model, receipt.plan).model
    assert gap(run(model, x), run(pruned, x)) < gap(run(model, x), run(alone, x))


# ---------------------------------------------------------------- what is left alone


def test_a_tied_embedding_is_left_alone_and_said_so() -> None:
    model = Apply(
        lambda self, x: F.linear(self.a(self.embed(x)), self.embed.weight),
        embed=nn.Embedding(7, 6),
        a=nn.Linear(6, 6),
    )
    words = torch.tensor([[1, 2, 3], [4, 5, 6], [0, 1, 2], [3, 3, 3]])
    settle(model)
    plan = sl.plan(sl.trace(model, words), {sl.trace(model, words).groups[0].name: [0, 1, 3, 4]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever that brings to random weights
        pruned, receipt = sl.prune(model, plan, compensate=sl.LeastSquares(words))
    notes = [note for effect in receipt.effects for note in effect.notes]
    assert any(
        n.startswith("embed.weight was not refitted") and "uses it for something else" in n for n in notes
    )
    assert notes[0] in str(receipt)
    assert torch.equal(pruned.embed.weight, model.embed.weight[:, [0, 1, 3, 4]])


@pytest.mark.filterwarnings("ignore:compensation made the error")
def test_a_weight_that_is_computed_is_left_alone_and_said_so() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.utils.parametrizations.weight_norm(nn.Linear(8, 3)))
    settle(model)
    pruned, receipt = refitted(model, {"0": range(4)}, VECTORS)
    notes = receipt.effects[1].notes
    assert len(notes) == 1
    assert "parametrizations.weight.original1 was not refitted" in notes[0]
    plain = sl.prune(model, receipt.plan).model
    assert gap(run(plain, VECTORS), run(pruned, VECTORS)) == 0


def test_nothing_pruned_nothing_refitted() -> None:
    model = settle(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3, bias=False)))
    pruned, receipt = refitted(model, {}, VECTORS)
    assert receipt.biases == ()
    assert gap(run(model, VECTORS), run(pruned, VECTORS)) == 0


# ---------------------------------------------------------------- data


def mlp() -> nn.Module:
    return settle(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)))


KEEP = {"0": range(6), "2": (1, 2, 4, 6)}


def test_batches_labels_and_memory_change_nothing() -> None:
    model = mlp()
    whole = refitted(model, KEEP, VECTORS).model
    labels = torch.zeros(60, dtype=torch.int64)
    for data, memory in (
        ([VECTORS[:7], VECTORS[7:50], VECTORS[50:]], 2**28),
        ([(VECTORS[:7], labels[:7]), (VECTORS[7:], labels[7:])], 2**28),
        ((VECTORS, labels), 2**28),
        (VECTORS, 1),
    ):
        other = refitted(model, KEEP, data, memory=memory).model
        for (name, a), b in zip(whole.state_dict().items(), other.state_dict().values(), strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-9), name


def test_maps_in_pieces_are_the_whole() -> None:
    model = settle(nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 4), head(4)))
    big = example(6, 3, 24, 24, seed=8)  # more places than are needed
    a = refitted(model, {"0": range(4)}, big).model
    b = refitted(model, {"0": range(4)}, [big[:1], big[1:]], memory=1).model
    assert torch.allclose(a[2].weight, b[2].weight, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 10])
def test_few_samples_do_no_harm(n: int) -> None:
    model = mlp()
    pruned, receipt = refitted(model, KEEP, VECTORS[:n])
    assert all(p.isfinite().all() for p in pruned.parameters())
    assert gap(run(model, VECTORS), run(pruned, VECTORS)) < 1
    if n == 10:
        plain = sl.prune(model, receipt.plan).model
        with torch.no_grad():
            found, without = (F.mse_loss(each(VECTORS), model(VECTORS)) for each in (pruned, plain))
        assert found < without
    if n == 1:
        assert receipt.effects[0].error is None  # one output does not spread


@pytest.mark.parametrize("value", [0.0, 0.1, 123.456])
def test_constant_inputs(value: float) -> None:
    model = mlp()
    data = torch.full((40, 6), value).double()
    pruned = refitted(model, KEEP, data).model
    assert gap(run(model, data), run(pruned, data)) < 1e-6


def test_data_that_are_not_finite_are_refused() -> None:
    model, data = mlp(), VECTORS.clone()
    data[3, 1] = float("nan")
    before = state(model)
    plan = half_plan(sl.trace(model, VECTORS[:2]))
    with pytest.raises(sl.DataError, match="inputs of example 3 is not finite"):
        sl.prune_(model, plan, compensate=sl.LeastSquares(data))
    assert state(model) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision(dtype: torch.dtype) -> None:
    model = twins(mlp(), "0", pairs=6).to(dtype)
    data = VECTORS.to(dtype)
    pruned, receipt = refitted(model, {"0": range(0, 12, 2)}, data)
    assert all(p.dtype == dtype for p in pruned.parameters())
    first, last = (effect.error for effect in receipt.effects)
    assert first is not None
    assert last is not None
    assert last < first / 50


@pytest.mark.parametrize("kind", ["plain", "norm"])
def test_a_program_is_refitted_as_its_model_is(kind: str) -> None:
    layers = [conv(3, 8), nn.ReLU(), conv(8, 4, bias=kind == "plain", padding=0)]
    model = settle(nn.Sequential(*layers, *([nn.BatchNorm2d(4)] if kind == "norm" else []), head(4)))
    exported = sl.program(model, MAPS)
    outs = []
    for each in (model, exported):
        pruned = refitted(each, {"0": range(5)}, MAPS).model
        outs.append(run(pruned, MAPS))
    assert gap(*outs) < 1e-9
    assert gap(run(model, MAPS), outs[0]) > 1e-6


# ---------------------------------------------------------------- halves of the examples


def sequences(kind: str, *, first: bool) -> nn.Module:
    """A layer that is given (examples, steps, channels), or with the steps first."""

    def call(self: Any, x: Tensor) -> Tensor:
        x = self.a(x) if first else self.a(x).transpose(0, 1)
        x = self.b(x, x, x)[0] if kind == "MultiheadAttention" else self.b(x)[0]
        return self.c(x if first else x.transpose(0, 1))

    width = 2 if kind == "MultiheadAttention" else 8
    layer = getattr(nn, kind)(8, width, batch_first=first)
    model = Apply(call, a=nn.Linear(6, 8), b=layer, c=nn.Linear(8, 3)).double().eval()
    random = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=random)
    return model


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "MultiheadAttention"])
def test_steps_before_examples_do_not_change_the_halves(kind: str) -> None:
    """Steps of one example are alike: were they in both halves, one would foretell the other too well."""
    data = example(12, 1, 6, seed=4) + 0.01 * example(12, 7, 6, seed=5)
    models = [sequences(kind, first=first) for first in (True, False)]
    graph = sl.trace(models[1], data[:2])
    keep = {group.name: range(group.size // 2) for group in graph}
    assert set(keep) >= {"a", "b"}
    pruned = [refitted(model, keep, data).model for model in models]
    for mine, other in zip(*(model.parameters() for model in pruned), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


def test_what_reads_with_the_steps_first_is_not_pruned_and_so_not_refitted() -> None:
    model = Apply(lambda self, x: self.b(self.a(x).transpose(0, 1)), a=nn.Linear(6, 8), b=nn.Linear(8, 3))
    with pytest.raises(sl.TraceError, match="b:linear#0 reads does not have the examples along its first"):
        sl.trace(model.double(), TOKENS[:2])


# ---------------------------------------------------------------- every net


@pytest.mark.parametrize("name", sorted(NETS))
def test_no_net_is_left_worse(name: str) -> None:
    """The error on the calibration data, which the layers' regressions do not see as such."""
    model, inputs = NETS[name]()
    graph = sl.trace(model, inputs)
    plan = random_plan(graph, 0, least=2)
    before = state(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruned, receipt = sl.prune(model, plan, compensate=sl.LeastSquares(data_for(inputs)))
    assert state(model) == before
    assert [effect.step for effect in receipt.effects] == ["none", "LeastSquares()"]
    first, last = (effect.error for effect in receipt.effects)
    if first is not None and last is not None:
        assert last <= first * 1.02 + 1e-12
    sl.replay(NETS[name]()[0], receipt).load_state_dict(pruned.state_dict(), strict=True)


def data_for(inputs: Any) -> Any:
    """Sixteen examples like these, as batches without labels."""
    from torch.utils._pytree import tree_map

    random = torch.Generator().manual_seed(5)

    def more(t: Any) -> Any:
        if not isinstance(t, Tensor):
            return t
        if t.is_floating_point():
            return torch.randn(16, *t.shape[1:], dtype=t.dtype, generator=random)
        return t[torch.randint(len(t), (16,), generator=random)]

    if isinstance(inputs, dict):
        inputs = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    return [(tree_map(more, inputs), None)]


def test_mean_folding_first_changes_nothing_that_counts() -> None:
    model = mlp()
    plan = sl.plan(sl.trace(model, VECTORS[:2]), {"0": range(6)})
    fold, fit = sl.FoldMean([VECTORS]), sl.LeastSquares([VECTORS])
    a = sl.prune(model, plan, compensate=fit).model
    b = sl.prune(model, plan, compensate=[fold, fit]).model
    assert gap(run(a, VECTORS), run(b, VECTORS)) < 1e-9


def test_in_place_with_its_optimizer() -> None:
    model = mlp()
    plan = sl.plan(sl.trace(model, VECTORS[:2]), KEEP)
    expected = sl.prune(model, plan, compensate=sl.LeastSquares(VECTORS)).model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    model(VECTORS).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    identities = [id(p) for p in model.parameters()]
    sl.prune_(model, plan, optimizer=optimizer, compensate=sl.LeastSquares(VECTORS))
    assert [id(p) for p in model.parameters()] == identities
    assert gap(run(expected, VECTORS), run(model, VECTORS)) < 1e-12
    model(VECTORS).sum().backward()
    optimizer.step()

"""Relevance through whole networks: conserved, example by example, and the same however they are written."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval

import shapleaf as sl
from lrp import passed
from shapleaf.relevance import Composite, Relevance, Rule
from zoo import NETS, Apply, conv, example, head, resnet20, settle, state

CALLED_OTHERWISE = ("keywords", "two_inputs", "dict_input")
ZERO = sl.Epsilon(0)
SHARP = [ZERO, sl.Epsilon(1e-9), sl.ZPlus(1e-9), sl.Gamma(0.25, 1e-9), sl.AlphaBeta(2, 1, 1e-9)]
RULES = [sl.Epsilon(), sl.ZPlus(), sl.Gamma(), sl.AlphaBeta()]
CLOSE = {"rtol": 1e-9, "atol": 1e-11}
PIECEWISE = ["plain", "strided", "residual", "option_a", "dense", "grouped", "shuffle", "flatten"]


FLOATS = [name for name in NETS if name not in ("unused", "multi_output", "transformer", *CALLED_OTHERWISE)]


def unbiased(model: nn.Module) -> nn.Module:
    """Without what adds to an activation out of nothing."""
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith(("bias", "running_mean", "token", "position_embeddings", "embed", "embedding")):
                tensor.zero_()
    return model


def cut() -> nn.Module:
    """Convolutions with BatchNorm, a residual block written with +, and a linear layer that runs twice."""

    def run(self: Any, x: Tensor) -> Tensor:
        h = F.relu(self.n1(self.a(x)))
        h = F.relu(h + self.n2(self.b(h)))
        h = F.relu(self.twice(h.mean((2, 3))))
        return self.last(F.relu(self.twice(h)))

    parts = {"a": conv(3, 16), "n1": nn.BatchNorm2d(16), "b": conv(16, 16), "n2": nn.BatchNorm2d(16)}
    return settle(Apply(run, **parts, twice=nn.Linear(16, 16), last=nn.Linear(16, 3)))


@pytest.mark.parametrize("name", FLOATS)
def test_o1_the_output_is_the_models_own(name: str) -> None:
    model, inputs = NETS[name]()
    with torch.no_grad():
        plain = sl._context.logits(model(inputs))
    before = state(model)
    assert torch.equal(passed(model, inputs, sl.AlphaBeta()).output, plain)
    assert str(state(model)) == str(before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_o1_also_in_half_precision(dtype: torch.dtype) -> None:
    """Where a gate that is rounded before it multiplies would make another output."""
    parts = [nn.GLU(), nn.Linear(8, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 8), nn.Softmax(-1)]
    model = settle(nn.Sequential(nn.Linear(8, 16), *parts, nn.Linear(8, 3))).to(dtype)
    x = 3 * example(8, 8).to(dtype)
    assert torch.equal(passed(model, x, sl.ZPlus()).output, model(x).detach())


def test_o1_nothing_is_left_behind_by_an_error() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sinc(x)

    model = settle(nn.Sequential(conv(2, 3), nn.BatchNorm2d(3), nn.ReLU(), conv(3, 3), Fails(), head(3)))
    model.train()
    x, before, forwards = example(2, 2, 4, 4), state(model), [nn.Conv2d.forward, F.relu, nn.GELU.forward]
    modes = torch.overrides._get_current_function_mode_stack()
    graph = sl.trace(model, x[:1])
    with pytest.raises(
        sl.CriterionError, match=r"LRP\(\) cannot pass .* 4:sinc#0 \(in 4, test_propagate.py:\d+\)"
    ):
        sl.attribute(model, graph, [(x, torch.tensor([0, 1]))], sl.LRP())
    assert str(state(model)) == str(before)
    assert forwards == [nn.Conv2d.forward, F.relu, nn.GELU.forward]
    assert torch.overrides._get_current_function_mode_stack() == modes
    assert model.training
    model(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", PIECEWISE)
def test_o2_lrp_0_is_activation_times_gradient_at_every_unit(name: str) -> None:
    model, inputs = NETS[name]()
    graph, data = sl.trace(model, inputs), [(inputs, torch.zeros(len(inputs), dtype=torch.long))]
    options: dict[str, Any] = {"aggregate": None}
    mine = sl.attribute(model, graph, data, sl.LRP(ZERO, absolute=None), **options)
    taylor = sl.attribute(model, graph, data, sl.Taylor(signed=True, target=sl.Logit()), **options)
    for group, value in taylor.values.items():
        torch.testing.assert_close(mine.values[group], value, rtol=1e-12, atol=1e-13)


def test_o2_epsilon_converges_linearly() -> None:
    model, x = cut(), example(4, 3, 6, 6)
    exact = passed(model, x, ZERO).layers["a:conv2d#0"]
    gaps = [
        float((passed(model, x, sl.Epsilon(eps)).layers["a:conv2d#0"] - exact).abs().max())
        for eps in (1e-6, 1e-8, 1e-10)
    ]
    assert gaps[0] / gaps[1] == pytest.approx(100, rel=0.05)
    assert gaps[1] / gaps[2] == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize("rule", SHARP, ids=str)
def test_o3_every_cut_of_a_network_without_biases_carries_the_logit(rule: Rule) -> None:
    model, x = unbiased(cut()), example(2, 3, 6, 6).abs()
    best = passed(model, x, ZERO).output.argmax(1)  # z+ and the like explain what is above zero
    found = passed(model, x, rule, of=best)
    whole = found.output.amax(1)
    assert float(whole.min()) > 1e-3
    for name, part in [("inputs", found.inputs), *found.layers.items()]:
        if name == "b:conv2d#0":  # the rest goes past it
            continue
        # Of the layer that runs twice under two names, both are whole cuts.
        torch.testing.assert_close(part.flatten(1).sum(1), whole, rtol=1e-5, atol=1e-7, msg=name)


def test_o3_a_large_epsilon_loses_relevance() -> None:
    model, x = unbiased(cut()), example(4, 3, 6, 6)
    found = passed(model, x, sl.Epsilon(0.25))
    share = found.inputs.flatten(1).sum(1) / found.output[:, 0]
    assert bool((share > 0).all())
    assert bool((share < 0.5).all())


def test_o3_with_biases_these_take_their_share() -> None:
    model, x = cut(), example(4, 3, 6, 6)
    found = passed(model, x, ZERO)
    for e in range(len(x)):
        model.zero_grad()
        model(x[e : e + 1])[0, 0].backward()
        shares = sum(
            float((p.grad * p.detach()).sum()) for n, p in model.named_parameters() if n.endswith("bias")
        )
        for norm in (model.n1, model.n2):  # the mean it subtracts is one too
            scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
            shares -= float((norm.bias.grad * scale * norm.running_mean).sum())
        assert float(found.inputs[e].sum()) + shares == pytest.approx(float(found.output[e, 0]), rel=1e-10)


class Mine:
    """A rule of a user."""

    def __init__(self, apply: Callable[..., Any]) -> None:
        self.apply = apply

    def __repr__(self) -> str:
        return "Mine()"


def test_a_rule_of_ones_own_may_round() -> None:
    def apply(layer: Any, z: Tensor) -> Tensor:
        carrier = layer.run(layer.input, layer.weight.abs(), None)
        return carrier * (z / carrier).detach()

    found = passed(cut(), example(2, 3, 6, 6), Mine(apply))
    assert bool(found.inputs.isfinite().all())


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (lambda layer: layer(), r"Mine\(\) failed in layer twice:linear#1: TypeError"),
        (lambda layer, z: layer.nothing, r"Mine\(\) failed in layer .*: AttributeError: .* 'nothing'"),
        (lambda layer, z: z * 1.1, r"Mine\(\) changed what layer .* returns: other values in the place of"),
        (
            lambda layer, z: z[:1],
            r"Mine\(\) changed what .*: torch.float64 \(1, .* place of torch.float64 \(2,",
        ),
        (lambda layer, z: z.float(), "Mine.* changed what .*: torch.float32 .* place of torch.float64"),
        (lambda layer, z: None, "Mine.* changed what .*: NoneType in the place of torch.float64"),
    ],
)
def test_what_a_rule_of_ones_own_does_wrong_is_its_own(apply: Any, message: str) -> None:
    model, x = cut(), example(2, 3, 6, 6)
    lrp = sl.LRP(Composite((("twice:linear#1", Mine(apply)),)))
    with pytest.raises(sl.CriterionError, match=message):
        sl.attribute(model, sl.trace(model, x), (x, torch.tensor([0, 1])), lrp)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_o7_no_example_feels_the_others(rule: Rule) -> None:
    model, x = cut(), example(5, 3, 6, 6)
    whole = passed(model, x, rule)
    alone = passed(model, x[2:3], rule)
    for name, part in whole.layers.items():
        torch.testing.assert_close(part[2:3], alone.layers[name], rtol=1e-10, atol=1e-13)
    labels = torch.tensor([0, 1, 2, 0, 1])
    graph, lrp = sl.trace(model, x[:1]), sl.LRP(rule)
    one = sl.attribute(model, graph, [(x, labels)], lrp, aggregate=None)
    two = sl.attribute(model, graph, [(x[:2], labels[:2]), (x[2:], labels[2:])], lrp, aggregate=None)
    for name, value in one.values.items():
        torch.testing.assert_close(value, two.values[name], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_o8_in_place_functions_leave_relevance_where_it_was(rule: Rule) -> None:
    def block(inplace: bool) -> nn.Module:
        def run(self: Any, x: Tensor) -> Tensor:
            h = F.relu(self.n1(self.a(x)), inplace=inplace)
            out = self.n2(self.b(h))
            if inplace:
                out += h
                return self.head(F.silu(out, inplace=True).mul_(2))
            return self.head(F.silu(out + h) * 2)

        parts = {"a": conv(3, 4), "n1": nn.BatchNorm2d(4), "b": conv(4, 4), "n2": nn.BatchNorm2d(4)}
        return settle(Apply(run, **parts, head=head(4)))

    x = example(2, 3, 5, 5)
    mine, other = (passed(block(inplace), x, rule) for inplace in (True, False))
    assert {*mine.layers} == {*other.layers}
    for name, part in other.layers.items():
        torch.testing.assert_close(mine.layers[name], part, **CLOSE)
    torch.testing.assert_close(mine.inputs, other.inputs, **CLOSE)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_o8_a_module_that_runs_twice_is_two_with_the_same_weights(rule: Rule) -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        return self.c(F.relu(self.second(F.relu(self.b(h)))))

    shared = settle(Apply(run, a=nn.Linear(5, 5), b=nn.Linear(5, 5), c=nn.Linear(5, 2), d=nn.Linear(5, 5)))
    apart = copy.deepcopy(shared)
    shared.second, apart.second = shared.b, copy.deepcopy(shared.b)
    x = example(3, 5)
    mine, other = passed(shared, x, rule), passed(apart, x, rule)
    torch.testing.assert_close(mine.inputs, other.inputs, **CLOSE)
    torch.testing.assert_close(mine.layers["a:linear#0"], other.layers["a:linear#0"], **CLOSE)


@pytest.mark.parametrize("name", ["depthwise", "transposed", "conv1d", "conv3d"])
@pytest.mark.parametrize("rule", [sl.ZPlus(0), sl.AlphaBeta(2, 1, 0)], ids=str)
def test_o8_o9_batch_norms_are_part_of_their_layer(name: str, rule: Rule) -> None:
    """As in a copy in which they were merged by PyTorch, wherever that can."""
    model, x = NETS[name]()
    merged = copy.deepcopy(model)
    pairs = _merge(merged, sl.trace(model, x[:1]).norms)
    mine, other = passed(model, x, rule), passed(merged, x, rule)
    torch.testing.assert_close(mine.output, other.output, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(mine.inputs, other.inputs, rtol=1e-7, atol=1e-9)
    assert pairs


def _merge(model: nn.Module, norms: tuple[tuple[str, str], ...]) -> int:
    for call, name in norms:
        layer, norm = model.get_submodule(call.partition(":")[0]), model.get_submodule(name)
        turned = layer.transposed if isinstance(layer, nn.modules.conv._ConvNd) else False
        fused = fuse_conv_bn_eval(layer, norm, transpose=turned)  # type: ignore[type-var]
        for target, value in ((call.partition(":")[0], fused), (name, nn.Identity())):
            parent, _, last = target.rpartition(".")
            setattr(model.get_submodule(parent), last, value)
    return len(norms)


@pytest.mark.parametrize("rule", [sl.ZPlus(), sl.Gamma()], ids=str)
def test_o8_o9_a_batch_norm_that_runs_twice_is_part_of_its_layer_each_time(rule: Rule) -> None:
    """Also in an exported program, whose norms have no names."""

    def run(self: Any, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        return self.c(F.relu(self.second(h + F.relu(self.first(h)))))

    once = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    shared = settle(Apply(run, a=nn.Linear(4, 4), first=once, second=nn.Identity(), c=nn.Linear(4, 2)))
    apart = copy.deepcopy(shared)
    shared.second, apart.second = shared.first, copy.deepcopy(apart.first)
    x = example(3, 4)
    expected = passed(apart, x, rule).inputs
    for model in (shared, sl.program(shared, x)):
        torch.testing.assert_close(passed(model, x, rule).inputs, expected, **CLOSE)


@pytest.mark.parametrize("rule", [sl.Epsilon(), sl.ZPlus(), sl.Gamma(), sl.AlphaBeta()], ids=str)
@pytest.mark.parametrize("make", [conv, nn.ConvTranspose2d])
def test_o8_o9_a_batch_norm_may_be_more_precise_than_its_layer(rule: Rule, make: Any) -> None:
    """As in mixed precision; relevance is as in double precision, to bfloat16's."""
    model = settle(nn.Sequential(make(3, 4, 3), nn.BatchNorm2d(4), conv(4, 4), head(4)))
    x = example(3, 3, 6, 6)
    expected = passed(model, x, rule).inputs
    mixed = model.bfloat16()
    mixed[1].float()
    found = passed(mixed, x.bfloat16(), rule).inputs
    assert found.dtype == torch.bfloat16
    assert float((found.double() - expected).abs().max() / expected.abs().max()) < 0.03


@pytest.mark.parametrize("tokens", [3, 4])
@pytest.mark.parametrize("rule", [sl.ZPlus(), sl.Gamma()], ids=str)
def test_o8_o9_a_batch_norm_over_tokens_is_affine_behind_its_layer(tokens: int, rule: Rule) -> None:
    """As the same function by hand."""

    def run(self: Any, x: Tensor) -> Tensor:
        h = self.a(x)
        if self.by_hand:
            scale = self.n.weight / (self.n.running_var + self.n.eps).sqrt()
            shift = self.n.bias - scale * self.n.running_mean
            h = h * scale[:, None] + shift[:, None]
        else:
            h = self.n(h)
        return self.c(F.relu(h)).mean(1)

    model = settle(Apply(run, a=nn.Linear(4, 4), n=nn.BatchNorm1d(tokens), c=nn.Linear(4, 2)))
    x, found = example(2, tokens, 4), []
    for model.by_hand in (True, False):
        found.append(passed(model, x, rule))
    torch.testing.assert_close(found[1].output, found[0].output, **CLOSE)
    torch.testing.assert_close(found[1].inputs, found[0].inputs, **CLOSE)


def test_o9_merging_changes_nothing_for_lrp_0() -> None:
    model, x = cut(), example(3, 3, 6, 6)
    merged = copy.deepcopy(model)
    assert _merge(merged, sl.trace(model, x[:1]).norms) == 2
    mine, other = passed(model, x, ZERO), passed(merged, x, ZERO)
    for name, part in other.layers.items():  # read behind the BatchNorm in either
        torch.testing.assert_close(mine.layers[name], part, **CLOSE)
    assert not torch.allclose(passed(model, x, sl.ZPlus()).inputs, mine.inputs)


@pytest.mark.parametrize("running", [True, False])
def test_instance_norms_by_running_statistics_are_affine(running: bool) -> None:
    """And in exported programs, which give their arguments in another order, as where they are called."""
    norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=running)
    model = settle(nn.Sequential(conv(3, 4), norm, nn.ReLU(), conv(4, 4), nn.ReLU(), head(4)))
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean.fill_(0.3)
        norm.running_var.fill_(4)
    x = example(2, 3, 6, 6).requires_grad_()
    mine = passed(model, x, ZERO).inputs
    torch.testing.assert_close(passed(sl.program(model, x.detach()), x, ZERO).inputs, mine, **CLOSE)
    (gradient,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    assert torch.allclose(mine, gradient * x) == running


class Attention(nn.Module):
    """Heads in four ways of writing them; no biases."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.qkv, self.out = nn.Linear(8, 24, bias=False), nn.Linear(8, 8, bias=False)
        self.head = nn.Linear(8, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        if self.how == "fused":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.how == "named":
            y = F.scaled_dot_product_attention(query=q, key=k, value=v, scale=0.5)
        elif self.how == "einsum":
            weights = torch.einsum("ehqd,ehkd->ehqk", q, k).div(2.0).softmax(-1)
            y = torch.einsum("ehqk,ehkd->ehqd", F.dropout(weights, 0.0).to(v.dtype), v)
        else:
            scores = torch.matmul(q * 0.5, k.transpose(-2, -1))
            y = torch.bmm(F.softmax(scores, -1).flatten(0, 1), v.flatten(0, 1)).view_as(v)
        return self.head(self.out(y.transpose(1, 2).flatten(2)).mean(1))


@pytest.mark.parametrize("attention", ["attnlrp", "cp"])
@pytest.mark.parametrize("how", ["named", "einsum", "eager"])
def test_o10_attention_however_it_is_written(how: str, attention: Any) -> None:
    x, rules = example(2, 5, 8), Composite(attention=attention)
    mine, other = (passed(settle(Attention(h)), x, rules) for h in (how, "fused"))
    torch.testing.assert_close(mine.inputs, other.inputs, **CLOSE)
    torch.testing.assert_close(mine.layers["qkv:linear#0"], other.layers["qkv:linear#0"], **CLOSE)


def test_o10_cp_conserves_and_leaves_queries_and_keys_alone() -> None:
    x = example(2, 5, 8)
    found = passed(settle(Attention("fused")), x, Composite(default=ZERO, attention="cp"))
    torch.testing.assert_close(found.inputs.flatten(1).sum(1), found.output[:, 0], rtol=1e-9, atol=1e-10)
    query, key, value = found.layers["qkv:linear#0"].unflatten(-1, (3, 8)).unbind(2)
    assert not query.any()
    assert not key.any()
    assert value.any()


def test_o10_attnlrp_by_its_closed_forms() -> None:
    """R_A = A (R_O / 2 O) V, R_V likewise; R_z = z (R - s sum R); halves again at the scores."""
    model, x = settle(Attention("eager")), example(2, 5, 8)
    rules = Composite(default=ZERO)
    q, k, v = model.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).detach()
    z = (q * 0.5) @ k.mT
    s = z.softmax(-1)
    o = s @ v
    y = o.transpose(1, 2).flatten(2)
    ry = y * (torch.eye(3).double()[0] @ model.head.weight @ model.out.weight) / 5
    ro = ry.unflatten(-1, (2, 4)).transpose(1, 2).detach()
    ra, rv = s * ((ro / (2 * o)) @ v.mT), v * (s.mT @ (ro / (2 * o)))
    rz = z * (ra - s * ra.sum(-1, keepdim=True))
    rq, rk = q * 0.5 * ((rz / (2 * z)) @ k), k * ((rz / (2 * z)).mT @ (q * 0.5))
    expected = torch.stack([rq, rk, rv]).permute(1, 3, 0, 2, 4).flatten(2)
    mine = passed(model, x, rules).layers["qkv:linear#0"]
    torch.testing.assert_close(mine, expected, rtol=1e-8, atol=1e-11)
    # What a head is worth at the output projection is what its attention weights get, and as much again.
    torch.testing.assert_close(ro.sum((-2, -1)), 2 * ra.sum((-2, -1)), rtol=1e-9, atol=1e-12)


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class Hand(nn.Module):
    """Norms as large models write them."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.weight = how, nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "rms":
            return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))
        if self.how == "rms_divided":
            return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * self.weight
        if self.how == "rms_power":
            return x * (x * x).mean(-1, keepdim=True).add(1e-5).pow(-0.5) * self.weight
        if self.how == "layer":
            d = x - x.mean(-1, keepdim=True)
            return d / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-5) * self.weight
        if self.how == "rms_norm":
            return F.rms_norm(x, (6,), self.weight, 1e-5)
        return F.layer_norm(x, (6,), self.weight, eps=1e-5)


FORMS: list[tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = [
    (lambda: Apply(lambda self, x: gelu(x)), lambda: nn.GELU("tanh")),
    (lambda: Apply(lambda self, x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))), nn.GELU),
    (lambda: Apply(lambda self, x: x * x.sigmoid()), nn.SiLU),
    (lambda: Apply(lambda self, x: x / (1 + torch.exp(-x))), nn.SiLU),
    (lambda: Apply(lambda self, x: x.mul(torch.tanh(F.softplus(x)))), nn.Mish),
    (lambda: Apply(lambda self, x: (g := x.clone(), g.sigmoid_(), x * g)[2]), nn.SiLU),
    (lambda: Apply(lambda self, x: x * F.hardsigmoid(x)), nn.Hardswish),
    (lambda: Hand("rms"), lambda: Hand("rms_norm")),
    (lambda: Hand("rms_divided"), lambda: Hand("rms_norm")),
    (lambda: Hand("rms_power"), lambda: Hand("rms_norm")),
    (lambda: Hand("layer"), lambda: Hand("layer_norm")),
]


@pytest.mark.parametrize("form", range(len(FORMS)))
def test_functions_written_by_hand_are_those_of_torch(form: int) -> None:
    def net(middle: nn.Module) -> nn.Module:
        return settle(nn.Sequential(nn.Linear(4, 6), middle, nn.Linear(6, 2)))

    mine, torchs = (passed(net(make()), example(5, 4), ZERO) for make in FORMS[form])
    torch.testing.assert_close(mine.output, torchs.output, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(mine.layers["0:linear#0"], torchs.layers["0:linear#0"], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: F.silu(x[..., :6]) * x[..., 6:],  # SwiGLU
        lambda x: F.glu(x, -1),
        lambda x: x[..., :6] * x[..., 6:].sigmoid(),  # a gate
        lambda x: F.gelu(x[..., :6]) * x[..., 6:],
        lambda x: x[..., :6] * x[..., 6:],
        lambda x: x[..., :6].square(),
        lambda x: F.normalize(x[..., :6], dim=-1),
        lambda x: F.relu(x[..., :6]) ** 2,
        lambda x: x[..., 6:].norm(dim=-1, keepdim=True) + x[..., :6],
    ],
)
def test_products_gates_and_powers_conserve(middle: Callable[[Tensor], Tensor]) -> None:
    found = passed(around(middle, 12, bias=False), example(5, 4), ZERO)
    torch.testing.assert_close(found.inputs.sum(1), found.output[:, 0], rtol=1e-6, atol=1e-8)


def around(middle: Callable[[Tensor], Tensor], width: int = 6, bias: bool = True) -> nn.Module:
    """A function between two linear layers, behind units that can be removed."""

    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(middle(self.a(F.relu(self.pre(x)))))

    parts = {"pre": nn.Linear(4, 5, bias), "a": nn.Linear(5, width, bias), "b": nn.Linear(6, 2, bias)}
    return settle(Apply(run, **parts))


def test_unified_view_of_four_attributions_by_hand() -> None:
    """f = relu(relu(x1 - 1) - relu(x2)) at (3, 1), epsilon 1e-4: 2.99955 and -0.99980."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1, bias=False), nn.ReLU()).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[0].bias.copy_(torch.tensor([-1.0, 0.0]))
        model[2].weight.copy_(torch.tensor([[1.0, -1.0]]))
    x = torch.tensor([[-10.0, -5.0], [3.0, 1.0]], dtype=torch.float64)
    inputs = passed(model, x, sl.Epsilon(1e-4)).inputs
    assert inputs[0].tolist() == [0, 0]
    assert inputs[1].tolist() == pytest.approx([2.99955, -0.99980], abs=5e-6)
    assert passed(model, x, ZERO).inputs[1].tolist() == [3, -1]


@pytest.mark.parametrize(
    ("middle", "why"),
    [
        (lambda x: x.cumprod(-1), "no rule for 'cumprod'"),
        (lambda x: x.log_softmax(-1), "no rule for 'log_softmax'"),
        (lambda x: 2.0**x, "__rpow__"),
        (lambda x: torch.pow(x, x + 1), "more than one of its arguments"),
        (lambda x: torch.clamp(x, min=x.mean()), "more than one of its arguments"),
        (lambda x: F.linear(torch.ones(3, 6).double(), x.mean(0).expand(6, 6)), "weights or its bias depend"),
        (lambda x: torch.einsum("ef,ef,ef->ef", x, x, x), "other than two activations"),
    ],
)
def test_what_is_not_covered_is_refused(middle: Callable[[Tensor], Tensor], why: str) -> None:
    with pytest.raises(sl.CriterionError, match=why):
        passed(around(middle), example(3, 4), sl.ZPlus())


def test_a_recurrence_is_refused() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(self.r(self.a(x))[0][:, -1])

    model = settle(Apply(run, a=nn.Linear(3, 4), r=nn.GRU(4, 5, batch_first=True), b=nn.Linear(5, 2)))
    with pytest.raises(sl.CriterionError, match="there is no rule for 'recur'"):
        passed(model, example(2, 4, 3), sl.Epsilon())


def test_questions_about_shapes_need_no_rule() -> None:
    def middle(h: Tensor) -> Tensor:
        assert h.argmax(-1).shape == h.size()[:-1]
        assert torch.isfinite(h).shape == h.shape
        return h.reshape(h.shape[0], h.numel() // h.shape[0]).T.T

    assert passed(around(middle), example(3, 4), sl.ZPlus()).inputs.any()


def test_resnet20_and_what_every_layer_returns() -> None:
    model, x = resnet20().double().eval(), example(2, 3, 8, 8)
    found = passed(settle(model), x, sl.ZPlus())
    assert len(found.layers) == 20 or len(found.layers) > 20
    assert all(bool(part.isfinite().all()) for part in found.layers.values())
    assert Relevance.method == "LRP()"


class Squeezed(nn.Module):
    """A product of what a first layer returns with what it gates, or divides by, itself."""

    def __init__(self, gate: Callable[[nn.Module, Tensor], Tensor], before: bool) -> None:
        super().__init__()
        self.before = nn.Linear(3, 3, bias=False) if before else nn.Identity()
        self.a, self.f1 = nn.Linear(3, 6, bias=False), nn.Linear(6, 4)
        self.f2, self.b = nn.Linear(4, 6), nn.Linear(6, 5, bias=False)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(F.relu(self.before(x))))
        return self.b(h * self.gate(self, h))


SQUEEZES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "gate": lambda net, h: torch.sigmoid(net.f2(F.relu(net.f1(h)))),
    "length": lambda net, h: 1 / h.norm(dim=1, keepdim=True),
    "root": lambda net, h: torch.rsqrt(h.pow(2).mean(1, keepdim=True) + 1e-6),
    "swapped": lambda net, h: torch.rsqrt((h * h).mean(1, keepdim=True) + 1e-6),
}


@pytest.mark.parametrize("name", SQUEEZES)
@pytest.mark.parametrize("before", [True, False], ids=["behind", "first"])
def test_what_no_unit_lies_before_is_an_activation_all_the_same(name: str, before: bool) -> None:
    """A group's relevance is the logit, whether its own tensor depends on units before it or not."""
    model = settle(Squeezed(SQUEEZES[name], before))
    x, labels = example(5, 3).abs(), torch.arange(5)
    graph, lrp = sl.trace(model, x[:1]), sl.LRP(ZERO, absolute=None)
    logits = model(x)[torch.arange(5), labels]
    every = sl.attribute(model, graph, (x, labels), lrp, aggregate=None).values
    assert torch.allclose(every["a"].sum(1), logits, **CLOSE)
    for group, values in every.items():
        alone = sl.attribute(model, graph, (x, labels), lrp, aggregate=None, groups=[group]).values[group]
        assert torch.allclose(alone, values, **CLOSE)
    if name == "gate":  # all relevance is that of what it gates
        assert not every["f1"].any()


def test_embeddings_are_activations_too() -> None:
    def run(self: Any, words: Tensor) -> Tensor:
        h = self.words(words)
        return self.out((h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)).mean(1))

    model = settle(Apply(run, words=nn.Embedding(7, 6), out=nn.Linear(6, 3, bias=False)))
    words, labels = torch.arange(10).view(5, 2) % 7, torch.arange(5) % 3
    graph = sl.trace(model, words[:1])
    (values,) = sl.attribute(
        model, graph, (words, labels), sl.LRP(ZERO, absolute=None), aggregate=None
    ).values.values()
    assert torch.allclose(values.sum(1), model(words)[torch.arange(5), labels], **CLOSE)


def test_a_learned_query_is_one_fused_or_not() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        h = self.j(F.relu(self.i(x)))
        query = self.query.expand(len(x), -1, -1)
        return self.o(self.m(query, h, h, need_weights=self.eager)[0][:, 0])

    parts = {"i": nn.Linear(5, 10), "j": nn.Linear(10, 8), "o": nn.Linear(8, 4)}
    model = settle(Apply(run, **parts, m=nn.MultiheadAttention(8, 2, batch_first=True)))
    model.query = nn.Parameter(example(1, 1, 8))
    x, labels, found = example(6, 7, 5), torch.arange(6) % 4, []
    for model.eager in (True, False):
        graph = sl.trace(model, x)
        found.append([sl.attribute(model, graph, (x, labels), sl.LRP(r), aggregate=None) for r in RULES])
    for eager, fused in zip(*found, strict=True):
        for group in eager.values:
            assert torch.allclose(eager.values[group], fused.values[group], **CLOSE)


def test_what_is_made_of_weights_alone_is_one() -> None:
    """A low-rank update and a spectral norm multiply weights before they meet an activation."""

    def run(self: Any, x: Tensor) -> Tensor:
        return self.out(F.relu(F.linear(F.relu(self.a(x)), self.b.weight + self.up @ self.down)))

    model = settle(Apply(run, a=nn.Linear(3, 6), b=nn.Linear(6, 5), out=nn.Linear(5, 3)))
    model.up, model.down = nn.Parameter(example(5, 2)), nn.Parameter(example(2, 6))
    normed = settle(
        nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.utils.parametrizations.spectral_norm(nn.Linear(6, 3)))
    )
    x, labels = example(5, 3), torch.arange(5) % 3
    for net in (model, normed):
        graph = sl.trace(net, x[:1])
        lrp, taylor = sl.LRP(ZERO, absolute=None), sl.Taylor(signed=True, target=sl.Logit())
        mine, theirs = (sl.attribute(net, graph, (x, labels), c, aggregate=None) for c in (lrp, taylor))
        assert mine.values.keys() == theirs.values.keys()
        for group, values in theirs.values.items():
            assert torch.allclose(mine.values[group], values, **CLOSE)

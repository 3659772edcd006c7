"""Rules against the sums that define them, contribution by contribution; their limits and symmetries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from lrp import passed, written_out
from shapleaf._calls import Call
from shapleaf.backward import Affine, affine
from shapleaf.errors import CriterionError
from shapleaf.linear import reading
from shapleaf.relevance import Rule
from shapleaf.relevance.rules import negative, positive, ratio
from zoo import example, settle

RULES = [
    sl.Epsilon(),
    sl.Epsilon(0.25),
    sl.ZPlus(),
    sl.Gamma(),
    sl.Gamma(2.0),
    sl.AlphaBeta(),
    sl.AlphaBeta(3, 2),
]
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def through(rule: Rule, layer: Affine, weights: Tensor) -> tuple[Tensor, Tensor]:
    """What the layer returns, and the relevance of what it reads where its own is ``z * weights``."""
    out = rule.apply(layer, layer())
    (gradient,) = torch.autograd.grad((out * weights).sum(), layer.input)
    return out.detach(), (layer.input * gradient).detach()


def linear(x: Tensor, w: Tensor, b: Tensor | None) -> Affine:
    found = affine(Call(":linear#0", F.linear, (x.requires_grad_(), w, b), {}))
    assert found is not None
    return found


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_o4_a_linear_layer_contribution_by_contribution(rule: Rule, biased: bool) -> None:
    """Signed inputs, weights and biases."""
    x, w, b = example(5, 7), example(4, 7, seed=2), example(4, seed=3) if biased else None
    weights = example(5, 4, seed=4)
    out, mine = through(rule, linear(x, w, b), weights)
    z = F.linear(x.detach(), w, b)
    assert torch.equal(out, z)
    torch.testing.assert_close(mine, written_out(rule, x.detach(), w, b, z * weights), **EXACT)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(
    "options",
    [{"padding": 1}, {"stride": 2, "padding": 2, "dilation": 2}, {"groups": 2}, {"groups": 4}],
    ids=str,
)
def test_o4_a_convolution_unfolded(rule: Rule, options: dict[str, int]) -> None:
    groups = options.get("groups", 1)
    x, w, b = example(2, 4, 5, 5), example(8, 4 // groups, 3, 3, seed=2), example(8, seed=3)
    call = Call(":conv2d#0", F.conv2d, (x.requires_grad_(), w, b), options)
    layer, product = affine(call), reading(call.key, call.args, call.kwargs)
    assert layer is not None
    assert product is not None
    z = F.conv2d(x, w, b, **options).detach()
    weights = example(*z.shape, seed=4)
    out, mine = through(rule, layer, weights)
    assert torch.equal(out, z)
    slow = torch.zeros_like(x)
    rows, outs = product.rows(x), product.outputs(z * weights)
    for group in range(groups):
        per = len(b) // groups
        each = written_out(
            rule,
            rows[:, group].detach().reshape(-1, rows.shape[-1]),
            product.matrix()[group].T,
            b[group * per : group * per + per],
            outs[:, group].reshape(-1, per),
        ).view(rows[:, group].shape)
        # Back to where each was read, by the gradient of the unfolding.
        slow += torch.autograd.grad((product.rows(x)[:, group] * each).sum(), x)[0].detach()
    torch.testing.assert_close(mine, slow, **EXACT)


def test_o5_limits() -> None:
    x, w, b, weights = example(6, 9), example(5, 9, seed=2), example(5, seed=3), example(6, 5, seed=4)
    relevance = {rule: through(rule, linear(x, w, b), weights)[1] for rule in [
        sl.AlphaBeta(1, 0), sl.ZPlus(), sl.Gamma(0), sl.Epsilon(), sl.Gamma(1e9)]}  # fmt: skip
    assert torch.equal(relevance[sl.AlphaBeta(1, 0)], relevance[sl.ZPlus()])
    assert torch.equal(relevance[sl.Gamma(0)], relevance[sl.Epsilon()])
    above = F.linear(x, w, b) > 0
    for positive_only in (True, False):
        part = weights * (above == positive_only)
        many, plus = (through(rule, linear(x, w, b), part)[1] for rule in (sl.Gamma(1e9), sl.ZPlus(0)))
        near = torch.allclose(many, plus, rtol=1e-6, atol=1e-8)
        assert near == positive_only  # of negative outputs the negative contributions count


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_epsilon_zero_is_the_gradient(rule: Rule) -> None:
    x, w, b, weights = example(3, 4), example(2, 4, seed=2), example(2, seed=3), example(3, 2, seed=4)
    _, mine = through(sl.Epsilon(0), linear(x, w, b), weights)
    torch.testing.assert_close(mine, x.detach() * (weights @ w), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("rule", [r for r in RULES if r != sl.Epsilon(0.25)], ids=str)
def test_o6_scales_permutations_splits_and_dead_units(rule: Rule) -> None:
    net = settle(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)))
    x = example(3, 5)
    before = passed(net, x, rule).layers["0:linear#0"]

    with torch.no_grad():  # three units two to four times as large, read two to four times less
        scale = torch.tensor([2.0, 4.0, 1.0, 2.0, 1.0, 4.0], dtype=torch.float64)
        net[0].weight.mul_(scale[:, None])
        net[0].bias.mul_(scale)
        net[2].weight.div_(scale)
    torch.testing.assert_close(passed(net, x, rule).layers["0:linear#0"], before, rtol=1e-4, atol=1e-6)

    order = torch.tensor([3, 1, 5, 0, 2, 4])
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight[order])
        net[0].bias.copy_(net[0].bias[order])
        net[2].weight.copy_(net[2].weight[:, order])
    moved = passed(net, x, rule).layers["0:linear#0"]
    torch.testing.assert_close(moved, before[:, order], rtol=1e-4, atol=1e-6)

    with torch.no_grad():  # the last unit is given half of the first
        net[0].weight[5], net[0].bias[5] = net[0].weight[0], net[0].bias[0]
        net[2].weight[:, 5] = net[2].weight[:, 0] / 2
        net[2].weight[:, 0] /= 2
    split = passed(net, x, rule).layers["0:linear#0"]
    torch.testing.assert_close(split[:, 5], split[:, 0])

    with torch.no_grad():
        net[2].weight[:, 1] = 0  # nobody reads it
        net[0].bias[2] = -99  # never on
    dead = passed(net, x, rule).layers["0:linear#0"]
    assert not dead[:, 1:3].any()
    assert dead.any()


def test_nothing_is_carried_where_nothing_is() -> None:
    x = torch.zeros(1, 3, dtype=torch.float64)
    for rule in (sl.ZPlus(0), sl.Gamma(1, 0), sl.AlphaBeta(2, 1, 0)):
        _, mine = through(rule, linear(x, example(2, 3), None), torch.ones(1, 2))
        assert mine.tolist() == [[0.0, 0.0, 0.0]]
    assert ratio(torch.tensor(3.0), torch.tensor(0.0), 0.0) == 0


@pytest.mark.parametrize(("dtype", "eps"), [(torch.float16, 1e-9), (torch.float32, 1e-50)])
@pytest.mark.parametrize("kind", [sl.Epsilon, sl.ZPlus, sl.Gamma, sl.AlphaBeta])
def test_an_epsilon_that_is_zero_in_the_precision_of_the_layer(
    kind: Any, dtype: torch.dtype, eps: float
) -> None:
    """As in double precision, also where contributions cancel or there are none."""
    x, w = (
        torch.tensor([[1.0, -1.0, 2.0]]),
        torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, -3.0, 2.0]]),
    )
    exact, found = (
        through(kind(eps=eps), linear(x.to(to), w.to(to), None), torch.ones(1, 3, dtype=to))[1]
        for to in (torch.float64, dtype)
    )
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-6)


def test_positive_contributions_by_hand() -> None:
    """1*2 + (-3)*(-1) + 0.5, without 2*(-4)."""
    layer = linear(torch.tensor([[1.0, -3.0, 2.0]]), torch.tensor([[2.0, -1.0, -4.0]]), torch.tensor([0.5]))
    assert positive(layer).item() == 5.5
    assert negative(layer).item() == -8
    assert positive(linear(torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([-0.5]))).item() == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sl.Epsilon(-1), "Epsilon.eps=.... must not be negative, received -1"),
        (lambda: sl.ZPlus(float("nan")), "must not be negative, received nan"),
        (lambda: sl.Gamma(-0.1), "Gamma.gamma=...."),
        (lambda: sl.AlphaBeta(2, 2), "alpha - beta is 1, received 2 and 2"),
        (lambda: sl.AlphaBeta(0, -1), "AlphaBeta.beta=...."),
    ],
)
def test_bad_parameters(make: object, message: str) -> None:
    with pytest.raises(CriterionError, match=message):
        make()  # type: ignore[operator]

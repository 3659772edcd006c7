"""Networks whose scores are known exactly, through trace and attribute: published tables and rationals."""

from __future__ import annotations

from fractions import Fraction as F

import pytest
import torch
from torch import Tensor, nn

import shapleaf as sl
from maxnet import GROUP, POINTS, MaxNet, data, per_example, quadrature, squared

EXACT = {"rtol": 0, "atol": 1e-12}
INTEGRAL = {"rtol": 0, "atol": 1e-10}
NETS = {
    "paper": MaxNet(),  # Ancona et al. 2020, table 1
    "paper with D": MaxNet(d=-0.1),
    "v1": MaxNet(first=0.5),  # TorchPruner's test cases
    "v2": MaxNet(first=0.5, d=-0.1),
}
SHAPLEY = [
    sl.Shapley(sl.Exact()),
    sl.Shapley(sl.Path(1, "line")),  # the loss is quadratic in the masks
    sl.Shapley(sl.Path(16, "line")),
]


def row(*values: F | float) -> Tensor:
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


def mean_over_square(net: str, criterion: sl.Criterion) -> Tensor:
    """Exact expectation of per-example scores over x ~ U[0, 10]^2."""
    points, weights = quadrature()
    return weights @ per_example(NETS[net], criterion, points)


def test_the_quadrature_integrates_the_games_polynomials() -> None:
    points, weights = quadrature()
    x1, x2 = points.T
    a, c = torch.relu(x2 - x1) / 2, (x1 + x2) / 2
    moments = [torch.ones_like(a), a**2, c**2, a * c, (a * x2) ** 2, points.amax(1)]
    expected = row(1, F(25, 12), F(175, 6), F(25, 6), F(10**4, 72), F(20, 3))
    torch.testing.assert_close(torch.stack([weights @ moment for moment in moments]), expected, **INTEGRAL)


# The table of the specification, row by row: units A, B, C, D


@pytest.mark.parametrize("criterion", SHAPLEY, ids=repr)
@pytest.mark.parametrize(
    ("net", "expected"),
    [
        ("paper", row(F(25, 4), F(25, 4), F(75, 2), 0)),
        ("paper with D", row(F(85, 12), F(85, 12), F(130, 3), F(-26, 3))),
        ("v1", row(F(25, 4), F(25, 4), F(75, 2), 0)),
        ("v2", row(F(85, 12), F(85, 12), F(130, 3), F(-26, 3))),
    ],
)
def test_shapley_values_on_the_square(net: str, expected: Tensor, criterion: sl.Criterion) -> None:
    torch.testing.assert_close(mean_over_square(net, criterion), expected, **INTEGRAL)


@pytest.mark.parametrize("criterion", SHAPLEY, ids=repr)
@pytest.mark.parametrize(
    ("net", "expected"),
    [
        ("v1", row(F(3, 8), F(3, 8), F(7, 4), 0)),
        ("v2", row(F(17, 40), F(17, 40), 2, F(-2, 5))),
        ("paper", row(F(3, 8), F(3, 8), F(7, 4), 0)),
        ("paper with D", row(F(17, 40), F(17, 40), 2, F(-2, 5))),
    ],
)
def test_shapley_values_on_the_four_points(net: str, expected: Tensor, criterion: sl.Criterion) -> None:
    torch.testing.assert_close(per_example(NETS[net], criterion).mean(0), expected, **EXACT)


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        ("paper", row(F(25, 12), F(25, 12), F(175, 6), 0)),
        ("paper with D", row(F(15, 4), F(15, 4), F(245, 6), F(-7, 6))),
    ],
)
def test_leave_one_out_on_the_square(net: str, expected: Tensor) -> None:
    torch.testing.assert_close(mean_over_square(net, sl.LeaveOneOut()), expected, **INTEGRAL)


@pytest.mark.parametrize(("net", "first"), [("paper", 0.5), ("paper with D", 0.5), ("v1", 1), ("v2", 1)])
def test_absolute_weights(net: str, first: float) -> None:
    torch.testing.assert_close(per_example(NETS[net], sl.WeightNorm()), row(first, 2, 2, 2), **EXACT)


@pytest.mark.parametrize("net", NETS)
def test_active_share(net: str) -> None:
    torch.testing.assert_close(mean_over_square(net, sl.APoZ()), row(0.5, 0.5, 1, 1), **INTEGRAL)
    torch.testing.assert_close(per_example(NETS[net], sl.APoZ()).mean(0), row(0.5, 0.5, 1, 1), **EXACT)


@pytest.mark.parametrize(
    ("net", "square", "points"),
    [  # after the ReLU; before it the indicator of x2 > x1 would halve those of A and B
        ("paper with D", row(4, 1, 1, 0.2), row(0.8, 0.2, 0.2, 0.04)),
        ("v2", row(2, 1, 1, 0.2), row(0.4, 0.2, 0.2, 0.04)),
        ("paper", row(0, 0, 0, 0), row(0, 0, 0, 0)),
        ("v1", row(0, 0, 0, 0), row(0, 0, 0, 0)),
    ],
)
def test_sensitivity(net: str, square: Tensor, points: Tensor) -> None:
    torch.testing.assert_close(mean_over_square(net, sl.Sensitivity()), square, **INTEGRAL)
    torch.testing.assert_close(per_example(NETS[net], sl.Sensitivity()).mean(0), points, **EXACT)


@pytest.mark.parametrize(
    ("net", "square", "points"),
    [
        ("paper with D", row(F(5, 3), F(5, 3), F(35, 3), F(7, 3)), row(0.1, 0.1, 0.5, 0.1)),
        ("v2", row(F(5, 3), F(5, 3), F(35, 3), F(7, 3)), row(0.1, 0.1, 0.5, 0.1)),
        ("paper", row(0, 0, 0, 0), row(0, 0, 0, 0)),
        ("v1", row(0, 0, 0, 0), row(0, 0, 0, 0)),
    ],
)
def test_taylor(net: str, square: Tensor, points: Tensor) -> None:
    signs = row(1, 1, 1, -1)
    torch.testing.assert_close(mean_over_square(net, sl.Taylor()), square, **INTEGRAL)
    torch.testing.assert_close(mean_over_square(net, sl.Taylor(signed=True)), square * signs, **INTEGRAL)
    torch.testing.assert_close(per_example(NETS[net], sl.Taylor()).mean(0), points, **EXACT)
    torch.testing.assert_close(
        per_example(NETS[net], sl.Taylor(signed=True)).mean(0), points * signs, **EXACT
    )


def test_spread_of_shapley_values_over_examples() -> None:
    points, weights = quadrature()
    values = per_example(NETS["paper"], sl.Shapley(sl.Exact()), points)
    mean = weights @ values
    std = (weights @ (values - mean) ** 2).sqrt()
    variances = row(
        F(10**4, 72) - F(25, 4) ** 2, F(10**4, 72) - F(25, 4) ** 2, F(70000, 36) - F(75, 2) ** 2, 0
    )
    torch.testing.assert_close(std, variances.sqrt(), **INTEGRAL)
    assert std.tolist() == pytest.approx([9.99132, 9.99132, 23.19902, 0], abs=5e-6)
    assert (mean + 2 * std).tolist() == pytest.approx([26.23, 26.23, 83.90, 0], abs=5e-3)


def test_mean_plus_two_deviations_is_the_default_aggregation() -> None:
    graph = sl.trace(NETS["v1"], POINTS[:1])
    scores = sl.attribute(NETS["v1"], graph, data(), sl.Shapley(sl.Exact()), loss=squared)
    # A: 1/2, 0, 1, 0 (its half times the maximum), C: 1/2, 1/2, 3, 3, each times the target
    a, c = row(0.5, 0, 1, 0), row(0.5, 0.5, 3, 3)
    expected = [float(x.mean() + 2 * x.std(unbiased=False)) for x in (a, a, c, torch.zeros(4))]
    assert scores.values[GROUP].tolist() == pytest.approx(expected, abs=1e-12)
    assert scores.settings["aggregate"] == "MeanPlusStd(k=2.0)"


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("net", ["paper with D", "v2"])
def test_permutations_agree_within_their_error(net: str, shared: bool) -> None:
    model, exact = NETS[net], per_example(NETS[net], sl.Shapley(sl.Exact()))
    estimator = sl.Permutation(40, antithetic=False, shared=shared)
    graph = sl.trace(model, POINTS[:1])
    scores = sl.attribute(model, graph, data(), sl.Shapley(estimator), aggregate=None, loss=squared)
    error = (scores.values[GROUP] - exact).abs()
    assert bool((error <= 4 * scores.stderr[GROUP] + 1e-12).all())
    assert float(error.max()) > 1e-3  # it is an estimate
    gap = (scores.values[GROUP] - exact).sum(1)
    torch.testing.assert_close(gap, torch.zeros(4, dtype=torch.float64), **EXACT)


def test_antithetic_pairs_of_a_quadratic_game_are_exact() -> None:
    """In one order a pair interaction falls to one player, in the reverse order to the other."""
    exact = per_example(NETS["v2"], sl.Shapley(sl.Exact()))
    torch.testing.assert_close(per_example(NETS["v2"], sl.Shapley(sl.Permutation(2))), exact, **EXACT)


def test_a_unit_without_effect_is_worth_exactly_nothing() -> None:
    for estimator in (sl.Exact(), sl.Permutation(4), sl.Path(4, "line")):
        assert per_example(NETS["v1"], sl.Shapley(estimator))[:, 3].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_per_example_gradients_do_not_see_the_batch(size: int) -> None:
    """TorchPruner divides by the batch: cut 3 + 1, [.0667, .0833, .1167, .0233], where A and B swap."""
    graph = sl.trace(NETS["v2"], POINTS[:1])
    batches = [(part, part.amax(1)) for part in POINTS.split(size)]
    for criterion, expected in (
        (sl.Sensitivity(), [0.4, 0.2, 0.2, 0.04]),
        (sl.Taylor(), [0.1, 0.1, 0.5, 0.1]),
    ):
        scores = sl.attribute(NETS["v2"], graph, batches, criterion, aggregate=sl.Mean(), loss=squared)
        assert scores.values[GROUP].tolist() == pytest.approx(expected, abs=1e-12)
        assert scores.samples == 4


def test_closed_form_of_squared_error_behind_a_linear_readout() -> None:
    """phi_i = <c_i, 2y - yhat - b>, summed over outputs: 60 units, 5 outputs, one node of the path."""
    model = nn.Sequential(nn.Linear(7, 60), nn.Tanh(), nn.Linear(60, 5)).double()
    x, y = torch.randn(6, 7, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    graph = sl.trace(model, x[:1])
    scores = sl.attribute(
        model,
        graph,
        [(x, y)],
        sl.Shapley(sl.Path(1, "line")),
        aggregate=None,
        loss=lambda o, t: squared(o, t).sum(1),
    )
    with torch.no_grad():
        z, weight, bias = model[:2](x), model[2].weight, model[2].bias
        expected = z * ((2 * y - model(x) - bias) @ weight)
    torch.testing.assert_close(scores.values["0"], expected, **EXACT)


# The table of Ancona et al. 2018 on small functions, with units in the place of inputs


class OfTwo(nn.Module):
    """A function of two units that pass the inputs on."""

    def __init__(
        self, inner: list[list[float]], bias: list[float], outer: list[float], last: nn.Module
    ) -> None:
        super().__init__()
        self.units, self.inner, self.outer = (
            nn.Linear(2, 2, bias=False),
            nn.Linear(2, 2),
            nn.Linear(2, 1, bias=False),
        )
        self.last = last
        with torch.no_grad():
            self.units.weight.copy_(torch.eye(2))
            self.inner.weight.copy_(torch.tensor(inner))
            self.inner.bias.copy_(torch.tensor(bias))
            self.outer.weight.copy_(torch.tensor([outer]))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.outer(torch.relu(self.inner(self.units(x)))))
        return y


DIFFERENCE = OfTwo([[1, 0], [0, 1]], [-1, 0], [1, -1], nn.ReLU())  # relu(relu(x1 - 1) - relu(x2))
MINIMUM = OfTwo([[1, 0], [1, -1]], [0, 0], [1, -1], nn.Identity())  # x1 - relu(x1 - x2), for x1 > 0
F0 = sl.Logit(0)
OF_DIFFERENCE = [
    (sl.Saliency(F0), (1, 1)),
    (sl.GradientActivation(signed=True, target=F0), (3, -1)),
    (sl.IntegratedGradients(16, target=F0), (1.5, -0.5)),
    (sl.DeepLIFT(target=F0), (2, -1)),
    (sl.DeepLIFT(sl.Reference(), F0), (2, -1)),
    (sl.Occlusion(target=F0), (1, -1)),
    (sl.Occlusion(2, target=F0), (0.5, 0.5)),
    (sl.LeaveOneOut(target=F0), (1, -1)),
    (sl.Shapley(sl.Exact(), target=F0), (1.5, -0.5)),
    (sl.Shapley(sl.Permutation(2), target=F0), (1.5, -0.5)),
]
"""What each says of the logit at (3, 1): section 7 of the specification, test oracles."""


@pytest.mark.parametrize(
    ("model", "criterion", "x", "expected"),
    [
        *((DIFFERENCE, criterion, (3, 1), expected) for criterion, expected in OF_DIFFERENCE),
        *((DIFFERENCE, criterion, (-10, -5), (0, 0)) for criterion, _ in OF_DIFFERENCE),
        (MINIMUM, sl.Shapley(sl.Exact(), target=F0), (2, -2), (0, -2)),
        (MINIMUM, sl.Shapley(sl.Exact(), target=F0), (4, 2), (1, 1)),
    ],
)
def test_small_functions(model: nn.Module, criterion: sl.Criterion, x: tuple, expected: tuple) -> None:
    assert of_units(model, criterion, x) == pytest.approx(expected, abs=1e-12)


def of_units(model: nn.Module, criterion: sl.Criterion, x: tuple) -> list[float]:
    point = torch.tensor([x], dtype=torch.float64)
    graph = sl.trace(model, point)
    scores = sl.attribute(model, graph, point, criterion, aggregate=None, groups=["units"])
    return scores.values["units"][0].tolist()


@pytest.mark.parametrize(("x", "expected"), [((2, 0), (1, 0)), ((3, 0), (2, 0))])
def test_integrated_gradients_from_a_baseline(x: tuple, expected: tuple) -> None:
    """From (1, 0), where the first ReLU begins."""
    baseline = sl.Reference(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    criterion = sl.IntegratedGradients(4, baseline, F0)
    assert of_units(DIFFERENCE, criterion, x) == pytest.approx(expected, abs=1e-12)


class Joined(nn.Module):
    """relu(concat(3 x1, 2 x2)), summed, of units that pass the inputs on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.triple, self.double_ = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        for layer, factor in zip(self.children(), (1, 1, 3, 2), strict=True):
            layer.weight = nn.Parameter(factor * torch.eye(2))
        self.double()

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        both = torch.cat([self.triple(self.first(x1)), self.double_(self.second(x2))], 1)
        return torch.relu(both).sum(1, keepdim=True)


JOINED = [
    (sl.Saliency(F0), [0, 0], [2, 2]),
    (sl.GradientActivation(signed=True, target=F0), [0, 0], [6, 2]),
    (sl.IntegratedGradients(3, target=F0), [0, 0], [6, 2]),
    (sl.DeepLIFT(target=F0), [0, 0], [6, 2]),
    (sl.DeepLIFT(sl.Reference(), F0), [0, 0], [6, 2]),
    (sl.Conductance(4, target=F0), [0, 0], [6, 2]),
]


@pytest.mark.parametrize(("criterion", "first", "second"), JOINED, ids=str)
def test_two_inputs_that_meet(criterion: sl.Criterion, first: list[float], second: list[float]) -> None:
    model = Joined()
    x = tuple(torch.tensor([row], dtype=torch.float64) for row in ([-10.0, -5], [3.0, 1]))
    graph = sl.trace(model, x)
    values = sl.attribute(
        model, graph, [(x, torch.zeros(1, dtype=torch.long))], criterion, aggregate=None
    ).values
    assert values["first"][0].tolist() == pytest.approx(first, abs=1e-12)
    assert values["second"][0].tolist() == pytest.approx(second, abs=1e-12)


# TorchPruner's own index cases


@pytest.mark.parametrize(
    ("layers", "positions"),
    [
        ((nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Linear(12, 2)), [0, 1, 2, 3]),
        ((nn.Conv2d(1, 3, 2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 2)), [0]),
    ],
)
def test_channels_know_their_columns_behind_flatten(
    layers: tuple[nn.Module, ...], positions: list[int]
) -> None:
    graph = sl.trace(nn.Sequential(*layers), torch.zeros(1, 1, 3, 3))
    (columns,) = (piece for piece in graph["0"].slices if piece.tensor == f"{len(layers) - 1}.weight")
    assert columns.dim == 1
    assert columns.index[0].tolist() == positions


def test_dropout_rate_follows_the_share_that_stays() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 2))
    plan = sl.plan(sl.trace(model, torch.zeros(1, 3)), {"0": (0, 1, 3, 4)})
    pruned, _ = sl.prune(model, plan, scale_dropout=True)
    assert pruned[1].p == pytest.approx(0.4)
    assert sl.prune(model, plan).model[1].p == 0.5


def test_masks_lie_behind_norm_and_activation() -> None:
    """Masked before BatchNorm, a channel leaves beta - gamma mu / sqrt(var + eps) behind; sliced, nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(16, 3)
    ).double().eval()  # fmt: skip
    with torch.no_grad():
        model[1].running_mean.uniform_(-1, 1)
        model[1].bias.uniform_(0, 1)
    x = torch.randn(5, 2, 6, 6, dtype=torch.float64)
    plan = sl.plan(sl.trace(model, x), {"0": (0, 2, 5)})
    expected = sl.prune(model, plan).model(x)
    torch.testing.assert_close(sl.masked(model, plan)(x), expected, rtol=0, atol=1e-12)
    mask = plan.mask("0")[:, None, None]
    after = model[3:](model[:3](x) * mask)
    before = model[1:](model[0](x) * mask)
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-12)
    assert float((before - expected).detach().abs().max()) > 0.1

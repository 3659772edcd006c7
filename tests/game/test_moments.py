"""Rules for mean and variance against Monte Carlo with independent Gaussian elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from games import random
from shapleaf.game.moments import NoRule, rule_of

DRAWS = 10_000
KERNEL, WEIGHT, SCALE = random(5, 3, 3, 3, seed=5) / 5, random(4, 6, seed=6) / 3, random(3, seed=7)
OTHER = random(2, 3, 4, 6, seed=8)


def given(*shape: int) -> tuple[Tensor, Tensor]:
    """Means and variances, of which the first few are small."""
    variance = random(*shape, seed=1).square().clamp(max=2)
    variance.view(-1)[:3] = torch.tensor([0.0, 1e-14, 1e-4])
    return random(*shape), variance


def ruled(func: Callable[..., Any], mean: Tensor, variance: Tensor, *rest: Any, **options: Any) -> Any:
    rule = rule_of(func.__name__)
    assert rule is not None
    return rule(func, (mean, *rest), options, lambda leaf: variance if leaf is mean else None)


def drawn(mean: Tensor, variance: Tensor) -> Tensor:
    """Samples of the first example, of each element every quantile once (Latin hypercube)."""
    order = random(DRAWS, mean[0].numel(), seed=2).argsort(0)
    noise = torch.special.ndtri((order + 0.5) / DRAWS)
    return mean[:1] + variance[:1].sqrt() * noise.view(DRAWS, *mean.shape[1:]) / noise[:, 0].std(correction=0)


CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], float]] = {
    "linear": (F.linear, (WEIGHT, random(4)), {}, 0.02),
    "conv2d": (F.conv2d, (KERNEL, random(5), 2, 1), {}, 0.02),
    "conv_transpose2d": (F.conv_transpose2d, (random(3, 2, 2, 2) / 4,), {"stride": 2}, 0.02),
    "matmul": (torch.matmul, (WEIGHT.T,), {}, 0.02),
    "batch_norm": (F.batch_norm, (random(3), SCALE.square() + 0.1, SCALE, random(3)), {"eps": 1e-3}, 0.02),
    "torch.batch_norm": (
        torch.batch_norm,
        (SCALE, None, random(3), SCALE.square() + 0.1, False, 0.1, 1e-3, False),
        {},
        0.02,
    ),
    "relu": (F.relu, (), {}, 0.01),
    "leaky_relu": (F.leaky_relu, (0.3,), {}, 0.02),
    "prelu": (F.prelu, (torch.tensor([0.1, -0.5, 2.0]).double(),), {}, 0.06),
    "gelu": (F.gelu, (), {"approximate": "tanh"}, 0.01),
    "silu": (F.silu, (), {}, 0.01),
    "sigmoid": (torch.sigmoid, (), {}, 0.01),
    "tanh": (Tensor.tanh, (), {}, 0.01),
    "hardswish": (F.hardswish, (), {}, 0.01),
    "relu6": (F.relu6, (), {}, 0.01),
    "hardtanh": (F.hardtanh, (), {"max_val": 0.5}, 0.01),
    "avg_pool2d": (F.avg_pool2d, (2,), {}, 0.01),
    "avg_pool2d, padded": (F.avg_pool2d, (3, 2, 1), {}, 0.01),
    "adaptive_avg_pool2d": (F.adaptive_avg_pool2d, ((3, 4),), {}, 0.01),
    "mean": (Tensor.mean, ((2, 3),), {}, 0.01),
    "sum": (torch.sum, (-1,), {"keepdim": True}, 0.1),
    "add": (torch.add, (OTHER[:1],), {"alpha": -2}, 0.02),
    "sub": (Tensor.sub, (1.5,), {}, 0.02),
    "rsub": (Tensor.__rsub__, (1.5,), {}, 0.02),
    "mul": (torch.mul, (OTHER[:1],), {}, 0.1),
    "div": (torch.div, (3.0,), {}, 0.01),
    "neg": (torch.neg, (), {}, 0.02),
    "flatten": (torch.flatten, (1,), {}, 0.02),
    "getitem": (Tensor.__getitem__, ((slice(None), 1),), {}, 0.02),
    "permute": (Tensor.permute, (0, 3, 1, 2), {}, 0.02),
    "pad": (F.pad, ((1, 2),), {"value": 3.0}, 0.02),
    "interpolate": (F.interpolate, (), {"scale_factor": 2}, 0.02),
    "dropout": (F.dropout, (0.5, False), {}, 0.02),
    "max_pool2d": (F.max_pool2d, (2,), {}, 0.06),  # Clark takes the larger of two for Gaussian
}


@pytest.mark.parametrize("name", CALLS)
def test_rules_agree_with_monte_carlo(name: str) -> None:
    func, rest, options, tolerance = CALLS[name]
    mean, variance = given(2, 3, 4, 6)
    out, spread = ruled(func, mean, variance, *rest, **options)
    assert out.shape == spread.shape
    samples = func(drawn(mean, variance), *rest, **options)
    torch.testing.assert_close(out[0], samples.mean(0), rtol=0, atol=0.03 if "max" in name else 0.01)
    torch.testing.assert_close(spread[0], samples.var(0), rtol=0.04, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in CALLS if name != "max_pool2d"])
def test_without_variance_nothing_but_the_function_is_left(name: str) -> None:
    func, rest, options, _ = CALLS[name]
    mean = random(1, 3, 4, 6)
    out, spread = ruled(func, mean, torch.zeros_like(mean), *rest, **options)
    torch.testing.assert_close(out, func(mean, *rest, **options), rtol=0, atol=1e-14)
    assert spread.abs().max() < 1e-25


@pytest.mark.parametrize(
    ("func", "rest", "options"),
    [
        (F.max_pool2d, (3,), {"stride": 2, "padding": 1}),
        (F.max_pool2d, (2, 2, 0, 1, True), {}),
        (F.max_pool2d, ((2, 3), 1, (1, 0), (2, 1)), {}),
        (F.max_pool1d, (3, 2), {}),
        (F.adaptive_max_pool2d, (1,), {}),
    ],
)
def test_windows_of_max_pooling_are_those_of_torch(func: Any, rest: Any, options: Any) -> None:
    """Without variance, the largest element, also where all are negative and the padding would win."""
    mean = -random(2, 3, 5, 6).abs()[(..., 0) if func is F.max_pool1d else ...] - 1
    out, spread = ruled(func, mean, torch.zeros_like(mean), *rest, **options)
    torch.testing.assert_close(out, func(mean, *rest, **options), rtol=0, atol=1e-14)
    assert (spread == 0).all()


def test_two_random_tensors_count_as_independent() -> None:
    first, second = given(2, 3), (random(2, 3, seed=3), random(2, 3, seed=4).square())
    known = {id(first[0]): first[1], id(second[0]): second[1]}

    def moments(func: Any, *args: Any) -> Any:
        rule = rule_of(func.__name__)
        assert rule is not None
        return rule(func, args, {}, lambda leaf: known.get(id(leaf)))

    a, b = (
        mean + v.sqrt() * random(200_000, 2, 3, seed=9 + i) for i, (mean, v) in enumerate((first, second))
    )
    for func, samples in ((torch.add, a + b), (torch.sub, a - b), (torch.mul, a * b)):
        out, spread = moments(func, first[0], second[0])
        torch.testing.assert_close(out, samples.mean(0), rtol=0, atol=0.05)
        torch.testing.assert_close(spread, samples.var(0), rtol=0.05, atol=0.02)
    out, spread = moments(torch.cat, [first[0], second[0], OTHER[:, :, 0, 0]])
    assert torch.equal(spread, torch.cat([first[1], second[1], torch.zeros(2, 3).double()]))
    assert torch.equal(moments(torch.add, first[0], first[0])[1], 4 * first[1])
    torch.testing.assert_close(
        moments(torch.mul, first[0], first[0])[1], a.square().var(0), rtol=0.05, atol=0.01
    )


REFUSED: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = {
    "batch's own statistics": (F.batch_norm, (None, None), {"training": True}),
    "drops elements at random": (F.dropout, (0.5, True), {}),
    "returns the places": (F.max_pool2d, (2,), {"return_indices": True}),
    "windows are not all of one size": (F.adaptive_max_pool2d, ((3, 4),), {}),
    "windows are not": (F.avg_pool2d, (3,), {"padding": 1, "count_include_pad": False}),
    "interpolates between": (F.interpolate, (), {"scale_factor": 2, "mode": "bilinear"}),
    "mixes the examples": (torch.mean, (), {}),
    "rounds": (torch.div, (2,), {"rounding_mode": "floor"}),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_a_rule_does_not_cover_is_refused(why: str) -> None:
    func, rest, options = REFUSED[why]
    with pytest.raises(NoRule, match=why):
        ruled(func, *given(2, 3, 4, 6), *rest, **options)


def test_there_are_no_rules_for_what_couples_elements() -> None:
    assert [rule_of(name) for name in ("softmax", "layer_norm", "scaled_dot_product_attention")] == [None] * 3

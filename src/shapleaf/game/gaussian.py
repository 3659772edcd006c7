"""Mean and variance of functions of Gaussian numbers, from their mean and variance, element by element.

Gradients are in closed form, so that little is kept for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

Moments = tuple[Tensor, Tensor]

NODES = 32


def floor(dtype: torch.dtype) -> float:
    """Variances up to this count as none."""
    return 1e-12 if dtype == torch.float64 else 1e-8


def relu(mean: Tensor, variance: Tensor) -> Moments:
    """Moments of a rectified Gaussian, free of cancellation where the mean is large.

    >>> mean, variance = relu(torch.zeros(1), torch.ones(1))
    >>> round(mean.item() ** 2 * 2 * math.pi, 4), round(variance.item() + mean.item() ** 2, 4)
    (1.0, 0.5)
    """
    found: Moments = _Rectifier.apply(mean, variance)  # type: ignore[no-untyped-call]
    return found


class _Rectifier(torch.autograd.Function):
    """Of which only the arguments are kept: slopes are those of Stein's and Price's theorems."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, variance: Tensor) -> Moments:
        ctx.save_for_backward(mean, variance)
        random, s, a, density = _standard(mean, variance)
        below, above = torch.special.ndtr(-a), torch.special.ndtr(a)
        spread = above + a * a * above * below + a * density * (below - above) - density * density
        return (
            torch.where(random, s * (a * above + density), mean.clamp(min=0)),
            torch.where(random, s * s * spread.clamp(min=0), variance * (mean > 0)),
        )

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Moments:
        mean, variance = ctx.saved_tensors
        by_out, by_spread = slopes
        random, s, a, density = _standard(mean, variance)
        above, density = torch.where(random, torch.special.ndtr(a), mean > 0), torch.where(random, density, 0)
        out = s * (a * above + density)
        return (
            by_out * above + by_spread * 2 * out * (1 - above),
            by_out * density / (2 * s) + by_spread * (above - out * density / s),
        )


def _standard(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where there is variance, its root, the standardised mean and the normal density there."""
    random = variance > floor(variance.dtype)
    s = torch.where(random, variance, 1).sqrt()
    a = mean / s
    return random, s, a, torch.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)


def leaky_relu(mean: Tensor, variance: Tensor, slope: Tensor | float) -> Moments:
    """Moments of a leaky rectifier: ``slope * x + (1 - slope) * relu(x)``, whose parts are correlated."""
    rectified, spread = relu(mean, variance)
    common = variance * _present(mean, variance)  # Stein: Cov(x, f(x)) = Var(x) E f'(x)
    out = slope * mean + (1 - slope) * rectified
    return out, slope**2 * variance + (1 - slope) ** 2 * spread + 2 * slope * (1 - slope) * common


def clipped(mean: Tensor, variance: Tensor, low: float, high: float) -> Moments:
    """Moments of a Gaussian clipped to a range: the difference of two rectifiers, ``high - low`` apart."""
    (one, spread), (two, beyond) = relu(mean - low, variance), relu(mean - high, variance)
    common = beyond + two * (two + (high - low) - one)
    return low + one - two, (spread + beyond - 2 * common).clamp(min=0)


def larger(first: Moments, second: Moments) -> Moments:
    """Moments of the larger of two independent Gaussians (Clark 1961), as ``x2 + relu(x1 - x2)``."""
    difference, both = first[0] - second[0], first[1] + second[1]
    rectified, spread = relu(difference, both)
    common = second[1] * _present(difference, both)
    return second[0] + rectified, (second[1] + spread - 2 * common).clamp(min=0)


def activation(function: Callable[[Tensor], Tensor], mean: Tensor, variance: Tensor) -> Moments:
    """Moments of any function of single elements, by a Gauss-Hermite sum over ``NODES`` nodes.

    >>> mean, variance = activation(torch.square, torch.ones(1).double(), torch.ones(1).double())
    >>> round(mean.item(), 9), round(variance.item(), 9)
    (2.0, 6.0)
    """
    random = variance > floor(variance.dtype)
    s = torch.where(random, torch.where(random, variance, 1).sqrt(), 0)
    found: Moments = _Quadrature.apply(mean, s, function)  # type: ignore[no-untyped-call]
    return found


class _Quadrature(torch.autograd.Function):
    """Mean and variance of a function of ``mean + s * noise``, with their four slopes found on the way."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, s: Tensor, function: Callable[[Tensor], Tensor]) -> Moments:
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        center = function(mean)
        sums = [torch.zeros_like(center) for _ in range(6)]
        for node, weight in zip(nodes.tolist(), (weights / weights.sum()).tolist(), strict=True):
            with torch.enable_grad():
                point = (mean + node * s).detach().requires_grad_()
                value = function(point)
                (slope,) = torch.autograd.grad(value.sum(), point)
            off = value.detach() - center  # small numbers, so that their squares may be subtracted
            for total, term in zip(
                sums, (off, off * off, slope, slope * node, off * slope, off * slope * node), strict=True
            ):
                total.add_(term, alpha=weight)
        first, second, by_mean, by_s, both_mean, both_s = sums
        ctx.save_for_backward(by_mean, by_s, 2 * (both_mean - first * by_mean), 2 * (both_s - first * by_s))
        return center + first, (second - first * first).clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, None]:
        by_mean, by_s, spread_by_mean, spread_by_s = ctx.saved_tensors
        by_out, by_spread = slopes
        mean = by_out * by_mean + by_spread * spread_by_mean
        return mean, by_out * by_s + by_spread * spread_by_s, None


def _present(mean: Tensor, variance: Tensor) -> Tensor:
    """Probability of being positive."""
    random, _, a, _ = _standard(mean, variance)
    return torch.where(random, torch.special.ndtr(a), (mean > 0).to(mean))

"""Functions of Gaussians: closed forms, their gradients, and precision at the extremes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from games import random
from shapleaf.game.gaussian import activation, clipped, larger, leaky_relu, relu

FUNCTIONS: dict[str, Any] = {
    "relu": relu,
    "leaky_relu": lambda m, v: leaky_relu(m, v, 0.1),
    "clipped": lambda m, v: clipped(m, v, -0.5, 1.0),
    "larger": lambda m, v: larger((m, v), (m.flip(0), 2 * v.flip(0))),
    "gelu": lambda m, v: activation(F.gelu, m, v),
    "tanh": lambda m, v: activation(torch.tanh, m, v),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_those_of_differences(name: str) -> None:
    mean, variance = random(12).requires_grad_(), (random(12, seed=1).square() + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(FUNCTIONS[name], (mean, variance))


@pytest.mark.parametrize("function", [relu, FUNCTIONS["leaky_relu"]])
def test_rectifiers_stay_precise_and_differentiable_at_the_extremes(function: Any) -> None:
    """In single precision, with means of 1,000 deviations, where m² - m² would leave nothing."""
    mean = torch.tensor([1000.0, -1000.0, 0.0, 0.0], requires_grad=True)
    variance = torch.tensor([1.0, 1.0, 0.0, 1e-9], requires_grad=True)
    out, spread = function(mean, variance)
    double, exact = function(mean.double(), variance.double())
    torch.testing.assert_close(out.double(), double, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(spread.double(), exact, rtol=1e-6, atol=1e-8)
    slopes = torch.autograd.grad((out + spread).sum(), (mean, variance))
    assert all(slope.isfinite().all() for slope in slopes)


def test_relu_of_a_standard_normal() -> None:
    out, spread = relu(torch.zeros(1).double(), torch.ones(1).double())
    assert out.item() == pytest.approx(1 / math.sqrt(2 * math.pi), abs=1e-15)
    assert spread.item() == pytest.approx(0.5 - 1 / (2 * math.pi), abs=1e-15)


def test_clark_is_exact_for_two() -> None:
    """Larger of N(0, 1) and N(0, 1): mean 1/sqrt(pi), variance 1 - 1/pi."""
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    out, spread = larger((zero, one), (zero, one))
    assert out.item() == pytest.approx(1 / math.sqrt(math.pi), abs=1e-14)
    assert spread.item() == pytest.approx(1 - 1 / math.pi, abs=1e-14)


def test_polynomials_are_integrated_exactly() -> None:
    """Of N(m, v): the cube has mean m³ + 3mv and variance 9m⁴v + 36m²v² + 15v³."""
    m, v = random(5), random(5, seed=1).square()
    out, spread = activation(lambda x: x**3, m, v)
    torch.testing.assert_close(out, m**3 + 3 * m * v, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(spread, 9 * m**4 * v + 36 * m**2 * v**2 + 15 * v**3, rtol=1e-12, atol=1e-12)

"""Values with a gradient of another kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from shapleaf._calls import Call
from shapleaf.backward import averaged, carried, scaled, standardised
from zoo import example


@pytest.mark.parametrize(
    ("name", "norm", "shape"),
    [
        ("layer_norm", lambda x: F.layer_norm(x, (6,), *parts(6)), (4, 3, 6)),
        ("layer_norm", lambda x: F.layer_norm(x, (3, 6)), (4, 3, 6)),
        ("rms_norm", lambda x: F.rms_norm(x, (6,), parts(6)[0], 1e-3), (4, 3, 6)),
        ("group_norm", lambda x: F.group_norm(x, 2, *parts(6)), (4, 6, 3, 2)),
        ("instance_norm", lambda x: F.instance_norm(x, weight=parts(6)[0], bias=parts(6)[1]), (4, 6, 5)),
        ("normalize", lambda x: F.normalize(x, dim=-1), (4, 6)),
    ],
)
def test_norms_with_a_constant_length(name: str, norm: Any, shape: tuple[int, ...]) -> None:
    """Against the derivative along each number with the length held, by a formula for one row."""
    seen: list[Call] = []
    x = example(*shape).requires_grad_()

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.__name__ == name and not seen:
                seen.append(Call(f":{name}#0", func, args, kwargs or {}))
            return func(*args, **(kwargs or {}))

    with Watch():
        value = norm(x)
    out = standardised(seen[0])
    assert torch.equal(out, value)
    # With the length constant, gradient times input adds up to the output less the bias.
    weights = example(*shape, seed=5)
    (grad,) = torch.autograd.grad((out * weights).sum(), x)
    shift = norm(torch.zeros_like(x))
    torch.testing.assert_close((grad * x).sum(), ((out - shift) * weights).sum(), rtol=1e-12, atol=1e-12)


def parts(size: int) -> tuple[Tensor, Tensor]:
    return example(size, seed=7), example(size, seed=8)


def test_values_and_carriers() -> None:
    x = example(3).requires_grad_()
    out = carried(x.detach() * 2, x * 5)
    assert torch.equal(out, x * 2)
    assert torch.autograd.grad(out.sum(), x)[0].tolist() == [5, 5, 5]
    assert torch.autograd.grad(scaled(x, torch.tensor(0.25)).sum(), x)[0].tolist() == [0.25] * 3


def test_averages_along_the_line() -> None:
    """Of a product by its middle; of anything by enough points; and nothing for what is not wanted."""
    a, b, a0, b0 = torch.randn(4, 3, dtype=torch.float64)
    a.requires_grad_()
    out = averaged(a.detach() * b, torch.mul, [a0, b0], [a, b], 1)
    assert torch.equal(out.detach(), a.detach() * b)
    (slope,) = torch.autograd.grad(out.sum(), a)
    torch.testing.assert_close(slope, (b + b0) / 2)
    out = averaged(a.detach().tanh(), torch.tanh, [a0], [a], 32)
    (slope,) = torch.autograd.grad(out.sum(), a)
    torch.testing.assert_close(slope, (a.detach().tanh() - a0.tanh()) / (a.detach() - a0), rtol=1e-10, atol=0)

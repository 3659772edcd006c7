"""Every kind is one that Backward runs, and every function of torch has one kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.backward import KINDS, Backward
from shapleaf.backward.kinds import LINEAR, PIECEWISE, SCALAR
from zoo import Apply, conv, example, settle


def test_kinds_are_methods() -> None:
    assert {kind for kind in KINDS.values() if not callable(getattr(Backward, kind, None))} == set()


def test_no_function_is_of_two_kinds() -> None:
    assert not LINEAR & PIECEWISE
    assert not SCALAR & (LINEAR | PIECEWISE)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "abs", "amax"])
def test_piecewise_linear_functions_scale_with_what_they_read(name: str) -> None:
    function = getattr(F, name, None) or getattr(torch, name)
    x = torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(function(2.5 * x), 2.5 * function(x))
    assert name in PIECEWISE


@pytest.mark.parametrize("name", sorted(SCALAR))
def test_scalar_functions_read_every_number_by_itself(name: str) -> None:
    homes = (F, torch, Tensor)
    function = next((f for home in homes if (f := getattr(home, name, None)) is not None), None)
    if function is None:
        assert name == "swish"  # of other libraries
        return
    options = {"clamp": (-1, 1), "clip": (-1, 1), "threshold": (0.1, 0.0)}.get(name.lstrip("_"), ())
    options = (0.2,) if name in ("clamp_min", "clamp_max") else options
    x = torch.rand(5, dtype=torch.float64)
    whole = function(x, *options)
    assert torch.equal(whole, torch.stack([function(part, *options) for part in x]))


def resized(mode: str, dims: int = 2, **options: Any) -> Any:
    shapes = {1: (-1, 4, 36), 2: (-1, 4, 6, 6), 3: (-1, 4, 3, 3, 4)}
    return lambda x: F.interpolate(x.view(shapes[dims]), size=(5, 7, 2)[:dims], mode=mode, **options)


CALLED_OTHERWISE_IN_PROGRAMS = [
    lambda x: x[:, :, 1:],
    lambda x: x[:, :, [0, 2]],
    lambda x: x.diff(dim=2),
    lambda x: F.unfold(x, 2).unflatten(1, (4, 4)).sum(2),
    lambda x: F.fold(F.unfold(x, 2), x.shape[2:], 2),
    *(resized(mode, dims) for mode in ("nearest", "nearest-exact") for dims in (1, 2, 3)),
    *(resized(mode) for mode in ("bilinear", "bicubic")),
    *(resized(mode, antialias=True) for mode in ("bilinear", "bicubic")),
    resized("linear", 1),
    resized("trilinear", 3),
    lambda x: F.threshold(x, 0.1, 0.0),
    lambda x: F.adaptive_max_pool2d(x, 2),
    lambda x: F.adaptive_max_pool1d(x[..., 0], 2),
]


@pytest.mark.parametrize("criterion", [sl.LRP(), sl.DeepLIFT(), sl.DeepLIFT(sl.Reference())], ids=str)
def test_what_a_model_may_call_its_program_may(criterion: Any) -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        h = F.relu(self.b(F.relu(self.a(x))))
        return self.c(sum(f(h).flatten(2).mean(2) for f in CALLED_OTHERWISE_IN_PROGRAMS))

    model = settle(Apply(run, a=conv(3, 4), b=conv(4, 4), c=nn.Linear(4, 2)))
    x, y = example(3, 3, 6, 6), torch.arange(3) % 2
    mine, other = (
        sl.attribute(one, sl.trace(one, x), (x, y), criterion) for one in (model, sl.program(model, x))
    )
    torch.testing.assert_close(other.values["a"], mine.values["a"], rtol=1e-9, atol=1e-11)

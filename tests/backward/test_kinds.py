"""Every kind is one that Backward runs, and every function of torch has one kind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from shapleaf.backward import KINDS, Backward
from shapleaf.backward.kinds import LINEAR, PIECEWISE, SCALAR


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
    options = {"clamp": (-1, 1), "clip": (-1, 1), "threshold": (0.1, 0.0)}.get(name, ())
    options = (0.2,) if name in ("clamp_min", "clamp_max") else options
    x = torch.rand(5, dtype=torch.float64)
    whole = function(x, *options)
    assert torch.equal(whole, torch.stack([function(part, *options) for part in x]))

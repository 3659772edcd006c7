"""Layers as functions of three tensors, however they are called."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from shapleaf._calls import Call
from shapleaf.backward import affine
from zoo import example


def test_layers_are_the_functions_of_their_input_weights_and_bias() -> None:
    x, w, b = example(2, 4), example(3, 4, seed=2), example(3, seed=3)
    x.requires_grad_()
    calls = {
        "linear": Call(":linear#0", F.linear, (x, w, b), {}),
        "named": Call(":linear#0", F.linear, (), {"input": x, "weight": w, "bias": b}),
        "addmm": Call(":addmm#0", torch.addmm, (b, x, w.T), {"beta": 2, "alpha": 3}),
        "matmul": Call(":matmul#0", torch.matmul, (x, w.T), {}),
        "left": Call(":matmul#0", torch.matmul, (w, x.T), {}),
        "einsum": Call(":einsum#0", torch.einsum, ("ef,of->eo", x, w), {}),
    }
    for call in calls.values():
        found = affine(call)
        assert found is not None
        torch.testing.assert_close(found(), call.func(*call.args, **call.kwargs))
        assert found.input.requires_grad
    both = Call(":matmul#0", torch.matmul, (x, x.T), {})
    assert affine(both) is None

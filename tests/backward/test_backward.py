"""The edited backward: values untouched, ordinary gradients by default, refusals that name the place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf._calls import Call
from shapleaf.backward import Backward, scaled
from shapleaf.errors import CriterionError
from shapleaf.masking import Gates, Masks, Reader
from zoo import NETS, Apply, conv, example, forward, head, settle


def gradients(model: nn.Module, inputs: Any, make: Callable[..., Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradient of its sum by every mask."""
    graph = sl.trace(model, inputs)
    gates = Gates(graph.groups)
    masks = Masks({name: one.requires_grad_() for name, one in gates.ones(1, example(1)).items()})
    with make(model, gates, masks) as reader:
        out = torch.cat([tensor.flatten() for tensor in forward(model, inputs)])
    if isinstance(reader, Backward):
        reader.check(out)
    found = torch.autograd.grad(out.sum(), list(masks.masks.values()), allow_unused=True)
    return out, {name: g for name, g in zip(masks.masks, found, strict=True) if g is not None}


@pytest.mark.parametrize("name", [name for name in NETS if name != "unused"])
def test_by_default_every_gradient_is_the_ordinary_one(name: str) -> None:
    model, inputs = NETS[name]()
    out, mine = gradients(model, inputs, Backward)
    plain, ordinary = gradients(model, inputs, Reader)
    assert torch.equal(out, plain)
    assert {*mine} == {*ordinary}
    for group, gradient in mine.items():
        torch.testing.assert_close(gradient, ordinary[group], rtol=1e-12, atol=1e-13)


class _Halved(Backward):
    def scalar(self, call: Call) -> Any:
        return scaled(super().scalar(call), 0.5)

    product = scalar


@pytest.mark.parametrize(
    ("act", "factor"),
    [
        (F.gelu, 0.5),
        (lambda x: F.silu(x, inplace=True), 0.5),
        (lambda x: F.hardswish(x.clone(), inplace=True), 0.5),
        (F.relu, 1.0),
        (lambda x: torch.tanh_(x.clone()), 0.5),
        (lambda x: (h := x.clone(), h.__imul__(x))[0], 0.5),
    ],
)
def test_a_kind_is_edited_however_it_is_called(act: Callable[[Tensor], Tensor], factor: float) -> None:
    """Also in place: the tensor that the call wrote into carries the edited gradient."""

    def run(self: Any, x: Tensor) -> Tensor:
        return self.head(act(self.b(act_in(self.a(x)))))

    act_in = F.relu
    model = settle(Apply(run, a=nn.Linear(3, 4), b=nn.Linear(4, 5), head=nn.Linear(5, 2)))
    out, mine = gradients(model, example(2, 3), _Halved)
    plain, ordinary = gradients(model, example(2, 3), Backward)
    assert torch.equal(out, plain)
    torch.testing.assert_close(mine["a"], factor * ordinary["a"])
    torch.testing.assert_close(mine["b"], ordinary["b"])  # read behind what was edited


def test_what_is_not_behind_the_units_needs_no_rule() -> None:
    model = settle(
        Apply(
            lambda self, x: self.head(F.relu(self.a(x.sinc().digamma()))),
            a=nn.Linear(3, 4),
            head=nn.Linear(4, 2),
        )
    )
    gradients(model, example(2, 3) + 9, Backward)


def test_a_call_without_a_rule_is_named_with_its_module_and_line() -> None:
    model = settle(
        Apply(
            lambda self, x: self.b(torch.sinc(self.a(x))), a=nn.Linear(3, 4), b=nn.Linear(4, 4), c=nn.ReLU()
        )
    )
    model = settle(nn.Sequential(nn.Linear(3, 3), model, nn.Linear(4, 2)))
    where = r"through call 1:sinc#0 \(in 1, test_backward.py:\d+\): there is no rule for 'sinc'"
    with pytest.raises(CriterionError, match=where):
        gradients(model, example(2, 3), Backward)


class _Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sin()

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Tensor:
        return g[0]


def test_an_autograd_function_of_the_models_own_is_refused() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.c(_Custom.apply(self.b(F.relu(self.a(x)))))

    model = settle(Apply(run, a=nn.Linear(3, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 2)))
    graph = sl.trace(model, example(2, 3))
    gates = Gates([graph["a"]])
    masks = Masks({"a": torch.ones(1, 4, dtype=torch.float64, requires_grad=True)})
    with Backward(model, gates, masks) as reader:
        out = model(example(2, 3))
    with pytest.raises(CriterionError, match="cannot pass through _Custom"):
        reader.check(out)


def test_batch_statistics_are_refused() -> None:
    model = settle(
        nn.Sequential(
            conv(2, 3), nn.ReLU(), conv(3, 3), nn.BatchNorm2d(3, track_running_stats=False), head(3)
        )
    )
    with pytest.raises(CriterionError, match="statistics of the batch"):
        gradients(model, example(2, 2, 4, 4), Backward)


def test_the_model_keeps_its_parameters_and_their_flags() -> None:
    model, inputs = NETS["residual"]()
    before = [(p, p.requires_grad, p.clone()) for p in model.parameters()]
    gradients(model, inputs, Backward)
    for (was, flag, value), now in zip(before, model.parameters(), strict=True):
        assert was is now
        assert now.requires_grad == flag
        assert now.grad is None
        assert torch.equal(now, value)

"""The Rescale rule: every kind of call carries the whole difference from the reference run, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.backward import Remembered, Rescaled
from shapleaf.errors import CriterionError
from shapleaf.masking import Gates, Masks
from shapleaf.testing import untouched
from zoo import Apply, example, settle

X, X0 = example(5, 6), example(5, 6, seed=8)
WAY = [0.0]


def between(f: Callable[[Tensor], Tensor], after: int = 8) -> nn.Module:
    """A layer that makes units, one that reads them, a function of what it returns, and a readout."""

    def run(self: Any, x: Tensor) -> Tensor:
        return self.head(f(self.read(self.units(x))))

    layers = {"units": nn.Linear(6, 7), "read": nn.Linear(7, 8), "head": nn.Linear(after, 3)}
    return settle(Apply(run, **layers))


def multipliers(model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of the summed outputs by what is read, what that differs by, and what the outputs do."""
    gates = Gates(sl.trace(model, X).groups)
    first, now = (Masks({n: m.requires_grad_() for n, m in gates.ones(5, X).items()}) for _ in range(2))
    with Remembered(model, gates, first) as reference:
        before = model(X0)
    with Rescaled(model, gates, now, reference.kept) as reader:
        after = model(X)
    assert torch.equal(after, model(X))
    assert not any(reference.kept.values())
    reader.check(after)
    key = next(iter(now.seen))
    (slope,) = torch.autograd.grad(after.sum(), now.seen[key])
    return slope, (now.seen[key] - first.seen[key]).detach(), (after - before).sum(1).detach()


SMOOTH = [torch.tanh, torch.sigmoid, F.gelu, F.silu, F.softplus, F.elu, F.hardswish, F.mish, torch.exp]
PIECEWISE = [F.relu, F.relu6, F.leaky_relu, torch.abs, lambda x: x.clamp(-0.3, 0.4), lambda x: x.clamp_min(0)]
IN_PLACE = [lambda x: F.relu(x, inplace=True), torch.relu_, lambda x: F.silu(x, inplace=True), torch.tanh_]
POWERS = [
    torch.square,
    lambda x: x**3,
    lambda x: (1 + x.abs()).sqrt(),
    lambda x: 1 / (2 + x * x),
    lambda x: x / (2 + x * x),
]
PRODUCTS = [
    lambda x: x * torch.sigmoid(x),
    lambda x: x * 3 - x * x.tanh(),
    lambda x: (x[:, :, None] @ x[:, None, :]).sum(2),
    lambda x: torch.einsum("bi,bj->bi", x, x),
    lambda x: x.mul_(torch.relu(x)),
]
OF_SEVERAL = [
    lambda x: x.softmax(-1),
    lambda x: F.softmax(4 * x, 1),
    lambda x: F.layer_norm(x, (8,)),
    lambda x: F.normalize(x, dim=1),
    lambda x: F.group_norm(x, 2),
    lambda x: F.scaled_dot_product_attention(*x.view(5, 4, 2).tanh()[None].expand(3, -1, -1, -1)).flatten(1),
    lambda x: F.max_pool1d(x[:, None], 2).repeat(1, 2, 1).flatten(1),
    lambda x: F.max_pool2d(x.view(5, 1, 4, 2), (3, 2), stride=1, padding=(1, 0)).flatten(1).repeat(1, 2),
    lambda x: F.adaptive_max_pool1d(x[:, None], 4).flatten(1).repeat(1, 2),
]


@pytest.mark.parametrize("f", [*SMOOTH, *PIECEWISE, *IN_PLACE, *POWERS, *PRODUCTS, *OF_SEVERAL])
def test_multipliers_carry_the_whole_difference(f: Callable[[Tensor], Tensor]) -> None:
    slope, change, rise = multipliers(between(f, f(X.new_ones(5, 8)).shape[1]))
    torch.testing.assert_close((slope * change).sum(1), rise, rtol=1e-6, atol=1e-12)


LOWER = torch.ones(2, 2, dtype=torch.bool).tril()
INFINITE = torch.zeros(2, 2).double().masked_fill(~LOWER, -torch.inf)


@pytest.mark.parametrize(
    ("options", "mask"),
    [
        ({}, None),
        ({"scale": 2.0}, None),
        ({"is_causal": True}, INFINITE),
        ({"attn_mask": LOWER}, INFINITE),
        ({"attn_mask": INFINITE}, INFINITE),
        ({"enable_gqa": True}, None),
    ],
    ids=str,
)
def test_attention_in_one_call_is_that_written_out(options: dict[str, Any], mask: Tensor | None) -> None:
    """Two heads of two places; with grouped queries they share one head of keys and values."""
    heads = 1 if "enable_gqa" in options else 2

    def parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query = 3 * x.view(5, 2, 2, 2)
        return query, query.tanh()[:, :heads], query.sigmoid()[:, :heads]

    def written_out(x: Tensor) -> Tensor:
        query, key, value = parts(x)
        match = query @ key.transpose(-2, -1) * options.get("scale", 2**-0.5)
        return ((match if mask is None else match + mask).softmax(-1) @ value).flatten(1)

    slope, change, rise = multipliers(
        between(lambda x: F.scaled_dot_product_attention(*parts(x), **options).flatten(1))
    )
    torch.testing.assert_close(slope, multipliers(between(written_out))[0], rtol=1e-10, atol=1e-13)
    torch.testing.assert_close((slope * change).sum(1), rise, rtol=1e-6, atol=1e-12)


def test_attention_that_drops_is_refused() -> None:
    with pytest.raises(CriterionError, match="it drops at random"):
        multipliers(
            between(lambda x: F.scaled_dot_product_attention(*[x.view(5, 4, 2)] * 3, None, 0.5).flatten(1))
        )


def test_it_is_the_quotient_of_differences() -> None:
    model = between(torch.tanh)
    slope, _, _ = multipliers(model)
    with torch.no_grad():
        u, u0 = (model.read(model.units(x)) for x in (X, X0))
        expected = (model.head.weight.sum(0) * (u.tanh() - u0.tanh()) / (u - u0)) @ model.read.weight
    torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-13)


def test_close_to_the_reference_it_is_the_slope_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    model = between(torch.tanh)
    monkeypatch.setitem(globals(), "X0", X + 1e-9)
    slope, _, _ = multipliers(model)
    with torch.no_grad():
        u = model.read(model.units(X))
        expected = (model.head.weight.sum(0) * (1 - u.tanh() ** 2)) @ model.read.weight
    torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-9)


def test_a_pool_follows_the_winner_of_the_larger_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units 4, 1 | 2, 3 against 1, 2 | 5, 0: one rises by its first unit, the other falls by its first."""
    model = Apply(lambda self, x: self.head(F.max_pool1d(self.read(self.units(x))[:, None], 2)[:, 0]),
                  units=nn.Linear(4, 4), read=nn.Linear(4, 4), head=nn.Linear(2, 1)).double()  # fmt: skip
    with torch.no_grad():
        for layer in model.children():
            layer.weight.copy_(torch.eye(*layer.weight.shape))
            layer.bias.zero_()
        model.head.weight.fill_(1)
    monkeypatch.setitem(globals(), "X", torch.tensor([[4.0, 1, 2, 3]] * 5).double())
    monkeypatch.setitem(globals(), "X0", torch.tensor([[1.0, 2, 5, 0]] * 5).double())
    slope, _, rise = multipliers(model)
    assert slope[0].tolist() == pytest.approx([2 / 3, 0, 2 / 3, 0])
    assert rise[0].item() == 0


@pytest.mark.parametrize(
    ("f", "text"),
    [
        (lambda x: x.sort(1).values, r"DeepLIFT\(\) cannot pass through call :sort#0 .*no rule for 'sort'"),
        (lambda x: torch.maximum(x, 2 * x), "no rule for 'maximum'"),
        (lambda x: x.max(1, keepdim=True).values.expand(-1, 8), "no rule for 'max'"),
        (lambda x: x.cumprod(1), r"no rule for 'cumprod'\. Use a criterion that needs no rule"),
        (lambda x: torch.where(x > 0, x, 0), "it takes other elements than in the reference run"),
        (lambda x: x[torch.arange(5)[:, None], x.argsort(1)], "it takes other elements than"),
    ],
)  # fmt: skip
def test_what_has_no_rule_is_refused_and_the_model_untouched(f: Callable[..., Any], text: str) -> None:
    model = between(f)
    with untouched(model), pytest.raises(CriterionError, match=text):
        multipliers(model)
    again = between(torch.relu)
    multipliers(again)  # nothing is left of it


def test_a_reference_run_that_takes_another_way_is_refused() -> None:
    model = between(lambda x: x.tanh() if float(x.detach()[0, 0]) > WAY[0] else x.sigmoid())
    with torch.no_grad():
        WAY[0] = sum(float(model.read(model.units(x))[0, 0]) for x in (X, X0)) / 2
    with pytest.raises(CriterionError, match="the reference run took another way"):
        multipliers(model)


def test_what_lies_before_the_units_needs_no_rule() -> None:
    model = settle(
        Apply(
            lambda self, x: self.head(torch.relu(self.units(x.sort(1).values))),
            units=nn.Linear(6, 7), head=nn.Linear(7, 3),
        )
    )  # fmt: skip
    slope, change, rise = multipliers(model)
    torch.testing.assert_close((slope * change).sum(1), rise, rtol=1e-12, atol=1e-13)


def test_weights_that_depend_on_the_input_are_factors() -> None:
    """Between the runs they differ, although no units lie before them."""

    def run(self: Any, x: Tensor) -> Tensor:
        mixed = torch.einsum("bij,bj->bi", x.view(5, 3, 2).tanh(), self.read(self.units(x)))
        return self.head(mixed)

    model = settle(Apply(run, units=nn.Linear(6, 7), read=nn.Linear(7, 2), head=nn.Linear(3, 3)))
    slope, change, rise = multipliers(model)
    with torch.no_grad():
        w, w0 = (x.view(5, 3, 2).tanh() for x in (X, X0))
        middle = torch.einsum("bij,i->bj", (w + w0) / 2, model.head.weight.sum(0)) @ model.read.weight
    torch.testing.assert_close(slope, middle, rtol=1e-12, atol=1e-13)
    assert not torch.allclose((slope * change).sum(1), rise)  # the rest is due to the other factor

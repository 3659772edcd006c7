"""What layers read and return in one run, and what their output is added to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.watching import Uses, multiplied, summed, visit, watch
from zoo import Apply, conv, example, settle, state

VECTORS, MAPS = example(5, 6), example(4, 3, 6, 6)


def summing(add: Any) -> nn.Module:
    """A branch behind a BatchNorm, and a shortcut."""
    return settle(
        Apply(
            lambda self, x: F.relu(add(self.norm(self.b(F.relu(self.a(x)))), self.s(x))),
            a=conv(3, 4), b=conv(4, 5, bias=False), norm=nn.BatchNorm2d(5), s=conv(3, 5),
        )
    )  # fmt: skip


def test_what_is_read_and_returned() -> None:
    model = settle(
        nn.Sequential(nn.Linear(6, 4), nn.ReLU(inplace=True), nn.Linear(4, 3), nn.ReLU(inplace=True))
    )
    seen = watch(model, VECTORS, ["0:linear#0", "2:linear#0"])
    with torch.no_grad():
        first = model[0](VECTORS)
        second = model[2](first.relu())
    assert torch.equal(seen["0:linear#0"][0].layer.input, VECTORS)
    assert torch.equal(seen["0:linear#0"][0].out, first)  # though the ReLU writes into it
    assert torch.equal(seen["2:linear#0"][0].layer.input, first.relu())
    assert torch.equal(seen["2:linear#0"][0].out, second)
    assert seen["2:linear#0"][0].layer.weight is model[2].weight
    assert seen["2:linear#0"][0].other is None


@pytest.mark.parametrize("add", [torch.add, lambda a, b: a + b, lambda a, b: b + a, lambda a, b: a.add_(b)])
def test_what_the_output_is_added_to_behind_a_norm(add: Any) -> None:
    model = summing(add)
    seen = watch(model, MAPS, ["b:conv2d#0"])["b:conv2d#0"][0]
    with torch.no_grad():
        assert seen.other is not None
        assert torch.equal(seen.other, model.s(MAPS))
        expected = model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()
        assert torch.allclose(seen.factor, expected, rtol=1e-12)


def test_other_sums_are_none() -> None:
    """Scaled, of another shape, or behind something that is not linear."""
    for add in (
        lambda a, b: torch.add(a, b, alpha=2),
        lambda a, b: a + b.mean((2, 3), keepdim=True),
        lambda a, b: a.relu() + b,
        lambda a, b: a + 1,
    ):
        assert watch(summing(add), MAPS, ["b:conv2d#0"])["b:conv2d#0"][0].other is None


def test_who_else_reads_what_is_added() -> None:
    """Before, behind or beside the sum, between the branch and its norm, or the caller of the model."""

    def readers(call: Any) -> bool:
        parts = {"b": nn.Linear(6, 4), "norm": nn.BatchNorm1d(4), "s": nn.Linear(6, 4), "c": nn.Linear(4, 4)}
        return bool(summed(settle(Apply(call, **parts)), VECTORS, ["b:linear#0"]))

    def written(self: Any, x: Tensor, *, again: bool) -> Tensor:
        h = self.norm(self.b(x))
        h += self.s(x)
        return h * self.c(h) if again else h

    def slots(self: Any, x: Tensor) -> Tensor:
        h, all_of_them = self.b(x), x.new_zeros(len(x), 8)
        y = h + self.s(x)
        all_of_them[:, :4] = h
        return self.c(y) + all_of_them[:, 4:]

    assert readers(lambda self, x: self.s(x) + F.dropout(self.norm(self.b(x)), training=False))
    assert readers(lambda self, x: self.c((self.b(x)).add_(self.s(x))).relu())
    assert readers(lambda self, x: written(self, x, again=True))  # what lies there is the sum now
    assert readers(lambda self, x: written(self, x, again=False))
    for call in (
        lambda self, x: (h := self.b(x)) + self.s(x) + self.c(h),
        lambda self, x: self.c(h := self.b(x)) + (h + self.s(x)),
        lambda self, x: self.norm(h := self.b(x)) + h,
        lambda self, x: (self.norm(h := self.b(x)) + self.s(x)) * h.mean(),
        lambda self, x: ((h := self.norm(self.b(x))) + self.s(x), h),
        slots,
    ):
        assert not readers(call)


@pytest.mark.parametrize("tokens", [3, 4])
def test_a_norm_over_tokens_multiplies_no_channel(tokens: int) -> None:
    """As it is behind a linear layer that reads tokens, as many of them as channels or not."""

    def call(self: Any, x: Tensor) -> Tensor:
        return self.b(F.relu(self.norm(self.a(x)) + x))

    model = settle(Apply(call, a=nn.Linear(4, 4), norm=nn.BatchNorm1d(tokens), b=nn.Linear(4, 2)))
    seen = watch(model, example(5, tokens, 4), ["a:linear#0"])["a:linear#0"][0]
    assert seen.factor.tolist() == [1, 1, 1, 1]
    assert seen.other is None


def test_a_program_names_the_norm_in_another_order() -> None:
    model = summing(torch.add)
    exported = sl.program(model, MAPS)
    graph = sl.trace(exported, MAPS)
    call = next(site.call for site in graph["a"].sites)
    a = watch(exported, MAPS, [call])[call][0]
    b = watch(model, MAPS, ["b:conv2d#0"])["b:conv2d#0"][0]
    assert a.other is not None
    assert b.other is not None
    assert torch.allclose(a.factor, b.factor)
    assert torch.allclose(a.other, b.other)


def test_the_run_ends_when_everything_is_seen() -> None:
    ran = []

    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            ran.append(1)
            return x

    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3), Last()).double()
    watch(model, VECTORS, ["0:linear#0"])
    assert ran == []
    watch(model, VECTORS, ["2:linear#0"])
    assert ran == [1]  # a sum might have come


def test_every_step_of_a_recurrence_is_seen() -> None:
    model = settle(nn.LSTM(6, 4, batch_first=True))
    seen = watch(model, example(2, 5, 6), [":recur#0"])[":recur#0"]
    assert len(seen) == 5
    assert not seen[0].layer.input.any()
    assert all(one.other is None for one in seen)


def test_nothing_is_left_behind() -> None:
    model = summing(torch.add).train()
    before = state(model)
    watch(model, MAPS, ["b:conv2d#0"])
    assert state(model) == before


def test_calls_that_do_not_run_or_are_no_layer() -> None:
    model = summing(torch.add)
    with pytest.raises(sl.PlanError, match="does not call b:conv2d#1 on these data; trace it"):
        watch(model, MAPS, ["b:conv2d#1"])
    before = state(model)
    with pytest.raises(sl.PlanError, match=":relu#0 multiplies in a way"):
        watch(model, MAPS, [":relu#0"])
    assert state(model) == before


def test_which_calls_take_each_parameter() -> None:
    model = settle(nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 4)))
    uses = Uses(model)
    with torch.no_grad(), uses:
        model(VECTORS)
    assert uses.of["0.weight"] == uses.of["0.bias"] == ["0:linear#0"]
    assert uses.of["1.weight"] == ["1:layer_norm#0"]
    assert uses.linear == {"0:linear#0", "2:linear#0"}


def test_weights_that_nothing_but_linear_layers_read() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 2)).double()
    assert multiplied(model, VECTORS) == ("0.weight", "1.weight", "3.weight")
    model[1].weight = model[0].weight
    assert multiplied(model, VECTORS) == ("0.weight", "3.weight")  # once
    model[3] = nn.utils.parametrizations.weight_norm(model[3])
    assert multiplied(model, VECTORS) == ("0.weight",)  # the norm's parts are no weights of a product
    both = Apply(lambda self, x: self.out(self.words(x)), words=nn.Embedding(5, 3), out=nn.Linear(3, 5))
    assert multiplied(both, torch.tensor([[1, 4]])) == ("out.weight",)
    both.out.weight = both.words.weight
    assert multiplied(both, torch.tensor([[1, 4]])) == ()


def test_calls_are_shown_as_they_run() -> None:
    model = summing(torch.add).train()
    before = state(model)
    seen: list[tuple[str, tuple[int, ...]]] = []
    visit(model, MAPS, {"a.weight", "s.weight"}, lambda name, layer: seen.append((name, layer.input.shape)))
    assert seen == [("a.weight", (4, 3, 6, 6)), ("s.weight", (4, 3, 6, 6))]
    assert state(model) == before

"""First-order criteria against slow references: one example, one leaf, one backward at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.errors import CriterionError
from zoo import Apply, conv, head, settle

X = torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 0])
CLOSE = {"rtol": 1e-12, "atol": 1e-14}
Rest = Callable[..., Tensor]


def per_example(model: nn.Module, criterion: sl.Criterion, name: str) -> Tensor:
    scores = sl.attribute(model, sl.trace(model, X), [(X, Y)], criterion, aggregate=None)
    return scores.values[name]


def slow(reads: list[Tensor], rest: Rest) -> list[tuple[Tensor, Tensor]]:
    """For each tensor that is read its (activation, gradient), each example's loss differentiated alone."""
    found: list[list[tuple[Tensor, Tensor]]] = []
    for e in range(len(X)):
        leaves = [read[e : e + 1].detach().requires_grad_() for read in reads]
        loss = F.cross_entropy(rest(X[e : e + 1], *leaves), Y[e : e + 1])
        found.append([*zip(leaves, torch.autograd.grad(loss, leaves), strict=True)])
    return [
        (torch.cat([row[k][0] for row in found]).detach(), torch.cat([row[k][1] for row in found]))
        for k in range(len(reads))
    ]


def sensitivity(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    return sum(g.abs().flatten(2).sum(2) for _, g in pairs)  # type: ignore[return-value]


def taylor(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    return -sum((g * z).flatten(2).sum(2) for z, g in pairs)  # type: ignore[return-value, operator]


def check(model: nn.Module, name: str, reads: list[Tensor], rest: Rest) -> None:
    pairs = slow(reads, rest)
    torch.testing.assert_close(per_example(model, sl.Sensitivity(), name), sensitivity(pairs), **CLOSE)
    torch.testing.assert_close(per_example(model, sl.Taylor(signed=True), name), taylor(pairs), **CLOSE)
    torch.testing.assert_close(per_example(model, sl.Taylor(), name), taylor(pairs).abs(), **CLOSE)


def test_a_chain() -> None:
    model = settle(
        nn.Sequential(
            conv(2, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 5), nn.ReLU(), nn.MaxPool2d(2), head(5)
        )
    )
    check(model, "0", [model[:3](X)], lambda x, z: model[3:](z))
    pooled = model[:6](X).mean((2, 3), keepdim=True)
    check(model, "3", [pooled], lambda x, z: model[6][2](z.flatten(1)))


def test_a_tensor_that_two_consumers_read_has_one_total_gradient() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        return self.head(F.relu(self.b(h)) + self.c(h))

    model = settle(Apply(run, a=conv(2, 4), b=conv(4, 5), c=conv(4, 5), head=head(5)))
    check(model, "a", [F.relu(model.a(X))], lambda x, h: model.head(F.relu(model.b(h)) + model.c(h)))
    pairs = slow([F.relu(model.a(X))] * 2, lambda x, p, q: model.head(F.relu(model.b(p)) + model.c(q)))
    assert bool((sensitivity(pairs) > per_example(model, sl.Sensitivity(), "a")).all())  # not the sum of both


def test_a_residual_stream_adds_up_its_distinct_tensors() -> None:
    """Each is what its readers see; the stream itself flows on unmasked."""

    def run(self: Any, x: Tensor) -> Tensor:
        s = self.stem(x)
        s = s + self.b(F.relu(self.a(s)))
        s = s + self.d(torch.tanh(self.c(s)))
        return self.head(F.relu(s))

    model = settle(
        Apply(run, stem=conv(2, 4), a=conv(4, 6), b=conv(6, 4), c=conv(4, 5), d=conv(5, 4), head=head(4))
    )
    s0 = model.stem(X)
    s1 = s0 + model.b(F.relu(model.a(s0)))
    s2 = s1 + model.d(torch.tanh(model.c(s1)))
    last = F.relu(s2).mean((2, 3), keepdim=True)

    def rest(x: Tensor, read0: Tensor, read1: Tensor, read2: Tensor) -> Tensor:
        # What each reader does with its own copy; copies carry the unmasked stream's value, not its gradient.
        stem = model.stem(x)
        first = stem + model.b(F.relu(model.a(read0)))
        second = first + model.d(torch.tanh(model.c(read1 + first - first.detach())))
        pooled = F.relu(second).mean((2, 3), keepdim=True)
        logits: Tensor = model.head[2]((read2 + pooled - pooled.detach()).flatten(1))
        return logits

    check(model, "stem", [s0, s1, last], rest)


def test_recurrence_through_one_shared_layer() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        h = torch.tanh(self.again(h))
        return self.head(torch.tanh(self.again(h)))

    model = settle(Apply(run, a=conv(2, 4), again=conv(4, 4), head=head(4)))
    h0 = torch.tanh(model.a(X))
    h1 = torch.tanh(model.again(h0))
    last = torch.tanh(model.again(h1)).mean((2, 3), keepdim=True)

    def rest(x: Tensor, read0: Tensor, read1: Tensor, read2: Tensor) -> Tensor:
        one = torch.tanh(model.again(read0))
        two = torch.tanh(model.again(read1 + one - one.detach())).mean((2, 3), keepdim=True)
        logits: Tensor = model.head[2]((read2 + two - two.detach()).flatten(1))
        return logits

    check(model, "a", [h0, h1, last], rest)


def test_one_forward_and_one_backward_serve_all_groups() -> None:
    model = settle(nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 5), nn.ReLU(), head(5)))
    graph = sl.trace(model, X)
    passes: list[str] = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        passes.append("forward")
        losses = F.cross_entropy(output, target, reduction="none")
        if losses.requires_grad:
            losses.register_hook(lambda _: passes.append("backward"))
        return losses

    data = [(X[:3], Y[:3]), (X[3:], Y[3:])]
    scores = sl.attribute(model, graph, data, sl.Taylor(), loss=loss)
    # After the first batch one forward more, to see that its examples do not influence each other.
    assert passes == ["forward", "backward", "forward", "forward", "backward"]
    assert list(scores.values) == ["0", "2"]


def test_frozen_parameters_do_not_matter() -> None:
    model = settle(nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 5), nn.ReLU(), head(5)))
    expected = per_example(model, sl.Taylor(), "0")
    model.requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(per_example(model, sl.Taylor(), "0"), expected)


def test_a_model_without_gradients_is_named() -> None:
    model = settle(Apply(lambda self, x: self.head(F.relu(self.a(x))).detach(), a=conv(2, 4), head=head(4)))
    with pytest.raises(CriterionError, match=r"use a criterion without gradients, such as LeaveOneOut\(\)"):
        per_example(model, sl.Taylor(), "a")


def test_a_model_that_overwrites_what_was_read_is_named() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        out = self.b(h)
        h.mul_(2)
        return self.head(out + self.c(h))

    model = settle(Apply(run, a=conv(2, 4), b=conv(4, 5), c=conv(4, 5), head=head(5)))
    with pytest.raises(CriterionError, match="its gradient cannot be taken .*inplace"):
        per_example(model, sl.Taylor(), "a")
    assert per_example(model, sl.LeaveOneOut(), "a").shape == (4, 4)

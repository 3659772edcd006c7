"""A pruned model that computes something else than the masked one is noticed, exact or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.cuts import attributes, slicing
from shapleaf.surgery.verification import Proof, relative_gap
from shapleaf.tracing.labels import narrow
from shapleaf.tracing.opcall import OpCall
from zoo import NETS, between, conv, example, half_plan, head, settle

VECTORS = example(2, 6)

INEXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(1),
    "mean": lambda x: x - x.mean(1, keepdim=True),
    "max with indices": lambda x: x - x.max(1, keepdim=True)[0],
    "all axes": lambda x: x / (x.mean() + 1),
    "variance": lambda x: x / (x.var(1, keepdim=True) + 1e-5).sqrt(),
    "variance and mean": lambda x: x / (1 + sum(torch.var_mean(x, 1, keepdim=True)).square()),
    "batch norm across": lambda x: F.batch_norm(x[:, None], None, None, training=True)[:, 0],
    "logsumexp": lambda x: x - x.logsumexp(1, keepdim=True),
}


BLIND = {"flip": lambda op: op.give(op.out, op.flow.of(op.tensors[0]))}


@pytest.mark.parametrize("name", INEXACT)
def test_statistics_over_units_do_not_hide_a_wrong_regrouping(name: str) -> None:
    """A rule that does not see that units change places."""
    model = between(INEXACT[name])
    graph = sl.trace(model, VECTORS)
    receipt = sl.prune(model, half_plan(graph)).receipt
    assert not graph["a"].exact
    assert receipt.error is None

    model = between(lambda x: INEXACT[name](x).flip(1))
    graph = sl.trace(model, VECTORS, rules=BLIND)
    with pytest.raises(sl.PlanError, match="differs from the masked one by .*; nothing was changed"):
        sl.prune(model, sl.plan(graph, {"a": [0, 1, 2]}))


def test_weights_in_statistics_are_no_false_alarm() -> None:
    class Standardised(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            weight = (self.weight - self.weight.mean(1, keepdim=True)) / self.weight.std(1, keepdim=True)
            return F.linear(x, weight * self.weight.sum(), self.bias)

    model = settle(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), Standardised(8, 5), nn.ReLU(), nn.Linear(5, 2)))
    graph = sl.trace(model, VECTORS)
    assert [group.exact for group in graph] == [False, False]
    sl.prune(model, half_plan(graph))


def test_weights_standardised_by_batch_norm_are_no_false_alarm() -> None:
    """As in normaliser-free nets; the activations' own BatchNorm is still compared."""

    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            flat = F.batch_norm(self.weight.reshape(1, len(self.weight), -1), None, None, training=True)
            return F.conv2d(x, flat.reshape_as(self.weight), self.bias)

    model = settle(
        nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), Standardised(8, 5, 3), nn.ReLU(), head(5))
    )
    graph = sl.trace(model, example(1, 3, 6, 6))
    assert {group.name: group.exact for group in graph} == {"0": False, "3": True}
    plan = half_plan(graph)
    sl.prune(model, plan)
    group = plan.graph["0"]
    wrong = [
        replace(s, index=s.index.roll(1, 0)) if s.tensor == "1.running_mean" else s for s in group.slices
    ]
    groups = (replace(group, slices=tuple(wrong)), plan.graph["3"])
    with pytest.raises(sl.PlanError, match="differs from the masked one"):
        sl.prune(model, replace(plan, graph=replace(graph, groups=groups)))


def test_a_rule_of_the_users_own_that_is_not_exact_is_taken_at_its_word() -> None:
    def rule(op: OpCall) -> None:
        for labels in op.flow.of(op.tensors[0]):
            op.flow.blur(labels, "mine")
        op.give(op.outputs[0], [narrow(labels) for labels in op.flow.of(op.tensors[0])])

    model = between(lambda x: x.cumsum(1))
    graph = sl.trace(model, VECTORS, rules={"cumsum": rule})
    assert sl.prune(model, half_plan(graph)).receipt.error is None


@pytest.mark.parametrize("name", ["residual", "shufflenet", "channel_sum", "gated"])
def test_a_unit_taken_for_another_is_noticed(name: str) -> None:
    model, inputs = NETS[name]()
    graph = sl.trace(model, inputs)
    plan = half_plan(graph)
    group = plan.graph[plan.pruned[0]]
    wrong = replace(group.slices[-1], index=group.slices[-1].index.roll(1, 0))
    group = replace(group, slices=(*group.slices[:-1], wrong))
    others = tuple(group if other.name == group.name else other for other in graph)
    with pytest.raises(sl.PlanError, match="differs from the masked one"):
        sl.prune(model, replace(plan, graph=replace(graph, groups=others)))


def test_the_error_is_relative_to_the_largest_output() -> None:
    a, b = torch.tensor([1.0, -4.0]), torch.tensor([1.5, -4.0])
    assert relative_gap([a], [b]) == (0.125, torch.finfo(torch.float32).eps ** 0.5)
    assert relative_gap([torch.zeros(2)], [torch.tensor([0.0, 0.5])])[0] == 0.5
    assert relative_gap([torch.tensor([1, 2])], [torch.tensor([1, 3])]) == (0, 0)
    assert relative_gap([torch.zeros(0)], [torch.zeros(0)])[0] == 0


def test_what_is_not_finite_must_be_so_in_both() -> None:
    odd = torch.tensor([1.0, float("nan"), float("inf")])
    assert relative_gap([odd], [odd.clone()])[0] == 0
    for other in (odd.flip(0), torch.ones(3), torch.tensor([1.0, float("nan"), float("-inf")])):
        difference, tolerance = relative_gap([odd], [other])
        assert not difference <= tolerance


def test_the_last_of_several_outputs_counts() -> None:
    good, bad = torch.ones(2), torch.tensor([1.0, float("nan")])
    assert not relative_gap([good, good], [good, bad])[0] <= 1
    assert not relative_gap([good, good], [bad, good])[0] <= 1


def test_a_proof_runs_before_and_after() -> None:
    model, inputs = NETS["mlp"]()
    plan = half_plan(sl.trace(model, inputs))
    proof = Proof(model, plan)
    with pytest.raises(sl.PlanError, match="differs from the masked one"):
        proof.check()
    slicing.slice_tensors(model, slicing.cuts(plan))
    attributes.update(model, slicing.cuts(plan))
    assert proof.check() < 1e-15

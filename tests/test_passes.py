"""Passes for all groups: what they leave, in which precision, and what they notice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import shapleaf as sl
from shapleaf import _context, passes
from shapleaf.criteria import Needs
from shapleaf.data import Batch
from shapleaf.errors import CriterionError
from shapleaf.masking import Gates
from zoo import NETS, conv, example, head, settle

X = example(4, 2, 6, 6)
BATCH = Batch(X, torch.tensor([0, 1, 2, 0]))


def net() -> nn.Module:
    return settle(nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 5), nn.ReLU(), head(5)))


def test_one_pass_has_every_gradient() -> None:
    model = net()
    graph = sl.trace(model, X)
    gates = Gates(graph.groups)
    found = passes.once(model, gates, BATCH, _context.cross_entropy, Needs.GRADIENT | Needs.MASK_GRADIENT)
    assert found.costs is not None
    torch.testing.assert_close(found.costs, _context.cross_entropy(model(X), BATCH.target).detach())
    for group in graph:
        ((key, index),) = passes.reads(group, gates, found.masks).items()
        read, slope = found.masks.seen[key], found.by_read[key]
        assert index.numel() == group.size
        product = (read * slope).detach().reshape(4, group.size, -1).sum(2)
        torch.testing.assert_close(product, found.by_mask[group.name])


def test_activations_alone_need_no_labels_and_no_graph() -> None:
    model = net()
    gates = Gates(sl.trace(model, X).groups)
    found = passes.once(model, gates, Batch(X), _context.cross_entropy, Needs.ACTIVATION)
    assert found.costs is None
    assert not any(read.requires_grad for read in found.masks.seen.values())


def test_what_does_not_reach_the_cost_has_a_gradient_of_zero() -> None:
    model, inputs = NETS["multi_output"]()
    graph = sl.trace(model, inputs)
    costs = passes.once(
        model, Gates(graph.groups), Batch(inputs), lambda out, _: _context.tensors(out)[0].flatten(1).sum(1),
        Needs.MASK_GRADIENT,
    )  # fmt: skip
    assert {name: len(slope) for name, slope in costs.by_mask.items()} == {g.name: len(inputs) for g in graph}


def test_examples_that_influence_each_other_are_noticed() -> None:
    model = net()
    gates = Gates(sl.trace(model, X).groups)

    def mixing(output: Tensor, target: Tensor) -> Tensor:
        return (output - output.mean(0)).square().sum(1)

    found = passes.once(model, gates, BATCH, mixing, Needs.MASK_GRADIENT)
    with pytest.raises(CriterionError, match="the loss of an example changes with the other examples"):
        passes.check(model, gates, BATCH, mixing, found)
    fine = passes.once(model, gates, BATCH, _context.cross_entropy, Needs.MASK_GRADIENT)
    passes.check(model, gates, BATCH, _context.cross_entropy, fine)

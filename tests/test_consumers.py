"""The layers that read a group, as regressions, against loops and autograd."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf import _context, consumers
from shapleaf.consumers import feeling
from shapleaf.data import Batch
from shapleaf.records import Group
from shapleaf.records.graph import Site
from zoo import Apply, conv, example, head, settle, state

X = example(20, 6, seed=3)
MAPS = example(4, 3, 5, 5, seed=3)


def found(model: nn.Module, name: str, data: Tensor, felt: Any = None) -> list[Any]:
    graph = sl.trace(model, data[:2])
    return consumers.consumers(model, graph[name], [Batch(data[:3]), Batch(data[3:], first=3)], felt or {})


def covariance(rows: Tensor, examples: int) -> Tensor:
    rows = rows - rows.mean(0)
    return rows.T @ rows / examples


def test_a_linear_layer() -> None:
    model = settle(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)))
    (it,) = found(model, "0", X)
    with torch.no_grad():
        assert torch.allclose(it.gram, covariance(model[:2](X), 20))
    assert torch.equal(it.weight, model[2].weight.T)
    assert it.units.tolist() == [0, 1, 2, 3]
    assert it.felt.tolist() == [1, 1]
    assert it.gram.dtype == torch.float64


def test_a_convolution_sums_over_places_and_averages_over_examples() -> None:
    model = settle(nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 2, padding=0), head(2)))
    (it,) = found(model, "0", MAPS)
    with torch.no_grad():
        read = model[:2](MAPS)
    rows = [read[e, :, y : y + 3, x : x + 3].flatten() for e in range(4) for y in range(3) for x in range(3)]
    assert torch.allclose(it.gram, covariance(torch.stack(rows), 4))
    assert it.units.tolist() == [unit for unit in range(4) for _ in range(9)]


def test_behind_flatten_units_have_several_features() -> None:
    model = settle(nn.Sequential(conv(3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(100, 2)))
    (it,) = found(model, "0", MAPS)
    assert it.units.tolist() == [unit for unit in range(4) for _ in range(25)]


def test_features_of_others_are_of_no_unit() -> None:
    def call(self: Any, x: Tensor) -> Tensor:
        return self.c(torch.cat([self.a(x), self.b(x)], 1))

    model = settle(Apply(call, a=nn.Linear(6, 3), b=nn.Linear(6, 2), c=nn.Linear(5, 2)))
    (a,), (b,) = found(model, "a", X), found(model, "b", X)
    assert a.units.tolist() == [0, 1, 2, -1, -1]
    assert b.units.tolist() == [-1, -1, -1, 0, 1]
    assert torch.equal(a.gram, b.gram)


def test_a_grouped_convolution_is_a_regression_for_each_group() -> None:
    model = settle(nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 6, groups=2, padding=0), head(6)))
    units = torch.tensor([0, 0, 1, 1])[:, None, None]
    site = Site(call="2:conv2d#0", arg=0, index=units, weight="2.weight", dim=1)
    group = Group(name="g", size=2, slices=(), sites=(site,))
    first, second = consumers.consumers(model, group, [Batch(MAPS)], {"2:conv2d#0": torch.arange(6.0)})
    assert first.units.tolist() == [0] * 18
    assert second.units.tolist() == [1] * 18
    assert second.felt.tolist() == [3, 4, 5]
    assert torch.equal(second.weight, model[2].weight[3:].flatten(1).T)


def test_felt_weights_are_those_of_the_outputs() -> None:
    model = settle(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)))
    (it,) = found(model, "0", X, {"2:linear#0": torch.tensor([3.0, 5.0])})
    assert it.felt.tolist() == [3, 5]


def test_components_span_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """All nine components of every channel are the patches, turned: the same error for any weights."""
    model = settle(nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 2, padding=0), head(2)))
    (whole,) = found(model, "0", MAPS)
    monkeypatch.setattr(consumers, "WIDEST", 35)  # fewer than 36: eight of nine are kept
    (narrow,) = found(model, "0", MAPS)
    assert narrow.gram.shape == (32, 32)
    assert narrow.units.tolist() == [unit for unit in range(4) for _ in range(8)]
    size = [float((it.gram @ it.weight * it.weight).sum()) for it in (whole, narrow)]
    assert size[1] == pytest.approx(size[0], rel=0.1)
    # The components of a channel do not vary together.
    block = narrow.gram[:8, :8]
    assert torch.allclose(block, torch.diag(block.diagonal()), atol=1e-10)


def test_no_reader_no_consumer() -> None:
    model = settle(Apply(lambda self, x: F.relu(self.a(x)).sum(1, keepdim=True), a=nn.Linear(6, 8)))
    assert found(model, "a", X) == []


def test_feeling_by_autograd() -> None:
    model = settle(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)))
    graph, labels = sl.trace(model, X[:2]), torch.arange(20) % 3
    data = [Batch(X[:7], labels[:7]), Batch(X[7:], labels[7:], first=7)]
    before = state(model)
    felt = feeling(model, graph.groups, data, _context.cross_entropy)
    assert state(model) == before
    with torch.no_grad():  # the gradient of the cross-entropy is softmax minus the label
        expected = (model(X).softmax(1) - F.one_hot(labels, 3)).square().mean(0)
    assert felt.keys() == {"2:linear#0"}
    assert torch.allclose(felt["2:linear#0"], expected)


def test_feeling_of_a_convolution_is_over_examples_and_places() -> None:
    model = settle(
        nn.Sequential(conv(3, 4), nn.ReLU(inplace=True), conv(4, 2), nn.ReLU(inplace=True), head(2))
    )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    labels = torch.tensor([0, 1, 1, 0])
    felt = feeling(model, sl.trace(model, MAPS[:2]).groups, [Batch(MAPS, labels)], _context.cross_entropy)
    out = model[:3](MAPS).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model[4](out.relu()), labels, reduction="sum"), out)
    assert torch.allclose(felt["2:conv2d#0"], gradient.square().mean((0, 2, 3)))


def test_units_that_differ_from_place_to_place_are_refused() -> None:
    """The axis that a layer reads holds other units in every row."""
    model = settle(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)))
    group = sl.trace(model, X[:2])["0"]
    site = next(site for site in group.sites if site.weight)
    odd = replace(site, index=torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3]]))
    with pytest.raises(sl.CriterionError, match="2:linear#0 reads units that differ from place to place"):
        consumers.consumers(model, replace(group, sites=(odd,)), [Batch(X)], {})


def test_layers_as_they_run() -> None:
    """Behind flattening and concatenation: whose every channel and feature is, in every batch."""

    def call(self: Any, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        return self.c(torch.cat([h, self.b(x)], 1)) + self.d(h)

    model = settle(Apply(call, a=nn.Linear(6, 3), b=nn.Linear(6, 2), c=nn.Linear(5, 4), d=nn.Linear(3, 4)))
    data = [Batch(example(2, 6)), Batch(example(3, 6), first=2)]
    graph = sl.trace(model, example(1, 6))
    found = list(consumers.layers(model, graph["a"], data))
    assert [one.call for one in found] == ["c:linear#0", "d:linear#0"] * 2
    assert [(one.step, one.ids) for one in found] == [(0, (0, 1))] * 2 + [(0, (2, 3, 4))] * 2
    assert [one.units.tolist() for one in found[:2]] == [[[0, 1, 2, -1, -1]], [[0, 1, 2]]]
    assert torch.equal(found[3].linear.input, F.relu(model.a(data[1].inputs)))
    maps = settle(nn.Sequential(nn.Conv1d(1, 2, 1), nn.Flatten(), nn.Linear(6, 2)))
    graph = sl.trace(maps, example(1, 1, 3))
    (flat,) = consumers.layers(maps, graph["0"], [Batch(example(2, 1, 3))])
    assert flat.owners.tolist() == [[0, 0, 0, 1, 1, 1]]
    kernels = settle(nn.Sequential(nn.Conv1d(1, 2, 1), nn.Conv1d(2, 2, 2)))
    graph = sl.trace(kernels, example(1, 1, 3))
    (read,) = consumers.layers(kernels, graph["0"], [Batch(example(2, 1, 3))])
    assert (read.units.tolist(), read.owners.tolist()) == ([[0, 1]], [[0, 0, 1, 1]])


def test_what_does_not_vary_is_zero_and_how_far_from_zero_it_lies_does_not_count() -> None:
    """In single precision, of plain layers and of components."""
    x = X.float()
    x[:, 1] = 3.7
    plain = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
    with torch.no_grad():
        plain[0].weight.copy_(torch.eye(6))
        plain[0].bias.zero_()
        (near,) = found(plain, "0", x)
        plain[0].bias.copy_(torch.tensor([1000.0, 1000, 0, 0, 0, 0]))
        (far,) = found(plain, "0", x)
    assert not far.gram[1].any()
    assert not far.gram[:, 1].any()
    assert torch.allclose(far.gram, near.gram, rtol=1e-3, atol=1e-3)
    assert torch.linalg.eigvalsh(far.gram)[0] > -1e-9

"""OptimalBrainSurgeon: what is lost of a unit once the others have made up for it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf import consumers
from shapleaf._ridge import scale
from shapleaf.criteria import Consumer, Needs, Probe
from shapleaf.records import Group
from zoo import NETS, Apply, conv, example, head, settle, state

X = example(80, 6, seed=3)
MAPS = example(12, 3, 6, 6, seed=3)
RIDGE = 0.1


def probe(*found: Consumer, size: int) -> Probe:
    group = Group(name="g", size=size, slices=(), sites=())
    return Probe(group, nn.Identity(), 0, Needs.CONSUMERS, regress=lambda: list(found))


def consumer(n: int = 5, outputs: int = 3, seed: int = 1, units: Any = None, felt: Any = None) -> Consumer:
    """One layer that reads n correlated features."""
    rows = example(50, n, seed=seed) @ (torch.eye(n).double() + 0.5 * example(n, n, seed=seed + 1))
    rows = rows - rows.mean(0)
    return Consumer(
        rows.T @ rows / 50,
        example(n, outputs, seed=seed + 2),
        torch.arange(n) if units is None else torch.tensor(units),
        torch.ones(outputs).double() if felt is None else torch.tensor(felt).double(),
    )


def error(it: Consumer, gone: list[int], ridge: float = RIDGE) -> float:
    """By brute force: the least error, and penalty, of weights that are zero where units are gone."""
    stay = [i for i, unit in enumerate(it.units.tolist()) if unit not in gone]
    penalised = it.gram + torch.diag(ridge * scale(it.gram))
    weight = it.weight * it.felt.sqrt()
    best = torch.zeros_like(weight)
    if stay:
        best[stay] = torch.linalg.solve(penalised[stay][:, stay], penalised[stay] @ weight)
    change = best - weight
    whole = float((it.gram @ weight * weight).sum())
    return float((penalised @ change * change).sum()) / whole


def test_a_unit_costs_what_the_refit_of_the_others_leaves() -> None:
    it = consumer()
    found = sl.OptimalBrainSurgeon(steps=1, ridge=RIDGE).score(probe(it, size=5))
    for unit in range(5):
        expected = -math.log1p(-min(error(it, [unit]), 1 - 1e-3))
        assert found.values[unit].item() == pytest.approx(expected, rel=1e-9)


def test_units_of_several_features_go_together() -> None:
    """Feature 4 belongs to no unit: it helps, and never goes."""
    it = consumer(units=[0, 1, 0, 1, -1])
    found = sl.OptimalBrainSurgeon(steps=1).score(probe(it, size=2))
    for unit in range(2):
        assert found.values[unit].item() == pytest.approx(
            -math.log1p(-min(error(it, [unit]), 0.999)), rel=1e-9
        )


@pytest.mark.parametrize("seed", range(4))
def test_the_order_is_that_of_the_greedy_search_by_brute_force(seed: int) -> None:
    """Every round: the unit whose loss adds least; never less than what went before."""
    it = consumer(n=6, seed=10 * seed)
    found = sl.OptimalBrainSurgeon(steps=6).score(probe(it, size=6))
    gone: list[int] = []
    curve, last = [0.0], 0.0
    while len(gone) < 6:
        before = error(it, gone)
        costs = {
            u: -math.log1p(-min((error(it, [*gone, u]) - before) / (1 - min(before, 0.999)), 0.999))
            for u in range(6)
            if u not in gone
        }
        unit = min(costs, key=lambda u: costs[u])
        last = max(last, costs[unit])
        assert found.values[unit].item() == pytest.approx(last, rel=1e-6)
        gone.append(unit)
        curve.append(-math.log1p(-min(error(it, gone), 0.999)))
    assert found.curve[:, 0].tolist() == [*range(7)]
    assert found.curve[:, 1].tolist() == pytest.approx(curve, rel=1e-6)


def test_rounds_take_several_at_a_time() -> None:
    it = consumer(n=7)
    found = sl.OptimalBrainSurgeon(steps=3).score(probe(it, size=7))
    assert found.curve[:, 0].tolist() == [0, 3, 6, 7]
    first = sl.OptimalBrainSurgeon(steps=1).score(probe(it, size=7)).values
    assert set(first.argsort()[:3].tolist()) == set(found.values.argsort()[:3].tolist())


def test_felt_weighs_outputs() -> None:
    """An output that the loss does not feel might as well not be there."""
    it = consumer(felt=[1.0, 0.0, 4.0])
    same = Consumer(
        it.gram, it.weight[:, [0, 2]] * torch.tensor([1.0, 2.0]), it.units, torch.ones(2).double()
    )
    a, b = (sl.OptimalBrainSurgeon().score(probe(each, size=5)) for each in (it, same))
    assert torch.allclose(a.values, b.values)
    unfelt = consumer(felt=[0.0, 0.0, 0.0])
    assert not sl.OptimalBrainSurgeon().score(probe(unfelt, size=5)).values.any()


def test_consumers_add_up() -> None:
    """The first round; one reads only some of the units."""
    a, b = consumer(), consumer(n=3, seed=7, units=[1, 3, 4])
    both = sl.OptimalBrainSurgeon(steps=1).score(probe(a, b, size=5))
    alone = sl.OptimalBrainSurgeon(steps=1).score(probe(a, size=5))
    for unit in range(5):
        more = -math.log1p(-min(error(b, [unit]), 0.999)) if unit in (1, 3, 4) else 0.0
        assert both.values[unit].item() == pytest.approx(alone.values[unit].item() + more, rel=1e-9)


def attributed(model: nn.Module, data: Any, **options: Any) -> sl.Scores:
    inputs = data[0] if isinstance(data, list | tuple) else data
    return sl.attribute(model, sl.trace(model, inputs[:2]), data, sl.OptimalBrainSurgeon(**options))


def mlp() -> nn.Module:
    return settle(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3)))


def test_of_two_equal_units_only_one_is_cheap() -> None:
    model = mlp()
    with torch.no_grad():
        model[0].weight[5], model[0].bias[5] = model[0].weight[2], model[0].bias[2]
        model[2].weight[:, [2, 5]] = 2 * model[2].weight[:, [2, 5]].abs() + 1
    values = attributed(model, X, ridge=1e-6).values["0"]
    assert min(values[2], values[5]) < 1e-4
    assert max(values[2], values[5]) > 0.1
    assert values.argmin().item() in (2, 5)


def test_the_curve_rises_from_nothing_to_everything() -> None:
    scores = attributed(mlp(), X)
    for name, curve in scores.curves.items():
        size = scores.graph[name].size
        assert curve[0].tolist() == [0, 0, 0]
        assert curve[-1, 0] == size
        assert curve[-1, 1] == pytest.approx(-math.log(1e-3))
        assert (curve[:, 1].diff() >= 0).all()
        assert curve.isfinite().all()
        assert (scores.values[name] >= 0).all()
    assert scores.settings["aggregate"] == "none"


def test_scores_follow_their_units() -> None:
    model, order = mlp(), torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    values = attributed(model, X).values["0"]
    with torch.no_grad():
        model[0].weight.copy_(model[0].weight[order])
        model[0].bias.copy_(model[0].bias[order])
        model[2].weight.copy_(model[2].weight[:, order])
    assert torch.allclose(attributed(model, X).values["0"], values[order], rtol=1e-8)


@pytest.mark.parametrize("felt", [False, True])
def test_batches_do_not_matter(felt: bool) -> None:
    model, labels = mlp(), torch.arange(80) % 3
    before = state(model)
    whole = attributed(model, (X, labels), felt=felt)
    graph = whole.graph
    parts = [(X[:30], labels[:30]), (X[30:], labels[30:])]
    split = sl.attribute(model, graph, parts, sl.OptimalBrainSurgeon(felt=felt))
    for name, value in whole.values.items():
        assert torch.allclose(split.values[name], value, rtol=1e-8)
        assert torch.allclose(split.curves[name], whole.curves[name], rtol=1e-8)
    assert state(model) == before
    assert whole.samples == 80


def test_labels_are_needed_only_where_the_loss_is_felt() -> None:
    model = mlp()
    assert attributed(model, X).values.keys() == {"0", "2"}
    with pytest.raises(sl.DataError, match="target"):
        attributed(model, X, felt=True)


def test_a_group_that_no_weights_read_is_refused() -> None:
    model = settle(Apply(lambda self, x: F.relu(self.a(x)).sum(1, keepdim=True), a=nn.Linear(6, 8)))
    with pytest.raises(sl.CriterionError, match="group a is read by no layer with weights"):
        attributed(model, X)


def test_a_stream_is_the_sum_over_its_readers() -> None:
    """A residual stream: what the two layers that read it lose, added."""

    def call(self: Any, x: Tensor) -> Tensor:
        h = self.a(x)
        h = h + self.c(F.relu(self.b(h)))
        return self.d(h)

    layers = {"a": (6, 8), "b": (8, 5), "c": (5, 8), "d": (8, 3)}
    model = settle(Apply(call, **{name: nn.Linear(*size) for name, size in layers.items()}))
    graph = sl.trace(model, X[:2])
    stream = next(
        group for group in graph if {site.call for site in group.sites} == {"b:linear#0", "d:linear#0"}
    )
    values = attributed(model, X, steps=1).values[stream.name]
    found = consumers.consumers(model, stream, [sl.data.Batch(X)], {})
    assert len(found) == 2
    each = [sl.OptimalBrainSurgeon(steps=1).score(probe(one, size=8)).values for one in found]
    assert torch.allclose(values, each[0] + each[1])


def test_wide_convolutions_rank_nearly_alike_by_their_components(monkeypatch: pytest.MonkeyPatch) -> None:
    model = settle(nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6), nn.ReLU(), head(6)))
    graph = sl.trace(model, MAPS[:2])
    smooth = F.interpolate(MAPS, scale_factor=3, mode="bilinear")  # as pictures are
    whole = sl.attribute(model, graph, smooth, sl.OptimalBrainSurgeon()).values["0"]
    monkeypatch.setattr(consumers, "WIDEST", 40)  # five of nine components of each channel
    narrow = sl.attribute(model, graph, smooth, sl.OptimalBrainSurgeon()).values["0"]
    assert not torch.equal(whole, narrow)
    assert (
        torch.corrcoef(torch.stack([whole.argsort().argsort(), narrow.argsort().argsort()]).double())[0, 1]
        > 0.9
    )


def test_units_of_unequal_numbers_of_features() -> None:
    it = consumer(units=[0, 1, 1, 0, 0])
    found = sl.OptimalBrainSurgeon(steps=1).score(probe(it, size=3))  # unit 2 is not read at all
    assert found.values[2] == 0
    for unit in range(2):
        assert found.values[unit].item() == pytest.approx(
            -math.log1p(-min(error(it, [unit]), 0.999)), rel=1e-9
        )


@pytest.mark.parametrize("name", sorted(set(NETS) - {"functional"}))
def test_every_net_is_scored(name: str) -> None:
    model, inputs = NETS[name]()
    if isinstance(inputs, dict):
        inputs = {key: value for key, value in inputs.items() if isinstance(value, Tensor)}
    graph, before = sl.trace(model, inputs), state(model)
    read = [group.name for group in graph if any(site.weight for site in group.sites)]
    scores = sl.attribute(model, graph, [(inputs, None)], sl.OptimalBrainSurgeon(), groups=read)
    for group in read:
        assert scores.values[group].isfinite().all()
        assert scores.curves[group].isfinite().all()
        assert scores.curves[group][-1, 0] == graph[group].size
    assert state(model) == before


def test_what_is_no_product_of_rows_and_a_matrix_asks_for_another_criterion() -> None:
    model, inputs = NETS["functional"]()
    with pytest.raises(sl.PlanError, match=r":einsum#0 multiplies in a way .* use another criterion"):
        attributed(model, inputs)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e6])
def test_where_nothing_varies_nothing_is_lost(value: float) -> None:
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3))
    same = torch.full((60, 6), value)
    scores = attributed(model, same)
    assert all(not scores.values[name].any() for name in ("0", "2"))

"""ThiNet: what goes first is what the next layers miss least."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.criteria.thinet import _order, _scaled
from zoo import NETS, Apply, conv, example, head, settle, state


def thinet(model: nn.Module, data: Any, samples: int = 100, **options: Any) -> sl.Scores:
    inputs = data[0] if isinstance(data, list | tuple) else data
    return sl.attribute(model, sl.trace(model, inputs[:1]), data, sl.ThiNet(samples), **options)


def test_o13_h1_the_largest_contribution_stays() -> None:
    """The reference code ranks the other way around and keeps 0.001 of (0.001, 0.1, 1, 10)."""
    model = nn.Sequential(nn.Linear(1, 4, bias=False), nn.Linear(4, 1)).double()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[1].weight.copy_(torch.tensor([[1e-3, 0.1, 1, 10]]))
    data = example(20, 1).abs() + 0.1
    scores = thinet(model, data)
    assert scores.values["0"].tolist() == [0.25, 0.5, 0.75, 1.0]
    for kept, expected in ((1, (3,)), (2, (2, 3)), (3, (1, 2, 3))):
        for strategy in (sl.Uniform(), sl.Global()):
            plan = sl.allocate(scores, sl.Units(keep=kept), strategy=strategy, multiple_of=1)
            assert plan.keep["0"] == expected


def test_what_cancels_goes_first() -> None:
    additions = torch.tensor([[3.0, 2.0, -3.0, 2.5]]).double()
    assert _order(additions).tolist() == [1.0, 0.25, 0.5, 0.75]  # 2, then 2 - 3, then 2 - 3 + 2.5
    assert _order(torch.tensor([[0.1, 3.0, 0.0, -3.05]]).double()).argmin() == 2


def test_greedy_against_brute_force() -> None:
    """Every round takes the unit with which the squared sum of all that has gone is least."""
    additions = example(30, 6)
    shares = _order(additions)
    order = shares.argsort().tolist()
    gone: list[int] = []
    for unit in order:
        left = [u for u in range(6) if u not in gone]
        costs = {u: float(additions[:, [*gone, u]].sum(1).square().sum()) for u in left}
        assert unit == min(costs, key=lambda u: costs[u])
        gone.append(unit)
    assert sorted(shares.tolist()) == pytest.approx([k / 6 for k in range(1, 7)])


def test_what_is_gathered_is_what_the_layers_return() -> None:
    """Over all units, what is added at a place is the output there without its bias."""
    model = settle(nn.Sequential(conv(3, 5), nn.ReLU(), nn.Conv2d(5, 4, 3, bias=False), head(4)))
    maps = example(6, 3, 7, 7)
    graph = sl.trace(model, maps[:1])
    found: list[Tensor] = []

    class Spy(sl.ThiNet):
        def _additions(self, layer: Any, probe: Any) -> Any:
            for one in super()._additions(layer, probe):
                found.append(one)
                yield one

    sl.attribute(model, graph, maps, Spy(40), groups=["0"])
    out = model[2](F.relu(model[0](maps))).flatten()
    assert len(found) == 40
    sums = torch.stack(found).sum(1)
    gaps = (out[None] - sums[:, None]).abs().min(1)
    assert gaps.values.max() < 1e-12
    examples = gaps.indices // (len(out) // 6)
    assert len(examples.unique()) == 6  # of all examples, and of most channels
    assert len((gaps.indices // 25 % 4).unique()) == 4


def test_several_readers_count_alike() -> None:
    """However much larger the numbers of one are."""

    def call(self: Any, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(h) + self.c(h)

    layers = {"a": nn.Linear(4, 6), "b": nn.Linear(6, 3), "c": nn.Linear(6, 3)}
    model, data = settle(Apply(call, **layers)), example(50, 4)
    before = thinet(model, data).values["a"]
    with torch.no_grad():
        model.c.weight.mul_(1e4)
    assert torch.equal(thinet(model, data).values["a"], before)
    assert _scaled(torch.zeros(3, 2).double()).tolist() == [[0, 0]] * 3


def small() -> nn.Module:
    return settle(nn.Sequential(conv(3, 6), nn.ReLU(), nn.MaxPool2d(2), conv(6, 5), nn.ReLU(), head(5)))


MAPS = example(12, 3, 8, 8)


def test_batches_do_not_matter_and_seeds_do() -> None:
    model = small()
    kept = state(model)
    whole = thinet(model, MAPS, samples=20)
    parts = thinet(model, [MAPS[:1], MAPS[1:5], MAPS[5:]], samples=20)
    for name, values in whole.values.items():
        assert torch.equal(parts.values[name], values)
    others = [thinet(model, MAPS, samples=3, seed=seed).values["0"] for seed in range(6)]
    assert any(not torch.equal(others[0], other) for other in others[1:])
    assert state(model) == kept
    assert whole.settings["aggregate"] == "none"


def test_a_dead_unit_goes_first() -> None:
    model = small()
    with torch.no_grad():
        model[0].weight[4], model[0].bias[4] = 0.0, 0.0
    assert thinet(model, MAPS).values["0"].argmin() == 4


@pytest.mark.parametrize("name", sorted(set(NETS) - {"functional"}))
def test_every_net_is_scored(name: str) -> None:
    model, inputs = NETS[name]()
    if isinstance(inputs, dict):
        inputs = {key: value for key, value in inputs.items() if isinstance(value, Tensor)}
    graph, kept = sl.trace(model, inputs), state(model)
    read = [group.name for group in graph if any(site.weight for site in group.sites)]
    scores = sl.attribute(model, graph, [(inputs, None)], sl.ThiNet(9), groups=read)
    for group in read:
        size = graph[group].size
        assert sorted(scores.values[group].tolist()) == pytest.approx([k / size for k in range(1, size + 1)])
    assert state(model) == kept


def test_bad_input() -> None:
    with pytest.raises(sl.CriterionError, match="at least 1"):
        sl.ThiNet(samples=0)
    model = settle(Apply(lambda self, x: F.relu(self.a(x)).sum(1, keepdim=True), a=nn.Linear(6, 8)))
    with pytest.raises(sl.CriterionError, match="group a is read by no layer with weights"):
        thinet(model, example(5, 6))
    with pytest.raises(sl.StaleGraphError):
        sl.attribute(small(), sl.trace(model, example(2, 6)), MAPS, sl.ThiNet())

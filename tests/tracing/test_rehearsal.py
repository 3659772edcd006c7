"""The rehearsal: a shortened copy runs, and what the code cannot follow is held and named."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.tracing import rehearsal
from zoo import Apply, example, gap, half_plan, prove, run, settle, state

VECTORS = example(2, 6)


def literal() -> nn.Module:
    """Eight columns by number; the five before are free."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.c(F.relu(self.b(F.relu(self.a(x)))).view(-1, 8))

    return settle(Apply(forward, a=nn.Linear(6, 5), b=nn.Linear(5, 8), c=nn.Linear(8, 2)))


def test_a_literal_size_blocks_its_group_and_no_other() -> None:
    model = literal()
    before = state(model)
    graph = sl.trace(model, VECTORS)
    assert state(model) == before
    assert [(g.name, g.size, g.exact) for g in graph] == [("a", 5, True), ("b", 8, True)]
    assert graph["a"].blocked == ""
    assert re.match(
        r"test_rehearsal.py:\d+ holds a size that does not follow: shape '\[-1, 8\]' is invalid",
        graph["b"].blocked,
    )
    assert "b is scored but never pruned: test_rehearsal.py:" in str(graph)


def test_blocked_groups_are_scored_but_not_allocated_and_prune_refuses_them() -> None:
    model = literal()
    graph = sl.trace(model, VECTORS)
    values = {"a": torch.arange(5.0) + 10, "b": torch.arange(8.0)}
    plan = sl.allocate(sl.Scores(graph=graph, values=values), sl.Units(keep=3), multiple_of=1)
    assert (plan.pruned, plan.keep["a"], plan.keep["b"]) == (("a",), (2, 3, 4), tuple(range(8)))
    pruned = sl.prune(model, plan).model
    assert gap(run(sl.masked(model, plan), VECTORS), run(pruned, VECTORS)) < 1e-12
    refused = sl.plan(graph, {"b": range(4)})
    with pytest.raises(sl.PlanError, match=r"group b cannot lose units: test_rehearsal.py:\d+"):
        sl.prune(model, refused)
    halved = F.linear(F.relu(model.b(F.relu(model.a(VECTORS))))[:, :4], model.c.weight[:, :4], model.c.bias)
    assert gap([halved.detach()], run(sl.masked(model, refused), VECTORS)) < 1e-12


@pytest.mark.parametrize("error", [KeyError("five"), AssertionError(), LookupError("five")])
def test_any_exception_of_the_code_counts(error: Exception) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        if x.shape[1] != 5:
            raise error
        return self.c(F.relu(self.b(x)))

    model = settle(Apply(forward, a=nn.Linear(6, 5), b=nn.Linear(5, 8), c=nn.Linear(8, 2)))
    graph = sl.trace(model, VECTORS)
    what = str(error) or "AssertionError"
    assert graph["a"].blocked.endswith(f"holds a size that does not follow: {what}")
    assert graph["b"].blocked == ""


def test_an_output_of_another_shape_blocks() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))[:, : self.a.out_features // 4]

    model = settle(Apply(forward, a=nn.Linear(6, 8), b=nn.Linear(8, 2)))
    graph = sl.trace(model, VECTORS)
    assert graph["a"].blocked == "the model's output would change its shape"


def test_tied_groups_are_held_together() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        p, q = self.a(x).chunk(2, 1)
        return self.b(p.view(-1, 4)) * self.c(q) + self.e(self.d(x))

    layers = {"a": nn.Linear(6, 8), "b": nn.Linear(4, 2), "c": nn.Linear(4, 2)}
    model = settle(Apply(forward, **layers, d=nn.Linear(6, 5), e=nn.Linear(5, 2)))
    graph = sl.trace(model, VECTORS)
    assert graph.ties == (("a", "a#2"),)
    assert [bool(g.blocked) for g in graph] == [True, True, False]
    assert graph["a"].blocked == graph["a#2"].blocked
    values = {g.name: torch.arange(float(g.size)) for g in graph}
    plan = sl.allocate(sl.Scores(graph=graph, values=values), sl.Units(keep=3), multiple_of=1)
    assert (plan.pruned, plan.keep["d"]) == (("d",), (2, 3, 4))


def test_groups_that_only_go_together_with_others_are_found_one_by_one() -> None:
    """Either may lose units, but not both: the second is held."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if self.a.out_features < 8 and self.c.out_features < 8:
            raise ValueError("too small")
        return self.b(self.a(x)) + self.d(self.c(x))

    layers = {"a": nn.Linear(6, 8), "b": nn.Linear(8, 2), "c": nn.Linear(6, 8), "d": nn.Linear(8, 2)}
    graph = sl.trace(settle(Apply(forward, **layers)), VECTORS)
    assert [bool(g.blocked) for g in graph] == [False, True]
    assert graph["c"].blocked.endswith("too small")


def test_where_values_are_read_real_tensors_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[str] = []
    inside = rehearsal._Stage._run
    monkeypatch.setattr(
        rehearsal._Stage,
        "_run",
        lambda self, model: devices.append(next(model.parameters()).device.type) or inside(self, model),
    )

    def by_value(self: Any, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)).view(-1, 8)) * x.sum().item()

    layers: dict[str, Callable[[], nn.Module]] = {"a": lambda: nn.Linear(6, 8), "b": lambda: nn.Linear(8, 2)}
    model = settle(Apply(by_value, **{name: make() for name, make in layers.items()}))
    graph = sl.trace(model, VECTORS)
    assert re.match(r"test_rehearsal.py:\d+ holds a size that does not follow: ", graph["a"].blocked)
    assert devices[:2] == ["meta", "meta"]  # neither short nor whole
    assert {*devices[2:]} == {"cpu"}
    devices.clear()
    model = settle(nn.Sequential(*(make() for make in layers.values())))
    graph = sl.trace(model, VECTORS)
    assert graph["0"].blocked == ""
    assert devices == ["meta"]
    prove(model, VECTORS, graph)


def test_a_model_that_cannot_be_copied_is_traced_with_a_note() -> None:
    class Uncopyable(nn.Linear):
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("no copies")

    model = settle(nn.Sequential(Uncopyable(6, 8), nn.Linear(8, 2)))
    graph = sl.trace(model, VECTORS)
    assert graph.notes == (
        "Sizes in the code were not looked for, as a copy of the model does not run: no copies",
    )
    sl.prune_(model, half_plan(graph))
    assert model[0].out_features == 4

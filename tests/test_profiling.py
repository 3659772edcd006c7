"""profile: which calls depend on what, which widths are shown, and that a table is gone on with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf import profiling
from shapleaf.errors import DataError, StaleGraphError
from shapleaf.evaluation.latency import threads
from shapleaf.records import Axis


class Net(nn.Module):
    """Two convolutions around a shortcut, a flattened map and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.conv1 = nn.Conv2d(16, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.fc = nn.Linear(16 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.conv2(F.relu(self.conv1(x))))
        return self.fc(F.avg_pool2d(x, 2).flatten(1))


INPUTS = torch.randn(2, 1, 4, 4)


@pytest.fixture(scope="module")
def model() -> Net:
    return Net().eval()


@pytest.fixture(scope="module")
def graph(model: Net) -> sl.Graph:
    return sl.trace(model, INPUTS)


@pytest.fixture(scope="module")
def table(model: Net, graph: sl.Graph) -> sl.LatencyTable:
    return sl.profile(model, graph, INPUTS, runs=21)


def unit(name: str, per_unit: float = 1.0) -> Axis:
    return Axis(fixed=0, groups=(name,), per_unit=(per_unit,))


def test_calls_know_the_widths_that_they_depend_on(table: sl.LatencyTable) -> None:
    axes = {timed.call: timed.axes for timed in table.calls}
    assert axes == {
        "stem:conv2d#0": (unit("stem"),),
        ":relu#0": (unit("stem"),),
        "conv1:conv2d#0": (unit("stem"), unit("conv1")),
        ":relu#1": (unit("conv1"),),
        "conv2:conv2d#0": (unit("conv1"), unit("stem")),
        ":add#0": (unit("stem"),),
        ":relu#2": (unit("stem"),),
        ":avg_pool2d#0": (unit("stem"),),
        ":flatten#0": (unit("stem"),),
        "fc:linear#0": (unit("stem", 4.0),),
    }


def test_calls_on_equal_shapes_are_of_one_kind(table: sl.LatencyTable) -> None:
    kinds = {timed.call: timed.kind for timed in table.calls}
    assert kinds[":relu#0"] == kinds[":relu#2"] != kinds[":relu#1"]
    assert len(set(kinds.values())) == len(kinds) - 1


def test_more_than_two_widths_are_added_up() -> None:
    class Cat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(3, width) for width in (4, 6, 8))
            self.out = nn.Linear(18, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.relu(torch.cat([part(x) for part in self.parts], 1)))

    inputs = torch.randn(5, 3)
    net = Cat().eval()
    found = sl.profile(net, sl.trace(net, inputs), inputs, runs=2)
    axes = {timed.call: timed.axes for timed in found.calls}
    every = Axis(fixed=0, groups=("parts.0", "parts.1", "parts.2"), per_unit=(1.0, 1.0, 1.0))
    assert axes[":cat#0"] == (every,)
    assert axes["out:linear#0"] == (every,)


def test_every_tenth_run_keeps_all_and_the_others_multiples(table: sl.LatencyTable) -> None:
    units = table.units.numpy()
    dense = (units == [16, 8]).all(1)
    assert dense[::10].all()
    assert dense.sum() < 5
    assert set(units[:, 0]) == {4, 8, 12, 16}
    assert set(units[:, 1]) == {2, 4, 6, 8}


def test_sixteen_combinations_of_widths_are_all_shown_in_twenty_one_runs(table: sl.LatencyTable) -> None:
    assert len({tuple(row) for row in table.units.tolist()}) == 16


def test_tied_groups_shrink_together() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    inputs = torch.randn(2, 5, 16)
    graph = sl.trace(layer, inputs)
    found = sl.profile(layer, graph, inputs, runs=6)
    assert found.complete
    for plan_units in found.units.tolist():
        sl.plan(graph, {g.name: range(n) for g, n in zip(graph, plan_units, strict=True)})


def test_the_model_is_left_as_it_was(model: Net, graph: sl.Graph) -> None:
    model.train()
    try:
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        random = torch.get_rng_state()
        sl.profile(model, graph, INPUTS, runs=3)
        assert model.training
        assert torch.equal(torch.get_rng_state(), random)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        assert not model._forward_hooks
        assert all(parameter.grad is None for parameter in model.parameters())
    finally:
        model.eval()


# Files


def test_an_interrupted_table_is_gone_on_with(
    model: Net, graph: sl.Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, measured = tmp_path / "table", profiling._measured

    def stopped(net: nn.Module, table: sl.LatencyTable, *rest: Any) -> sl.LatencyTable:
        if len(table.units) == 5:
            raise KeyboardInterrupt
        return measured(net, table, *rest)

    monkeypatch.setattr(profiling, "_measured", stopped)
    with pytest.raises(KeyboardInterrupt):
        sl.profile(model, graph, INPUTS, runs=12, path=path)
    begun = sl.LatencyTable.load(path)
    assert (len(begun.units), begun.planned, begun.complete) == (5, 12, False)
    monkeypatch.setattr(profiling, "_measured", measured)
    whole = sl.profile(model, graph, INPUTS, runs=12, path=path)
    assert torch.equal(whole.times[:5], begun.times)
    assert torch.equal(whole.units, sl.profile(model, graph, INPUTS, runs=12).units)
    assert sl.LatencyTable.load(path) == whole
    assert sl.profile(model, graph, INPUTS, runs=8, path=path) == whole
    more = sl.profile(model, graph, INPUTS, runs=14, path=path)
    assert torch.equal(more.times[:12], whole.times)
    assert more.seconds > whole.seconds > begun.seconds > 0


def test_a_table_made_otherwise_is_refused(model: Net, graph: sl.Graph, tmp_path: Path) -> None:
    path = tmp_path / "table"
    sl.profile(model, graph, INPUTS, runs=2, path=path)
    with pytest.raises(DataError, match=r"inputs was \(2, 1, 4, 4\) float32, now it is \(3, 1, 4, 4\)"):
        sl.profile(model, graph, torch.randn(3, 1, 4, 4), runs=2, path=path)
    with pytest.raises(DataError, match="multiple_of was 8, now it is 4"):
        sl.profile(model, graph, INPUTS, runs=2, multiple_of=4, path=path)
    with threads(2), pytest.raises(DataError, match="threads was 1, now it is 2"):
        sl.profile(model, graph, INPUTS, runs=2, path=path)
    other = sl.LatencyTable.load(path)
    dataclasses.replace(other, settings={**other.settings, "device": "cuda (A100)"}).save(path)
    with pytest.raises(DataError, match=r"device was cuda \(A100\), now it is cpu"):
        sl.profile(model, graph, INPUTS, runs=2, path=path)


def test_another_dtype_or_model_is_refused(model: Net, graph: sl.Graph, tmp_path: Path) -> None:
    path = tmp_path / "table"
    sl.profile(model, graph, INPUTS, runs=2, path=path)
    double = Net().double().eval()
    with pytest.raises(StaleGraphError, match="belongs to another model"):
        sl.profile(double, sl.trace(double, INPUTS.double()), INPUTS.double(), runs=2, path=path)
    with pytest.raises(StaleGraphError, match="belongs to another model"):
        sl.profile(double, graph, INPUTS.double(), runs=2)


@pytest.mark.parametrize("wrong", [{"runs": 1}, {"multiple_of": 0}, {"multiple_of": 2.5}, {"runs": True}])
def test_numbers_are_checked(model: Net, graph: sl.Graph, wrong: dict[str, int]) -> None:
    with pytest.raises(DataError, match="must be a whole number, at least"):
        sl.profile(model, graph, INPUTS, **wrong)


# Clocks


def test_one_thread_on_a_cpu_is_timed_by_its_own_clock() -> None:
    cpu = torch.device("cpu")
    with threads(1):
        assert profiling.clock_of(cpu).__name__ == "thread_time"
    with threads(2):
        assert profiling.clock_of(cpu).__name__ == "perf_counter"


def test_times_of_calls_are_told_apart_by_an_injected_clock(
    model: Net, graph: sl.Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at this clock is a second later: a call takes one, however fast it is."""
    now = iter(range(1_000_000))
    monkeypatch.setattr(profiling, "clock_of", lambda device: _named(lambda: float(next(now))))
    found = sl.profile(model, graph, INPUTS, runs=3)
    assert (found.times == 1000.0).all()
    assert (found.whole == 1000.0).all()


def test_models_are_compared_in_turn_three_passes_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds of the first and five of the second, by a clock that the models move on."""
    now = [0.0]
    log: list[str] = []

    class Takes(nn.Module):
        def __init__(self, name: str, seconds: float) -> None:
            super().__init__()
            self.name, self.seconds = name, seconds

        def forward(self, x: Tensor) -> Tensor:
            assert not self.training
            log.append(self.name)
            now[0] += self.seconds
            return x

    monkeypatch.setattr(profiling, "clock_of", lambda device: _named(lambda: now[0]))
    assert sl.relative_time(Takes("a", 2), Takes("b", 5), torch.ones(1), seconds=0.0) == pytest.approx(0.4)
    assert log[:6] == ["a"] * 3 + ["b"] * 3
    assert log.count("a") == log.count("b") == len(log) / 2


def _named(clock: Any) -> Any:
    clock.__name__ = "counter"
    return clock


@pytest.mark.slow
@pytest.mark.data
def test_resnet20_is_predicted(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures, not a bound: machines are busy."""
    import importlib
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "papers" / "shapley-pruning"))
    network = importlib.import_module("models").load("resnet20", shared).model
    inputs = torch.randn(16, 3, 32, 32)
    graph = sl.trace(network, inputs[:2])
    found = sl.profile(network, graph, inputs)
    scores = sl.attribute(network, graph, None, sl.WeightNorm())
    lines = [str(found)]
    for keep in (0.8, 0.65, 0.5):
        plan = sl.allocate(scores, sl.Latency(keep=keep, table=found), strategy=sl.Uniform())
        pruned = sl.prune(network, plan).model
        measured = sl.relative_time(pruned, network, inputs)
        predicted = found.predict(plan) / found.dense
        lines.append(f"keep={keep}: predicted {predicted:.3f}, measured {measured:.3f}")
        assert predicted <= keep + 1e-3
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *lines, ""]))

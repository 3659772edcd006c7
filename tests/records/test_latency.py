"""LatencyTable: what it predicts, whom it belongs to, how it prints."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf.errors import DataError, PlanError, StaleGraphError
from timings import made_up

TIMES = {
    "0:linear#0": lambda n: 0.1 * n,
    "2:linear#0": lambda n, m: 0.01 * n * m,
    "4:linear#0": lambda n: 0.5 + 0 * n,
}


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))


@pytest.fixture(scope="module")
def graph() -> sl.Graph:
    return sl.trace(network(), torch.zeros(1, 3))


@pytest.mark.parametrize(("a", "b"), [(8, 6), (4, 6), (8, 3), (5, 2), (1, 1)])
def test_a_sum_of_powers_is_predicted_as_it_is(graph: sl.Graph, a: int, b: int) -> None:
    """0.1 a + 0.01 a b + 0.5 milliseconds of calls, and 0.3 between them."""
    table = made_up(graph, TIMES, overhead=0.3)
    plan = sl.plan(graph, {"0": range(a), "2": range(b)})
    assert table.predict(plan) == pytest.approx(0.1 * a + 0.01 * a * b + 0.8, rel=1e-3)
    assert table.dense == pytest.approx(0.8 + 0.48 + 0.8)
    assert np.abs(table.errors).max() < 2e-3
    assert len(table.errors) == 54


def test_steps_in_a_width_are_predicted_where_every_width_was_seen(graph: sl.Graph) -> None:
    odd = {**TIMES, "0:linear#0": lambda n: 2.0 if n % 2 else 1.0}
    table = made_up(graph, odd, runs=300)
    predict = table.predictor()
    found = [predict({"0": n}) - 0.01 * n * 6 - 0.5 for n in range(1, 8)]
    assert found == pytest.approx([2, 1, 2, 1, 2, 1, 2], rel=0.02)


def test_calls_alike_share_what_was_measured(graph: sl.Graph) -> None:
    """0.1 and 0.12 per unit by themselves; as calls of one kind it is all one which is the narrow one."""
    table = made_up(graph, {"0:linear#0": lambda n: 0.1 * n, "4:linear#0": lambda n: 0.12 * n}, runs=300)
    predict = table.predictor()
    found = predict({"0": 1, "2": 6}), predict({"0": 6, "2": 1})
    assert found == pytest.approx((0.82, 0.72), rel=0.002)
    predict = dataclasses.replace(
        table, calls=tuple(dataclasses.replace(one, kind=0) for one in table.calls)
    ).predictor()
    assert predict({"0": 1, "2": 6}) == pytest.approx(predict({"0": 6, "2": 1}), rel=1e-9)
    assert 0.72 < predict({"0": 1, "2": 6}) < 0.82


def test_the_model_as_it_is_takes_the_median_of_its_runs(graph: sl.Graph) -> None:
    table = made_up(graph, TIMES, runs=30)
    whole = table.whole.clone()
    whole[[0, 10, 20]] = torch.tensor([1.0, 7.0, 3.0], dtype=whole.dtype)
    table = dataclasses.replace(table, whole=whole)
    assert table.dense == table.predict(sl.plan(graph, {})) == 3.0


def test_another_graph_is_refused(graph: sl.Graph) -> None:
    other = sl.trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.zeros(1, 3))
    table = made_up(graph, TIMES)
    with pytest.raises(StaleGraphError, match=rf"belongs to another model.*{graph.fingerprint}.*2 groups"):
        table.predict(sl.plan(other, {}))


def test_an_unfinished_table_predicts_nothing(graph: sl.Graph) -> None:
    table = dataclasses.replace(made_up(graph, TIMES, runs=20), planned=120)
    assert not table.complete
    with pytest.raises(DataError, match="not finished: 20 of 120 runs"):
        table.predict(sl.plan(graph, {}))
    assert "not finished: 20 of 120 runs" in str(table)


def test_it_comes_back_from_its_file(graph: sl.Graph, tmp_path: Path) -> None:
    table = made_up(graph, TIMES)
    table.save(tmp_path / "table")
    assert sl.LatencyTable.load(tmp_path / "table") == table


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"whole": torch.ones(3)}, "shapes"),
        ({"units": torch.zeros(60, 2, dtype=torch.int64)}, "its units must be those of its groups"),
        ({"units": torch.ones(60, 2, dtype=torch.int64)}, "all of them in the first run"),
        ({"times": -torch.ones(60, 3)}, "a time is not positive"),
        ({"planned": 0}, "planned"),
    ],
)
def test_parts_that_do_not_fit_are_refused(graph: sl.Graph, changed: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        dataclasses.replace(made_up(graph, TIMES), **changed)


def test_it_prints_the_time_of_calls_against_the_share_kept(graph: sl.Graph) -> None:
    lines = str(made_up(graph, TIMES)).splitlines()
    assert lines[1].split() == ["call", "calls", "alike", "widths", "100%", "75%", "50%", "25%"]
    assert lines[3].split() == ["0:linear#0", "1", "8", "0.8", "0.6", "0.4", "0.2"]
    assert lines[4].split()[:5] == ["2:linear#0", "1", "8", "x", "6"]
    assert lines[6].startswith("whole model 1.78 ms, measured in 0 s; a fifth of the 54 pruned models")
    assert lines[7] == "device=none"

"""Latency: order of the runs, what is timed, and what is put back."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from shapleaf.data import Batch
from shapleaf.errors import CriterionError, DataError
from shapleaf.evaluation import Latency
from shapleaf.evaluation.latency import interleaved, threads


class Logs(nn.Module):
    """Writes its name, how many examples it saw and on how many threads; sleeps or spins for a while."""

    def __init__(
        self, name: str, log: list[tuple[str, int, int]], sleep: float = 0.0, spin: float = 0.0
    ) -> None:
        super().__init__()
        self.name, self.log, self.sleep, self.spin = name, log, sleep, spin
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.log.append((self.name, len(x), torch.get_num_threads()))
        time.sleep(self.sleep)
        end = time.process_time() + self.spin
        while time.process_time() < end:
            pass
        return x


def test_models_run_in_turn_after_a_warm_up() -> None:
    log: list[tuple[str, int, int]] = []
    times = interleaved([Logs("a", log), Logs("b", log)], torch.ones(3), 6, 10.0)
    assert [name for name, _, _ in log] == ["a", "b"] * (2 + 6)
    assert [len(t.wall) for t in times] == [len(t.cpu) for t in times] == [6, 6]


def test_the_time_limit_holds_but_leaves_five_repeats() -> None:
    log: list[tuple[str, int, int]] = []
    times = interleaved([Logs("a", log, sleep=0.002)], torch.ones(1), 1000, 0.0)
    assert len(times[0].wall) == 5


def test_wall_clock_sees_sleep_and_cpu_time_does_not() -> None:
    model, reference = Logs("a", [], sleep=0.02), Logs("b", [], spin=0.02)
    wall, cpu = Latency(repeats=5).rows(model, reference, Batch(torch.ones(4, 1)))
    assert wall.value >= 20
    assert cpu.value < 10
    assert wall.reference is not None
    assert cpu.reference is not None
    assert cpu.reference >= 20
    assert wall.reference >= 19


def test_median_and_quartiles(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([(wall, 10 * wall) for wall in (5.0, 1.0, 4.0, 2.0, 3.0)])
    monkeypatch.setattr("shapleaf.evaluation.latency._WARM_UP", 0)
    monkeypatch.setattr("shapleaf.evaluation.latency._timed", lambda model, inputs: next(ticks))
    wall, cpu = Latency(repeats=5).rows(nn.Identity(), None, Batch(torch.ones(8, 1)))
    assert (wall.low, wall.value, wall.high) == (2, 3, 4)
    assert (cpu.low, cpu.value, cpu.high) == (20, 30, 40)
    assert wall.reference is None
    assert (wall.unit, wall.better) == ("ms per batch of 8", "lower")


def test_batch_and_threads_are_as_asked_and_put_back() -> None:
    log: list[tuple[str, int, int]] = []
    before = torch.get_num_threads()
    wall, _ = Latency(batch=2, threads=before + 1, repeats=5).rows(
        Logs("a", log), None, Batch(torch.ones(7, 1))
    )
    assert set(log) == {("a", 2, before + 1)}
    assert wall.unit == "ms per batch of 2"
    assert torch.get_num_threads() == before


def test_threads_are_put_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="broken"), threads(before + 1):
        raise RuntimeError("broken")
    assert torch.get_num_threads() == before


def test_too_small_a_batch_is_refused() -> None:
    with pytest.raises(DataError, match="first batch has only 3 examples; give batches of at least 8"):
        Latency(batch=8).rows(nn.Identity(), None, Batch(torch.ones(3, 1)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"repeats": 4}, "repeats must be at least 5, received 4"),
        ({"batch": 0}, "batch must be at least 1, received 0"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_configuration_is_checked(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(CriterionError, match=message):
        Latency(**wrong)

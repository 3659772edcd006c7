"""How long a batch takes: wall-clock and CPU time, measured so that both models fare alike."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from .. import _context
from ..data import Batch
from ..errors import CriterionError, DataError
from ..records.report import Measurement

_WARM_UP = 2
_LEAST = 5  # quartiles of fewer repeats say nothing


class Times(NamedTuple):
    """Milliseconds of each repeat of one model."""

    wall: list[float]
    cpu: list[float]


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one batch in milliseconds, wall-clock and CPU, lower is better.

    After a warm-up the model and the reference run in turn, so that what slows the machine
    slows both. The value is the median, the interval goes from the lower to the upper quartile.
    CPU time adds up all threads; it is steadier than the clock on a machine that others use too.

    Args:
        batch: examples per batch; the size of the data's first batch by default.
        threads: CPU threads during the measurement; left as they are by default.
        repeats: how often each model runs.
        seconds: no repeat starts after this time, except that each model runs at least 5 times.

    Raises:
        DataError: the first batch is smaller than ``batch``.

    >>> rows = Latency(repeats=5).rows(nn.Linear(3, 2), None, Batch(torch.ones(4, 3)))
    >>> [(row.metric, row.unit) for row in rows]
    [('latency (wall)', 'ms per batch of 4'), ('latency (CPU)', 'ms per batch of 4')]
    """

    batch: int | None = None
    threads: int | None = None
    repeats: int = 20
    seconds: float = 10.0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("batch", self.batch, 1),
            ("threads", self.threads, 1),
            ("repeats", self.repeats, _LEAST),
        ):
            if value is not None and value < least:
                raise CriterionError(f"Latency: {name} must be at least {least}, received {value}.")

    def rows(self, model: nn.Module, reference: nn.Module | None, batch: Batch) -> tuple[Measurement, ...]:
        """Two rows, ``latency (wall)`` and ``latency (CPU)``."""
        size = self.batch or batch.examples
        if size > batch.examples:
            raise DataError(
                f"Latency(batch={size}): the data's first batch has only {batch.examples} examples; "
                f"give batches of at least {size}."
            )
        models = [model] if reference is None else [model, reference]
        with threads(self.threads):
            times = interleaved(models, batch[:size].inputs, self.repeats, self.seconds)
        unit = f"ms per batch of {size}"
        return (
            _row("latency (wall)", unit, [t.wall for t in times]),
            _row("latency (CPU)", unit, [t.cpu for t in times]),
        )


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many CPU threads for the block; None leaves them."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def interleaved(models: Sequence[nn.Module], inputs: Any, repeats: int, seconds: float) -> tuple[Times, ...]:
    """The times of each model on the same inputs, run in turn, in eval mode and without gradients.

    >>> first, second = interleaved([nn.Identity(), nn.Identity()], torch.ones(1), 5, 1.0)
    >>> len(first.wall), len(second.cpu)
    (5, 5)
    """
    times = tuple(Times([], []) for _ in models)
    with contextlib.ExitStack() as stack:
        for model in models:
            stack.enter_context(_context.inference(model))
        stack.enter_context(torch.no_grad())
        for _ in range(_WARM_UP):
            for model in models:
                _timed(model, inputs)
        start = time.perf_counter()
        for done in range(repeats):
            if done >= _LEAST and time.perf_counter() - start > seconds:
                break
            for model, own in zip(models, times, strict=True):
                wall, cpu = _timed(model, inputs)
                own.wall.append(wall)
                own.cpu.append(cpu)
    return times


def _timed(model: nn.Module, inputs: Any) -> tuple[float, float]:
    device = _context.device_of(model)
    _context.synchronise(device)
    wall, cpu = time.perf_counter(), time.process_time()
    _context.forward(model, inputs)
    _context.synchronise(device)
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def _row(name: str, unit: str, samples: Sequence[list[float]]) -> Measurement:
    quartiles = [
        torch.tensor(s, dtype=torch.float64).quantile(torch.tensor([0.5, 0.25, 0.75]).double()).tolist()
        for s in samples
    ]
    reference = quartiles[1] if len(quartiles) > 1 else (None, None, None)
    return Measurement(
        metric=name,
        value=quartiles[0][0],
        low=quartiles[0][1],
        high=quartiles[0][2],
        reference=reference[0],
        reference_low=reference[1],
        reference_high=reference[2],
        unit=unit,
        better="lower",
    )

"""profile: how long a model's calls take at several widths, measured once on the machine that will run it."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from . import _context
from ._calls import Calls, function_of
from ._progress import progress
from ._rng import stream
from .allocation import granularity, plan
from .errors import DataError
from .records import Axis, Graph, LatencyTable, TimedCall
from .surgery import prune

_DENSE = 10
"""Every so many runs one keeps all units: all else is relative to their time."""
_PASSES = 4
_UNTIMED = 2
_IN_A_ROW = 2
_CANDIDATES = 20
_SAVE_EVERY = 5.0
_KEPT_BY_GLIBC = (32 << 20) - 8192


def profile(
    model: nn.Module,
    graph: Graph,
    inputs: Any,
    *,
    runs: int = 120,
    multiple_of: int = 8,
    path: str | os.PathLike[str] | None = None,
) -> LatencyTable:
    """Measure the calls of a model at many widths, for :class:`shapleaf.Latency` budgets.

    In each run the model is really pruned to another mixture of widths, chosen so that each kind of call is
    seen at as many combinations of its own as can be; every tenth run keeps all units. What is timed is
    PyTorch's eager mode as the caller has set it up: device, dtype, batch size, threads. With one thread on a
    CPU it is the thread's own time, which other programs disturb less; else it is the clock's.

    Args:
        model: as it was traced; it stays as it is.
        graph: what :func:`shapleaf.trace` found.
        inputs: a batch as the model will see it.
        runs: how many; a table of fewer runs in the file is gone on with.
        multiple_of: widths are multiples of this, as in :func:`shapleaf.allocate`.
        path: a file to keep the table in. What is there is gone on with, or returned if it is finished.

    Raises:
        StaleGraphError: the graph, or the table in the file, belongs to another model.
        DataError: the table in the file was made on another machine, device, dtype, batch or otherwise.
        PlanError: the model cannot be pruned to such widths.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> inputs = torch.randn(50, 3)
    >>> table = profile(model, sl.trace(model, inputs), inputs, runs=4)
    >>> [timed.call for timed in table.calls]
    ['0:linear#0', '1:relu#0', '2:linear#0']
    """
    runs, multiple_of = _context.number(runs), _context.number(multiple_of)
    for name, value, least in (("runs", runs, 2), ("multiple_of", multiple_of, 1)):
        if type(value) is not int or value < least:
            raise DataError(f"profile: {name}={value!r} must be a whole number, at least {least}.")
    graph.check(model)
    inputs = _context.on_device(inputs, model)
    settings = {**surroundings(model, inputs), "multiple_of": str(multiple_of)}
    table = _begun(path, graph, settings) or _empty(graph, _calls(model, graph, inputs), settings)
    table = dataclasses.replace(table, planned=max(runs, len(table.units)))
    settle()
    saved, start = time.monotonic(), len(table.units)
    try:
        with progress("profile", table.planned - start) as step:
            for units in _mixtures(table, multiple_of)[start:]:
                table = _measured(model, table, units, inputs)
                if path is not None and time.monotonic() - saved > _SAVE_EVERY:
                    table.save(path)
                    saved = time.monotonic()
                step("")
    finally:
        if path is not None and len(table.units) > start:
            table.save(path)
    return table


def relative_time(pruned: nn.Module, model: nn.Module, inputs: Any, *, seconds: float = 5.0) -> float:
    """The time of a pruned model relative to the model it was made from, both in eager mode.

    They run in turn, so that what slows the machine slows both, but each three times in a row, of which the
    first is not timed: else each would find its weights gone from the caches.

    >>> model = nn.Linear(3, 2)
    >>> 0 < relative_time(nn.Identity(), model, torch.ones(1, 3), seconds=0.01)
    True
    """
    networks, clock = (pruned, model), clock_of(_context.device_of(model))
    times: tuple[list[float], list[float]] = ([], [])
    settle()
    start = time.perf_counter()
    with torch.no_grad(), _context.inference(pruned), _context.inference(model):
        while time.perf_counter() - start < seconds or len(times[0]) < _PASSES:
            for network, own in zip(networks, times, strict=True):
                _context.forward(network, inputs)
                for _ in range(_IN_A_ROW):
                    began = clock()
                    _context.forward(network, inputs)
                    own.append(clock() - began)
    return float(np.median(times[0]) / np.median(times[1]))


def settle() -> None:
    """Take a large block of memory and give it back, once before times are taken on a CPU.

    The C library of Linux returns freed memory to the system and fetches it anew, every time or never, as
    the past of the process has it; fetching may take longer than the layer that asks. Once it has seen such
    a block freed, it keeps what is smaller.

    >>> settle()
    """
    torch.empty(_KEPT_BY_GLIBC, dtype=torch.uint8)


def _begun(
    path: str | os.PathLike[str] | None, graph: Graph, settings: dict[str, str]
) -> LatencyTable | None:
    """The table in the file, to go on with where it is not finished."""
    if path is None or not Path(path).exists():
        return None
    table = LatencyTable.load(path)
    table.belongs(graph)
    for name in {**table.settings, **settings}:
        kept, now = table.settings.get(name), settings.get(name)
        if kept != now:
            raise DataError(
                f"{path} holds a latency table made otherwise: {name} was {kept}, now it is {now}. Times do "
                "not carry over; give another path, or remove the file."
            )
    return table


def _empty(graph: Graph, calls: tuple[TimedCall, ...], settings: dict[str, str]) -> LatencyTable:
    return LatencyTable(
        graph=graph,
        calls=calls,
        units=torch.zeros((0, len(graph)), dtype=torch.int64),
        times=torch.zeros((0, len(calls)), dtype=torch.float64),
        whole=torch.zeros(0, dtype=torch.float64),
        planned=1,
        settings=settings,
    )


def surroundings(model: nn.Module, inputs: Any) -> dict[str, str]:
    """All that times depend on, beside the model and its widths."""
    device = _context.device_of(model)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    given = " ".join(f"{tuple(t.shape)} {t.dtype}" for t in _context.tensors(inputs)).replace("torch.", "")
    return {
        "device": f"{device.type} ({name})",
        "dtype": str(dtype).removeprefix("torch."),
        "inputs": given,
        "threads": str(torch.get_num_threads()),
        "clock": clock_of(device).__name__.strip("_"),
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds: of this thread where it does all the work, else by the clock once the device is done."""
    if device.type == "cpu":
        return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter

    def synchronised() -> float:
        _context.synchronise(device)
        return time.perf_counter()

    return synchronised


class _Timer(Calls):
    """Times every call that makes a tensor, from the end of the one before: gaps belong to what follows."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._clock = clock_of(_context.device_of(model))
        self.times: dict[str, float] = {}

    def begin(self) -> None:
        self._last = self._clock()

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        if _context.tensors(out):
            now = self._clock()
            self.times[key] = self.times.get(key, 0.0) + 1e3 * (now - self._last)
            self._last = now
        return out


class _Shapes(Calls):
    """Notes the shapes of every such call's arguments, and all that is no tensor among them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.shapes: dict[str, list[int]] = {}
        self.others: dict[str, str] = {}

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        given = _context.tensors([*args, *kwargs.values()])
        if _context.tensors(out):
            self.shapes[key] = [length for tensor in given for length in tensor.shape]
            self.others[key] = repr([part for part in args if isinstance(part, int | float | tuple | str)])
        return out


def _calls(model: nn.Module, graph: Graph, inputs: Any) -> tuple[TimedCall, ...]:
    """The calls that make tensors, and the lengths that groups give their arguments.

    Each set of groups is halved by itself, to see which lengths follow.
    """
    dense = _shapes(model, inputs)
    found: dict[str, list[dict[str, float]]] = {
        key: [{} for _ in shape] for key, shape in dense.shapes.items()
    }
    for tie in _sets(graph):
        half = {name: range(graph.units(name, max(1, graph.portions(name) // 2))) for name in tie}
        gone = graph[tie[0]].size - len(half[tie[0]])
        shapes = _shapes(prune(model, plan(graph, half)).model, inputs).shapes if gone else dense.shapes
        for key in [*found]:
            if len(shapes.get(key, ())) != len(dense.shapes[key]):
                del found[key]  # other code runs once these groups are pruned
                continue
            for terms, before, after in zip(found[key], dense.shapes[key], shapes[key], strict=True):
                if before != after:
                    terms[tie[0]] = (before - after) / gone
    calls: list[TimedCall] = []
    kinds: dict[tuple[Any, ...], int] = {}
    for key, lengths in found.items():
        axes = _axes(graph, dense.shapes[key], lengths)
        kind = (function_of(key), *dense.shapes[key], dense.others[key], len(axes))
        calls.append(TimedCall(call=key, kind=kinds.setdefault(kind, len(kinds)), axes=axes))
    return tuple(calls)


def _shapes(model: nn.Module, inputs: Any) -> _Shapes:
    shapes = _Shapes(model)
    with torch.no_grad(), _context.inference(model), shapes:
        _context.forward(model, inputs)
    return shapes


def _sets(graph: Graph) -> list[tuple[str, ...]]:
    """The groups that can be pruned, each with those it is tied to."""
    sets = dict.fromkeys(graph.tied(group.name) for group in graph)
    return [tie for tie in sets if not any(graph[name].blocked for name in tie)]


def _axes(graph: Graph, lengths: list[int], terms: list[dict[str, float]]) -> tuple[Axis, ...]:
    """The lengths that differ in more than a factor; if more than two, their sum."""
    axes: list[Axis] = []
    shares = set()
    for length, parts in zip(lengths, terms, strict=True):
        if not parts:
            continue
        share = tuple((name, round(each / length, 9)) for name, each in parts.items())
        if share in shares:
            continue
        shares.add(share)
        fixed = length - sum(each * graph[name].size for name, each in parts.items())
        axes.append(Axis(fixed=round(fixed), groups=tuple(parts), per_unit=tuple(parts.values())))
    if len(axes) <= 2:
        return tuple(axes)
    total: dict[str, float] = {}
    for axis in axes:
        for name, each in zip(axis.groups, axis.per_unit, strict=True):
            total[name] = total.get(name, 0.0) + each
    fixed = sum(axis.fixed for axis in axes)
    return (Axis(fixed=fixed, groups=tuple(total), per_unit=tuple(total.values())),)


def _mixtures(table: LatencyTable, multiple_of: int) -> torch.Tensor:
    """Units kept in each run: all now and then, else what shows most calls at widths not seen before."""
    graph, rng = table.graph, stream(0, "profile", table.graph.fingerprint)
    columns = {group.name: i for i, group in enumerate(graph)}
    sizes = np.array([group.size for group in graph])
    calls = [*{(timed.kind, str(timed.axes)): timed for timed in table.calls if timed.axes}.values()]
    seen: set[tuple[Any, ...]] = set()
    rows = []
    for run in range(table.planned):
        candidates = np.tile(sizes, (_CANDIDATES if run % _DENSE else 1, 1))
        for tie in _sets(graph) if run % _DENSE else ():
            portions = graph.portions(tie[0])
            step = granularity(portions, multiple_of)
            levels = np.array(sorted({*range(step, portions, step), portions}))
            # Sums of independent widths are all alike: some runs prefer the wide, some the narrow.
            drawn = rng.random(_CANDIDATES) ** (0.5, 1.0, 2.0)[run % 3]
            chosen = levels[(drawn * len(levels)).astype(int)]
            for name in tie:
                candidates[:, columns[name]] = chosen * graph.units(name, 1)
        news = [_widths(row, calls, columns) - seen for row in candidates]
        best = max(range(len(news)), key=lambda i: len(news[i]))
        seen |= news[best]
        rows.append(candidates[best])
    return torch.from_numpy(np.stack(rows))


def _widths(row: np.ndarray, calls: list[TimedCall], columns: dict[str, int]) -> set[tuple[Any, ...]]:
    """The widths at which a run shows each kind of call."""
    found = set()
    for timed in calls:
        widths = (
            axis.fixed
            + sum(n * int(row[columns[g]]) for g, n in zip(axis.groups, axis.per_unit, strict=True))
            for axis in timed.axes
        )
        found.add((timed.kind, *widths))
    return found


def _measured(model: nn.Module, table: LatencyTable, units: torch.Tensor, inputs: Any) -> LatencyTable:
    """The table with one more run: the least of some times of each call and of the whole."""
    began = time.perf_counter()
    counts = {group.name: range(int(n)) for group, n in zip(table.graph, units, strict=True)}
    chosen = plan(table.graph, counts)
    network = prune(model, chosen).model if chosen.pruned else model
    clock = clock_of(_context.device_of(model))
    whole, times = [], []
    with torch.no_grad(), _context.inference(network):
        # Python itself runs a few calls to get fast again after another kind of pass: none in turn.
        for _ in range(_UNTIMED + _PASSES):
            start = clock()
            _context.forward(network, inputs)
            whole.append(1e3 * (clock() - start))
        for _ in range(_UNTIMED + _PASSES):
            timer = _Timer(network)
            with timer:
                timer.begin()
                _context.forward(network, inputs)
            times.append([timer.times[timed.call] for timed in table.calls])
    row = torch.tensor(times[_UNTIMED:], dtype=torch.float64).amin(0, keepdim=True)
    return dataclasses.replace(
        table,
        units=torch.cat([table.units, units[None]]),
        times=torch.cat([table.times, row]),
        whole=torch.cat([table.whole, torch.tensor([min(whole[_UNTIMED:])], dtype=torch.float64)]),
        seconds=table.seconds + time.perf_counter() - began,
    )

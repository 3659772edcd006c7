"""RecalibrateBatchNorm: running statistics for the activations that there are now."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from .. import _context
from .._calls import Calls, function_of
from .._progress import progress
from ..cuts import slicing
from ..data import Batch, batches
from ..data.batches import joined
from ..errors import DataError, PlanError
from ..records import Plan
from ..watching import batch_norm


@dataclass(frozen=True)
class RecalibrateBatchNorm:
    """BatchNorms get the running statistics that belong to what they now read.

    Every channel leaves its BatchNorm with the mean and the variance, over all calibration data, that it
    has in the intact network; so a statistic that pruning does not touch stays what it was in
    training, however few the examples. Every BatchNorm reads what the ones before it, recalibrated,
    let through. How the data are cut into batches does not matter.

    Cost: a pass of both networks, with all data in one batch. Where they cannot be joined, or would take
    too much memory, a pass of the pruned network up to each norm.

    Args:
        data: calibration batches, labelled or not.
        memory: bytes that what a norm reads may take for batches to be joined, in double precision.

    >>> import shapleaf as sl
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4), nn.BatchNorm1d(4)).eval()
    >>> _ = model[0].bias.data.fill_(5.0)  # units are on, so that those removed leave their mean behind
    >>> data = torch.randn(100, 3)
    >>> plan = sl.plan(sl.trace(model, data[:1]), {"0": range(6)})
    >>> pruned = sl.prune(model, plan, compensate=RecalibrateBatchNorm(data)).model
    >>> bool(torch.allclose(pruned(data).mean(0), model(data).mean(0), atol=1e-2))
    True
    """

    data: Any = field(compare=False, repr=False)
    memory: int = field(default=2**30, repr=False)

    def compensate(self, pruned: nn.Module, reference: nn.Module, plan: Plan) -> Sequence[str]:
        """Measure both networks, and move the statistics of the pruned one.

        Raises:
            PlanError: a norm reads one value of each channel, which has no variance.
        """
        data = list(batches(self.data, device=_context.device_of(pruned), labelled=False))
        statistics = _Statistics(pruned, reference, slicing.cuts(plan))
        with progress("recalibrate") as step:
            for batch in data:
                statistics.measure(batch)
                step("")
            if len(data) > 1 and statistics.size <= self.memory:
                with contextlib.suppress(DataError):  # examples differ in shape
                    data = [joined([Batch(batch.inputs) for batch in data])]
            while statistics.missing and statistics.move(data):
                step("")
        named = dict(pruned.named_buffers())
        for name, values in statistics.found().items():  # calls that share a norm count alike
            named[name].data = torch.stack(values).mean(0).to(named[name])
        return ()


class _Moments(NamedTuple):
    """How many values of each channel were read, their mean and their variance."""

    number: int
    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, read: Tensor) -> _Moments:
        values = read.transpose(0, 1).flatten(1).double()
        return cls(values.shape[1], values.mean(1), values.var(1, correction=0))

    def pooled(self, more: _Moments | None) -> _Moments:
        """Of the values of both together."""
        if more is None:
            return self
        number = self.number + more.number
        share, gap = more.number / number, more.mean - self.mean
        within = self.variance + share * (more.variance - self.variance)
        return _Moments(number, self.mean + share * gap, within + share * (1 - share) * gap.square())


class _Statistics:
    """By call: what a norm read in either network, and what that of the pruned one uses instead."""

    def __init__(self, pruned: nn.Module, reference: nn.Module, what: slicing.Cuts) -> None:
        self.pruned, self.reference, self.what = pruned, reference, what
        self.kept = {name: tensor.double() for name, tensor in reference.named_buffers()}
        self.names: dict[str, tuple[str, str]] = {}
        self.then: dict[str, _Moments] = {}
        self.now: dict[str, _Moments] = {}
        self.used: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def size(self) -> int:
        """The bytes of the largest that a norm reads, over all data."""
        return max((8 * len(found.mean) * found.number for found in self.then.values()), default=0)

    @property
    def missing(self) -> bool:
        return len(self.used) < len(self.then)

    def found(self) -> dict[str, list[Tensor]]:
        """The new running statistics by name."""
        found: dict[str, list[Tensor]] = {}
        for key, values in self.used.items():
            for name, value in zip(self.names[key], values, strict=True):
                found.setdefault(name, []).append(value)
        return found

    def measure(self, batch: Batch) -> None:
        """Run the intact network."""

        def see(key: str, names: tuple[str, str], read: Tensor) -> None:
            self.names[key] = names
            self.then[key] = _Moments.of(read).pooled(self.then.get(key))

        _run(self.reference, batch, see)

    def move(self, data: Sequence[Batch]) -> bool:
        """Run the pruned network up to the next norm, or, on a single batch, whole; False if that was all."""

        def see(key: str, names: tuple[str, str], read: Tensor) -> tuple[Tensor, Tensor]:
            if key not in self.used:
                self.now[key] = _Moments.of(read).pooled(self.now.get(key))
                if len(data) > 1:
                    raise _Enough
                self.used[key] = self._moved(key)
            return self.used[key]

        for batch in data:
            _run(self.pruned, batch, see)
        new = [key for key in self.now if key not in self.used]
        self.used |= {key: self._moved(key) for key in new}
        return bool(new)

    def _moved(self, key: str) -> tuple[Tensor, Tensor]:
        """The intact statistics, moved by the difference between the runs."""
        names, now, then = self.names[key], self.now[key], self.then[key]
        if then.number < 2:
            raise PlanError(
                f"{names[0].rpartition('.')[0]} reads one value of each channel in all calibration data, "
                "which has no variance; give RecalibrateBatchNorm more examples."
            )
        mean, variance = (slicing.cut(self.kept[name], self.what.get(name, {})) for name in names)
        before, spread = (slicing.cut(value, self.what.get(names[0], {})) for value in then[1:])
        ratio = ((now.variance + 1e-12) / (spread + 1e-12)).clamp(1e-6, 1e6)
        return now.mean - (before - mean) * ratio.sqrt(), variance * ratio


class _Enough(Exception):  # noqa: N818 - no error
    """What lies behind is not needed of this run."""


See = Callable[[str, tuple[str, str], Tensor], tuple[Tensor, Tensor] | None]


def _run(model: nn.Module, batch: Batch, see: See) -> None:
    with torch.no_grad(), _context.inference(model), contextlib.suppress(_Enough), _Norms(model, see):
        _context.forward(model, batch.inputs)


class _Norms(Calls):
    """Shows what every BatchNorm reads, and has it use the statistics that are returned, if any."""

    def __init__(self, model: nn.Module, see: See) -> None:
        super().__init__(model)
        self._known = {id(buffer): name for name, buffer in model.named_buffers()}
        self._see = see

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = batch_norm(func, args, kwargs) if function_of(key) == "batch_norm" else {}
        running = [given.get(name) for name in ("running_mean", "running_var")]
        if not all(id(tensor) in self._known for tensor in running):
            return func(*args, **kwargs)
        names = self._known[id(running[0])], self._known[id(running[1])]
        found = self._see(key, names, given["input"])
        if found is None:
            return func(*args, **kwargs)
        mean, variance = (value.to(given["input"]) for value in found)
        rest = {name: given[name] for name in ("weight", "bias", "eps")}
        return F.batch_norm(given["input"], mean, variance, **rest)

"""RecalibrateBatchNorm: running statistics for the activations that there are now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from .. import _context
from .._calls import Calls, function_of
from .._progress import progress
from ..cuts import slicing
from ..data import batches
from ..records import Plan
from ..watching import batch_norm


@dataclass(frozen=True)
class RecalibrateBatchNorm:
    """BatchNorms get the running statistics that belong to what they now read.

    Every channel leaves its BatchNorm with the mean and the variance, over the calibration data, that it
    has in the intact network; so a statistic that pruning does not touch stays what it was in
    training, however few the examples. Every BatchNorm reads what the ones before it, recalibrated,
    let through.

    Args:
        data: calibration batches, labelled or not.

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

    def compensate(self, pruned: nn.Module, reference: nn.Module, plan: Plan) -> Sequence[str]:
        """Measure both networks batch by batch, and move the statistics of the pruned one."""
        moments = _Moments(pruned, reference, slicing.cuts(plan))
        with progress("recalibrate") as step:
            for batch in batches(self.data, device=_context.device_of(pruned), labelled=False):
                moments.measure(batch.inputs, batch.examples)
                step("")
        named = dict(pruned.named_buffers())
        for name, (total, weight) in moments.sums.items():
            named[name].data = (total / weight).to(named[name])
        return ()


class _Moments:
    """New running statistics by name, summed over batches."""

    def __init__(self, pruned: nn.Module, reference: nn.Module, what: slicing.Cuts) -> None:
        self.pruned, self.reference, self.what = pruned, reference, what
        self.kept = {name: tensor.double() for name, tensor in reference.named_buffers()}
        self.sums: dict[str, tuple[Tensor, int]] = {}

    def measure(self, inputs: Any, examples: int) -> None:
        intact = _Norms(self.reference, lambda key, names, found: found)
        moved = _Norms(self.pruned, lambda key, names, found: self._moved(names, found, intact.found[key]))
        for model, norms in ((self.reference, intact), (self.pruned, moved)):
            with torch.no_grad(), _context.inference(model), norms:
                _context.forward(model, inputs)
        for key, values in moved.found.items():
            for name, value in zip(moved.names[key], values, strict=True):
                total, weight = self.sums.get(name, (torch.zeros_like(value), 0))
                self.sums[name] = (total + examples * value, weight + examples)

    def _moved(
        self, names: tuple[str, str], now: tuple[Tensor, Tensor], then: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The intact statistics, moved by the difference between the runs."""
        mean, variance = (slicing.cut(self.kept[name], self.what.get(name, {})) for name in names)
        before, spread = (slicing.cut(value, self.what.get(names[0], {})) for value in then)
        ratio = ((now[1] + 1e-12) / (spread + 1e-12)).clamp(1e-6, 1e6)
        return now[0] - (before - mean) * ratio.sqrt(), variance * ratio


Change = Callable[[str, tuple[str, str], tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]


class _Norms(Calls):
    """Measures what every BatchNorm reads, and has it use what ``change`` makes of that."""

    def __init__(self, model: nn.Module, change: Change) -> None:
        super().__init__(model)
        self._known = {id(buffer): name for name, buffer in model.named_buffers()}
        self._change = change
        self.found: dict[str, tuple[Tensor, Tensor]] = {}
        self.names: dict[str, tuple[str, str]] = {}

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = batch_norm(func, args, kwargs) if function_of(key) == "batch_norm" else {}
        running = [given.get(name) for name in ("running_mean", "running_var")]
        if not all(id(tensor) in self._known for tensor in running):
            return func(*args, **kwargs)
        read = given["input"].transpose(0, 1).flatten(1).double()
        self.names[key] = (self._known[id(running[0])], self._known[id(running[1])])
        found = (read.mean(1), read.var(1, correction=0))
        self.found[key] = self._change(key, self.names[key], found)
        if self.found[key] is found:  # the intact network runs as it is
            return func(*args, **kwargs)
        mean, variance = (value.to(given["input"]) for value in self.found[key])
        rest = {name: given[name] for name in ("weight", "bias", "eps")}
        return F.batch_norm(given["input"], mean, variance, **rest)

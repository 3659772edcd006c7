"""Lipschitz-like sensitivity: by how much the outputs move when the inputs move a little."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .. import _context, _rng
from ..data import Batch
from ..errors import CriterionError, DataError
from ..records.report import Measurement
from .metrics import Interval, Z

_QUANTILE = 0.95


@dataclass(frozen=True, slots=True)
class Lipschitz:
    """How far the class scores move per distance that the input moves, lower is better.

    ``|f(x + n) - f(x)| / |n|`` in Euclidean norms: once for random directions ``n``, and once for the worst
    that the power method finds, which bounds the local Lipschitz constant from below (for a linear model it
    converges to it). Both walk the same distance, all models in the same directions. Each is given as the
    mean over the examples of the first batch and as the value that 95 % of them stay below, with 95 %
    intervals as examples vary.

    Scores have no scale of their own: a model whose scores are twice as large is twice as sensitive and
    decides the same. Compare models that were trained alike, or pass ``probabilities=True``.

    Args:
        radius: how far the input moves, root mean square over its numbers; if inputs are normalised, in units
            of their standard deviation.
        draws: random directions per example.
        steps: of the power method, each a gradient and a run; 0 leaves the worst direction out.
        probabilities: measure the class probabilities instead of the scores.
        seed: names the directions.

    Raises:
        CriterionError: a setting out of range, or a model without gradients.
        DataError: inputs are no tensor of real numbers, or outputs are not finite.

    >>> double = nn.Linear(2, 2, bias=False)
    >>> _ = double.load_state_dict({"weight": 2 * torch.eye(2)})
    >>> rows = Lipschitz().rows(double, None, Batch(torch.ones(50, 2)))
    >>> [(row.metric, round(row.value, 3)) for row in rows][::2]
    [('sensitivity (random)', 2.0), ('sensitivity (worst)', 2.0)]
    """

    radius: float = 0.01
    draws: int = 8
    steps: int = 10
    probabilities: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not 0 < self.radius < math.inf or self.draws < 1 or self.steps < 0:
            raise CriterionError(
                f"{self!r}: expected a finite radius above 0, draws of at least 1 and steps of at least 0."
            )

    def rows(self, model: nn.Module, reference: nn.Module | None, batch: Batch) -> tuple[Measurement, ...]:
        """Mean and 95 % quantile for random directions, and the same for the worst ones."""
        mine = self._measured(model, batch)
        theirs = [None] * len(mine) if reference is None else self._measured(reference, batch)
        found = list[Measurement]()
        for name, own, beside in zip(("random", "worst"), mine, theirs, strict=False):
            for kind, summary in (("", _mean), (f", {_QUANTILE:.0%} below", _quantile)):
                value, low, high = summary(own)
                other = Interval(math.nan) if beside is None else summary(beside)
                found.append(
                    Measurement(
                        metric=f"sensitivity ({name}{kind})",
                        value=value,
                        low=low,
                        high=high,
                        reference=None if beside is None else other.value,
                        reference_low=other.low,
                        reference_high=other.high,
                        unit=f"{'probability' if self.probabilities else 'score'} per input",
                        better="lower",
                    )
                )
        return tuple(found)

    def _measured(self, model: nn.Module, batch: Batch) -> list[Tensor]:
        """The quotient of each example, ``(examples,)``: the mean over random directions, the worst one."""
        inputs = batch.inputs
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            raise DataError(
                "Lipschitz moves inputs a little, which needs one tensor of real numbers; received "
                + (str(inputs.dtype) if isinstance(inputs, Tensor) else type(inputs).__name__)
                + "."
            )
        inputs = inputs.detach().to(_context.device_of(model))
        length = self.radius * math.sqrt(inputs[0].numel())
        with _context.inference(model), torch.no_grad():
            at = self._outputs(model, inputs, batch)
            quotients = list[Tensor]()
            direction = torch.zeros_like(inputs)
            for draw in range(self.draws):
                direction = self._direction(inputs, batch, draw)
                moved = self._outputs(model, inputs + length * direction, batch)
                quotients.append((moved - at).norm(dim=1) / length)
            found = [torch.stack(quotients).mean(0).cpu()]
            if self.steps:
                found.append(self._worst(model, batch, inputs, at, direction).cpu())
        return found

    def _worst(self, model: nn.Module, batch: Batch, inputs: Tensor, at: Tensor, direction: Tensor) -> Tensor:
        """The largest quotient found by power iteration on the Jacobian."""
        length = self.radius * math.sqrt(inputs[0].numel())
        worst = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
        for step in range(self.steps + 1):
            difference = self._outputs(model, inputs + length * direction, batch) - at
            worst = torch.maximum(worst, difference.norm(dim=1) / length)
            if step == self.steps:
                break
            leaf = inputs.clone().requires_grad_(True)
            with torch.enable_grad():
                unit = difference / difference.norm(dim=1, keepdim=True).clamp(min=1e-300)
                along = (self._outputs(model, leaf, batch) * unit).sum(1)
                (slope,) = _context.gradients(along, [leaf], instead="Lipschitz(steps=0)")
            size = torch.zeros(()) if slope is None else slope.double().flatten(1).norm(dim=1)
            size = size.view(-1, *[1] * (inputs.ndim - 1))
            if slope is not None:  # where it is flat the direction stays
                direction = torch.where(size > 0, slope / size.clamp(min=1e-300), direction).to(inputs.dtype)
        return worst

    def _outputs(self, model: nn.Module, inputs: Tensor, batch: Batch) -> Tensor:
        """All scores of an example in a row, float64."""
        found = _context.logits(_context.forward(model, inputs))
        if found.ndim < 2 or len(found) != len(inputs):
            raise DataError(
                f"expected class scores of shape ({len(inputs)}, classes), received {tuple(found.shape)}."
            )
        broken = ~found.isfinite().flatten(1).all(1)
        if bool(broken.any()):
            raise DataError(
                f"the output for example {batch.first + int(broken.nonzero()[0])} is not finite; check the "
                "inputs' scale and the model's weights."
            )
        scores: Tensor = found.double()
        return (scores.softmax(1) if self.probabilities else scores).flatten(1)

    def _direction(self, inputs: Tensor, batch: Batch, draw: int) -> Tensor:
        """A random direction for each example, of length 1."""
        shape = tuple(inputs.shape[1:])
        drawn = [_rng.stream(self.seed, "Lipschitz", draw, i).standard_normal(shape) for i in batch.ids]
        stacked = torch.from_numpy(np.stack(drawn))
        size = stacked.flatten(1).norm(dim=1).view(-1, *[1] * len(shape))
        unit: Tensor = (stacked / size).to(inputs)
        return unit


def _mean(values: Tensor) -> Interval:
    """The mean with its normal interval; one example alone has none."""
    mean = values.mean().item()
    if len(values) == 1:
        return Interval(mean)
    half = Z * values.std().item() / math.sqrt(len(values))
    return Interval(mean, max(0.0, mean - half), mean + half)


def _quantile(values: Tensor) -> Interval:
    """The quantile; its interval is between the order statistics that the binomial distribution allows.

    An end that would lie beyond the examples is None.
    """
    n, q = len(values), _QUANTILE
    spread = Z * math.sqrt(n * q * (1 - q))
    low, high = math.floor(n * q - spread), math.ceil(n * q + spread)  # places from 0
    ordered = values.sort().values
    return Interval(
        ordered.quantile(q).item(),
        ordered[low].item() if low >= 0 else None,
        ordered[high].item() if high < n else None,
    )

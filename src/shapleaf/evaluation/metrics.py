"""What can be measured of a model: small classes that hold configuration only.

There are two kinds. A metric over examples (:class:`ExampleMetric`) says what each example
contributes, a number or several, and how the contributions are summed up;
:func:`shapleaf.evaluate` serves all of them in one pass over the data. A metric of the model
(:class:`ModelMetric`) measures once, on the first batch. Both are plain protocols: write a class
with these members and pass an instance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .. import _context, _intervals
from ..data import Batch
from ..errors import CriterionError, DataError
from ..records.report import Measurement

Z = _intervals.Z


class Interval(NamedTuple):
    """An estimate and the ends of its interval, None where it has none."""

    value: float
    low: float | None = None
    high: float | None = None


@runtime_checkable
class ExampleMetric(Protocol):
    """A figure worked out from what every example contributes.

    Attributes:
        name: the row's name in the report.
        unit: "%", or empty.
        better: which direction is good.
        paired: whether it compares the model with the reference: then it needs no labels, and
            the reference has no value of its own.
    """

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def better(self) -> Literal["higher", "lower"]: ...
    @property
    def paired(self) -> bool: ...

    def observe(self, output: Any, batch: Batch, reference: Any) -> Tensor:
        """What each example of a batch contributes, ``(examples,)`` or ``(examples, ...)``.

        ``output`` is the measured model's, ``reference`` the reference model's or None.
        """
        ...

    def summarise(self, values: Tensor) -> Interval:
        """The figure and its 95 % interval from all examples' contributions, float64, along dim 0."""
        ...


@runtime_checkable
class ModelMetric(Protocol):
    """A figure of the model itself: its size, its work, its speed."""

    def rows(self, model: nn.Module, reference: nn.Module | None, batch: Batch) -> tuple[Measurement, ...]:
        """The rows of the report; ``batch`` is the first of the data."""
        ...


Metric = ExampleMetric | ModelMetric


def wilson(share: float, count: int) -> Interval:
    """A share in percent with its 95 % Wilson score interval (Wilson 1927, p. 209).

    Unlike the normal interval it stays within 0 and 100 % and has a width at both ends.

    >>> [round(x, 2) for x in wilson(0.9, 100)]
    [90.0, 82.56, 94.48]
    """
    low, high = _intervals.wilson(torch.tensor(share, dtype=torch.float64), count).tolist()
    return Interval(100 * share, 100 * low, 100 * high)


def predictions(output: Any, batch: Batch) -> Tensor:
    """The class scores of an output, ``(examples, classes, ...)``, checked.

    Raises:
        DataError: no class scores for every example, or a NaN among them.
    """
    scores = _context.logits(output)
    if scores.ndim < 2 or scores.shape[0] != batch.examples:
        raise DataError(
            f"expected class scores of shape ({batch.examples}, classes), received {tuple(scores.shape)}."
        )
    broken = scores.isnan().flatten(1).any(1)
    if bool(broken.any()):
        raise DataError(
            f"the output for example {batch.first + int(broken.nonzero()[0])} is NaN; "
            "check the inputs' scale and the model's weights."
        )
    return scores


def check_classes(mine: Sequence[int], theirs: Sequence[int], own: str, other: str) -> None:
    """Refuse two models whose predictions for an example differ in shape.

    Raises:
        DataError: they do; ``own`` and ``other`` name the models.

    >>> check_classes((10,), (10,), "half", "dense")
    """
    if tuple(mine) != tuple(theirs):
        raise DataError(
            f"{own} returns predictions of shape (examples, {', '.join(map(str, mine))}), {other} "
            f"(examples, {', '.join(map(str, theirs))}); both need the same classes."
        )


def check_finite(values: Tensor, batch: Batch) -> None:
    """Refuse numbers ``(examples, ...)`` worked out from an output that are infinite or NaN.

    Raises:
        DataError: some are; the message names the first example.
    """
    broken = ~values.isfinite().flatten(1).all(1)
    if bool(broken.any()):
        raise DataError(
            f"the output for example {batch.first + int(broken.nonzero()[0])} is not finite; "
            "check the inputs' scale and the model's weights."
        )


def labels_of(target: Any, scores: Tensor, ignore: int | None = None) -> Tensor:
    """Class labels that fit the scores; probabilities give their most likely class.

    Raises:
        DataError: they do not fit; a label of ``ignore`` always does.
    """
    if not isinstance(target, Tensor):
        raise DataError(
            f"expected a tensor of labels, received {type(target).__name__}; "
            "give batches as (inputs, labels)."
        )
    shape = (scores.shape[0], *scores.shape[2:])
    if target.is_floating_point():
        _context.check_probabilities(target, scores)
        return target.argmax(1)
    if target.shape != shape:
        raise DataError(
            f"expected integer labels of shape {shape}, received {target.dtype} {tuple(target.shape)}."
        )
    used = target if ignore is None else target[target != ignore]
    if used.numel() and not 0 <= int(used.min()) <= int(used.max()) < scores.shape[1]:
        raise DataError(
            f"labels run from {int(used.min())} to {int(used.max())}, "
            f"but the model has {scores.shape[1]} classes (0 to {scores.shape[1] - 1})."
        )
    return target


def _share(right: Tensor) -> Tensor:
    """Per example the share of positions that are right, float64."""
    return right.double().flatten(1).mean(1) if right.ndim > 1 else right.double()


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of examples whose label is among the ``top`` best classes, in percent, higher is better.

    The interval is Wilson's. Where the model predicts at several positions (pixels, tokens), an
    example counts with its share of positions, and the interval errs on the wide side. Of classes with
    the same score the first is the better one, as for ``argmax``.

    >>> Accuracy().observe(torch.eye(2), Batch(torch.eye(2), torch.tensor([0, 0])), None).tolist()
    [1.0, 0.0]

    Raises:
        DataError: labels out of range, NaN outputs, or fewer classes than ``top``.
    """

    top: int = 1
    unit: ClassVar[str] = "%"
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    paired: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.top < 1:
            raise CriterionError(f"Accuracy: top must be at least 1, received {self.top}.")

    @property
    def name(self) -> str:
        """``accuracy``, or ``accuracy (top 5)``."""
        return "accuracy" if self.top == 1 else f"accuracy (top {self.top})"

    def observe(self, output: Any, batch: Batch, reference: Any) -> Tensor:
        """1 where the label is among the best classes, else 0."""
        scores = predictions(output, batch)
        if self.top > scores.shape[1]:
            raise DataError(f"Accuracy(top={self.top}): the model has only {scores.shape[1]} classes.")
        labels = labels_of(batch.target, scores).long().unsqueeze(1)
        own = scores.gather(1, labels)
        classes = torch.arange(scores.shape[1], device=scores.device).view(-1, *(1,) * (scores.ndim - 2))
        ahead = (scores > own) | ((scores == own) & (classes < labels))
        return _share(ahead.sum(1) < self.top)

    def summarise(self, values: Tensor) -> Interval:
        """The share with its Wilson interval."""
        return wilson(values.mean().item(), len(values))


@dataclass(frozen=True, slots=True)
class Loss:
    """Mean loss per example, lower is better; the interval is normal, from the examples' spread.

    Args:
        loss: ``loss(output, target) -> (examples,)``; cross-entropy in nats by default.

    >>> round(Loss().observe(torch.zeros(1, 2), Batch(torch.ones(1), torch.tensor([0])), None).item(), 4)
    0.6931

    Raises:
        CriterionError: the loss is not per example, or not finite.
        DataError: labels out of range.
    """

    loss: _context.Loss = _context.cross_entropy
    name: ClassVar[str] = "loss"
    unit: ClassVar[str] = ""
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    paired: ClassVar[bool] = False

    def __repr__(self) -> str:
        name = getattr(self.loss, "__name__", repr(self.loss))
        return "Loss()" if self.loss is _context.cross_entropy else f"Loss({name})"

    def observe(self, output: Any, batch: Batch, reference: Any) -> Tensor:
        """The loss of each example, float64."""
        return _context.per_example(self.loss, output, batch.target, batch.examples).double()

    def summarise(self, values: Tensor) -> Interval:
        """The mean, plus and minus 1.96 standard errors; one example alone has no interval."""
        mean = values.mean().item()
        if len(values) == 1:
            return Interval(mean)
        half = Z * values.std().item() / math.sqrt(len(values))
        return Interval(mean, mean - half, mean + half)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Share of examples on which both models predict the same class, in percent, higher is better.

    It needs no labels, and sees what accuracy hides: predictions that changed from one
    mistake to another, or as often for the better as for the worse.

    >>> Agreement().observe(torch.eye(2), Batch(torch.ones(2)), torch.eye(2).flip(0)).tolist()
    [0.0, 0.0]

    Raises:
        DataError: there is no reference model, or an output is NaN.
    """

    name: ClassVar[str] = "agreement"
    unit: ClassVar[str] = "%"
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    paired: ClassVar[bool] = True

    def observe(self, output: Any, batch: Batch, reference: Any) -> Tensor:
        """1 where the best classes are the same, else 0."""
        if reference is None:
            raise DataError("Agreement compares with a reference model; pass reference=.")
        mine, theirs = predictions(output, batch), predictions(reference, batch)
        return _share(mine.argmax(1) == theirs.argmax(1))

    def summarise(self, values: Tensor) -> Interval:
        """The share with its Wilson interval."""
        return wilson(values.mean().item(), len(values))


@dataclass(frozen=True, slots=True)
class Params:
    """Number of parameter elements; a tensor that two layers share counts once. Lower is better.

    >>> Params().rows(nn.Linear(3, 2), None, Batch(torch.ones(1, 3)))[0].value
    8.0
    """

    def rows(self, model: nn.Module, reference: nn.Module | None, batch: Batch) -> tuple[Measurement, ...]:
        """One row, ``params``."""
        return (_counted("params", "", [_elements(m) for m in (model, reference) if m is not None]),)


@dataclass(frozen=True, slots=True)
class Macs:
    """Multiply-accumulates for one example, lower is better.

    Counted by running one example: convolutions, matrix products, attention and recurrent
    layers count; additions, norms and activations do not. A FLOP count is about twice as high.

    >>> Macs().rows(nn.Linear(3, 2), None, Batch(torch.ones(1, 3)))[0].value
    6.0
    """

    def rows(self, model: nn.Module, reference: nn.Module | None, batch: Batch) -> tuple[Measurement, ...]:
        """One row, ``MACs``."""
        return (
            _counted(
                "MACs", "MAC", [_macs(m, batch[:1].inputs) for m in (model, reference) if m is not None]
            ),
        )


def _counted(name: str, unit: str, counts: Sequence[int]) -> Measurement:
    reference = float(counts[1]) if len(counts) > 1 else None
    return Measurement(metric=name, value=float(counts[0]), reference=reference, unit=unit, better="lower")


def _elements(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _macs(model: nn.Module, inputs: Any) -> int:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    aten = torch.ops.aten
    recurrent = {aten.mkldnn_rnn_layer: _recurrent_layer, aten._cudnn_rnn: _recurrent_stack}
    # torch counts neither its fused attention kernels on CPU nor the encoder's fast path.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            _context.inference(model),
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False, custom_mapping=recurrent) as counter,
        ):
            _context.forward(model, inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // 2


def _recurrent_layer(inputs: Any, own: Any, hidden: Any, *_: Any, **__: Any) -> int:
    """FLOPs of one direction of one recurrent layer, from shapes."""
    flops: int = 2 * math.prod(inputs[:-1]) * (math.prod(own) + math.prod(hidden))
    return flops


def _recurrent_stack(inputs: Any, weights: Any, *_: Any, **__: Any) -> int:
    """FLOPs of all layers and directions at once; only the matrices among the weights count."""
    flops: int = 2 * math.prod(inputs[:-1]) * sum(math.prod(w) for w in weights if len(w) == 2)
    return flops

"""Criteria for single weights: magnitude (WT), relative contributions (SiPP), gradients (Snip)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from .. import _context
from ..data import batches
from ..errors import CriterionError
from ..sensitivity import sensitivities
from .choosing import Choice, WeightProbe, top
from .filters import Filters


@dataclass(frozen=True)
class Magnitude:
    """The absolute value of each weight, over all layers together (weight thresholding, "WT").

    No layer is normalised, no data are needed (Han et al. 2015; Liebenwein et al. 2021).

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Linear(3, 1, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, -3, 2]]))
    >>> sl.sparsify(model, sl.Nonzeros(keep=2), Magnitude())["weight"].keep()
    tensor([[False,  True,  True]])
    """

    def choose(self, probe: WeightProbe) -> Choice:
        """The largest absolute weights."""
        return top(probe, {name: weight.abs() for name, weight in probe.weights.items()})


@dataclass(frozen=True)
class Snip:
    """What the loss would change by without a weight, to first order: ``|w dL/dw|`` (Lee et al. 2019).

    The gradient is that of the mean loss over all examples, whatever the batches.

    Args:
        loss: ``f(output, target)``, one value per example.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 2.0]]))
    >>> square = Snip(loss=lambda out, target: (out - target).square().mean(1))
    >>> data = torch.tensor([[3.0, 1.0]]), torch.zeros(1, 1)
    >>> sl.sparsify(model, sl.Nonzeros(keep=1), square, data)["weight"].keep()
    tensor([[ True, False]])
    """

    loss: _context.Loss = field(default=_context.cross_entropy, repr=False)

    def choose(self, probe: WeightProbe) -> Choice:
        """The largest first-order changes.

        Raises:
            DataError: there are no data, or they have no labels.
            CriterionError: the loss has no gradient.
        """
        data = probe.needed(self)
        model = _context.copied(probe.model)
        named = dict(model.named_parameters())
        wanted = [named[name].requires_grad_() for name in probe.weights]
        sums, examples = [torch.zeros_like(weight) for weight in wanted], 0
        for batch in batches(data, device=_context.device_of(model)):
            with torch.enable_grad(), _context.inference(model):
                output = _context.forward(model, batch.inputs)
                losses = _context.per_example(self.loss, output, batch.target, batch.examples)
            grads = _context.gradients(losses, wanted, instead="Magnitude()")
            sums = [total if g is None else total + g for total, g in zip(sums, grads, strict=True)]
            examples += batch.examples
        scores = zip(probe.weights.items(), sums, strict=True)
        return top(probe, {name: (weight * total / examples).abs() for (name, weight), total in scores})


@dataclass(frozen=True)
class SiPP:
    """What a weight contributes to its output, relative to the others ("sensitivity-informed pruning").

    ``deterministic`` keeps the weights with the largest contribution over all layers (averaged over the
    places of a feature map, largest over the examples; :func:`shapleaf.sensitivity.contributions`).
    ``random`` draws each filter's weights with probabilities proportional to their contribution and scales
    them so that every filter keeps its expectation; filters get draws so that the summed error bound is
    smallest. ``hybrid`` does either, filter by filter, whichever has the smaller bound (Baykal et al. 2019;
    Liebenwein et al. 2021).

    Args:
        mode: which of the three.
        delta: the chance with which the error bound of ``random`` may fail.

    Raises:
        CriterionError: an unknown mode, or a chance not between 0 and 1.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Linear(3, 1, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[2.0, 1.0, 0.5]]))
    >>> sl.sparsify(model, sl.Nonzeros(keep=1), SiPP(), torch.tensor([[1.0, 9.0, 1.0]]))["weight"].keep()
    tensor([[False,  True, False]])
    """

    mode: Literal["deterministic", "random", "hybrid"] = "deterministic"
    delta: float = 1e-16

    def __post_init__(self) -> None:
        if self.mode not in ("deterministic", "random", "hybrid"):
            raise CriterionError(
                f"SiPP: mode must be 'deterministic', 'random' or 'hybrid', received {self.mode!r}."
            )
        if not 0 < self.delta < 1:
            raise CriterionError(f"SiPP: delta is a chance between 0 and 1, received {self.delta}.")

    def choose(self, probe: WeightProbe) -> Choice:
        """The largest contributions, or weights drawn by them.

        Raises:
            DataError: there are no data.
        """
        data, names = probe.needed(self), [*probe.weights]
        if self.mode == "deterministic":
            found = sensitivities(probe.model, data, names, places="mean")
            return top(probe, {name: one.scores for name, one in found.items()})
        found = sensitivities(probe.model, data, names, places="max")
        return Filters(probe, found, self.delta, hybrid=self.mode == "hybrid").choose

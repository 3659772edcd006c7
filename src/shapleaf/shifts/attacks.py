"""Attacks: the inputs near the given ones that a model gets most wrong, as its gradient sees it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._context import cross_entropy, forward, gradients, inference, on_device
from ..data import Batch
from ..errors import DataError
from .draws import Draws
from .levels import TOLERANCE
from .normalisation import Normalisation, changed

Gradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""The loss of each example, and its gradient with respect to the images."""


@dataclass(frozen=True, slots=True)
class FGSM:
    """The fast gradient sign method, one step (Goodfellow et al. 2015, eq. 1), an :class:`Attack`.

    Every value is moved by ``eps`` in the direction that increases the cross-entropy of the true label, and
    clipped to the range of images. The model runs in eval mode and is left as it was found.

    Args:
        eps: how far, in units of images from 0 to 1, such as ``8 / 255``.
        mean: what the inputs were normalised with, per channel; None for images in [0, 1].
        std: likewise.

    Raises:
        DataError: ``eps`` is negative or not finite, or mean and std do not fit.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = nn.init.eye_(model[1].weight)
    >>> batch = Batch(torch.tensor([[[[0.5, 0.4]]]]), torch.tensor([0]))
    >>> attack = FGSM(0.1)
    >>> attack.name, attack.perturb(model, batch).inputs.flatten().tolist()
    ('FGSM 0.1', [0.4000000059604645, 0.5])
    """

    eps: float
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _check(self.eps, self.mean, self.std)

    @property
    def name(self) -> str:
        """With its eps."""
        return f"FGSM {_fraction(self.eps)}"

    def perturb(self, model: nn.Module, batch: Batch) -> Batch:
        """The batch with the images attacked, on the model's device.

        Raises:
            DataError: the batch has no single tensor of images or no labels, or images outside [0, 1].
            CriterionError: the model has no gradient with respect to its inputs.
        """

        def attacked(images: Tensor, ball: _Ball, gradient: Gradient) -> Tensor:
            return ball.within(images + ball.eps * gradient(images)[1].sign())

        return _attacked(self, model, batch, attacked)


@dataclass(frozen=True, slots=True)
class PGD:
    """Projected gradient descent (Madry et al. 2018, section 2.1), an :class:`Attack`.

    From a random place at most ``eps`` away, ``steps`` steps of :class:`FGSM`, each of size ``step``, and
    after each back to the nearest image at most ``eps`` away. Of several restarts, the one with the highest
    loss is kept for each image.

    Args:
        eps: how far a value may be moved, in units of images from 0 to 1.
        step: how far in one step; None for ``2.5 * eps / steps``.
        steps: how many.
        restarts: how many random places to start from.
        seed: of these.
        mean: what the inputs were normalised with, per channel; None for images in [0, 1].
        std: likewise.

    Raises:
        DataError: a number is out of range, or mean and std do not fit.

    >>> PGD(8 / 255).name
    'PGD-10 8/255'
    """

    eps: float
    step: float | None = None
    steps: int = 10
    restarts: int = 1
    seed: int = 0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _check(self.eps, self.mean, self.std)
        if self.step is not None and not (math.isfinite(self.step) and self.step > 0):
            raise DataError(f"step must be above 0 and finite, received {self.step}.")
        if self.steps < 1 or self.restarts < 1:
            raise DataError(
                f"steps and restarts must be at least 1, received {self.steps} and {self.restarts}."
            )

    @property
    def name(self) -> str:
        """With its steps and eps."""
        return f"PGD-{self.steps} {_fraction(self.eps)}"

    def perturb(self, model: nn.Module, batch: Batch) -> Batch:
        """The batch with the images attacked; see :meth:`FGSM.perturb`."""

        def attacked(images: Tensor, ball: _Ball, gradient: Gradient) -> Tensor:
            size = (2.5 / self.steps if self.step is None else self.step / max(self.eps, 1e-12)) * ball.eps
            best, highest = images, torch.full((len(images),), -torch.inf, device=images.device)
            for restart in range(self.restarts):
                draws = Draws(self.seed, "pgd", restart, ids=batch.ids)
                start = (2 * draws.uniform(*images.shape[1:]) - 1).to(images)
                moved = ball.within(images + ball.eps * start)
                for _ in range(self.steps):
                    moved = ball.within(moved + size * gradient(moved)[1].sign())
                if self.restarts == 1:
                    return moved
                loss = gradient(moved)[0].to(highest)
                better = loss > highest
                best = torch.where(better.view(-1, 1, 1, 1), moved, best)
                highest = torch.maximum(loss, highest)
            return best

        return _attacked(self, model, batch, attacked)


@dataclass(frozen=True, slots=True)
class _Ball:
    """The inputs that are allowed: near the given ones, and made of images in [0, 1]."""

    eps: Tensor
    low: Tensor
    high: Tensor

    def within(self, images: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(images, self.low), self.high)


def _attacked(
    attack: FGSM | PGD, model: nn.Module, batch: Batch, method: Callable[[Tensor, _Ball, Gradient], Tensor]
) -> Batch:
    if batch.target is None:
        raise DataError(f"{attack.name} needs labels, but the batch at example {batch.first} has none.")
    inputs, target = on_device((batch.inputs, batch.target), model)
    batch = Batch(inputs, target, batch.first)
    normalisation = Normalisation(attack.mean, attack.std)

    def change(images: Tensor) -> Tensor:
        mean, std = normalisation.like(images)
        # A copy made here has a gradient, also when the caller is in inference mode.
        images = images.detach().clone()
        low, high = (0 - mean) / std, (1 - mean) / std
        slack = TOLERANCE / std
        if bool((images < low - slack).any() or (images > high + slack).any()):
            values = normalisation.undo(images)
            raise DataError(
                f"{attack.name} needs images in [0, 1], received {float(values.min()):.4g} to "
                f"{float(values.max()):.4g}; pass the mean= and std= that they were normalised with."
            )
        eps = attack.eps / std
        ball = _Ball(eps, torch.maximum(images - eps, low), torch.minimum(images + eps, high))

        def gradient(moved: Tensor) -> tuple[Tensor, Tensor]:
            moved = moved.detach().requires_grad_()
            given = changed(batch, lambda _: moved).inputs
            loss = cross_entropy(forward(model, given), target)
            found = gradients(loss, [moved], instead="noise or a corruption, which need none")[0]
            return loss.detach(), torch.zeros_like(moved) if found is None else found

        return method(images, ball, gradient)

    with torch.inference_mode(False), torch.enable_grad(), inference(model):
        return changed(batch, change)


def _check(eps: float, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> None:
    if not (math.isfinite(eps) and eps >= 0):
        raise DataError(f"eps must be a finite number of at least 0, received {eps}.")
    Normalisation(mean, std)


def _fraction(eps: float) -> str:
    levels = eps * 255
    return f"{round(levels)}/255" if eps and abs(levels - round(levels)) < 1e-6 else f"{eps:g}"

"""What others offer for the same question: the paper's algorithm, Captum's sampler, shapiq's regressions.

All of them see a network cut open by hand behind the layer (:class:`layers.Part`), so that none repeats the
part of the network before it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from layers import Layer, Part
from shapleaf._rng import stream

ORDERS = 5


def losses(part: Part, labels: Tensor, z: Tensor) -> Tensor:
    return functional.cross_entropy(part.suffix(z), labels, reduction="none")


def paper(layer: Layer, part: Part, seed: int) -> tuple[Tensor, int]:
    """Ancona et al. (2020), algorithm 1: the same orders for all examples, units zeroed one after another."""
    units = part.z.shape[part.dim] // part.width
    values, evaluations = torch.zeros(len(part.z), units, dtype=torch.float64), 0
    with torch.no_grad():
        everybody = losses(part, layer.data[1], part.z).double()
        for order in range(ORDERS):
            z, before = part.z.clone(), everybody
            for unit in stream(seed, "paper", order).permutation(units):
                z.narrow(part.dim, int(unit) * part.width, part.width).zero_()
                after = losses(part, layer.data[1], z).double()
                values[:, unit] += (after - before) / ORDERS
                before, evaluations = after, evaluations + 1
    return values, evaluations + 1


def captum(layer: Layer, part: Part, seed: int) -> tuple[Tensor, int]:
    """Captum's ``ShapleyValueSampling``, as many orders, all examples in each of its passes."""
    from captum.attr import ShapleyValueSampling

    units = part.z.shape[part.dim] // part.width
    torch.manual_seed(seed)
    with torch.no_grad():
        found = ShapleyValueSampling(lambda z: -losses(part, layer.data[1], z)).attribute(
            part.z, baselines=0.0, feature_mask=part.index().contiguous(), n_samples=ORDERS
        )
    first = found.movedim(part.dim, 1)[:, :: part.width]
    return first.reshape(*first.shape[:2], -1)[..., 0].double(), ORDERS * units + 1


def shapiq(method: str) -> Callable[[Layer, Part, int], tuple[Tensor, int]]:
    """An approximator of shapiq for the mean loss: it plays games with a single number."""

    def run(layer: Layer, part: Part, seed: int) -> tuple[Tensor, int]:
        import shapiq as library

        units = part.z.shape[part.dim] // part.width

        def game(coalitions: np.ndarray) -> np.ndarray:
            found = []
            for one in np.atleast_2d(coalitions):
                kept = torch.from_numpy(one.astype(np.float32)).repeat_interleave(part.width)
                shape = [1] * part.z.ndim
                shape[part.dim] = -1
                found.append(-losses(part, layer.data[1], part.z * kept.view(shape)).mean().item())
            return np.array(found)

        with torch.no_grad():
            approximator = getattr(library.approximator, method)(n=units, random_state=seed)
            found = approximator.approximate(ORDERS * units, game)
        return torch.from_numpy(found.get_n_order_values(1)).double()[None], ORDERS * units

    return run

"""The filters of a model as SiPP samples them: the weights of one sign of one output channel each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from .._draws import CONFIDENCE, Floats, Integers, adapt, coefficient
from .._rng import stream
from ..sensitivity import Sensed
from . import sampling
from .choosing import Kept, WeightProbe, flat, parts


class Filters:
    """All weights that contribute anything, filter by filter, the most sensitive first.

    Args:
        probe: the weights.
        found: their sensitivities, the largest over places.
        delta: the chance with which an error bound may fail.
        hybrid: whether a filter keeps its top weights where their error bound is the smaller one.
    """

    def __init__(
        self, probe: WeightProbe, found: Mapping[str, Sensed], delta: float, *, hybrid: bool
    ) -> None:
        self._probe, self._hybrid = probe, hybrid
        scores = flat({name: one.scores for name, one in found.items()}, probe.weights).double().numpy()
        negative = (flat(probe.weights) < 0).numpy()
        owners: list[Integers] = []
        sizes: list[int] = []
        places: list[float] = []
        kernels: list[float] = []
        for name in probe.weights:
            one = found[name]
            count = int(one.outputs.max()) + 1
            owners.append(one.outputs.reshape(-1).cpu().numpy() + sum(sizes))
            sizes.append(count)
            places.append(one.places)
            kernels.append(one.kernel)
        keys = 2 * np.concatenate(owners) + negative
        used = (scores > 0).nonzero()[0]
        self._index = used[np.lexsort((-scores[used], keys[used]))]
        self._score = scores[self._index]
        self._keys, starts, self._filter = np.unique(
            keys[self._index], return_index=True, return_inverse=True
        )
        self._start = np.append(starts, len(self._index))
        self.most = np.diff(self._start).astype(float)
        self._rank = np.arange(len(self._index)) - starts[self._filter]
        total = sampling.summed(self._filter, self._score, len(self._keys))
        self._chance = self._score / total[self._filter]
        self._first = np.cumsum([0, *sizes])
        layer = np.searchsorted(self._first, self._keys // 2, side="right") - 1
        self.share = 1 / np.array(sizes)[layer]
        self.alpha = coefficient(
            total, np.array(places, float)[layer], np.array(kernels, float)[layer], delta
        )
        names = [*probe.weights]
        self._names = [
            (names[of], int(key // 2 - self._first[of]), int(key % 2))
            for key, of in zip(self._keys, layer, strict=True)
        ]

    def choose(self, count: int) -> dict[str, Kept]:
        """About so many different weights, with what the drawn ones are multiplied by."""
        factors = np.zeros(sum(weight.numel() for weight in self._probe.weights.values()))
        if len(self._keys):
            wanted = sampling.rounded_up(
                sampling.allocation(self.alpha, self.share, self.most, count), self.most
            )
            drawn = (wanted > 0) & (wanted < self.most)
            if self._hybrid:
                drawn &= self._tail(wanted) > sampling.error(self.alpha, np.maximum(wanted, 1))
            values = (self._rank < wanted[self._filter]).astype(float)
            draws = adapt(self._chance, np.where(drawn, wanted, 0), self._filter)
            for number in drawn.nonzero()[0].tolist():
                values[self._start[number] : self._start[number + 1]] = self._draw(number, int(draws[number]))
            factors[self._index] = values
        found = parts(torch.from_numpy(factors), self._probe.weights)
        return {name: Kept(part > 0, part) for name, part in found.items()}

    def _tail(self, wanted: Integers) -> Floats:
        """The error bound without drawing: by the sensitivities that are left out."""
        left = np.where(self._rank >= wanted[self._filter], self._score, 0)
        return CONFIDENCE * sampling.summed(self._filter, left, len(wanted))

    def _draw(self, number: int, draws: int) -> Floats:
        """What the weights of one filter are multiplied by; if all are hit, they stay as they are."""
        chances = self._chance[self._start[number] : self._start[number + 1]]
        counts = stream(self._probe.seed, "SiPP", *self._names[number]).multinomial(draws, chances)
        if counts.all():
            return np.ones(len(chances))
        scaled: Floats = counts / (draws * chances)
        return scaled

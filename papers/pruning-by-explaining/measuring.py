"""What the studies share: scores and curves of a network, and curves as they are kept on disk."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import mean, stdev

import numpy as np
import torch
from attributions import Attribution
from subjects import Subject
from torch import Tensor, nn

import shapleaf as sl
from shapleaf.data import Batches
from shapleaf.records import PruningCurve, PruningCurves
from shapleaf.records.pruning_curves import Order
from shapleaf.surgery import Compensation

from results import Cell  # isort: skip - of papers/shapley-pruning, which subjects puts on the path

PLAIN, FOLDED = "none", "means and statistics"
"""Without compensation, and with all of it."""
_NAMES = ("criterion", "order", "compensation", "seed")
_SHARES = ("rates", "removed", "params", "macs")


class Study:
    """A network, the images that its units are scored on and those it is tested on.

    Args:
        subject: the network.
        classes: how many the network is restricted to, drawn by the seed; None for all.
        test_images: so many at most.
    """

    def __init__(self, subject: Subject, *, classes: int | None, test_images: int) -> None:
        self.subject, self.restricted_to, self.test_images = subject, classes, test_images
        self.graph = subject.trace()
        self.train, self.test = (subject.images(split) for split in ("train", "test"))
        self._references: dict[tuple[int, int], Batches] = {}
        self._tests: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
        self._known: dict[tuple[str, int, int], tuple[sl.Scores, float]] = {}

    def reference(self, n: int, seed: int) -> Batches:
        """So many training images of each class."""
        if (n, seed) not in self._references:
            self._references[n, seed] = sl.per_class(self.train, n, classes=self.restricted_to, seed=seed)
        return self._references[n, seed]

    def classes(self, seed: int) -> tuple[int, ...]:
        """Those that the network is restricted to; none if it is not."""
        if self.restricted_to is None:
            return ()
        return tuple(torch.cat([batch.target for batch in self.reference(1, seed)]).sort().values.tolist())

    def tested(self, classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The test images, of these classes if there are any."""
        if classes not in self._tests:
            other = ~torch.isin(self.test.labels, torch.tensor(classes or range(len(self.test.classes))))
            some = self.test.without(self.test.ids[other])
            self._tests[classes] = some.sample(min(self.test_images, len(some)), seed=0).tensors()
        return self._tests[classes]

    def scores(self, row: Attribution, n: int, seed: int) -> tuple[sl.Scores, float]:
        """Of all candidates, and the CPU seconds they took; computed once."""
        if (row.name, n, seed) not in self._known:
            reference, classes = self.reference(n, seed), self.classes(seed)
            start = time.process_time()
            scores = row.scores(self.subject, self.graph, reference, seed, classes)
            self._known[row.name, n, seed] = scores, time.process_time() - start
        return self._known[row.name, n, seed]

    def curve(
        self, row: Attribution, n: int, seed: int, order: Order = "least", compensation: str = PLAIN
    ) -> Cell:
        """Score, prune and test: a curve, and the CPU seconds of both."""
        scores, seconds = self.scores(row, n, seed)
        classes, start = self.classes(seed), time.process_time()
        found = sl.pruning_curves(
            self.subject.model,
            {row.name: scores},
            self.tested(classes),
            orders=(order,),
            compensate=None if compensation == PLAIN else self.compensations(n, seed),
            restricted=sl.Restricted(classes) if classes else None,
        )
        spent = {"attribution_cpu_seconds": seconds, "curve_cpu_seconds": time.process_time() - start}
        curve = replace(found.curves[0], seed=seed, compensation=compensation)
        return packed(curve) | {name: round(value, 2) for name, value in spent.items()}

    def compensations(self, n: int, seed: int) -> list[Compensation]:
        """The means of removed units folded; then the statistics of BatchNorms, if there are any.

        Both by half of the reference images: they run at every point of a curve, several times.
        """
        reference = self.reference(max(1, n // 2), seed)
        steps: list[Compensation] = [sl.FoldMean(reference)]
        if any(isinstance(part, nn.BatchNorm2d) for part in self.subject.model.modules()):
            steps.append(sl.RecalibrateBatchNorm(reference))
        return steps

    def intact(self) -> Cell:
        """The network as it is, and its candidates."""
        cost, candidates = sl.cost(self.graph), self.graph.select(*self.subject.kind.groups)
        units = sum(group.size for group in candidates)
        return {"units": units, "groups": len(candidates), "params": cost.params, "macs": cost.macs}


def packed(curve: PruningCurve) -> Cell:
    """A curve as JSON; which images are right as bits.

    >>> right = torch.tensor([[True, False, True], [False, False, True]])
    >>> shares = dict(rates=(0.0, 0.5), removed=(0.0, 0.4), params=(1.0, 0.7), macs=(1.0, 0.6))
    >>> cell = packed(PruningCurve(criterion="a", right=right, **shares))
    >>> cell["right"], cell["accuracy"], torch.equal(unpacked(cell).right, right)
    ('pA==', [66.67, 33.33], True)
    """
    return {
        **{name: getattr(curve, name) for name in _NAMES},
        **{name: [round(share, 4) for share in getattr(curve, name)] for name in _SHARES},
        "accuracy": [round(share, 2) for share in curve.accuracy.tolist()],
        "examples": curve.right.shape[1],
        "right": base64.b64encode(np.packbits(curve.right.numpy())).decode(),
    }


def unpacked(cell: Cell) -> PruningCurve:
    """The curve of a cell."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(cell["right"]), np.uint8))
    right = bits[: len(cell["rates"]) * cell["examples"]].reshape(-1, cell["examples"])
    named = {name: cell[name] for name in _NAMES} | {name: tuple(cell[name]) for name in _SHARES}
    return PruningCurve(**named, right=torch.from_numpy(right.astype(bool)))


def curves(cells: Iterable[Cell]) -> PruningCurves:
    """The record of all cells, which knows differences with their intervals."""
    return PruningCurves(curves=tuple(map(unpacked, cells)))


def measured(
    record: PruningCurves, row: str, order: Order = "least", compensation: str = PLAIN
) -> tuple[PruningCurve, ...]:
    """The curves of a row, one for each seed; none if it was not run."""
    wanted = row, order, compensation
    return tuple(one for one in record.curves if (one.criterion, one.order, one.compensation) == wanted)


def with_error(values: Sequence[float], digits: int) -> str:
    """Mean ± standard error; no ± for a single value.

    >>> with_error([1.0, 3.0], 1), with_error([2.0], 0)
    ('2.0 ± 1.0', '2')
    """
    text = f"{mean(values):.{digits}f}"
    return f"{text} ± {stdev(values) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else text

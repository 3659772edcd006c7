"""Which shares of the parameters a cycle keeps, and after which of them it retrains."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from ..errors import BudgetError

Kind = Literal["geometric", "linear", "harmonic", "cubic"]


def _cubic(first: float, last: float, n: int) -> np.ndarray:
    left: np.ndarray = 1 - np.arange(n) / max(n - 1, 1)
    return last + (first - last) * left**3


_KINDS: dict[str, Callable[[float, float, int], np.ndarray]] = {
    "geometric": np.geomspace,
    "linear": np.linspace,
    "harmonic": lambda first, last, n: 1 / np.linspace(1 / first, 1 / last, n),
    "cubic": _cubic,
}


def spacing(kind: Kind, first: float, last: float, n: int) -> tuple[float, ...]:
    """Keep ratios from the first to the last; those of several spacings are joined by ``+``.

    Args:
        kind: ``geometric``: each is the same share of the one before; ``linear``: the same difference;
            ``harmonic``: the same difference between the factors 1 / keep by which the model is smaller;
            ``cubic``: ``last + (first - last) * (1 - i / (n - 1))**3``, much at first.
        first: the share of the parameters that stays at first, in (0, 1].
        last: the share in the end.
        n: how many.

    Raises:
        BudgetError: no such kind, or shares out of range.

    >>> spacing("linear", 0.9, 0.5, 3) + spacing("geometric", 0.4, 0.1, 3)
    (0.9, 0.7, 0.5, 0.4, 0.2, 0.1)
    >>> spacing("harmonic", 1.0, 0.25, 4)[1:3], spacing("cubic", 0.9, 0.1, 3)
    ((0.5, 0.333333333333), (0.9, 0.2, 0.1))
    """
    if kind not in _KINDS:
        raise BudgetError(f"kind={kind!r}: expected {', '.join(map(repr, _KINDS))}.")
    if not 0 < last <= 1 or not 0 < first <= 1 or n < 1:
        raise BudgetError(
            f"spacing({kind!r}, {first}, {last}, {n}): shares lie in (0, 1], and there is at least one."
        )
    return tuple(round(float(keep), 12) for keep in _KINDS[kind](first, last, n))


def chunks(keeps: Sequence[float], retrains: int | None = None) -> tuple[tuple[float, ...], ...]:
    """The keep ratios in as many parts of equal length as there are retrains; each part ends in one.

    Args:
        keeps: decreasing shares of the parameters that stay.
        retrains: how many; None retrains after each. The first parts are one longer where it does not
            come out even.

    Raises:
        BudgetError: there are no ratios, they do not decrease within (0, 1], or are fewer than retrains.

    >>> chunks((0.9, 0.8, 0.7, 0.6, 0.5), 2)
    ((0.9, 0.8, 0.7), (0.6, 0.5))
    """
    kept = tuple(float(keep) for keep in keeps)
    if not kept or not all(0 < keep <= 1 for keep in kept):
        raise BudgetError(f"keeps={kept}: expected at least one share of the parameters, in (0, 1].")
    falling = all(before > after for before, after in itertools.pairwise(kept))
    if not falling:
        place = next(i for i, (a, b) in enumerate(itertools.pairwise(kept)) if a <= b)
        raise BudgetError(
            f"keeps must decrease: {kept[place]:g} is followed by {kept[place + 1]:g}. Sort them, each once."
        )
    retrains = len(kept) if retrains is None else retrains
    if not 1 <= retrains <= len(kept):
        raise BudgetError(f"retrains={retrains}: expected 1 to {len(kept)}, the number of keep ratios.")
    longer, rest = divmod(len(kept), retrains)
    ends = itertools.accumulate(longer + (part < rest) for part in range(retrains))
    starts = [0, *ends]
    return tuple(kept[a:b] for a, b in itertools.pairwise(starts))


_START = spacing("geometric", 0.99, 0.855, 2)

PAPER = {
    "cifar-resnet20": (
        _START + spacing("geometric", 0.85, 0.15, 58) + spacing("linear", 0.132, 0.02, 9),
        23,
    ),
    "cifar-resnet56": (_START + spacing("geometric", 0.85, 0.02, 58), 20),
    "cifar-resnet110": (_START + spacing("geometric", 0.85, 0.02, 58), 20),
    "cifar-vgg16": (_START + spacing("geometric", 0.85, 0.02, 58), 20),
    "cifar-densenet22": (
        _START + spacing("geometric", 0.85, 0.10, 58) + spacing("linear", 0.0918, 0.0469, 6),
        22,
    ),
    "cifar-wrn16-8": (
        _START + spacing("geometric", 0.85, 0.10, 58) + spacing("linear", 0.09182, 0.02, 9),
        23,
    ),
    "cifar-robust": (spacing("geometric", 0.80, 0.03, 16), 16),
    "imagenet-resnet18": (spacing("geometric", 0.90, 0.35, 12) + spacing("linear", 0.31, 0.10, 6), 18),
    "imagenet-resnet101": (spacing("geometric", 0.90, 0.35, 12) + spacing("linear", 0.31, 0.184, 4), 16),
    "voc-deeplabv3": (spacing("geometric", 0.8, 0.1, 10) + spacing("geometric", 0.08, 0.03, 5), 15),
}
"""Liebenwein et al. 2021, Lost in Pruning, their configurations: the keep ratios, and how often retrained."""

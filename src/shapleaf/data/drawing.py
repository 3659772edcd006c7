"""Examples drawn from data, in memory: some of all, or some of each class."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from .. import _context, _rng
from ..errors import DataError
from .batches import Batch, Batches, batches, joined, parsed, single_examples

T = TypeVar("T")


def take(
    data: Any,
    n: int,
    *,
    batch_size: int = 100,
    seed: int | None = None,
    labelled: bool = True,
    device: torch.device | str | None = None,
) -> Batches:
    """A calibration set: ``n`` examples in memory, recut into batches of ``batch_size``.

    The first ``n`` are taken; with a seed, ``n`` random ones, the same whether ``data`` is a Dataset or
    batches of it in order, of whatever size.

    Args:
        data: as for :func:`batches`, or a Dataset of single examples.
        n: the number of examples.
        batch_size: examples per batch of the result.
        seed: draw at random, without replacement.
        labelled: whether every batch must have a target.
        device: where the tensors are moved to.

    Raises:
        DataError: as for :func:`batches`, or there are fewer than ``n`` examples, or their shapes differ.

    >>> data = torch.arange(10.0), torch.arange(10)
    >>> [batch.target.tolist() for batch in take(data, 3, batch_size=2)]
    [[0, 1], [2]]
    >>> take(data, 3, seed=0)[0].target.tolist() == take(data, 3, seed=0, batch_size=7)[0].target.tolist()
    True
    """
    if n < 1:
        raise DataError(f"n must be at least 1, received {n}.")
    if single_examples(data):
        whole = _picked(data, n, seed)
    else:
        whole = _drawn(batches(data, limit=n if seed is None else None, labelled=labelled), n, seed)
    return Batches(tuple(batches(whole, batch_size=batch_size, labelled=labelled, device=device)))


def per_class(
    data: Any,
    n: int | None,
    *,
    classes: Sequence[int] | int | None = None,
    seed: int = 0,
    batch_size: int = 100,
) -> Batches:
    """Reference samples: ``n`` random examples of each class, in memory, in batches of ``batch_size``.

    They come in rounds, one of each class: the first ``m`` rounds are what ``m`` of each would be. The draw
    of a class depends on the seed and on the order of the data alone: not on batches, nor on which other
    classes there are. Of a Dataset whose ``labels`` or ``targets`` hold the number of each example's class
    only those that are drawn are read; all other data are gone through once.

    Args:
        data: as for :func:`batches`, or a Dataset of single examples; labels are numbers of classes.
        n: examples of each class, without replacement; None for all.
        classes: their numbers; or how many, drawn by the seed; None for all that occur.
        seed: names the draw.
        batch_size: examples per batch of the result.

    Raises:
        DataError: as for :func:`batches`, or classes have fewer than ``n`` examples, or labels are no numbers
            of classes.

    >>> data = torch.arange(12.0), torch.arange(12) % 3
    >>> [batch.target.tolist() for batch in per_class(data, 2, classes=(2, 0), batch_size=3)]
    [[2, 0, 2], [0]]
    """
    if n is not None and n < 1:
        raise DataError(f"n must be at least 1, or None for all, received {n}.")
    wanted = _wanted(classes)
    labels = _known_labels(data) if single_examples(data) else None
    if labels is not None:
        places, counts = _ranked(labels, n, seed)
        chosen = _chosen(wanted, counts, n, seed)
        whole = _read(data, _rounds([places[k] for k in chosen]), labels)
    else:
        if single_examples(data):
            data = DataLoader(data, batch_size, generator=torch.Generator())
        kept, counts = _kept(batches(data, batch_size=batch_size), n, wanted, seed)
        whole = joined(_rounds([kept[k] for k in _chosen(wanted, counts, n, seed)]))
    return Batches(tuple(batches(whole, batch_size=batch_size)))


def _wanted(classes: Sequence[int] | int | None) -> tuple[int, ...] | int | None:
    count: int | None = _context.number(classes)
    if classes is None or type(count) is int:
        return count
    wanted = tuple(map(_context.number, classes)) if isinstance(classes, Iterable) else (classes,)
    if not wanted or not all(type(k) is int for k in wanted) or len(set(wanted)) < len(wanted):
        raise DataError(f"classes are numbers of classes, each once, received {wanted}.")
    return wanted


def _chosen(
    wanted: tuple[int, ...] | int | None, counts: dict[int, int], n: int | None, seed: int
) -> Sequence[int]:
    """The classes, once it is sure that each has enough examples."""
    chosen = wanted if isinstance(wanted, tuple) else sorted(counts)
    if isinstance(wanted, int):
        if not 1 <= wanted <= len(counts):
            raise DataError(f"classes={wanted}: from 1 to {len(counts)} can be drawn, as many as occur.")
        chosen = sorted(sorted(counts, key=lambda k: _rng.stream(seed, "classes", k).random())[:wanted])
    few = {k: counts.get(k, 0) for k in chosen if counts.get(k, 0) < (n or 1)}
    if few:
        listed = ", ".join(f"class {k} has {count or 'none'}" for k, count in few.items())
        raise DataError(
            f"{n or 'all'} examples of each class were asked for, but {listed}; ask for fewer, or name other "
            "classes (classes=...)."
        )
    return chosen


def _rounds(drawn: Sequence[Sequence[T]]) -> list[T]:
    """The first of each class, then the second of each, and so on."""
    rounds = max(map(len, drawn))
    return [ones[k] for k in range(rounds) for ones in drawn if k < len(ones)]


def _known_labels(dataset: Any) -> Tensor | None:
    """The classes of all examples of a Dataset that has them at hand."""
    for name in ("labels", "targets"):
        known = getattr(dataset, name, None)
        if isinstance(known, Tensor | np.ndarray | list | tuple) and len(known) == len(dataset):
            try:
                labels = torch.as_tensor(known)
            except (TypeError, ValueError):  # names, say
                continue
            if labels.ndim == 1 and not labels.is_floating_point():
                return labels
    return None


def _ranked(labels: Tensor, n: int | None, seed: int) -> tuple[dict[int, list[int]], dict[int, int]]:
    """The places of each class that are drawn, in the order of the draw, and how many there are."""
    order = torch.from_numpy(_rng.stream(seed, "per class").random(len(labels)).argsort(kind="stable"))
    kinds, counts = labels.unique(return_counts=True)
    found = {int(k): order[labels[order] == k][:n].tolist() for k in kinds}
    return found, dict(zip(kinds.tolist(), counts.tolist(), strict=True))


def _kept(
    stream: Iterator[Batch], n: int | None, wanted: tuple[int, ...] | int | None, seed: int
) -> tuple[dict[int, list[Batch]], dict[int, int]]:
    """The examples of each class that are drawn, in the order of the draw, and how many there are."""
    keys, counts = _rng.stream(seed, "per class"), dict[int, int]()
    lots: dict[int, _Lot] = {}
    for batch in stream:
        labels = _labels(batch)
        for index, (label, key) in enumerate(zip(labels, keys.random(len(labels)), strict=True)):
            counts[label] = counts.get(label, 0) + 1
            if not isinstance(wanted, tuple) or label in wanted:
                lots.setdefault(label, _Lot(n)).offer(key, batch, index)
    return {label: lot.drawn for label, lot in lots.items()}, counts


def _labels(batch: Batch) -> list[int]:
    target = batch.target
    if not isinstance(target, Tensor) or target.is_floating_point() or target.ndim != 1:
        raise DataError(
            f"examples are drawn by class, so labels are whole numbers of shape ({batch.examples},); those "
            f"of the batch at example {batch.first} are {_context.described(target)}."
        )
    labels: list[int] = target.tolist()
    return labels


def _read(dataset: Any, places: Sequence[int], labels: Tensor) -> Batch:
    """Those examples of a Dataset, which must be of the classes that it says they are."""
    whole = _collated(dataset, places)
    for place, label in zip(places, _labels(whole), strict=True):
        if label != labels[place]:
            raise DataError(
                f"example {place} is of class {label}, but the Dataset lists it as of {int(labels[place])}; "
                "pass torch.utils.data.DataLoader(dataset, batch_size=100), which is gone through."
            )
    return whole


def _keys(seed: int) -> np.random.Generator:
    """One random number per example, in order; those with the smallest are drawn."""
    return _rng.stream(seed, "take")


def _picked(dataset: Any, n: int, seed: int | None) -> Batch:
    """``n`` examples of a Dataset; no other is read."""
    size = len(dataset)
    order = range(size) if seed is None else _keys(seed).random(size).argsort(kind="stable").tolist()
    if size < n:
        raise _too_few(n, size)
    return _collated(dataset, order[:n])


def _collated(dataset: Any, places: Sequence[int]) -> Batch:
    try:
        return parsed(default_collate([dataset[place] for place in places]), 0)
    except (RuntimeError, TypeError) as error:
        raise DataError(f"the examples cannot be put in one batch: {error}") from error


def _drawn(stream: Iterator[Batch], n: int, seed: int | None) -> Batch:
    """``n`` examples of a stream; no others stay in memory."""
    if seed is None:
        kept = list(stream)
    else:
        keys, lot = _keys(seed), _Lot(n)
        for batch in stream:
            for index, key in enumerate(keys.random(batch.examples)):
                lot.offer(key, batch, index)
        kept = lot.drawn
    found = sum(batch.examples for batch in kept)
    if found < n:
        raise _too_few(n, found)
    return joined(kept)


class _Lot:
    """The examples with the smallest keys, so many at most or all; no others stay in memory."""

    def __init__(self, most: int | None) -> None:
        self._most, self._heap = most, list[tuple[float, int, Batch]]()

    def offer(self, key: float, batch: Batch, index: int) -> None:
        full = len(self._heap) == self._most
        if not full or -key >= self._heap[0][0]:
            one = (-key, -batch.first - index, joined([batch[index : index + 1]]))
            (heapq.heapreplace if full else heapq.heappush)(self._heap, one)

    @property
    def drawn(self) -> list[Batch]:
        """In the order of their keys."""
        return [example for *_, example in sorted(self._heap, reverse=True)]


def _too_few(n: int, found: int) -> DataError:
    return DataError(f"{n} examples were asked for, but the data have only {found}; ask for fewer.")

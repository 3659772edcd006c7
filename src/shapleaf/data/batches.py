"""Any iterable of batches becomes checked batches of inputs and target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from ..errors import DataError

LABELS = ("label", "labels", "target", "targets", "y")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Batch:
    """Some examples, and where they stand among all of them.

    Attributes:
        inputs: what the model is called with: a tensor, a tuple (positional arguments) or a dict
            (keyword arguments) of tensors, with the examples along dim 0.
        target: what the loss compares the output with, of the same kinds; None without labels.
        first: index of the first example among all; random draws are named by it.

    >>> batch = Batch(torch.zeros(4, 3), torch.zeros(4), first=8)
    >>> batch, batch[1:3]
    (Batch(4 examples from 8), Batch(2 examples from 9))
    """

    inputs: Any
    target: Any = None
    first: int = 0

    @property
    def examples(self) -> int:
        """The number of examples."""
        return next((len(tensor) for _, tensor in _leaves(self.inputs, "inputs")), 0)

    @property
    def ids(self) -> tuple[int, ...]:
        """The number of each example among all."""
        return tuple(range(self.first, self.first + self.examples))

    def __getitem__(self, part: slice) -> Batch:
        """A run of consecutive examples."""
        start, stop, _ = part.indices(self.examples)
        inputs, target = _map((self.inputs, self.target), lambda tensor: tensor[start:stop])
        return Batch(inputs, target, self.first + start)

    def __repr__(self) -> str:
        return f"Batch({self.examples} examples from {self.first})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Batches:
    """A few batches in memory, which can be gone through as often as needed; see :func:`take`.

    >>> from shapleaf.data import take
    >>> calibration = take((torch.zeros(10, 3), torch.zeros(10)), 5, batch_size=2)
    >>> calibration, len(calibration), [batch.first for batch in calibration]
    (Batches(5 examples in 3 batches), 3, [0, 2, 4])
    """

    items: tuple[Batch, ...]

    @property
    def examples(self) -> int:
        """The number of examples in all batches."""
        return sum(batch.examples for batch in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Batch:
        return self.items[index]

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.items)

    def __repr__(self) -> str:
        return f"Batches({self.examples} examples in {len(self)} batches)"


def batches(
    data: Any,
    *,
    batch_size: int = 100,
    limit: int | None = None,
    labelled: bool = True,
    device: torch.device | str | None = None,
) -> Iterator[Batch]:
    """Go through data once, as checked batches.

    A batch is ``(inputs, target)``, or a mapping whose target is under one of ``label``, ``labels``,
    ``target``, ``targets``, ``y`` and whose other items are keyword arguments of the model. Several
    positional arguments are a tuple: ``((a, b), target)``. Without labels, a bare tensor is a batch too.

    Args:
        data: an iterable of batches (a DataLoader, a list, :class:`Batches`), or one batch that holds
            all examples: a tuple ``(inputs, target)``, a mapping or a tensor.
        batch_size: how many examples at a time are taken from one batch that holds all;
            an iterable's own batches are left as they are.
        limit: stop after this many examples.
        labelled: whether every batch must have a target.
        device: where the tensors are moved to.

    Raises:
        DataError: there are no examples, a target is missing, inputs and target differ in their number
            of examples, or an input is not finite; the message says at which example.

    >>> [batch.first for batch in batches((torch.zeros(5, 3), torch.arange(5)), batch_size=2)]
    [0, 2, 4]
    >>> next(batches([{"pixel_values": torch.zeros(4, 3), "labels": torch.arange(4)}])).inputs.keys()
    dict_keys(['pixel_values'])
    """
    for name, value in (("batch_size", batch_size), ("limit", limit)):
        if value is not None and value < 1:
            raise DataError(f"{name} must be at least 1, received {value}.")
    seen = 0
    for item in _items(data, batch_size, labelled):
        batch = _checked(item if isinstance(item, Batch) else parsed(item, seen), labelled)
        if limit is not None:
            batch = batch[: limit - seen]
        seen += batch.examples
        if device is not None:
            inputs, target = _map((batch.inputs, batch.target), lambda tensor: tensor.to(device))
            batch = Batch(inputs, target, batch.first)
        yield batch
        if seen == limit:
            return
    if not seen:
        raise DataError(
            "the data are exhausted: a generator can be gone through only once, and this one has nothing "
            "left. Pass a list, a DataLoader or shapleaf.data.take(generator, n)."
            if iter(data) is data
            else f"the data are empty: this {type(data).__name__} yielded no batch."
        )


def repeatable(data: Any) -> Any:
    """The same data, once it is sure that they can be gone through more than once.

    Raises:
        DataError: they are an iterator, such as a generator, which the first pass uses up.

    >>> repeatable([torch.zeros(5, 3)])
    [tensor([[0., 0., 0.],...
    """
    if isinstance(data, Iterator):
        raise DataError(
            f"the data are gone through several times, but a {type(data).__name__} can be only once. Pass a "
            "list, a DataLoader or shapleaf.data.take(data, n)."
        )
    return data


def shard(stream: Iterable[Batch], rank: int, world: int) -> Iterator[Batch]:
    """Every ``world``-th batch, from the one at ``rank``: the part of one process among several.

    Raises:
        DataError: nothing is left for this rank.

    >>> data = torch.zeros(5, 3), torch.arange(5)
    >>> [batch.first for batch in shard(batches(data, batch_size=1), rank=1, world=2)]
    [1, 3]
    """
    if not 0 <= rank < world:
        raise DataError(f"rank must be in 0 to {world - 1}, received {rank}.")
    mine = islice(stream, rank, None, world)
    first = next(mine, None)
    if first is None:
        raise DataError(
            f"no batch is left for rank {rank} of {world}; use smaller batches or fewer processes."
        )
    yield first
    yield from mine


def single_examples(data: Any) -> bool:
    """Whether the data are a Dataset whose items are examples, not batches.

    >>> single_examples(torch.utils.data.TensorDataset(torch.zeros(5, 3)))
    True
    """
    return isinstance(data, Dataset) and not isinstance(data, IterableDataset)


def _items(data: Any, batch_size: int, labelled: bool) -> Iterator[Any]:
    pair = isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], Tensor)
    if pair or isinstance(data, Batch | Mapping | Tensor):
        whole = _checked(data if isinstance(data, Batch) else parsed(data, 0), labelled)
        for start in range(0, whole.examples, batch_size):
            yield whole[start : start + batch_size]
    elif single_examples(data):
        raise DataError(
            f"this {type(data).__name__} yields single examples, expected batches. "
            "Pass torch.utils.data.DataLoader(dataset, batch_size=100)."
        )
    else:
        try:
            iterator = iter(data)
        except TypeError as error:
            raise DataError(
                f"data must be an iterable of batches, such as a DataLoader, or a tuple (inputs, target); "
                f"received {type(data).__name__}."
            ) from error
        yield from iterator


def parsed(item: Any, first: int) -> Batch:
    """A batch of any supported kind; its contents are not checked yet.

    Raises:
        DataError: it has several targets, or is no pair.

    >>> parsed([torch.zeros(2, 3), torch.zeros(2)], 4)
    Batch(2 examples from 4)
    """
    if isinstance(item, Mapping):
        labels = [name for name in LABELS if name in item]
        if len(labels) > 1:
            raise DataError(
                f"the batch at example {first} has several targets: {', '.join(labels)}. "
                "Remove all but one, or pass (inputs, target)."
            )
        inputs = {name: value for name, value in item.items() if name not in labels}
        return Batch(inputs, item[labels[0]] if labels else None, first)
    if isinstance(item, tuple | list):
        if len(item) not in (1, 2):
            raise DataError(
                f"the batch at example {first} has {len(item)} items, expected (inputs, target). "
                "Several inputs are a tuple: ((a, b), target)."
            )
        return Batch(item[0], item[1] if len(item) == 2 else None, first)
    return Batch(item, None, first)


def _checked(batch: Batch, labelled: bool) -> Batch:
    where = f"the batch at example {batch.first}"
    if labelled and batch.target is None:
        raise DataError(
            f"{where} has no target: expected (inputs, target), or a mapping with one of "
            f"{', '.join(LABELS)}; received {type(batch.inputs).__name__}."
        )
    counts, leaves = {}, [*_leaves(batch.inputs, "inputs"), *_leaves(batch.target, "target")]
    for name, tensor in leaves:
        if not isinstance(tensor, Tensor):
            raise DataError(
                f"{name} of {where} is a {type(tensor).__name__}, expected a tensor. Convert or drop it; "
                "if these are single examples, wrap the data in a torch.utils.data.DataLoader."
            )
        if not tensor.ndim:
            raise DataError(
                f"{name} of {where} is a single number, expected the examples along dim 0. "
                "Wrap single examples in a torch.utils.data.DataLoader."
            )
        counts[name] = len(tensor)
        if (
            name.startswith("inputs")
            and tensor.is_floating_point()
            and not bool(torch.isfinite(tensor).all())
        ):
            bad = batch.first + int((~torch.isfinite(tensor)).nonzero()[0, 0])
            raise DataError(f"{name} of example {bad} is not finite (nan or inf); correct or leave it out.")
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"{where} differs in its number of examples (dim 0): {listed}.")
    if not batch.examples:
        raise DataError(f"{where} is empty: it has no examples.")
    if any(tensor.requires_grad for _, tensor in leaves):
        inputs, target = _map((batch.inputs, batch.target), Tensor.detach)
        return Batch(inputs, target, batch.first)
    return batch


def joined(parts: Sequence[Batch]) -> Batch:
    """One batch of several, a copy.

    Raises:
        DataError: their examples differ in shape or kind.

    >>> joined([Batch(torch.zeros(2, 3)), Batch(torch.zeros(1, 3))])
    Batch(3 examples from 0)
    """
    try:
        inputs, target = _cat([(part.inputs, part.target) for part in parts])
    except (RuntimeError, KeyError, ValueError) as error:
        raise DataError(
            f"the batches cannot be joined, their examples differ: {error}. Pad or crop them to one shape."
        ) from error
    return Batch(inputs, target)


def _cat(parts: list[Any]) -> Any:
    head = parts[0]
    if isinstance(head, Tensor):
        return torch.cat(parts)
    if isinstance(head, Mapping):
        return {name: _cat([part[name] for part in parts]) for name in head}
    return None if head is None else tuple(_cat(list(column)) for column in zip(*parts, strict=True))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, f"{name}[{key!r}]")
    elif isinstance(value, tuple | list):
        for index, part in enumerate(value):
            yield from _leaves(part, f"{name}[{index}]")
    elif value is not None:
        yield name, value


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Mapping):
        return {key: _map(part, change) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_map(part, change) for part in value)
    return None if value is None else change(value)

"""Sizes that a model's Python code holds as integers, followed to the axes that they name.

For the length of a run, integers that modules hold, and those that ``x.shape`` gives, are replaced
by integers that remember where they came from. Where one arrives as a size of a view, the axis
it names tells what the attribute must become when units go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from .._calls import CONVOLUTIONS, function_of
from .labels import Labeling, axes_of

LEAVES = (
    nn.Linear, _ConvNd, _NormBase, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.EmbeddingBag, nn.Bilinear
)  # fmt: skip
"""Layers whose sizes surgery reads off their weights."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """An integer that a module holds: ``module.name``, or ``module.name[index]``."""

    module: str
    name: str
    index: int | None = None

    def __str__(self) -> str:
        path = f"{self.module}.{self.name}" if self.module else self.name
        return path if self.index is None else f"{path}[{self.index}]"


class Computed(int):
    """An integer that code computes from sizes when it runs, so that it follows them by itself.

    >>> type(Computed(3) + 1) is type(2 * Computed(3)) is Computed
    True
    """

    def __add__(self, other: Any) -> Any:
        return _computed(int(self) + other)

    def __sub__(self, other: Any) -> Any:
        return _computed(int(self) - other)

    def __rsub__(self, other: Any) -> Any:
        return _computed(other - int(self))

    def __mul__(self, other: Any) -> Any:
        return _computed(int(self) * other)

    def __floordiv__(self, other: Any) -> Any:
        return _computed(int(self) // other)

    def __rfloordiv__(self, other: Any) -> Any:
        return _computed(other // int(self))

    __radd__, __rmul__ = __add__, __mul__

    def __deepcopy__(self, memo: Any) -> int:
        return int(self)

    def __reduce__(self) -> Any:
        return int, (int(self),)


def _computed(value: Any) -> Any:
    return Computed(value) if isinstance(value, int) else value


class Size(Computed):
    """An integer that remembers its origin, and keeps it when multiplied or divided by plain integers.

    >>> size = Size.of(12, "here")
    >>> (size * 2).factor, (2 * size // 3).factor, type(size + 1).__name__
    (Fraction(2, 1), Fraction(2, 3), 'Computed')
    """

    origin: Any
    factor: Fraction

    @classmethod
    def of(cls, value: int, origin: Any, factor: Fraction = Fraction(1)) -> Size:
        """A size with an origin; ``factor`` times the origin is its value."""
        size = cls(value)
        size.origin, size.factor = origin, factor
        return size

    def _scaled(self, value: int, factor: Fraction) -> Size:
        return Size.of(value, self.origin, self.factor * factor)

    def __mul__(self, other: Any) -> Any:
        return (
            self._scaled(int(self) * other, Fraction(other)) if type(other) is int else super().__mul__(other)
        )

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        if type(other) is int and other and int(self) % other == 0:
            return self._scaled(int(self) // other, Fraction(1, other))
        return super().__floordiv__(other)


@dataclass(slots=True)
class Use:
    """A size arrived: ``origin * factor`` is the length of the axis with these labels, or of a part of it."""

    origin: Any
    factor: Fraction
    labels: Tensor | None
    length: int
    part: bool = False
    place: str = ""


class View(NamedTuple):
    """A plain number was told a call as the length of an axis with these labels, (places, labels)."""

    call: str
    axis: int
    labels: Tensor


@contextmanager
def tagged(model: nn.Module) -> Iterator[None]:
    """The integers that modules other than known layers hold remember who they are, for the block."""
    changed: list[tuple[nn.Module, str, Any]] = []
    try:
        for name, module in model.named_modules():
            for key, value in list(vars(module).items()) if not isinstance(module, LEAVES) else ():
                if not key.startswith("_") and (marked := _marked(name, key, value)) is not None:
                    changed.append((module, key, value))
                    module.__dict__[key] = marked
        yield
    finally:
        for module, key, value in changed:
            module.__dict__[key] = value


def _marked(module: str, key: str, value: Any) -> Any:
    if type(value) is int and value > 1:
        return Size.of(value, Attribute(module, key))
    if type(value) in (tuple, list) and value and all(type(v) is int for v in value):
        parts = [Size.of(v, Attribute(module, key, i)) if v > 1 else v for i, v in enumerate(value)]
        return type(value)(parts)
    return None


def shape_of(tensor: Tensor, shape: torch.Size, fields: Sequence[Tensor]) -> torch.Size:
    """The shape, whose lengths along labelled axes remember those labels."""
    sizes: list[int] = list(shape)
    for axis in range(len(sizes)):
        labels = along(fields, axis)
        if labels is not None:
            sizes[axis] = Size.of(sizes[axis], labels)
    return torch.Size(sizes)


def along(fields: Sequence[Tensor], axis: int, places: int | None = None) -> Tensor | None:
    """The labels at each place along an axis, or the first, (places, labels), if a field varies along it."""
    for labels in fields:
        if labels.shape[axis] > 1:
            flat = labels.movedim(axis, 0)[:places]
            return flat.reshape(len(flat), -1)
    return None


VIEWS = frozenset("view reshape unflatten".split())
"""Functions that are told how to part an axis."""
MADE = frozenset("expand broadcast_to zeros ones full empty new_zeros new_ones new_full new_empty".split())
"""Functions whose result is the same all along an axis whose length they are told."""

TOLD = (
    VIEWS
    | MADE
    | CONVOLUTIONS
    | frozenset("split split_with_sizes group_norm layer_norm rms_norm slice __getitem__".split())
)
"""Functions that are told sizes of their result, or of a part of an operand."""


ALIGNED = frozenset("normalize take_along_dim expand_as cosine_similarity".split())
"""Functions that expand one of their arguments to the measure of another."""


def align(flow: Labeling, arguments: Sequence[Tensor], source: Tensor, out: Tensor) -> None:
    """Where a function expands one argument like the others, its new axes have the labels of theirs."""
    fields = list(flow.of(out))
    for axis in range(-out.ndim, 0):
        if out.shape[axis] > 1 and (-axis > source.ndim or source.shape[axis] == 1):
            like = [x for x in arguments if x.ndim >= -axis and x.shape[axis] == out.shape[axis]]
            found = [f for x in like for f in flow.of(x) if axes_of(f) == (axis + x.ndim,)]
            fields += [f.view([1] * (out.ndim - f.ndim) + list(f.shape)) for f in found[:1]]
    if fields:
        flow.fields[out] = fields


def told(
    flow: Labeling, key: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any
) -> Iterator[Use | View]:
    """What the lengths that a call was told say: of whom they are the size, and what must not be parted."""
    name = function_of(key)
    plain: list[int] = []
    named: list[int] = []
    for size, tensor, axis in arrivals(name, args, kwargs, out):
        if isinstance(size, Size) and (made := measured(flow, name, size, args, tensor, axis)) is not None:
            flow.fields[tensor] = [*flow.of(tensor), made]
            flow.active.setdefault(tensor, False)  # an initial state is read as those after it are
        labels = along(flow.of(tensor), axis, size)
        named.append(axis)
        if isinstance(size, Size):
            yield Use(size.origin, size.factor, labels, int(size), name in ("slice", "__getitem__"))
        elif labels is not None and name in VIEWS:
            plain += [] if isinstance(size, Computed) else [axis]
            yield View(key, axis, labels)
    for labels in flow.of(out) if plain else ():
        rest = [axis for axis in axes_of(labels) if axis not in named]
        if rest and max(rest) < max(plain):  # as in view(-1, 2): there can be fewer pairs
            flow.grid(labels, pinned=plain)


def measured(
    flow: Labeling, name: str, size: Size, args: tuple[Any, ...], result: Tensor, axis: int
) -> Tensor | None:
    """The labels of a new axis: of a labelled one that the code measured, or fresh ones for an attribute."""
    source = axis - result.ndim
    expands = name in ("expand", "broadcast_to")
    if name not in MADE or along(flow.of(result), axis) is not None:
        return None
    if expands and -source <= args[0].ndim and args[0].shape[source] > 1:
        return None
    if isinstance(size.origin, Attribute) and not expands:  # repeated key heads are no units of their own
        labels = flow.fresh(int(size))
    elif isinstance(size.origin, Tensor) and size.factor == 1 and size.origin.shape[1] == 1:
        labels = size.origin
    else:
        return None
    shape = [1] * result.ndim
    shape[axis] = int(size)
    return labels.reshape(shape)


def arrivals(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any
) -> Iterator[tuple[int, Tensor, int]]:
    """The lengths that a call was told, with the tensor and the axis whose first places each counts.

    It is the whole of an axis of a result; only the bounds of a slice lie along its operand.
    """
    results = [out] if isinstance(out, Tensor) else [o for o in out or () if isinstance(o, Tensor)]
    for tensor, axis, size in _named(name, args, kwargs, results) if results else ():
        if isinstance(size, int) and 0 < size <= tensor.shape[axis]:
            yield size, tensor, axis


def _named(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], results: Sequence[Tensor]
) -> Iterator[tuple[Tensor, int, Any]]:
    """Tensor, axis and what the call names as its size."""
    result = results[0]
    if name in MADE or name in ("view", "reshape"):
        given: Any = args[1:] if isinstance(args[0], Tensor) else args
        given = given[0] if given and isinstance(given[0], tuple | list) else given
        if len(given) == result.ndim:
            yield from ((result, axis, size) for axis, size in enumerate(given))
    elif name == "unflatten" and len(args) > 2:
        first = int(args[1]) % (result.ndim - len(args[2]) + 1)
        yield from ((result, first + i, size) for i, size in enumerate(args[2]))
    elif name in ("split", "split_with_sizes"):
        dim = int(kwargs.get("dim", args[2] if len(args) > 2 else 0)) % result.ndim
        parts = args[1] if isinstance(args[1], tuple | list) else [args[1]]
        yield from ((part, dim, size) for part, size in zip(results, parts, strict=False))
    elif name in ("layer_norm", "rms_norm"):
        given = kwargs.get("normalized_shape", args[1] if len(args) > 1 else ())
        yield from ((result, axis, size) for axis, size in enumerate(given, result.ndim - len(given)))
    elif name == "slice":
        yield from ((args[0], int(args[1]), bound) for bound in args[2:4])
    elif name == "__getitem__":
        yield from ((args[0], dim, bound) for dim, part in _slices(args) for bound in (part.start, part.stop))
    elif name == "group_norm" or name in CONVOLUTIONS:
        position = 1 if name == "group_norm" else 6
        groups = args[position] if len(args) > position else kwargs.get("num_groups", kwargs.get("groups", 1))
        if isinstance(groups, Size):
            yield result, 1, groups * (result.shape[1] // int(groups))


def _slices(args: tuple[Any, ...]) -> list[tuple[int, slice]]:
    """The axes that an index of slices alone takes parts of; none for any other index."""
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    if any(part is not Ellipsis and type(part) is not slice for part in index):
        return []
    before = index.index(Ellipsis) if Ellipsis in index else len(index)
    after = len(index) - before - 1
    dims = [*range(before), *([None, *range(args[0].ndim - after, args[0].ndim)] if after >= 0 else [])]
    pairs = zip(dims, index, strict=True)
    return [(d, part) for d, part in pairs if d is not None and part != slice(None)]


def loose(name: str, args: tuple[Any, ...]) -> bool:
    """Whether a split or a slice names its parts by sizes that can follow, each by one of its own."""
    if name in ("split", "split_with_sizes"):
        return isinstance(args[1], tuple | list) and all(isinstance(size, Computed) for size in args[1])
    if name == "slice" and len(args) <= 4:
        return _follows(args[0].shape[args[1]], args[2:])
    if name == "__getitem__" and isinstance(args[0], Tensor):
        parts = _slices(args)
        lengths = [args[0].shape[dim] for dim, _ in parts]
        whole = all(part.step in (None, 1) for _, part in parts)
        bounds = [(part.start, part.stop) for _, part in parts]
        return whole and bool(parts) and all(map(_follows, lengths, bounds))
    return False


def _follows(length: int, bounds: Sequence[Any]) -> bool:
    return all(bound in (None, 0) or bound > length or isinstance(bound, Size) for bound in bounds)

"""Layers as products: what a call reads, laid out in rows, times its weights, is what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from ._calls import function_of
from ._rng import stream
from .layers.recurrent import recur


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """One call of a linear layer: ``outputs(out) == rows(input) @ matrix() + bias``.

    Attributes:
        input: what is read.
        weight: the weights as the call was given them, (outputs, inputs) unless ``across``.
        bias: what is added to each output channel, or None.
        across: whether the weights are (inputs, outputs).
        channel: the axis of input and output along which the channels lie.

    >>> layer = reading(":linear#0", (torch.ones(5, 3), torch.ones(2, 3)), {})
    >>> layer.rows(layer.input).shape, layer.matrix().shape
    (torch.Size([5, 1, 1, 3]), torch.Size([1, 3, 2]))
    """

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    across: bool = False
    channel: int = -1

    @property
    def groups(self) -> int:
        """Groups of channels that are read apart."""
        return 1

    def rows(self, read: Tensor) -> Tensor:
        """What each place of the output reads: (examples, groups, places, features).

        A channel's features lie side by side, in the order of the channels.
        """
        return read.reshape(len(read), 1, -1, read.shape[-1])

    def outputs(self, out: Tensor) -> Tensor:
        """What was returned: (examples, groups, places, output channels of the group)."""
        return out.reshape(len(out), 1, -1, out.shape[-1])

    def matrix(self) -> Tensor:
        """The weights: (groups, features, output channels of the group)."""
        return (self.weight if self.across else self.weight.T)[None]

    def weights(self, matrix: Tensor) -> Tensor:
        """Such a matrix in the layout of ``weight``."""
        return matrix[0] if self.across else matrix[0].T


@dataclass(frozen=True, slots=True, eq=False)
class Convolution(Linear):
    """A convolution, in one to three dimensions.

    Attributes:
        stride, dilation: of the kernel.
        padding: places added before and behind, for each dimension.
        parts: groups of channels.
    """

    channel: int = 1
    stride: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()
    parts: int = 1

    @property
    def groups(self) -> int:
        return self.parts

    def rows(self, read: Tensor) -> Tensor:
        kernel = self.weight.shape[2:]
        rank = len(kernel)
        found = F.pad(read, [side for pair in reversed(self.padding) for side in pair])
        for axis, (size, step, gap) in enumerate(zip(kernel, self.stride, self.dilation, strict=True), 2):
            found = found.unfold(axis, gap * (size - 1) + 1, step)[..., ::gap]
        found = _apart(found, 1, self.groups)  # examples, groups, channels, places …, kernel …
        order = (0, 1, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
        return found.permute(order).flatten(2 + rank).flatten(2, 1 + rank)

    def outputs(self, out: Tensor) -> Tensor:
        return _apart(out.flatten(2), 1, self.groups).transpose(2, 3)

    def matrix(self) -> Tensor:
        return _apart(self.weight.flatten(1), 0, self.groups).transpose(1, 2)

    def weights(self, matrix: Tensor) -> Tensor:
        return matrix.transpose(1, 2).reshape(self.weight.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Upsampling(Convolution):
    """A transposed convolution: an ordinary one, by the mirrored kernel, of the input spread out.

    Attributes:
        spread: the distance at which the input's places are laid out.
    """

    spread: tuple[int, ...] = ()

    def rows(self, read: Tensor) -> Tensor:
        wide = read.new_zeros(
            *read.shape[:2],
            *(step * (n - 1) + 1 for n, step in zip(read.shape[2:], self.spread, strict=True)),
        )
        spots: tuple[Any, ...] = (..., *(slice(None, None, step) for step in self.spread))
        wide[spots] = read
        return Convolution.rows(self, wide)

    def matrix(self) -> Tensor:
        mirrored = self.weight.flip([*range(2, self.weight.ndim)])
        return _apart(mirrored, 0, self.groups).movedim(2, -1).flatten(1, -2)

    def weights(self, matrix: Tensor) -> Tensor:
        kernel = self.weight.shape[2:]
        apart: Tensor = matrix.unflatten(1, (-1, *kernel))
        mirrored = apart.movedim(-1, 2).flatten(0, 1)
        return mirrored.flip([*range(2, mirrored.ndim)])


def places(layer: Linear, out: Tensor, examples: int, each: int = 16) -> Tensor | None:
    """Which places of the output tell enough about the layer; None if all are needed.

    There are many in a feature map, and neighbours say nearly the same: ``each`` rows for each feature
    over all examples are taken, and never fewer than 16 times that many places of an example; which
    ones is drawn once.
    """
    total = out.numel() // (len(out) * out.shape[layer.channel])
    features = layer.matrix().shape[1]
    enough = max(16 * each, -(-each * features // max(examples, 1)))
    if total <= enough:
        return None
    return torch.from_numpy(stream(0, "places", total).permutation(total)[:enough]).sort().values


def reading(key: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Linear | None:
    """The layer that a call runs, or None if it is not a linear one.

    Args:
        key: the call's name.
        args: what it is given.
        kwargs: the same.

    >>> reading(":relu#0", (torch.ones(1),), {}) is None
    True
    """
    make = _READINGS.get(function_of(key))
    found = make(list(args), kwargs) if make else None
    apart = found is not None and found.input.ndim >= found.weight.ndim  # has an axis of examples
    return found if apart else None


def _named(names: str, args: Sequence[Any], kwargs: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    return {**defaults, **dict(zip(names.split(), args, strict=False)), **kwargs}


def _linear(args: Sequence[Any], kwargs: dict[str, Any]) -> Linear:
    given = _named("input weight bias", args, kwargs, bias=None)
    return Linear(given["input"], given["weight"], given["bias"])


def _step(args: Sequence[Any], kwargs: dict[str, Any]) -> Linear:
    return _linear(args[1:], kwargs)


def _product(args: Sequence[Any], kwargs: dict[str, Any]) -> Linear | None:
    given = _named("input other", args, {("other" if k == "mat2" else k): v for k, v in kwargs.items()})
    return Linear(given["input"], given["other"], across=True) if given["other"].ndim == 2 else None


def _sum(args: Sequence[Any], kwargs: dict[str, Any]) -> Linear | None:
    given = _named("input mat1 mat2", args, kwargs, beta=1, alpha=1)
    if given["beta"] != 1 or given["alpha"] != 1:
        return None
    return Linear(given["mat1"], given["mat2"], given["input"], across=True)


def _convolution(args: Sequence[Any], kwargs: dict[str, Any]) -> Linear:
    names = "input weight bias stride padding dilation groups"
    given = _named(names, args, kwargs, bias=None, stride=1, padding=0, dilation=1, groups=1)
    kernel = given["weight"].shape[2:]
    dilation = _each(given["dilation"], kernel)
    return Convolution(
        given["input"],
        given["weight"],
        given["bias"],
        stride=_each(given["stride"], kernel),
        padding=_sides(given["padding"], kernel, dilation),
        dilation=dilation,
        parts=given["groups"],
    )


def _upsampling(args: Sequence[Any], kwargs: dict[str, Any]) -> Linear:
    names = "input weight bias stride padding output_padding groups dilation"
    defaults = {"bias": None, "stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}
    given = _named(names, args, kwargs, **defaults)
    kernel = given["weight"].shape[2:]
    dilation, padding, more = (_each(given[n], kernel) for n in ("dilation", "padding", "output_padding"))
    full = [gap * (size - 1) - less for gap, size, less in zip(dilation, kernel, padding, strict=True)]
    return Upsampling(
        given["input"],
        given["weight"],
        given["bias"],
        stride=(1,) * len(kernel),
        padding=tuple((side, side + extra) for side, extra in zip(full, more, strict=True)),
        dilation=dilation,
        parts=given["groups"],
        spread=_each(given["stride"], kernel),
    )


def within(part: Tensor, positions: Tensor, axis: int) -> Tensor:
    """Which of some positions along an axis of a parameter a view of it covers, counted from its start.

    Args:
        part: the parameter, a run of its rows, or either transposed.
        positions: along the parameter's axis, ascending.
        axis: of the parameter.

    >>> query, key = torch.zeros(6, 2).chunk(2)
    >>> within(key.T, torch.tensor([1, 3, 5]), 0)
    tensor([0, 2])
    """
    whole = part._base
    if whole is None or part.numel() == whole.numel():
        return positions
    step = whole.stride(axis)
    start = (part.storage_offset() - whole.storage_offset()) // step % whole.shape[axis]
    length = max(size for size, gap in zip(part.shape, part.stride(), strict=True) if gap == step)
    return positions[(positions >= start) & (positions < start + length)] - start


def _apart(value: Tensor, axis: int, groups: int) -> Tensor:
    """An axis of channels as one of groups and one of their channels."""
    shape = value.shape
    return value.reshape(*shape[:axis], groups, -1, *shape[axis + 1 :])


def _each(value: Any, kernel: Sequence[int]) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * len(kernel) if len(values) == 1 else values


def _sides(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
    if padding == "same":
        totals = [gap * (size - 1) for gap, size in zip(dilation, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((side, side) for side in _each(0 if padding == "valid" else padding, kernel))


_READINGS: dict[str, Callable[[Sequence[Any], dict[str, Any]], Linear | None]] = {
    "linear": _linear,
    recur.__name__: _step,
    "addmm": _sum,
    **dict.fromkeys(("matmul", "__matmul__", "mm"), _product),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _upsampling),
}
"""Functions of torch to how their arguments are read."""

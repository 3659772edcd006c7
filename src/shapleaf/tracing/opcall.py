"""One ATen call as the rules see it, and what they tell the tracer about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from .._context import tensors
from .labels import Fields, Labeling


class Contraction(NamedTuple):
    """One multiply-accumulate op: ``scale`` times the lengths of its labelled axes, per run."""

    call: str
    scale: float
    axes: list[Tensor]


class Consumed(NamedTuple):
    """These labels of an activation are read here and go no further; the reader's own, if it has any.

    Where ``squares``, a statistic is taken of squares.
    """

    operand: Tensor
    labels: Tensor
    reader: Tensor | None
    squares: bool = False


@dataclass(slots=True)
class OpCall:
    """One ATen call on its way through the rules; where ``loose``, the lengths of its parts can follow."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    flow: Labeling
    name: str
    place: Callable[[], str]
    key: str
    loose: bool = False
    consumed: list[Consumed] = field(default_factory=list)
    contractions: list[Contraction] = field(default_factory=list)

    tensors: list[Tensor] = field(init=False)
    outputs: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.tensors, self.outputs = tensors((self.args, self.kwargs)), tensors(self.out)

    def why(self, text: str) -> str:
        return f"{text} ({self.name} in {self.place()})"

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def value(self, name: str) -> Any:
        """An argument by its name in the op's schema; its default where it was not given."""
        for position, argument in enumerate(self.func._schema.arguments):
            if argument.name == name:
                given = self.args[position] if position < len(self.args) else None
                return self.kwargs.get(name, argument.default_value if given is None else given)
        return None

    def past(self, tensor: Tensor, axes: Iterable[int], text: str) -> Fields:
        """The fields of an operand behind an op that works along some axes and keeps to itself on others."""
        worked, reason = tuple(axes), self.why(text)
        return [left for labels in self.flow.of(tensor) for left in self.flow.pin(labels, worked, reason)]

    def give(self, tensor: Tensor, fields: Fields) -> None:
        if fields:
            self.flow.fields[tensor] = fields
        elif tensor in self.flow.fields:
            del self.flow.fields[tensor]

    def active(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on the inputs; masks can only be laid on those that do."""
        return tensor in self.flow.active

    def consume(
        self, operand: Tensor, labels: Tensor, reader: Tensor | None = None, *, squares: bool = False
    ) -> None:
        """Here a consumer reads these labels of an activation; their identity ends."""
        self.consumed.append(Consumed(operand, labels, reader, squares))

    def per_channel(self, *tensors: Tensor) -> list[tuple[Fields, list[int]]]:
        """Operands with one value per channel, laid along the second axis of the output."""
        rest = [1] * (self.outputs[0].ndim - 2)
        shapes = [[1, len(tensor), *rest] for tensor in tensors]
        fields = [self.flow.of(tensor) for tensor in tensors]
        return [([f.view(shape) for f in mine], shape) for mine, shape in zip(fields, shapes, strict=True)]

    def freeze(self, fields: Sequence[Tensor], text: str) -> None:
        for labels in fields:
            self.flow.freeze(labels, self.why(text))


Rule = Callable[[OpCall], None]
"""Sees one call and gives its outputs their fields."""

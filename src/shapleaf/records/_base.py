"""What every record shares: value equality, printing as a table, saving and loading."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from dataclasses import fields
from typing import Any, ClassVar, TypeGuard, TypeVar

import torch

from .. import _store, _table

R = TypeVar("R", bound="Record")


def _equal(a: Any, b: Any) -> bool:
    """Equality by value, in which a NaN equals a NaN."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        a, b = a.cpu(), b.cpu()
        same = a.dtype == b.dtype and a.shape == b.shape
        return same and bool(((a == b) | (a.isnan() & b.isnan())).all())
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list) and type(a) is type(b):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    if _is_number(a) and _is_number(b):
        return a == b or (math.isnan(a) and math.isnan(b))
    return type(a) is type(b) and bool(a == b)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Part:
    """Value equality for frozen dataclasses that may hold tensors; hence unhashable."""

    __slots__ = ()
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(
            _equal(getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)  # type: ignore[arg-type]
        )

    __hash__ = None  # type: ignore[assignment]


class Record(Part, ABC):
    """A part that stands on its own: it prints as a table and lives in one file."""

    __slots__ = ()

    @abstractmethod
    def table(self) -> dict[str, Any]:
        """What is printed: ``title``, ``header``, ``rows`` and an optional ``footer``."""

    def __str__(self) -> str:
        return _table.text(**self.table())

    def _repr_html_(self) -> str:
        return _table.to_html(**self.table())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record to one safetensors file, atomically.

        Raises:
            DataError: the place cannot be written; what was there before is intact.
        """
        _store.save(self, path)

    @classmethod
    def load(cls: type[R], path: str | os.PathLike[str]) -> R:
        """Read a record back; it compares equal to the one saved.

        Raises:
            DataError: the file is missing, damaged, or holds something else.
        """
        return _store.load(cls, path)

    def to_json(self) -> Any:
        """The record as plain JSON values, tensors as nested lists."""
        return _store.to_jsonable(self)

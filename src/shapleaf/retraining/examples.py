"""Training examples by number: tensors in memory, or a Dataset that is read item by item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, default_collate

from .. import _context
from ..data import Batch
from ..errors import DataError
from .checkpoints import digest


class Examples:
    """Labelled examples that can be picked by number.

    Args:
        data: a tuple ``(inputs, targets)`` of tensors, a :class:`shapleaf.data.Batch` that holds
            all examples, or a map-style Dataset of ``(input, target)``, which is read anew in every epoch.

    Raises:
        DataError: it is nothing of the kind, or empty.

    >>> import torch
    >>> examples = Examples((torch.arange(4.0), torch.arange(4)))
    >>> len(examples), examples.pick(torch.tensor([2, 0]))[0].tolist()
    (4, [2.0, 0.0])
    """

    def __init__(self, data: Any) -> None:
        whole = Batch(*data) if isinstance(data, tuple) and len(data) == 2 else data
        if isinstance(whole, Batch):
            tensors = _context.tensors((whole.inputs, whole.target))
            if whole.target is None or not tensors or len({len(tensor) for tensor in tensors}) > 1:
                shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
                raise DataError(
                    "training data must be tensors (inputs, targets) with as many targets as inputs; "
                    f"received {shapes or type(data).__name__}."
                )
            self._whole: Batch | None = whole
            self._length, self.name = len(tensors[0]), digest(*tensors)
        elif isinstance(data, Dataset) and not isinstance(data, IterableDataset):
            self._whole, self._dataset = None, data
            self._length = len(data)  # type: ignore[arg-type]
            self.name = f"{type(data).__name__} of {self._length}"
        else:
            raise DataError(
                "training data must be tensors (inputs, targets), or a map-style Dataset, so that examples "
                f"can be picked by number; received {type(data).__name__}."
            )
        if not self._length:
            raise DataError("the training data are empty.")

    def __len__(self) -> int:
        return self._length

    def pick(self, ids: Tensor) -> tuple[Any, Any]:
        """Inputs and targets of some examples."""
        if self._whole is not None:
            inputs, target = _context.picked((self._whole.inputs, self._whole.target), ids)
            return inputs, target
        item = default_collate([self._dataset[index] for index in ids.tolist()])
        if isinstance(item, Mapping) or not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(
                f"this {type(self._dataset).__name__} yields {type(item).__name__}, "
                "expected items (input, target)."
            )
        return item[0], item[1]

"""The examples of a tuning: those that are attributed, those that select, those that test; all apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from .. import _context
from ..data import Batch, Batches, batches
from ..errors import DataError
from ..retraining.checkpoints import digest


def parts(reference: Any, selection: Any, test: Any) -> dict[str, Batches]:
    """The three parts by name, in memory.

    Raises:
        DataError: one is empty or unlabelled, or two have an example in common.

    >>> import torch
    >>> x, y = torch.arange(6.0)[:, None], torch.zeros(6, dtype=torch.long)
    >>> parts((x[:1], y[:1]), (x[1:3], y[1:3]), (x[3:], y[3:]))["test"]
    Batches(3 examples in 1 batches)
    """
    given = {"reference": reference, "selection": selection, "test": test}
    found = {name: Batches(tuple(batches(data))) for name, data in given.items()}
    for one, other in combinations(found, 2):
        _apart(one, _examples(found[one]), other, _examples(found[other]))
    return found


def _apart(one: str, mine: list[bytes], other: str, theirs: list[bytes]) -> None:
    places = {example: place for place, example in enumerate(theirs)}
    shared = [(place, places[example]) for place, example in enumerate(mine) if example in places]
    if shared:
        here, there = shared[0]
        raise DataError(
            f"the {one} and the {other} examples share {len(shared)} of {len(mine)}: example {here} of the "
            f"{one} is example {there} of the {other}. What was fitted to an example says nothing when it is "
            f"measured on it; draw the parts from examples that differ, such as images.without(sample.ids)."
        )


def _examples(data: Batches) -> list[bytes]:
    """A digest of the inputs of each example, whatever batch it is in."""
    return [
        bytes.fromhex(digest(*_context.tensors(batch[place : place + 1].inputs)))
        for batch in data
        for place in range(batch.examples)
    ]


def told(data: Mapping[str, Batches]) -> dict[str, str]:
    """A digest of each part's examples and labels, whatever their batches.

    >>> import torch
    >>> one, two = torch.zeros(2, 1), torch.ones(2, dtype=torch.long)
    >>> a = Batches(tuple(batches((one, two))))
    >>> told({"a": a}) == told({"a": Batches(tuple(batches((one, two), batch_size=1)))})
    True
    """

    def one(batch: Batch) -> list[str]:
        pieces = (batch[place : place + 1] for place in range(batch.examples))
        return [digest(*_context.tensors((piece.inputs, piece.target))) for piece in pieces]

    return {
        name: hashlib.blake2b(
            "".join(x for batch in part for x in one(batch)).encode(), digest_size=8
        ).hexdigest()
        for name, part in data.items()
    }

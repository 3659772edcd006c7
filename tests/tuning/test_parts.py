"""Reference, selection and test examples have nothing in common."""

from __future__ import annotations

import pytest
import torch

from shapleaf.errors import DataError
from shapleaf.tuning.parts import parts, told

X, Y = torch.arange(24.0).reshape(6, 4), torch.arange(6)


def test_parts_in_memory_whatever_their_batches() -> None:
    found = parts((X[:2], Y[:2]), [(X[2:3], Y[2:3]), (X[3:4], Y[3:4])], iter([(X[4:], Y[4:])]))
    assert [part.examples for part in found.values()] == [2, 2, 2]
    assert [len(part) for part in found.values()] == [1, 2, 1]


def test_a_shared_example_is_told_wherever_it_stands() -> None:
    """Labels may differ, and shapes are not compared by their bytes alone."""
    twice = torch.cat([X[3:5], X[:2]])
    with pytest.raises(DataError, match="reference and the selection examples share 2 of 3: example 0"):
        parts((X[:3], Y[:3]), [(twice[:1], Y[:1]), (twice[1:], Y[1:4])], (X[5:], Y[5:]))
    with pytest.raises(DataError, match=r"selection and the test .* example 1 of the selection is example 0"):
        parts((X[:1], Y[:1]), (X[1:3], Y[1:3]), (X[2:3], Y[5:]))
    flat, square = X[:2], X[:2].reshape(2, 2, 2)
    assert parts((flat, Y[:2]), (square, Y[:2]), (X[2:], Y[2:]))


def test_inputs_of_several_tensors() -> None:
    def pair(*rows: int) -> dict[str, torch.Tensor]:
        index = torch.tensor(rows)
        return {"a": X[index], "b": X[index * 0], "labels": Y[index]}

    assert parts(pair(0, 1), pair(2), pair(3))
    with pytest.raises(DataError, match="share 1 of 1"):
        parts(pair(0, 1), pair(2), pair(2))


def test_unlabelled_or_empty() -> None:
    with pytest.raises(DataError, match="has no target"):
        parts(X[:1], (X[1:2], Y[1:2]), (X[2:], Y[2:]))


def test_digests_tell_labels_and_order() -> None:
    def digest(x: torch.Tensor, y: torch.Tensor) -> str:
        return told(parts((x, y), (X[4:5], Y[:1]), (X[5:], Y[:1])))["reference"]

    found = [digest(X[:2], Y[:2]), digest(X[:2], Y[1:3]), digest(X[:2].flip(0), Y[:2].flip(0))]
    assert len(set(found)) == 3

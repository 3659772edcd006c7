"""Examples by number, of whatever kind the data are."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

import shapleaf as sl
from shapleaf.data import Batch
from shapleaf.integrations.datasets import load_data
from shapleaf.retraining.examples import Examples

X, Y = torch.arange(12.0).view(6, 2), torch.arange(6)


@pytest.mark.parametrize("data", [(X, Y), Batch(X, Y), TensorDataset(X, Y)])
def test_they_are_picked_by_number(data: object) -> None:
    examples = Examples(data)
    assert len(examples) == 6
    inputs, target = examples.pick(torch.tensor([4, 1]))
    assert inputs.tolist() == [[8, 9], [2, 3]]
    assert target.tolist() == [4, 1]


def test_images_are_a_dataset() -> None:
    images = load_data("digits", split="test")
    inputs, target = Examples(images).pick(torch.tensor([7, 3]))
    whole, labels = images.tensors()
    assert torch.equal(inputs, whole[[7, 3]])
    assert torch.equal(target, labels[[7, 3]])


def test_several_inputs() -> None:
    inputs, _ = Examples((({"a": X, "b": Y}), Y)).pick(torch.tensor([5]))
    assert (inputs["a"].tolist(), inputs["b"].tolist()) == ([[10, 11]], [5])


def test_data_have_a_name_of_their_own() -> None:
    assert Examples((X, Y)).name == Examples((X.clone(), Y)).name
    assert Examples((X, Y)).name != Examples((X + 1, Y)).name
    assert Examples(TensorDataset(X, Y)).name == "TensorDataset of 6"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y[:5]), "as many targets as inputs"),
        (Batch(X), "as many targets as inputs"),
        ([(X, Y)], "received list"),
        ((X[:0], Y[:0]), "are empty"),
        (("a", "b"), "received tuple"),
    ],
)
def test_unusable(data: object, message: str) -> None:
    with pytest.raises(sl.DataError, match=message):
        Examples(data)


def test_items_that_are_no_pairs() -> None:
    with pytest.raises(sl.DataError, match="TensorDataset yields list, expected items"):
        Examples(TensorDataset(X)).pick(torch.tensor([0]))

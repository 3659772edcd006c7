"""Examples drawn from data: some of all, some of each class, the same however the data are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from rows import Rows, X, Y
from shapleaf.data import Batch, Batches, per_class, take
from shapleaf.errors import DataError
from shapleaf.integrations.datasets import load_data


def targets(found) -> list[int]:
    return [label for batch in found for label in batch.target.tolist()]


# a calibration set


def test_take_recuts_the_first_examples():
    found = take([(X[:3], Y[:3]), (X[3:], Y[3:])], 7, batch_size=2)
    assert [batch.first for batch in found] == [0, 2, 4, 6]
    assert targets(found) == list(range(7))
    assert (found.examples, len(found)) == (7, 4)
    assert targets(found) == list(range(7)), "it can be gone through again"


def test_take_keeps_the_structure_of_inputs():
    data = [{"a": X[:3], "b": X[:3] + 1, "labels": Y[:3]}, {"a": X[3:], "b": X[3:] + 1, "labels": Y[3:]}]
    (batch,) = take(data, 5)
    assert torch.equal(batch.inputs["b"], X[:5] + 1)
    (batch,) = take([((X[:3], X[:3]), Y[:3]), ((X[3:], X[3:]), Y[3:])], 5, seed=1)
    assert torch.equal(batch.inputs[0], X[batch.target])
    (batch,) = take([X[:3], X[3:]], 5, labelled=False)
    assert batch.target is None


def test_take_reads_no_more_than_it_needs():
    reads = []

    def loader():
        for start in (0, 5):
            reads.append(start)
            yield X[start : start + 5], Y[start : start + 5]

    assert take(loader(), 5).examples == 5
    assert reads == [0]
    rows = Rows()
    assert take(rows, 4).examples == 4
    assert rows.read == [0, 1, 2, 3]


def test_a_seeded_draw_is_the_same_from_every_source():
    expected = targets(take((X, Y), 4, seed=7))
    assert len(set(expected)) == 4
    assert expected != [0, 1, 2, 3]
    rows = Rows()
    for source in (rows, DataLoader(Rows(), batch_size=3), DataLoader(Rows(), batch_size=10), [(X, Y)]):
        found = take(source, 4, seed=7, batch_size=3)
        assert targets(found) == expected
        assert torch.equal(torch.cat([batch.inputs for batch in found]), X[expected])
    assert rows.read == expected
    assert targets(take((X, Y), 4, seed=8)) != expected


def test_a_seeded_draw_is_uniform():
    counts = torch.zeros(10)
    for seed in range(400):
        counts[targets(take((X, Y), 3, seed=seed))] += 1
    assert (counts - 120).abs().max() < 40, "four standard deviations of a binomial(400, 0.3) are 37"


def test_a_seeded_draw_leaves_torch_alone():
    before = torch.get_rng_state()
    take((X, Y), 4, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("data", [(X, Y), Rows(), [(X, Y)]])
def test_take_refuses_more_than_there_is(data, seed):
    assert take(data, 10, seed=seed).examples == 10
    with pytest.raises(DataError, match="11 examples were asked for, but the data have only 10"):
        take(data, 11, seed=seed)


@pytest.mark.parametrize("seed", [None, 0])
def test_take_needs_examples_of_one_shape(seed):
    with pytest.raises(DataError, match="the batches cannot be joined, their examples differ.*one shape"):
        take([(torch.zeros(2, 3), Y[:2]), (torch.zeros(2, 4), Y[:2])], 4, seed=seed)
    with pytest.raises(DataError, match="the batches cannot be joined"):
        take([{"a": X, "y": Y}, {"b": X, "y": Y}], 20, seed=seed)


def test_take_checks_its_numbers_and_batches():
    with pytest.raises(DataError, match="n must be at least 1, received 0"):
        take((X, Y), 0, seed=1)
    with pytest.raises(DataError, match="has no target"):
        take([X], 2)

    class Ragged(Rows):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.zeros(index + 1), index

    with pytest.raises(DataError, match="the examples cannot be put in one batch"):
        take(Ragged(), 2)


# some of each class

CLASSES = torch.tensor([0, 1, 2, 1, 0, 1, 5, 5, 1, 0])  # 3 of class 0, 4 of 1, 1 of 2, 2 of 5


class Labelled(Rows):
    """Rows whose classes are at hand; the labels that they yield may differ."""

    def __init__(self, labels: Any, yields: Any = None) -> None:
        super().__init__()
        self.targets, self.yields = labels, labels if yields is None else yields

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.read.append(index)
        return X[index], int(self.yields[index])


def places(found: Batches) -> list[int]:
    """Which rows of X were drawn, in order."""
    return [int(row[0]) // 2 for batch in found for row in batch.inputs]


def test_every_class_in_rounds() -> None:
    found = per_class((X, CLASSES), 2, classes=(1, 0, 5), batch_size=4)
    assert [batch.target.tolist() for batch in found] == [[1, 0, 5, 1], [0, 5]]
    assert len(set(places(found))) == 6
    assert [int(CLASSES[place]) for place in places(found)] == targets(found)


def test_all_classes_that_occur_or_all_examples() -> None:
    assert targets(per_class((X, CLASSES), 1)) == [0, 1, 2, 5]
    everything = per_class((X, CLASSES), None, classes=(5, 0))
    assert sorted(places(everything)) == [0, 4, 6, 7, 9]
    assert targets(everything) == [5, 0, 5, 0, 0]


def test_the_draw_is_the_same_from_every_source() -> None:
    data = [(X[:3], CLASSES[:3]), (X[3:8], CLASSES[3:8]), (X[8:], CLASSES[8:])]
    expected = places(per_class((X, CLASSES), 2, classes=(0, 1), seed=3))
    rows = Labelled(CLASSES)
    for source in (
        data, DataLoader(TensorDataset(X, CLASSES), batch_size=4), TensorDataset(X, CLASSES),
        Batches((Batch(X, CLASSES),)), {"x": X, "label": CLASSES}, rows, Labelled(CLASSES.tolist()),
        Labelled(CLASSES.numpy()), (batch for batch in data),
    ):  # fmt: skip
        found = per_class(source, 2, classes=(0, 1), seed=3, batch_size=3)
        inputs = [b.inputs["x"] if isinstance(b.inputs, dict) else b.inputs for b in found]
        assert [int(row[0]) // 2 for part in inputs for row in part] == expected
    assert rows.read == expected  # and no others


@given(seed=st.integers(0, 99), n=st.integers(1, 3), size=st.integers(1, 10))
def test_draws_are_nested_and_classes_apart(seed: int, n: int, size: int) -> None:
    """Fewer of each come first among more, and other classes make no difference."""
    more = places(per_class((X, CLASSES), 3, classes=(0, 1), seed=seed))
    found = places(per_class((X, CLASSES), n, classes=(0, 1), seed=seed, batch_size=size))
    assert found == more[: 2 * n]
    assert places(per_class((X, CLASSES), n, classes=(1,), seed=seed)) == found[1::2]


def test_every_example_is_drawn_as_often() -> None:
    counts = torch.zeros(10)
    for seed in range(400):
        counts[places(per_class((X, CLASSES), 2, classes=(0, 1), seed=seed))] += 1
    assert (counts[[0, 4, 9]] - 400 * 2 / 3).abs().max() < 40, "four deviations are 38"
    assert (counts[[1, 3, 5, 8]] - 200).abs().max() < 40
    assert not counts[[2, 6, 7]].any()


def test_classes_can_be_drawn_too() -> None:
    drawn = [tuple(targets(per_class((X, CLASSES), 1, classes=2, seed=seed))) for seed in range(200)]
    assert all(len(set(pair)) == 2 for pair in drawn)
    assert list(drawn[0]) == targets(per_class(Labelled(CLASSES), 1, classes=2, seed=0))
    counts = torch.tensor([sum(k in pair for pair in drawn) for k in (0, 1, 2, 5)])
    assert (counts - 100).abs().max() < 30, "four deviations are 28"


def test_classes_are_whole_numbers_of_any_kind() -> None:
    few, some = targets(per_class((X, CLASSES), 2, classes=(5, 0))), per_class((X, CLASSES), 1, classes=2)
    for classes in (np.array([5, 0]), torch.tensor([5, 0]), (np.int64(5), torch.tensor(0))):
        assert targets(per_class((X, CLASSES), 2, classes=classes)) == few
    for count in (np.int64(2), torch.tensor(2)):
        assert targets(per_class((X, CLASSES), 1, classes=count)) == targets(some)
    assert targets(per_class((X, CLASSES), 2, classes=torch.tensor([5]))) == [5, 5]


@pytest.mark.parametrize("kind", [list, np.array])
def test_labels_that_are_names_are_no_classes(kind: Any) -> None:
    """The examples say of which class they are."""
    rows = Labelled(kind([f"class {k}" for k in CLASSES.tolist()]), CLASSES)
    expected = per_class((X, CLASSES), 2, classes=(0, 1), seed=3)
    assert places(per_class(rows, 2, classes=(0, 1), seed=3)) == places(expected)


def test_random_numbers_of_others_are_left_alone() -> None:
    before = torch.get_rng_state()
    per_class(TensorDataset(X, CLASSES), 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_of_the_library() -> None:
    images = load_data("digits", split="test")
    found = per_class(images, 3, classes=(7, 2), seed=1, batch_size=5)
    assert [batch.inputs.shape for batch in found] == [(5, 1, 16, 16), (1, 1, 16, 16)]
    assert targets(found) == [7, 2, 7, 2, 7, 2]
    again = per_class(images.batches(64), 3, classes=(7, 2), seed=1, batch_size=6)
    assert torch.equal(torch.cat([batch.inputs for batch in found]), again[0].inputs)


@pytest.mark.parametrize("source", [(X, CLASSES), Labelled(CLASSES)], ids=["pair", "dataset"])
def test_too_few_of_a_class(source: Any) -> None:
    with pytest.raises(DataError, match="4 examples.*class 0 has 3, class 2 has 1, class 5 has 2;"):
        per_class(source, 4)
    with pytest.raises(DataError, match=r"2 examples.*class 9 has none, class 2 has 1; .*\(classes=...\)"):
        per_class(source, 2, classes=(9, 0, 2))
    with pytest.raises(DataError, match="all examples of each class were asked for, but class 9 has none"):
        per_class(source, None, classes=(9,))
    with pytest.raises(DataError, match="classes=5: from 1 to 4 can be drawn"):
        per_class(source, 1, classes=5)


@pytest.mark.parametrize(
    ("data", "n", "options", "message"),
    [
        ((X, CLASSES), 0, {}, "n must be at least 1, or None for all, received 0"),
        ((X, CLASSES), 1, {"classes": ()}, r"each once, received \(\)"),
        ((X, CLASSES), 1, {"classes": (1, 1)}, r"each once, received \(1, 1\)"),
        ((X, CLASSES), 1, {"classes": (0.5,)}, "numbers of classes"),
        ((X, CLASSES), 1, {"classes": 2.0}, r"each once, received \(2.0,\)"),
        ((X, CLASSES), 1, {"classes": True}, r"each once, received \(True,\)"),
        ((X, CLASSES), 1, {"classes": "01"}, r"each once, received \('0', '1'\)"),
        ((X, CLASSES), 1, {"classes": 0}, "from 1 to 4 can be drawn"),
        ((X, CLASSES.double()), 1, {}, r"whole numbers of shape \(10,\).*torch.float64 \(10,\)"),
        ((X, CLASSES[:, None]), 1, {}, r"torch.int64 \(10, 1\)"),
        ([X], 1, {}, "has no target"),
        (Labelled(CLASSES, CLASSES + 1), 1, {}, "of class 1, but the Dataset lists it as of 0; pass torch"),
    ],
)
def test_what_cannot_be_drawn_from(data: Any, n: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        per_class(data, n, **options)

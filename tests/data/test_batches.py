"""Any iterable of batches, one way."""

from __future__ import annotations

from collections import UserDict

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from rows import Rows, X, Y
from shapleaf.data import Batch, Batches, batches, repeatable, shard, take
from shapleaf.errors import DataError


class Stream(IterableDataset):
    def __iter__(self):
        yield X[:4], Y[:4]
        yield X[4:], Y[4:]


def targets(found) -> list[int]:
    return [label for batch in found for label in batch.target.tolist()]


# what a batch may be


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        [(X[:4], Y[:4]), (X[4:], Y[4:])],
        ((X[:4], Y[:4]), (X[4:], Y[4:])),
        [[X[:4], Y[:4]], [X[4:], Y[4:]]],
        DataLoader(TensorDataset(X, Y), batch_size=3),
        DataLoader(Rows(), batch_size=3),
        DataLoader(Stream(), batch_size=None),
        Stream(),
        Batch(X, Y),
        Batches((Batch(X[:4], Y[:4]), Batch(X[4:], Y[4:], first=4))),
    ],
    ids=["pair", "list", "tuple", "lists", "loader", "rows", "stream loader", "stream", "batch", "batches"],
)
def test_every_kind_of_data_gives_the_same_examples(data):
    found = list(batches(data))
    assert torch.equal(torch.cat([batch.inputs for batch in found]), X)
    assert targets(found) == list(range(10))
    assert [batch.first for batch in found] == [int(batch.target[0]) for batch in found]


@pytest.mark.parametrize("name", ["label", "labels", "target", "targets", "y"])
@pytest.mark.parametrize("kind", [dict, UserDict])
def test_a_mapping_is_keyword_inputs_and_a_target(name, kind):
    (batch,) = batches([kind({"pixel_values": X, name: Y, "mask": X > 3})])
    assert list(batch.inputs) == ["pixel_values", "mask"]
    assert batch.inputs["pixel_values"] is X
    assert batch.target is Y


@pytest.mark.parametrize("wrap", [lambda x: (x, Y), lambda x: [(x, Y)], lambda x: [({"x": (2 * x,)}, Y)]])
def test_data_are_no_variables(wrap):
    (batch,) = batches(wrap(X.clone().requires_grad_()))
    (inputs,) = batch.inputs["x"] if isinstance(batch.inputs, dict) else (batch.inputs,)
    assert not inputs.requires_grad


def test_one_batch_of_all_examples_is_cut():
    data = {"a": X, "labels": Y}
    assert [(batch.first, batch.examples) for batch in batches(data, batch_size=4)] == [
        (0, 4),
        (4, 4),
        (8, 2),
    ]
    assert [batch.inputs["a"].tolist() for batch in batches(data, batch_size=9)][1] == [[18.0, 19.0]]
    assert [batch.examples for batch in batches(((X, X), Y), batch_size=6)] == [6, 4]


def test_positional_inputs_stay_a_tuple():
    (batch,) = batches([((X, X + 1), Y)])
    assert isinstance(batch.inputs, tuple)
    assert torch.equal(batch.inputs[1], X + 1)


@pytest.mark.parametrize("data", [X, [X], [[X]], [{"x": X}], [(X, None)]])
def test_unlabelled_batches_pass_where_no_target_is_needed(data):
    (batch,) = batches(data, labelled=False)
    assert batch.target is None
    assert batch.examples == 10


def test_labels_are_kept_where_they_are_not_needed():
    (batch,) = batches((X, Y), labelled=False)
    assert batch.target.tolist() == list(range(10))


def test_limit_counts_examples_and_stops_reading():
    reads = []

    def loader():
        for start in range(0, 10, 4):
            reads.append(start)
            yield X[start : start + 4], Y[start : start + 4]

    assert [batch.examples for batch in batches(loader(), limit=6)] == [4, 2]
    assert reads == [0, 4]
    assert [batch.examples for batch in batches(loader(), limit=8)] == [4, 4]
    assert targets(batches(loader(), limit=100)) == list(range(10))


def test_everything_moves_to_the_device():
    (batch,) = batches([({"a": X, "b": (X,)}, Y)], device="meta")
    assert {batch.inputs["a"].device.type, batch.inputs["b"][0].device.type, batch.target.device.type} == {
        "meta"
    }
    assert take((X, Y), 3, device="meta")[0].inputs.is_meta


# what is refused


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the data are empty: this list yielded no batch"),
        (iter([]), "exhausted: a generator can be gone through only once"),
        (None, "iterable of batches, such as a DataLoader.*received NoneType"),
        (3, "received int"),
        (X, "at example 0 has no target.*received Tensor"),
        ([X], "has no target"),
        ([{"x": X}], "one of label, labels, target, targets, y"),
        ([(X, Y), (X, None)], "at example 10 has no target"),
        ([{"x": X, "label": Y, "y": Y}], "several targets: label, y"),
        ([(X, X, Y)], r"has 3 items, expected \(inputs, target\).*\(\(a, b\), target\)"),
        ([(X, Y[:7])], r"differs in its number of examples \(dim 0\): inputs 10, target 7"),
        ([({"a": X, "b": X[:2]}, Y)], r"inputs\['a'\] 10, inputs\['b'\] 2, target 10"),
        ([(X[:0], Y[:0])], "is empty: it has no examples"),
        ([({}, Y)], "is empty"),
        ([(X[0, 0], 3)], "single number.*DataLoader"),
        ([(X, 3)], "target of the batch at example 0 is a int, expected a tensor.*DataLoader"),
        ([(X.tolist(), Y)], r"inputs\[0\]\[0\] of the batch at example 0 is a float, expected a tensor"),
        (Rows(), r"this Rows yields single examples.*DataLoader\(dataset, batch_size=100\)"),
    ],
)
def test_unusable_data_say_what_is_wrong(data, message):
    with pytest.raises(DataError, match=f"(?s){message}"):
        list(batches(data))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_named(value):
    bad = X.clone()
    bad[6, 1] = value
    with pytest.raises(DataError, match=r"inputs\['a'\] of example 6 is not finite"):
        list(batches({"a": bad, "y": Y}, batch_size=4))
    with pytest.raises(DataError, match="inputs of example 16 is not finite"):
        list(batches([(X, Y), (bad, Y)]))


def test_a_generator_cannot_be_used_twice():
    generator = ((X, Y) for _ in range(2))
    assert len(list(batches(generator))) == 2
    with pytest.raises(DataError, match=r"exhausted.*Pass a list, a DataLoader or shapleaf.data.take"):
        list(batches(generator))


@pytest.mark.parametrize("options", [{"limit": 0}, {"batch_size": 0}])
def test_counts_start_at_one(options):
    (name,) = options
    with pytest.raises(DataError, match=f"{name} must be at least 1, received 0"):
        list(batches((X, Y), **options))


# more than once


@pytest.mark.parametrize(
    "data",
    [(X, Y), [(X, Y)], {"x": X, "y": Y}, DataLoader(TensorDataset(X, Y), batch_size=3), take((X, Y), 5)],
)
def test_what_can_be_gone_through_again_is_left_as_it_is(data):
    random = torch.get_rng_state()
    assert repeatable(data) is data
    assert torch.equal(torch.get_rng_state(), random)  # as iter(loader) would not leave it


@pytest.mark.parametrize("once", [iter([(X, Y)]), ((X, Y) for _ in range(2)), map(list, [(X, Y)])])
def test_what_one_pass_uses_up_is_refused_and_not_touched(once):
    with pytest.raises(
        DataError, match=f"a {type(once).__name__} can be only once. Pass a list, a DataLoader"
    ):
        repeatable(once)
    assert len(list(batches(once))) > 0


# several processes


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shards_cut_the_data_among_ranks(world):
    parts = [list(shard(batches((X, Y), batch_size=2), rank, world)) for rank in range(world)]
    assert sorted(targets(batch for part in parts for batch in part)) == list(range(10))
    assert all(batch.first == batch.target[0] for part in parts for batch in part)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_batches_of_a_shard_keep_their_places():
    mine = Batches(tuple(shard(batches((X, Y), batch_size=3), 1, 2)))
    assert [batch.first for batch in batches(mine)] == [3, 9]
    assert [batch.first for batch in batches(mine, limit=4)] == [3, 9]


def test_a_rank_without_work_says_so():
    with pytest.raises(DataError, match="no batch is left for rank 2 of 3; use smaller batches"):
        list(shard(batches((X, Y), batch_size=5), 2, 3))
    with pytest.raises(DataError, match="rank must be in 0 to 1, received 2"):
        list(shard(batches((X, Y)), 2, 2))

"""Where units are read: what becomes a site, and what must stay."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from shapleaf.tracing.labels import Labeling
from shapleaf.tracing.opcall import Consumed
from shapleaf.tracing.readings import Call, Readings


def read(
    readings: Readings, key: str, argument: Tensor, labels: Tensor, *, record: bool = True, known: bool = True
) -> None:
    """One call that reads all labels of its only argument."""
    origin = WeakTensorKeyDictionary()
    if known:
        origin[argument] = 0
    call = Call(key, [(argument, readings.flow.of(argument), 0)], origin, record)
    readings.add(call, [Consumed(argument, labels, None)])


def activation(flow: Labeling, *shape: int, axis: int = 1) -> tuple[Tensor, Tensor]:
    """A tensor whose units lie along an axis, and their labels."""
    weight, tensor = torch.zeros(shape[axis], 1), torch.zeros(shape)
    flow.own("weight", weight)
    labels = flow.of(weight)[0].reshape([-1 if a == axis else 1 for a in range(len(shape))])
    flow.fields[tensor] = [labels]
    return tensor, labels


def reasons(flow: Labeling) -> list[str]:
    return [why for _, why in flow.frozen]


def test_a_reading_is_a_site_of_its_argument() -> None:
    flow = Labeling()
    tensor, labels = activation(flow, 2, 3)
    readings = Readings(flow)
    read(readings, "fc:linear#0", tensor, labels)
    (reading,) = readings
    assert (reading.call, reading.arg, reading.labels.tolist()) == ("fc:linear#0", 0, [[1, 2, 3]])
    assert reasons(flow) == []


def test_what_comes_from_no_argument_must_stay() -> None:
    flow = Labeling()
    tensor, labels = activation(flow, 2, 3)
    readings = Readings(flow)
    read(readings, "m:norm#0", tensor, labels, known=False)
    assert [*readings] == []
    assert reasons(flow) == ["read inside m:norm#0, where units cannot be masked"]


def test_units_along_the_first_axis_must_stay() -> None:
    flow = Labeling()
    tensor, labels = activation(flow, 3, 2, axis=0)
    readings = Readings(flow)
    read(readings, "fc:linear#0", tensor, labels)
    assert reasons(flow) == ["what fc:linear#0 reads does not have the examples along its first axis"]


def test_another_axis_that_grows_with_the_examples_must_stay() -> None:
    flow = Labeling()
    tensor, labels = activation(flow, 4, 3)
    readings = Readings(flow)
    read(readings, "fc:linear#0", tensor, labels)
    grown = torch.zeros(4, 3)
    flow.fields[grown] = [labels]
    read(readings, "fc:linear#0", grown, labels, record=False)
    assert reasons(flow) == []
    deeper, more = activation(flow, 4, 2, 3, axis=2)
    read(readings, "fc:linear#1", deeper, more)
    grown = torch.zeros(4, 4, 3)
    flow.fields[grown] = [more]
    read(readings, "fc:linear#1", grown, more, record=False)
    assert reasons(flow) == ["what fc:linear#1 reads does not have the examples along its first axis"]


def test_another_occasion_reads_the_same_units() -> None:
    """Steps of a recurrence, and further inputs: labels at the same places become one."""
    flow = Labeling()
    first, labels = activation(flow, 2, 3)
    second, others = activation(flow, 2, 3)
    readings = Readings(flow)
    read(readings, "r:recur#0", first, labels)
    read(readings, "r:recur#0", second, others)
    assert len([*readings]) == 1
    root = flow.solve()
    assert root[labels.reshape(-1).numpy()].tolist() == root[others.reshape(-1).numpy()].tolist()


def test_another_occasion_that_reads_otherwise_holds_both() -> None:
    flow = Labeling()
    first, labels = activation(flow, 2, 3)
    second, others = activation(flow, 2, 4)
    readings = Readings(flow)
    read(readings, ":linear#0", first, labels)
    read(readings, ":linear#0", second, others)
    assert set(reasons(flow)) == {":linear#0 does not always read the same units"}
    assert not flow.solve().any()

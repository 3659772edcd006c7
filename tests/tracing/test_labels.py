"""Labels on their own: who meets whom, and which classes come out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from shapleaf.tracing.labels import Labeling, axes_of, components, narrow, reasons, tied


def labeling(*shapes: tuple[int, ...]) -> tuple[Labeling, list[Tensor]]:
    flow, tensors = Labeling(), [torch.zeros(shape) for shape in shapes]
    for number, tensor in enumerate(tensors):
        flow.own(f"t{number}", tensor)
    return flow, tensors


def parts(*groups: list[int]) -> tuple[np.ndarray, ...]:
    return tuple(np.array(group) for group in groups)


def test_every_axis_longer_than_one_gets_fresh_labels() -> None:
    flow, (tensor,) = labeling((3, 1, 2))
    rows, columns = flow.of(tensor)
    assert rows.flatten().tolist() == [1, 2, 3]
    assert axes_of(rows) == (0,)
    assert columns.flatten().tolist() == [4, 5]
    assert axes_of(columns) == (2,)
    assert flow.count == 6


def test_narrow_drops_the_axes_on_which_labels_do_not_vary() -> None:
    labels = torch.tensor([[[1, 1], [2, 2]]]).expand(3, 2, 2)
    assert narrow(labels).shape == (1, 2, 1)
    assert narrow(torch.full((2, 3), 7)).tolist() == [[7]]


@pytest.mark.parametrize("seed", range(20))
def test_components_are_those_of_a_slow_search(seed: int) -> None:
    draw = np.random.default_rng(seed)
    left, right = draw.integers(0, 30, (2, draw.integers(0, 40)))
    expected = np.arange(30)
    for _ in range(30):
        for a, b in zip(left, right, strict=True):
            expected[[a, b]] = min(expected[a], expected[b])
    assert components(30, left, right).tolist() == expected.tolist()


def test_components_of_a_long_chain() -> None:
    chain = np.arange(10_000)
    assert not components(10_000, chain[:-1], chain[1:]).any()


def test_elementwise_operands_are_united_label_by_label() -> None:
    flow, (a, b) = labeling((3,), (2, 3))
    (result, rows) = flow.meet([(flow.of(a), a.shape), (flow.of(b), b.shape)], (2, 3), "")
    assert result.tolist() == [[1, 2, 3]]
    assert rows.tolist() == [[4], [5]]
    assert flow.solve().tolist() == [0, 1, 2, 3, 4, 5, 1, 2, 3]


def test_broadcasting_does_not_hold_an_axis_but_full_length_does() -> None:
    flow, (a,) = labeling((3, 1))
    flow.meet([(flow.of(a), a.shape), ([], (1, 4))], (3, 4), "full")
    assert flow.solve()[1:].all()
    flow.meet([(flow.of(a), a.shape), ([], (3, 4))], (3, 4), "full")
    root = flow.solve()
    assert not root.any()
    assert set(reasons(flow, root).values()) == {"full"}


def test_a_view_keeps_its_units_where_one_of_its_axes_is_held() -> None:
    """Six labels as two rows of three meet a tensor that tells columns apart, but not rows."""
    flow, (row, other) = labeling((6,), (1, 3))
    view, columns = flow.of(row)[0].view(2, 3), flow.of(other)[0]
    (result,) = flow.meet([([view], (2, 3)), ([columns], (2, 3))], (2, 3), "full")
    assert result.shape == (1, 3)
    assert flow.solve().tolist() == [0, 1, 2, 3, 1, 2, 3, 1, 2, 3]


def test_a_statistic_blurs_along_its_axes() -> None:
    flow = Labeling()
    view = torch.arange(1, 7).view(1, 2, 3)
    for axes in ((1,), (2,), None):
        flow.blur(view, "why", axes)
    assert [table.tolist() for table, _ in flow.inexact] == [
        [[1, 2, 3], [4, 5, 6]], [[1, 4], [2, 5], [3, 6]], [[1], [2], [3], [4], [5], [6]],
    ]  # fmt: skip


def test_a_class_with_a_frozen_member_must_stay_and_says_why() -> None:
    flow, (a, b) = labeling((3,), (3,))
    flow.unite(flow.of(a)[0], flow.of(b)[0])
    flow.freeze(torch.tensor([5]), "because")
    flow.freeze(torch.tensor([2]), "later")
    root = flow.solve()
    assert root.tolist() == [0, 1, 0, 3, 1, 0, 3]
    assert reasons(flow, root) == {2: "because", 5: "because"}


def test_units_on_the_same_axes_have_one_signature() -> None:
    flow, (_a, b) = labeling((4,), (2,))
    flow.unite(torch.tensor([1, 2]), flow.of(b)[0])
    kinds = flow.signatures(flow.solve())
    assert kinds[1] == kinds[2] != kinds[3] == kinds[4]


def test_equal_parts_that_are_whole_groups_are_tied() -> None:
    flow, _ = labeling((4,), (2,), (2,))
    flow.unite(torch.tensor([1, 2]), torch.tensor([5, 6]))
    flow.unite(torch.tensor([3, 4]), torch.tensor([7, 8]))
    flow.splits.append(parts([1, 2], [3, 4]))
    root = flow.solve()
    assert root.tolist() == [0, 1, 2, 3, 4, 1, 2, 3, 4]
    kinds = flow.signatures(root)
    assert tied(root, kinds, flow.splits) == [(kinds[1], kinds[3])]


@pytest.mark.parametrize(
    ("unite", "split"),
    [
        ([], parts([1, 2], [3, 4])),  # both parts are of one group: their numbers could differ
        ([([1, 2], [5, 6])], parts([1, 3], [2, 4])),  # parts of two groups each
        ([([1], [5]), ([2], [5]), ([3], [7])], parts([1, 2], [3, 4])),  # units of two and of one
        ([([1, 2], [5, 6]), ([3, 4], [7, 8])], parts([1, 2, 0], [3, 4, 4])),  # one with a fixed place
    ],
)
def test_equal_parts_that_cannot_be_tied_are_united_place_by_place(unite: list, split: tuple) -> None:
    flow, _ = labeling((4,), (2,), (2,))
    for a, b in unite:
        flow.unite(torch.tensor(a), torch.tensor(b))
    flow.splits.append(split)
    root = flow.solve()
    assert (root[split[0]] == root[split[1]]).all()


def test_a_part_that_is_not_the_whole_group_is_not_tied() -> None:
    flow, _ = labeling((3,), (2,), (2,))
    flow.unite(torch.tensor([4, 5]), torch.tensor([6, 7]))
    root = flow.solve()
    splits = [parts([1, 2], [4, 5]), parts([1, 2, 3], [4, 5, 5])]
    assert tied(root, flow.signatures(root), splits) == [None, None]


def test_parts_in_which_every_unit_has_as_many_places_need_nothing() -> None:
    flow, _ = labeling((2,), (4,))
    flow.unite(torch.tensor([1, 2, 1, 2]), torch.tensor([3, 4, 5, 6]))
    flow.splits.append(parts([3, 4], [5, 6]))
    assert flow.solve()[1:].tolist() == [1, 2, 1, 2, 1, 2]


def labels_up_to(count: int) -> Labeling:
    labeling = Labeling()
    labeling.own("w", torch.zeros(count))
    return labeling


def test_what_a_view_meets_along_one_axis_is_held_where_its_units_are_whole_and_united_where_not() -> None:
    for closed in (True, False):
        labeling = labels_up_to(6)
        view, part = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[5, 6]])
        if closed:
            labeling.close(view, 1)
        (field,) = labeling.meet([([view], [2, 2]), ([part], [1, 2])], [2, 2], "met")
        assert torch.equal(field, view)
        root = labeling.solve()
        assert root.tolist() == ([0, 1, 1, 3, 3, 0, 0] if closed else [0, 1, 2, 1, 2, 1, 2])


def test_pinned_axes_of_one_view_add_up() -> None:
    labeling = labels_up_to(4)
    view = torch.tensor([[1, 2], [3, 4]])
    labeling.grid(view)
    labeling.grid(view, pinned=(1,))
    assert labeling.solve().tolist() == [0, 1, 1, 3, 3]
    labeling.grid(view, pinned=(0,))
    assert labeling.solve().tolist() == [0, 1, 1, 1, 1]


def test_several_identities_of_an_axis_are_paired_or_all_but_the_first_are_held() -> None:
    labeling = labels_up_to(10)
    mine = [torch.tensor([1, 1, 2, 2]), torch.tensor([3, 4, 3, 4])]
    theirs = [torch.tensor([7, 8, 7, 8]), torch.tensor([5, 5, 6, 6])]
    labeling.agree(mine, theirs, "several")
    assert labeling.solve()[:9].tolist() == [0, 1, 2, 3, 4, 1, 2, 3, 4]
    labeling.agree(mine, [torch.tensor([7, 8, 9, 10])], "several")
    root = labeling.solve()
    assert root[3] == root[4] == 0

"""Solved labels: units, groups, and axes as functions of a plan."""

from __future__ import annotations

from fractions import Fraction

import torch

from shapleaf.tracing.labels import Labeling
from shapleaf.tracing.sizes import Use
from shapleaf.tracing.solving import Units, solve


def two_axes(a: int, b: int) -> tuple[Labeling, torch.Tensor, torch.Tensor]:
    """Parameters ``a`` and ``b`` of one axis each, and their labels."""
    flow = Labeling()
    tensors = torch.zeros(a), torch.zeros(b)
    for name, tensor in zip("ab", tensors, strict=True):
        flow.own(name, tensor)
    return flow, flow.of(tensors[0])[0], flow.of(tensors[1])[0]


def settled(flow: Labeling, *uses: Use) -> tuple[Units, list[tuple[int, int]]]:
    every = torch.arange(1, flow.count)
    return solve(flow, [every], uses)


def use(origin: object, labels: torch.Tensor | None, length: int, factor: Fraction = Fraction(1)) -> Use:
    along = labels[:, None] if labels is not None and labels.ndim == 1 else labels
    return Use(origin, factor, along, length, place="here")


def test_labels_on_different_axes_are_different_groups() -> None:
    flow, _, _ = two_axes(4, 3)
    units, ties = settled(flow)
    assert [len(m) for m in units.members] == [4, 3]
    assert units.group.tolist() == [-1, 0, 0, 0, 0, 1, 1, 1]
    assert units.unit.tolist() == [-1, 0, 1, 2, 3, 0, 1, 2]
    assert ties == []


def test_united_labels_are_one_unit_with_positions_on_both_axes() -> None:
    flow, a, b = two_axes(4, 2)
    flow.unite(a.view(2, 2), b[:, None])
    units, _ = settled(flow)
    ((first, here), (second, there)) = units.axes[0]
    assert (first.tensor, here.tolist()) == ("a", [[0, 1], [2, 3]])
    assert (second.tensor, there.tolist()) == ("b", [[0], [1]])


def test_what_nothing_reads_and_an_axis_of_one_unit_must_stay() -> None:
    flow, a, b = two_axes(3, 4)
    flow.unite(b, b[:1])
    units, _ = solve(flow, [b], [])
    assert units.members == []
    reasons = [why for _, why in flow.frozen]
    assert reasons == ["nothing reads it in eval mode", "all of b[0] is one unit"]
    assert a.tolist() == [1, 2, 3]


def test_the_length_of_an_axis_counts_what_is_fixed_and_what_each_unit_adds() -> None:
    flow, a, _ = two_axes(4, 3)
    flow.unite(a[:2], a[2:])
    units, _ = settled(flow)
    padded = torch.cat([torch.zeros(5, dtype=torch.int64), a])[:, None]
    assert units.length(padded, 9) == (5, {0: 2})
    assert units.length(None, 7) == (7, {})
    assert units.length(torch.zeros(3, 1, dtype=torch.int64), 3) == (3, {})


def test_the_owner_of_labels() -> None:
    flow, a, b = two_axes(4, 3)
    units, _ = settled(flow)
    assert [units.owner(x).tensor for x in (a, b)] == ["a", "b"]
    assert units.owner(None) is units.owner(torch.zeros(2, dtype=torch.int64)) is None


def test_one_size_of_equal_groups_ties_them() -> None:
    flow, a, b = two_axes(4, 4)
    units, ties = settled(flow, use("n", a, 4), use("n", b, 4))
    assert ties == [(1, 0)]
    assert len(units.members) == 2


def test_a_factor_makes_lengths_comparable() -> None:
    flow, a, b = two_axes(4, 8)
    flow.unite(b.view(4, 2), b.view(4, 2)[:, :1])
    _, ties = settled(flow, use("n", a, 4), use("n", b, 8, Fraction(2)))
    assert ties == [(1, 0)]


def test_one_size_of_unequal_groups_ties_them_by_shares() -> None:
    flow, a, b = two_axes(4, 8)
    units, ties = settled(flow, use("n", a, 4), use("n", b, 8, Fraction(2)))
    assert ties == [(1, 0)]
    assert [len(members) for members in units.members] == [4, 8]


def test_one_size_of_axes_that_cannot_go_together_holds_both() -> None:
    flow, a, b = two_axes(4, 8)
    padded = torch.cat([torch.zeros(4, dtype=torch.int64), a])
    units, ties = settled(flow, use("n", padded, 8), use("n", b, 8))
    assert (units.members, ties) == ([], [])
    assert flow.frozen[-1][1] == "n is the size of another axis too (here)"


def test_a_size_that_names_a_fixed_axis_holds() -> None:
    flow, a, b = two_axes(4, 3)
    units, _ = settled(flow, use("n", None, 4), use("n", a, 4))
    assert [owner.tensor for axes in units.axes for owner, _ in axes] == ["b"]
    assert b.tolist() == [5, 6, 7]


def test_a_length_that_is_its_own_origin_is_free() -> None:
    flow, a, _ = two_axes(4, 3)
    units, ties = settled(flow, use(a[:, None], a, 4))
    assert ([len(m) for m in units.members], ties) == ([4, 3], [])


def test_a_length_of_one_tensor_that_sizes_another_ties_them() -> None:
    flow, a, b = two_axes(4, 4)
    _, ties = settled(flow, use(a[:, None], b, 4))
    assert ties == [(1, 0)]

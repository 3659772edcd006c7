"""The highest scores, ties, and scores that do not fit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import shapleaf as sl
from shapleaf.weights import Magnitude, WeightCriterion, WeightProbe, top
from shapleaf.weights.choosing import flat, parts


def probe(**weights: list[float]) -> WeightProbe:
    return WeightProbe(nn.Identity(), {name: torch.tensor(value) for name, value in weights.items()})


def chosen(given: WeightProbe, scores: dict[str, list[float]], count: int) -> list[bool]:
    kept = top(given, {name: torch.tensor(value) for name, value in scores.items()})(count)
    return [bool(value) for one in kept.values() for value in one.keep]


def test_parameters_are_ranked_together() -> None:
    given = probe(a=[1.0, 1, 1], b=[1.0, 1])
    assert chosen(given, {"a": [1.0, 5, 2], "b": [4.0, 3]}, 3) == [False, True, False, True, True]


def test_h1_ties_go_to_the_larger_weight_then_to_the_first() -> None:
    given = probe(a=[1.0, -3, 2], b=[3.0, 0.5])
    zeros = {"a": [0.0] * 3, "b": [0.0] * 2}
    assert chosen(given, zeros, 1) == [False, True, False, False, False]
    assert chosen(given, zeros, 2) == [False, True, False, True, False]
    assert chosen(given, {**zeros, "b": [0.0, 1]}, 2) == [False, True, False, False, True]


def test_h1_zeros_are_never_chosen() -> None:
    assert chosen(probe(a=[0.0, 2, 0]), {"a": [9.0, 1, 9]}, 3) == [False, True, False]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.integers(0, 12))
def test_choices_are_nested(values: list[int], count: int) -> None:
    choose = Magnitude().choose(probe(a=[float(v) for v in values]))
    fewer, more = (choose(n)["a"].keep for n in (count, count + 1))
    assert bool((fewer <= more).all())
    assert int(fewer.sum()) == min(count, sum(v != 0 for v in values))


def test_scores_that_do_not_fit() -> None:
    given = probe(a=[1.0, 2])
    for scores, match in (
        ({}, "for a, received none"),
        ({"a": torch.ones(3)}, r"expected scores of shape \(2,\) for a, received \(3,\)"),
        ({"a": torch.tensor([1.0, float("nan")])}, "scores of a are not all finite"),
    ):
        with pytest.raises(sl.CriterionError, match=match):
            top(given, scores)


def test_a_criterion_of_ones_own() -> None:
    class Mine:
        def choose(self, probe: WeightProbe) -> object:
            return top(
                probe, {name: torch.arange(w.numel()).view(w.shape) for name, w in probe.weights.items()}
            )

    assert isinstance(Mine(), WeightCriterion)
    model = nn.Linear(2, 2, bias=False)
    assert sl.sparsify(model, sl.Nonzeros(keep=1), Mine())["weight"].keep().tolist() == [
        [False] * 2,
        [False, True],
    ]


def test_data_that_are_missing() -> None:
    with pytest.raises(sl.DataError, match="mine needs data: sparsify"):
        probe(a=[1.0]).needed("mine")


def test_flat_and_back() -> None:
    tensors: dict[str, Tensor] = {"a": torch.rand(2, 3), "b": torch.rand(()), "c": torch.rand(0, 2)}
    back = parts(flat(tensors), tensors)
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    assert flat({"a": torch.ones(2).bfloat16()}).dtype == torch.float32

"""Example inputs as data, and back."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest
import torch

from shapleaf.errors import TraceError
from shapleaf.tracing.inputs import describe, imitate, plain


def test_a_description_is_plain_json() -> None:
    nested = {"x": torch.tensor([[0.5, -1.0]]), "y": (torch.tensor([3, 7]), None, 2, "z", True, 0.5)}
    assert describe(nested) == {
        "dict": {
            "x": {"shape": [1, 2], "dtype": "float32", "low": -1.0, "high": 0.5},
            "y": {
                "list": [
                    {"shape": [2], "dtype": "int64", "low": 3, "high": 7},
                    *({"value": value} for value in (None, 2, "z", True, 0.5)),
                ]
            },
        }
    }


def test_unknown_kinds_are_refused_by_name() -> None:
    with pytest.raises(TraceError, match="hold a set; give tensors"):
        describe([torch.zeros(1), {1}])


def test_mappings_become_dicts() -> None:
    inputs = plain((UserDict(a=torch.zeros(1)), [1]))
    assert type(inputs[0]) is dict
    assert inputs[1] == [1]


@pytest.mark.parametrize(
    "example",
    [
        torch.tensor([[0.25, 0.75]], dtype=torch.float64),
        torch.tensor([2, 9]),
        torch.tensor([5, 5], dtype=torch.uint8),
        torch.zeros(0, 3),
        torch.tensor(1.5),
        torch.ones(2, dtype=torch.complex64),
        torch.tensor([-1.0, 1.0], dtype=torch.bfloat16),
    ],
)
def test_imitations_have_shape_dtype_and_range(example: torch.Tensor) -> None:
    copy = imitate(describe(example))
    assert (copy.shape, copy.dtype) == (example.shape, example.dtype)
    if example.numel() > 1 and not example.is_complex():
        assert example.min() <= copy.min()
        assert copy.max() <= example.max()


def test_one_number_all_over_says_little_so_imitations_vary() -> None:
    copy = imitate(describe(torch.full((50,), 3.0)))
    assert 2 <= copy.min() < copy.max() <= 4


def test_ranges_are_those_of_the_finite_values() -> None:
    spec = describe(torch.tensor([1.0, float("-inf"), 2.0, float("nan")]))
    assert (spec["low"], spec["high"]) == (1.0, 2.0)
    assert describe(torch.tensor(float("inf")))["high"] == 1


def test_imitated_integers_reach_both_ends() -> None:
    copy = imitate(describe(torch.tensor([2, 4])), examples=200)
    assert copy.unique().tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("example", "values"), [([True, True], {True}), ([False, False], {False}), ([True, False], {True, False})]
)
def test_imitated_booleans(example: list[bool], values: set[bool]) -> None:
    assert set(imitate(describe(torch.tensor(example)), examples=50).tolist()) == values


def test_another_number_of_examples_replaces_the_first_length_that_all_share() -> None:
    spec = describe({"x": torch.zeros(1, 3), "y": [torch.zeros(1)], "scale": torch.tensor(2.0), "n": 7})
    copy = imitate(spec, examples=4)
    assert (copy["x"].shape, copy["y"][0].shape, copy["scale"].shape, copy["n"]) == ((4, 3), (4,), (), 7)
    fixed = imitate(describe((torch.zeros(1, 3), torch.zeros(5))), examples=4)
    assert [t.shape for t in fixed] == [(1, 3), (5,)]


def test_imitations_depend_on_the_seed_and_the_place_alone() -> None:
    spec = describe((torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])))
    a, b, other = imitate(spec), imitate(spec), imitate(spec, seed=1)
    assert torch.equal(a[0], b[0])
    assert not torch.equal(a[0], a[1])
    assert not torch.equal(a[0], other[0])


def test_meta_tensors_are_described_without_their_values() -> None:
    spec: Any = describe(torch.zeros(2, 3, device="meta"))
    assert spec == {"shape": [2, 3], "dtype": "float32", "low": 0, "high": 1}

"""BackSelect: hand-computed orders, ties, columns, the fast mode's estimates, its cost, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import shapleaf as sl
from measured import Fn
from shapleaf import CriterionError, DataError, backselect
from shapleaf.evaluation import Fast


def value(scores: Tensor, labels: Tensor) -> Tensor:
    """The first score itself as the confidence."""
    return scores[:, 0]


def one_score(f: Callable[[Tensor], Tensor]) -> nn.Module:
    return Fn(lambda x: f(x)[:, None])


def net(inputs: int = 16) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 12), nn.Tanh(), nn.Linear(12, 3)).double()


def test_o22_additive() -> None:
    x = torch.tensor([[0.1, 0.5, 0.8, 0.1]], dtype=torch.float64)
    found = backselect(one_score(lambda x: x.sum(1)), x, confidence=value)
    assert found.order.tolist() == [[0, 3, 1, 2]]
    assert found.values[0].tolist() == pytest.approx([1.4, 1.3, 0.8, 0.0])
    assert found.sufficient(1.0) == ((2, 1),)
    assert found.evaluations == 4 * 5 // 2


def test_o22_columns() -> None:
    x = torch.tensor([[[0.1, 0.5, 0.4], [0.2, 0.6, 0.3]]], dtype=torch.float64)
    found = backselect(one_score(lambda x: x.sum((1, 2))), x, features=(1, 3), confidence=value)
    assert found.order.tolist() == [[0, 2, 1]]
    assert found.values[0].tolist() == pytest.approx([1.8, 1.1, 0.0])
    assert (found.evaluations, found.top(0.3).tolist()) == (6, [[[False, True, False]]])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=12, unique=True))
def test_o22_linear_in_the_order_of_contributions(weights: list[int]) -> None:
    w = torch.tensor(weights, dtype=torch.float64)
    expected = w.argsort().tolist()
    for mode in ("exact", "fast", Fast(1, 0), Fast(2)):
        found = backselect(
            one_score(lambda x: x @ w), torch.ones(1, len(w)).double(), mode=mode, confidence=value
        )
        assert found.order[0].tolist() == expected


def test_o22_interactions_and_ties() -> None:
    """x1 x2 + x3 at (1, 1, .5): x3 goes first (1 is left), then x1 or x2 to the same effect: the first."""
    model = one_score(lambda x: x[:, 0] * x[:, 1] + x[:, 2])
    found = backselect(model, torch.tensor([[1.0, 1.0, 0.5]]), confidence=value)
    assert (found.order.tolist(), found.values.tolist()) == ([[2, 0, 1]], [[1.0, 0.0, 0.0]])


def test_o22_evaluations() -> None:
    counted = []
    model = net()
    spy = Fn(lambda x: counted.append(len(x)) or model(x))
    found = backselect(spy, torch.randn(3, 1, 4, 4).double())
    assert found.evaluations == 3 * 16 * 17 // 2 == sum(counted) - 3  # and once each image as it is


def test_exact_is_greedy() -> None:
    """Every step leaves the highest probability that masking one more pixel can leave."""
    model, image = net(), torch.randn(1, 1, 4, 4).double()
    found = backselect(model, image)
    label = int(model(image).argmax())
    assert found.targets.tolist() == [label]
    assert found.whole.item() == pytest.approx(model(image).softmax(1)[0, label].item())
    left = torch.ones(16).double()
    for at, reached in zip(found.order[0].tolist(), found.values[0].tolist(), strict=True):
        tried = {}
        for i in left.nonzero().flatten().tolist():
            mask = left.clone()
            mask[i] = 0
            tried[i] = model(image * mask.view(1, 1, 4, 4)).softmax(1)[0, label].item()
        assert max(tried, key=lambda i: tried[i]) == at
        assert tried[at] == pytest.approx(reached)
        left[at] = 0


def test_a_pixel_is_all_its_channels_and_becomes_the_value() -> None:
    seen = []
    model = Fn(lambda x: seen.append(x.clone()) or x.flatten(1)[:, :2])
    blank = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    found = backselect(model, torch.zeros(1, 3, 2, 2), value=blank)
    assert found.shape == (1, 2, 2)
    assert torch.equal(seen[-1][0], blank.expand(3, 2, 2))
    assert torch.equal(seen[1][0, :, 0, 0], torch.tensor([1.0, 2.0, 3.0]))
    assert seen[1][0].count_nonzero() == 3  # of the first candidate one pixel is masked


def test_where_the_model_is_sure_it_still_tells_pixels_apart() -> None:
    """Probabilities round to 1 here; the log odds do not."""
    weights = torch.tensor([300.0, 100.0, 200.0])
    model = Fn(lambda x: torch.stack([x @ weights, torch.zeros(len(x))], 1))
    found = backselect(model, torch.ones(1, 3))
    assert found.order.tolist() == [[1, 2, 0]]
    assert found.values[0, :2].tolist() == [1.0, 1.0]


def test_labels_choose_the_class() -> None:
    model = Fn(lambda x: torch.stack([x[:, 0], x[:, 1]], 1))
    image = torch.tensor([[2.0, 1.0]])
    assert backselect(model, image).order.tolist() == [[1, 0]]
    found = backselect(model, image, torch.tensor([1]))
    assert (found.order.tolist(), found.targets.tolist()) == ([[0, 1]], [1])


def test_images_do_not_depend_on_each_other() -> None:
    model, images = net(), torch.randn(5, 1, 4, 4).double()
    for mode in ("exact", Fast(2, 4)):
        whole = backselect(model, images, mode=mode)
        alone = [backselect(model, image[None], mode=mode) for image in images]
        assert torch.equal(whole.order, torch.cat([one.order for one in alone]))
        torch.testing.assert_close(whole.values, torch.cat([one.values for one in alone]), equal_nan=True)
        assert whole.evaluations == sum(one.evaluations for one in alone)


def test_a_shortlist_of_all_one_at_a_time_is_exact() -> None:
    model, images = net(), torch.randn(3, 1, 4, 4).double()
    exact = backselect(model, images)
    assert torch.equal(backselect(model, images, mode=Fast(1, 15)).order, exact.order)
    assert torch.equal(backselect(model, images, mode=Fast(1, 16)).order, exact.order)


def test_the_shortlist_corrects_the_gradient() -> None:
    """The gradient of x0 (x0 - 1.2) + x1 / 2 at (1, 1) is (.8, .5), but without x0 only -.2 is lost."""
    model = one_score(lambda x: x[:, 0] * (x[:, 0] - 1.2) + x[:, 1] / 2)
    x = torch.ones(1, 2).double()
    assert backselect(model, x, mode=Fast(1, 0), confidence=value).order.tolist() == [[1, 0]]
    for mode in (Fast(1, 1), Fast(1, 2), "exact"):
        found = backselect(model, x, mode=mode, confidence=value)
        assert found.order.tolist() == ([[1, 0]] if mode == Fast(1, 1) else [[0, 1]])


def test_corrections_are_remembered() -> None:
    """Feature 0 looks free and costs 1. Tried once and found out, it is not taken for free again."""
    tried = []

    def f(x: Tensor) -> Tensor:
        tried.append(x.detach().clone())
        return -((1 - x[:, 0]) ** 2) + x[:, 1:] @ torch.tensor([0.1, 0.2, 0.3, 0.4]).double()

    found = backselect(one_score(f), torch.ones(1, 5).double(), mode=Fast(1, 2), confidence=value)
    assert found.order.tolist() == [[1, 2, 3, 4, 0]]


def test_fast_records_the_values_it_has_seen() -> None:
    model, images = net(), torch.randn(2, 1, 4, 4).double()
    found = backselect(model, images, mode=Fast(3, 4))
    known = ~found.values.isnan()
    assert known[0].nonzero().flatten().tolist() == [2, 5, 8, *range(12, 16)]
    for i in (2, 8, 13):
        left = torch.ones(2, 16).double().scatter(1, found.order[:, : i + 1], 0.0).view(2, 1, 4, 4)
        expected = model(images * left).softmax(1).gather(1, found.targets[:, None])[:, 0]
        torch.testing.assert_close(found.values[:, i], expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 20))
def test_fast_costs_what_it_says(n: int, step: int, more: int) -> None:
    mode = Fast(step, 0 if more == 0 else step + more - 1)
    found = backselect(one_score(lambda x: x.sum(1)), torch.ones(2, n), mode=mode, confidence=value)
    assert found.evaluations == 2 * mode.cost(n)


@pytest.mark.parametrize("n", [256, 784, 1024, 3136])
@pytest.mark.parametrize("step", [2, 4, 8])
def test_fast_is_fifty_times_cheaper(n: int, step: int) -> None:
    mode = Fast(step)
    if mode.tried(n) > step:
        assert n * (n + 1) / 2 / 52 < mode.cost(n) + n / step + n / 8
        assert mode.cost(n) <= n * (n + 1) / 2 / 50


def test_the_model_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    backselect(model, torch.randn(2, 4), mode="fast")
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("images", "arguments", "message"),
    [
        (torch.zeros(2, 3, 8), {}, r"shape \(3, 8\) is neither a vector nor an image"),
        (torch.zeros(2, 3, 8), {"features": (8,)}, r"mask of shape \(8,\) does not broadcast"),
        (torch.zeros(2, 3, 8), {"features": (1, 4)}, r"mask of shape \(1, 4\) does not broadcast"),
        (torch.zeros(4), {}, "expected a floating-point tensor of images"),
        (torch.zeros(0, 4), {}, "expected a floating-point tensor of images"),
        (torch.zeros(2, 4).long(), {}, "expected a floating-point tensor of images"),
        ([[1.0]], {}, "received list"),
        (torch.tensor([[0.0, 1.0], [math.nan, 1.0]]), {}, "image 1 is not finite"),
        (torch.zeros(2, 4), {"value": math.inf}, "value must be finite"),
        (torch.zeros(2, 4), {"value": torch.zeros(3)}, r"value has shape \(3,\)"),
        (torch.zeros(2, 4), {"labels": torch.tensor([0, 4])}, "labels run from 0 to 4, but the model has 4"),
        (torch.zeros(2, 4), {"labels": torch.tensor([0])}, r"expected integer labels of shape \(2,\)"),
        (torch.zeros(2, 1), {}, "needs at least two classes"),
    ],
)
def test_bad_input_is_refused(images: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        backselect(nn.Identity() if getattr(images, "ndim", 0) == 2 else nn.Flatten(), images, **arguments)


def test_bad_scores_are_refused() -> None:
    broken = Fn(lambda x: torch.where(x.sum(1, keepdim=True) < 4, math.nan, x))
    with pytest.raises(DataError, match="scores for image 1, whole or with features masked, are not finite"):
        backselect(broken, torch.tensor([[9.0] * 4, [1.0] * 4]))
    with pytest.raises(DataError, match=r"expected class scores of shape \(2, classes\)"):
        backselect(nn.Identity(), torch.zeros(2, 3, 4, 4))


def test_bad_modes_are_refused() -> None:
    with pytest.raises(CriterionError, match="mode must be 'exact', 'fast'"):
        backselect(nn.Identity(), torch.zeros(2, 4), mode="slow")  # type: ignore[arg-type]
    for step, shortlist in ((0, None), (4, 3), (1, -1)):
        with pytest.raises(CriterionError, match="step must be at least 1"):
            Fast(step, shortlist)
    rounded = Fn(lambda x: (x > 0).double())
    with pytest.raises(CriterionError, match="use mode='exact'"):
        backselect(rounded, torch.ones(1, 200), mode="fast")


def test_it_is_public() -> None:
    assert sl.backselect is backselect
    assert isinstance(backselect(nn.Identity(), torch.eye(2)), sl.Ordering)

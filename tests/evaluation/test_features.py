"""Heat maps: what models see in each other's informative features."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shapleaf as sl
from shapleaf import Candidate, CriterionError, DataError, backselect, heat_map
from shapleaf.evaluation import Fast


class Fn(nn.Module):
    """A function as a model."""

    def __init__(self, f: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Any:
        return self.f(x)


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3)).double()


def models(*found: nn.Module) -> list[Candidate]:
    return [Candidate(name=f"model {i}", model=model) for i, model in enumerate(found)]


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    return torch.randn(7, 1, 4, 4).double(), torch.tensor([0, 1, 2, 0, 1, 2, 0])


def test_o22_identical_models_are_constant(data: tuple[Tensor, Tensor]) -> None:
    found = heat_map(models(net(0), net(0)), data, share=0.25)
    assert (found.kept, found.features, found.examples) == (4, 16, 7)
    torch.testing.assert_close(found.confidence, found.confidence[:1, :1].expand(2, 2))


def test_o22_a_model_that_looks_at_nothing(data: tuple[Tensor, Tensor]) -> None:
    """Its column is its confidence, whoever chose the pixels."""
    blind = Fn(lambda x: 0 * x.flatten(1)[:, :3] + torch.tensor([2.0, 0.0, 0.0]))
    found = heat_map(models(net(0), blind), data, share=0.25, mode="exact")
    expected = torch.tensor([2.0, 0, 0]).double().softmax(0)[data[1]].mean()
    torch.testing.assert_close(found.confidence[:, 1], expected.expand(2))
    torch.testing.assert_close(found.whole[1], expected)


def test_o22_all_pixels_are_the_plain_confidence(data: tuple[Tensor, Tensor]) -> None:
    nets = net(0), net(1)
    found = heat_map(models(*nets), data, share=1.0)
    plain = torch.stack([m(data[0]).softmax(1)[torch.arange(7), data[1]].mean() for m in nets])
    torch.testing.assert_close(found.confidence, plain.expand(2, 2))
    torch.testing.assert_close(found.whole, plain)


def test_rows_choose_and_columns_see() -> None:
    """Model 0 looks at the first pixel, model 1 at the second; one pixel is left."""
    first, second = (Fn(lambda x, i=i: torch.stack([x[:, i], -x[:, i]], 1)) for i in (0, 1))
    images, labels = torch.tensor([[3.0, 2.0], [3.0, 2.0]]), torch.tensor([0, 1])
    found = heat_map(models(first, second), (images, labels), share=0.5, mode="exact")
    # What a model does not see it gives one half.
    assert found.confidence.flatten().tolist() == pytest.approx([0.5] * 4)
    found = heat_map(models(first, second), (images, torch.tensor([0, 0])), share=0.5, mode="exact")
    a, b = torch.tensor([6.0, 4.0]).sigmoid().tolist()
    assert found.confidence.flatten().tolist() == pytest.approx([a, 0.5, 0.5, b])
    assert found.interval[0, 0].tolist() == pytest.approx([a, a], abs=1e-6)


def test_the_interval_is_of_the_examples() -> None:
    """Confidences 1/2 and p: mean +- 1.96 std / sqrt 2."""
    model = Fn(lambda x: torch.stack([x[:, 0], 0 * x[:, 0]], 1))
    images = torch.tensor([[0.0, 1.0], [2.0, 1.0]]).double()
    found = heat_map(models(model), (images, torch.tensor([0, 0])), share=1.0)
    p = torch.tensor(2.0).sigmoid().item()
    mean, half = (0.5 + p) / 2, 1.959964 * (p - 0.5) / 2
    assert found.interval[0, 0].tolist() == pytest.approx([mean - half, min(1, mean + half)], rel=1e-5)
    one = heat_map(models(model), (images[:1], torch.tensor([0])), share=1.0)
    assert bool(one.interval.isnan().all())


@pytest.mark.parametrize("batch", [1, 3])
def test_batches_make_no_difference(batch: int, data: tuple[Tensor, Tensor]) -> None:
    candidates = models(net(0), net(1))
    whole = heat_map(candidates, data, share=0.25)
    parts = iter(list(zip(*(part.split(batch) for part in data), strict=True)))
    found = heat_map(candidates, parts, share=0.25)
    torch.testing.assert_close(found.confidence, whole.confidence)
    torch.testing.assert_close(found.interval, whole.interval)


def test_given_orderings_are_used(data: tuple[Tensor, Tensor]) -> None:
    nets = net(0), net(1)
    orderings = [backselect(model, data[0], mode=Fast(2)) for model in nets]
    found = heat_map(models(*nets), zip(*(part.split(3) for part in data), strict=True), orderings=orderings)
    same = heat_map(models(*nets), data, mode=Fast(2))
    torch.testing.assert_close(found.confidence, same.confidence)
    assert found.settings["orderings"] == "given"
    swapped = heat_map(models(*nets), data, orderings=orderings[::-1])
    torch.testing.assert_close(swapped.confidence, same.confidence.flip(0))


def test_orderings_that_do_not_fit_are_refused(data: tuple[Tensor, Tensor]) -> None:
    candidates, one = models(net(0)), backselect(net(0), data[0], mode="fast")
    with pytest.raises(DataError, match="0 orderings for 1 subjects"):
        heat_map(candidates, data, orderings=[])
    with pytest.raises(DataError, match="'model 0' is of 7 examples and masks of shape"):
        heat_map(candidates, (data[0][:, :, :2], data[1]), orderings=[one])
    few = dataclasses.replace(one, order=one.order[:5], values=one.values[:5])
    with pytest.raises(DataError, match="of 5 examples and masks of shape .* expected at least 7"):
        heat_map(candidates, data, orderings=[few])
    with pytest.raises(DataError, match="an ordering is of 7 examples, but the data have 4"):
        heat_map(candidates, (data[0][:4], data[1][:4]), orderings=[one])


def test_bad_input_is_refused(data: tuple[Tensor, Tensor]) -> None:
    images, labels = data
    with pytest.raises(
        DataError, match="'model 1' returns predictions of shape .* 'model 0' .* same classes"
    ):
        heat_map(models(net(0), nn.Flatten()), data)
    with pytest.raises(DataError, match="labels run from 0 to 5"):
        heat_map(models(net(0)), (images, torch.tensor([5, 0, 0, 0, 0, 0, 0])))
    with pytest.raises(DataError, match="empty"):
        heat_map(models(net(0)), [])
    with pytest.raises(DataError, match="no target"):
        heat_map(models(net(0)), [images])
    with pytest.raises(DataError, match="no integer labels"):
        heat_map(models(net(0)), (images, torch.zeros(7)))
    with pytest.raises(DataError, match="inputs of type dict, expected one tensor"):
        heat_map(models(net(0)), [{"x": images, "labels": labels}])
    with pytest.raises(DataError, match="share must be above 0"):
        heat_map(models(net(0)), data, share=0)
    with pytest.raises(CriterionError, match="mode must be"):
        heat_map(models(net(0)), data, mode="slow")  # type: ignore[arg-type]
    broken = Fn(lambda x: net(0)(x) * math.nan)
    with pytest.raises(DataError, match="'model 1' .* is NaN"):
        heat_map(models(net(0), broken), data)


def test_it_is_public(data: tuple[Tensor, Tensor]) -> None:
    assert sl.heat_map is heat_map
    assert isinstance(heat_map(models(net(0)), data), sl.HeatMap)

"""Noise similarity: closed forms, sanity, the same noise for all, sums that equal the whole, bad input."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shapleaf as sl
from shapleaf import Candidate, DataError, noise_similarity
from shapleaf.evaluation.similarity import EPSILONS, noise


class Fn(nn.Module):
    """A function as a model."""

    def __init__(self, f: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Any:
        return self.f(x)


def shifted(by: float) -> nn.Module:
    """Logits (x - by, 0)."""
    return Fn(lambda x: torch.cat([x - by, torch.zeros_like(x)], 1))


def trio(*, pruned: nn.Module | None = None, separate: nn.Module | None = None) -> list[Candidate]:
    dense = nn.Linear(4, 3)
    return [
        Candidate(name="dense", model=dense, role="reference"),
        Candidate(name="half", model=pruned or nn.Linear(4, 3), method="WT", removed=0.5),
        Candidate(name="other", model=separate or nn.Linear(4, 3), net="1", role="separate"),
    ]


def test_o20_noise_in_closed_form() -> None:
    """f = (x, 0) and f^ = (x - .1, 0) at x = 0: labels differ where 0 < n <= .1."""
    models = [
        Candidate(name="f", model=shifted(0.0), role="reference"),
        Candidate(name="g", model=shifted(0.1)),
    ]
    data = torch.zeros(2000, 1, dtype=torch.float64)
    epsilons = (0.0, 0.05, 0.5, 0.7)
    found = noise_similarity(models, data, epsilons=epsilons, draws=10)
    matching, distance = found.matching[1].mean(-1).tolist(), found.distance[1].mean(-1).tolist()
    assert distance[0] == pytest.approx(0.0353259, abs=1e-7)
    for got, expected in zip(matching[1:], (0.5, 0.9, 1 - 0.1 / 1.4), strict=True):
        assert got == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 20_000))
    e = 0.5
    mean = math.sqrt(2) * (e - math.log((1 + math.exp(e - 0.1)) / (1 + math.exp(-e - 0.1)))) / (2 * e)
    assert mean == pytest.approx(0.0346096, abs=1e-7)
    assert distance[2] == pytest.approx(mean, abs=2e-5)
    low, high = found.matching_interval[1, 2].tolist()
    assert low < 0.9 < high
    assert high - low < 0.0085  # 20,000 independent draws: +- .003


def test_o21_a_model_is_itself() -> None:
    found = noise_similarity(trio(pruned=(same := nn.Linear(4, 3))), torch.randn(9, 4), draws=2)
    assert found.epsilons == EPSILONS == tuple(round(0.05 * k, 2) for k in range(15))
    assert bool((found.matching[0] == 1).all() and (found.distance[0] == 0).all())
    models = trio(pruned=same)
    models[0] = Candidate(name="dense", model=same, role="reference")
    twin = noise_similarity(models, torch.randn(9, 4), draws=2)
    assert bool((twin.matching[1] == 1).all() and (twin.distance[1] == 0).all())
    assert bool((twin.distance_interval[1] == 0).all())


def test_o21_without_noise_draws_do_not_differ() -> None:
    data = torch.randn(30, 4), torch.randint(3, (30,))
    found = noise_similarity(trio(), data, epsilons=(0.0, 1.0), draws=5)
    assert found.correct is not None
    for values in (found.matching, found.distance, found.correct.double()):
        assert bool((values[:, 0].std(-1, correction=0) == 0).all())
        assert bool((values[1:, 1].std(-1) > 0).all())


def test_o21_noise_is_bounded_and_uniform() -> None:
    drawn = noise(torch.zeros(100, 3, 8, 8), range(100), draw=0, seed=0)
    assert drawn.abs().max().item() <= 1
    assert drawn.mean().item() == pytest.approx(0, abs=4 / math.sqrt(3 * 19_200))
    assert drawn.std().item() == pytest.approx(1 / math.sqrt(3), abs=0.01)
    assert not torch.equal(drawn, noise(torch.zeros(100, 3, 8, 8), range(100), draw=1, seed=0))
    assert not torch.equal(drawn, noise(torch.zeros(100, 3, 8, 8), range(100), draw=0, seed=1))


def test_o21_all_models_see_the_same_noise() -> None:
    seen: dict[str, list[str]] = {}
    largest: list[float] = []

    def spy(name: str) -> nn.Module:
        def look(x: Tensor) -> Tensor:
            seen.setdefault(name, []).append(hashlib.sha256(x.numpy().tobytes()).hexdigest())
            largest.append(x.abs().max().item())
            return x

        return Fn(look)

    models = [Candidate(name="a", model=spy("a"), role="reference")]
    models += [Candidate(name=name, model=spy(name)) for name in ("b", "c")]
    noise_similarity(models, torch.zeros(5, 2), epsilons=(0.1, 0.2), draws=3)
    assert seen["a"] == seen["b"] == seen["c"]
    assert len(set(seen["a"])) == 6
    assert max(largest[:3]) <= 0.1 + 1e-8
    noisy = [noise(torch.zeros(5, 2), range(5), 0, 0) * size for size in (0.1, 0.2)]
    assert torch.equal(2 * noisy[0], noisy[1])  # the same for every epsilon, up to its size


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_o21_streaming_equals_the_whole(batch: int) -> None:
    models, inputs, labels = trio(), torch.randn(50, 4), torch.randint(3, (50,))
    whole = noise_similarity(models, [(inputs, labels)], epsilons=(0, 0.3), draws=3)
    parts = list(zip(inputs.split(batch), labels.split(batch), strict=True))
    found = noise_similarity(models, iter(parts), epsilons=(0, 0.3), draws=3)
    for name in ("matching", "matching_interval", "distance", "distance_interval", "accuracy"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), atol=1e-6, rtol=0)


def test_o21_match_is_symmetric() -> None:
    a, b = nn.Linear(4, 3), nn.Linear(4, 3)

    def one_way(first: nn.Module, second: nn.Module) -> Tensor:
        models = [
            Candidate(name="a", model=first, role="reference"),
            Candidate(name="b", model=second),
        ]
        found = noise_similarity(models, torch.ones(20, 4), epsilons=(0.5,), draws=3)
        return torch.stack([found.matching[1], found.distance[1]])

    assert torch.equal(one_way(a, b), one_way(b, a))


def test_intervals_are_of_the_examples() -> None:
    """Three of four labels match without noise: Wilson's interval of 3 in 4; distances 0, 0, 0, d."""
    flipped = Fn(lambda x: torch.where(x[:, :1] > 2, x.flip(1), x))
    models = [Candidate(name="a", model=nn.Identity(), role="reference"), Candidate(name="b", model=flipped)]
    inputs = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 2.0], [3.0, 0.0]])
    found = noise_similarity(models, inputs, epsilons=(0.0,), draws=2)
    assert found.matching[1, 0].tolist() == [0.75, 0.75]
    low, high = found.matching_interval[1, 0].tolist()
    assert (round(low, 3), round(high, 3)) == (0.301, 0.954)
    d = (torch.tensor([3.0, 0.0]).softmax(0) - torch.tensor([0.0, 3.0]).softmax(0)).norm().item()
    half = 1.959964 * d / 4  # std d / 2, four examples
    assert found.distance_interval[1, 0].tolist() == pytest.approx([0.0, d / 4 + half], rel=1e-5)


def test_a_single_example_has_no_interval_of_distances() -> None:
    found = noise_similarity(trio(), torch.ones(1, 4), epsilons=(0.1,), draws=2)
    assert bool(found.distance_interval.isnan().all())


def test_accuracy_and_potential() -> None:
    right, wrong = Fn(lambda x: x), Fn(lambda x: -x)
    models = [
        Candidate(name="dense", model=right, role="reference"),
        Candidate(name="a", model=right, method="WT", removed=0.2),
        Candidate(name="b", model=wrong, method="WT", removed=0.6),
        Candidate(name="c", model=right, method="FT", removed=0.4),
        Candidate(name="control", model=wrong, role="control"),
    ]
    found = noise_similarity(models, (torch.eye(2), torch.tensor([0, 1])), epsilons=(0, 0.1), draws=3)
    assert found.accuracy.mean((1, 2)).tolist() == [1, 1, 0, 1, 0]
    potential = found.potential()
    assert potential.methods == ("WT", "FT")
    assert potential.removed[:, 1].tolist() == [[0.2] * 3, [0.4] * 3]
    assert bool((potential.deviation < 1e-12).all())


def test_every_net_has_its_own_reference() -> None:
    a, b = Fn(lambda x: x), Fn(lambda x: -x)
    models = [
        Candidate(name="a", model=a, role="reference"),
        Candidate(name="b", model=b, net="1", role="reference"),
        Candidate(name="a half", model=a),
        Candidate(name="b half", model=b, net="1"),
        Candidate(name="b beside a", model=b, role="separate"),
    ]
    found = noise_similarity(models, torch.eye(2), epsilons=(0.1,), draws=1)
    assert found.against == ("a", "b", "a", "b", "a")
    assert found.matching.flatten().tolist() == [1, 1, 1, 1, 0]


def test_segmentations_count_by_position() -> None:
    half = Fn(lambda x: torch.cat([x[..., :1], x[..., 1:].flip(1)], -1))
    models = [Candidate(name="a", model=nn.Identity(), role="reference"), Candidate(name="b", model=half)]
    inputs = torch.stack([torch.ones(2, 4), torch.zeros(2, 4)], 0)[None].repeat(3, 1, 1, 1)
    inputs = inputs[..., :2]
    found = noise_similarity(models, (inputs, torch.zeros(3, 2, 2).long()), epsilons=(0.0,), draws=1)
    assert (found.examples, found.scored) == (3, 12)
    assert found.matching[1].item() == 0.5
    assert found.accuracy.flatten().tolist() == [1, 0.5]


def test_inputs_may_be_nested_and_hold_other_numbers() -> None:
    class Two(nn.Module):
        def forward(self, pixels: Tensor, ids: Tensor) -> Tensor:
            assert ids.dtype == torch.int64
            return pixels + ids

    models = [Candidate(name="a", model=Two(), role="reference")]
    data = [{"pixels": torch.eye(2), "ids": torch.zeros(2, 2).long(), "labels": torch.tensor([0, 1])}]
    assert noise_similarity(models, data, epsilons=(0.1,), draws=1).accuracy.item() == 1
    with pytest.raises(DataError, match="no floating-point tensor"):
        noise_similarity(models, [torch.zeros(2, 2).long()], draws=1)


def test_models_are_left_alone_and_may_be_loaded_late() -> None:
    loaded = []
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    candidate = Candidate(name="a", model=lambda: loaded.append(1) or model, role="reference")
    noise_similarity([candidate], torch.randn(6, 4), epsilons=(0.5,), draws=1)
    assert (loaded, model.training) == ([1], True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_models_with_other_classes_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"'half' returns predictions of shape \(examples, 5\), its reference 'dense'"
    ):
        noise_similarity(trio(pruned=nn.Linear(4, 5)), torch.zeros(2, 4), draws=1)
    one = [Candidate(name="a", model=nn.Linear(4, 1), role="reference")]
    with pytest.raises(DataError, match="'a' with epsilon 0.0: the model has a single class"):
        noise_similarity(one, torch.zeros(2, 4), draws=1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_refused(value: float) -> None:
    broken = Fn(lambda x: torch.where(x[:, :1] > 0.5, value, x))
    data = torch.zeros(5, 3)
    data[3] = 1
    models = [
        Candidate(name="dense", model=nn.Identity(), role="reference"),
        Candidate(name="b", model=broken),
    ]
    with pytest.raises(DataError, match=r"'b' with epsilon 0.1: the output for example 3 is"):
        noise_similarity(models, data, epsilons=(0.1,), draws=1)


@pytest.mark.parametrize("epsilons", [(), (-0.1,), (math.nan,), (0.1, math.inf), (0.1, 0.1)])
def test_wrong_epsilons_are_refused(epsilons: Sequence[float]) -> None:
    with pytest.raises(DataError, match="epsilons must be different finite numbers"):
        noise_similarity(trio(), torch.zeros(2, 4), epsilons=epsilons)


def test_other_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="draws must be at least 1"):
        noise_similarity(trio(), torch.zeros(2, 4), draws=0)
    with pytest.raises(DataError, match="empty"):
        noise_similarity(trio(), [])
    with pytest.raises(DataError, match="labels run from 0 to 7"):
        noise_similarity(trio(), (torch.zeros(2, 4), torch.tensor([0, 7])), draws=1)
    mixed = [(torch.zeros(2, 4), torch.tensor([0, 1])), torch.zeros(2, 4)]
    with pytest.raises(DataError, match="the batch at example 2 has no labels, unlike those before it"):
        noise_similarity(trio(), mixed, draws=1)
    with pytest.raises(DataError, match="'half' of net '0' has no reference"):
        noise_similarity(trio()[1:], torch.zeros(2, 4))
    twice = [*trio(), Candidate(name="dense 2", model=nn.Linear(4, 3), role="reference")]
    with pytest.raises(DataError, match="net '0' has two references, 'dense' and 'dense 2'"):
        noise_similarity(twice, torch.zeros(2, 4))


def test_it_is_public() -> None:
    assert sl.noise_similarity is noise_similarity
    assert isinstance(noise_similarity(trio(), torch.zeros(2, 4), draws=1), sl.NoiseSimilarity)

"""assess: every model on every distribution, batches made once, files that are gone on from, clear errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shapleaf import Candidate, Distribution, Outcomes, assess, excess_error, prune_potential
from shapleaf.data import Batch
from shapleaf.errors import DataError
from shapleaf.shifts import FGSM, GaussianNoise, shifted

SHIFT = {"clean": 0.0, "fog": 0.5, "shot": 2.0}


def examples(n: int = 24) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(n, 4, generator=draw), torch.randint(3, (n,), generator=draw)


def net(seed: int = 0, classes: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, classes))


def candidates(*models: Any) -> list[Candidate]:
    roles = [{"role": "reference"}, {"method": "WT", "removed": 0.5}, {"method": "WT", "removed": 0.9}]
    return [
        Candidate(name="abc"[k], model=model, **roles[k])  # type: ignore[arg-type]
        for k, model in enumerate(models)
    ]


def distributions(size: int = 7) -> list[Distribution]:
    x, y = examples()
    return [
        Distribution(
            name=name,
            data=list(zip((x + by).split(size), y.split(size), strict=True)),
            nominal=not by,
            family="weather" if by else "",
        )
        for name, by in SHIFT.items()
    ]


def test_it_records_predictions_and_confidence() -> None:
    models = [net(0), net(1)]
    found = assess(candidates(*models), distributions(), classes=("x", "y", "z"))
    x, y = examples()
    for name, by in SHIFT.items():
        one = found[name]
        assert torch.equal(one.labels, y)
        for k, model in enumerate(models):
            with torch.no_grad():
                scores = model.eval()(x + by)
            assert torch.equal(one.predicted[k].long(), scores.argmax(1))
            assert torch.allclose(one.confidence[k], scores.softmax(1).amax(1))
    assert (found["clean"].nominal, found["fog"].nominal, found["fog"].family) == (True, False, "weather")
    assert found.classes == ("x", "y", "z")
    assert [one.role for one in found.subjects] == ["reference", "pruned"]


def test_batches_and_memory_do_not_matter() -> None:
    models = [net(0), net(1)]
    first = assess(candidates(*models), distributions())
    for size, memory in ((1, 1), (5, 200), (24, 2**30)):
        found = assess(candidates(*models), distributions(size), memory=memory)
        for one, other in zip(found.observed, first.observed, strict=True):
            assert torch.equal(one.predicted, other.predicted)
            assert torch.allclose(one.confidence, other.confidence, atol=1e-6)
    x, y = examples()
    whole = [Distribution(name="clean", data=(x, y), nominal=True)]
    assert torch.equal(
        assess(candidates(*models), whole, batch_size=5)["clean"].predicted, first["clean"].predicted
    )


def test_models_are_left_as_they_were() -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assess(candidates(model), distributions())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


class Once:
    """Batches that note each time that one is made."""

    def __init__(self) -> None:
        self.made = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = examples()
        for pair in zip(x.split(8), y.split(8), strict=True):
            self.made += 1
            yield pair


def test_each_batch_is_made_once_for_all_models() -> None:
    data = Once()
    assess(candidates(net(0), net(1), net(2)), [Distribution(name="clean", data=data)])
    assert data.made == 3


def test_functions_load_models_once_while_there_is_room() -> None:
    loaded: list[int] = []

    def loader(k: int) -> Any:
        def load() -> nn.Module:
            loaded.append(k)
            return net(k)

        return load

    first = assess(candidates(loader(0), loader(1)), distributions())
    assert loaded == [0, 1]
    loaded.clear()
    assert 350 < sum(tensor.nbytes for tensor in net().state_dict().values()) < 700
    second = assess(candidates(loader(0), loader(1)), distributions(), memory=700)
    assert loaded == [0, 1, 1, 1]  # the first fits, the other is loaded for each distribution
    assert all(
        torch.equal(a.predicted, b.predicted) for a, b in zip(first.observed, second.observed, strict=True)
    )


class Towards:
    """An attack that needs the model's own gradient."""

    name = "step"

    def perturb(self, model: nn.Module, batch: Batch) -> Batch:
        x = batch.inputs.clone().requires_grad_()
        nn.functional.cross_entropy(model(x), batch.target).backward()
        model.zero_grad()
        return Batch(batch.inputs + 0.5 * x.grad.sign(), batch.target, batch.first)


def test_attacks_are_made_against_each_model() -> None:
    models = [net(0), net(1)]
    x, y = examples()
    found = assess(candidates(*models), [Distribution(name="step", data=[(x, y)], attack=Towards())])
    for k, model in enumerate(models):
        changed = Towards().perturb(model.eval(), Batch(x, y))
        assert torch.equal(found["step"].predicted[k].long(), model(changed.inputs).argmax(1))


def test_segmentations_become_overlaps() -> None:
    labels = torch.tensor([[[0, 1], [1, 255]], [[1, 1], [0, 0]]])
    scores = torch.eye(2)[torch.tensor([[[0, 1], [0, 1]], [[1, 1], [0, 0]]])].movedim(-1, 1)
    found = assess(candidates(nn.Identity()), [Distribution(name="dots", data=(scores, labels))])["dots"]
    assert found.overlaps is not None
    assert found.overlaps[0].tolist() == [[[1, 1, 0], [1, 0, 1]], [[2, 0, 0], [2, 0, 0]]]
    assert float(found.errors[0]) == pytest.approx(1 - (3 / 4 + 3 / 4) / 2)
    other = assess(
        candidates(nn.Identity()), [Distribution(name="dots", data=(scores, labels.clamp(max=7)))], ignore=7
    )["dots"]
    assert other == found


# ── files ────────────────────────────────────────────────────────────────────────────────────


class Broken:
    """Data that fail on the way."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield tuple(tensor[:3] for tensor in examples())  # type: ignore[misc]
        raise OSError("the disk is gone")


def test_what_was_measured_before_a_failure_is_kept_and_gone_on_from(tmp_path: Path) -> None:
    models, path = [net(0), net(1)], tmp_path / "outcomes"
    good = distributions()
    broken = [*good[:2], Distribution(name="shot", data=Broken(), family="weather")]
    with pytest.raises(OSError, match="the disk is gone"):
        assess(candidates(*models), broken, path=path)
    assert [one.distribution for one in Outcomes.load(path).observed] == ["clean", "fog"]

    data = Once()
    again = [Distribution(name="clean", data=data, nominal=True), *good[1:]]
    found = assess(candidates(*models), again, path=path)
    assert data.made == 0
    assert found == assess(candidates(*models), good) == Outcomes.load(path)


def test_a_finished_file_needs_no_model_and_takes_more_distributions(tmp_path: Path) -> None:
    path, good = tmp_path / "outcomes", distributions()
    assess(candidates(net()), good[1:], path=path)

    def gone() -> nn.Module:
        raise AssertionError("loaded")

    found = assess(candidates(gone), good[1:], path=path)
    assert [one.distribution for one in found.observed] == ["fog", "shot"]
    more = assess(candidates(net()), good, path=path)
    assert more == assess(candidates(net()), good)


def test_what_is_not_asked_for_stays_in_the_file(tmp_path: Path) -> None:
    path, good = tmp_path / "outcomes", distributions()
    assess(candidates(net()), good[:2], path=path)
    found = assess(candidates(net()), [good[2], good[0]], path=path)
    assert [one.distribution for one in found.observed] == ["shot", "clean"]
    kept = Outcomes.load(path)
    assert [one.distribution for one in kept.observed] == ["shot", "clean", "fog"]
    assert all(kept[name] == assess(candidates(net()), good)[name] for name in ("clean", "fog", "shot"))


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path, good = tmp_path / "outcomes", distributions()
    assess(candidates(net(0), net(1)), good[:2], path=path, classes=("x", "y", "z"))
    before = path.read_bytes()
    other = Candidate(name="b", model=net(1), method="FT", removed=0.5)
    for subjects, message in (
        (candidates(net(0)), "holds 2 models, 1 are to be measured"),
        ([*candidates(net(0)), other], "the first that differs is 'b'"),
    ):
        with pytest.raises(DataError, match=message):
            assess(subjects, good, path=path)
    with pytest.raises(DataError, match="holds other classes: x, y, z"):
        assess(candidates(net(0), net(1)), good, path=path, classes=("1", "2", "3"))
    with pytest.raises(DataError, match="measured with ignore=255, not 7"):
        assess(candidates(net(0), net(1)), good, path=path, ignore=7)
    path.write_bytes(b"something else")
    with pytest.raises(DataError, match="outcomes"):
        assess(candidates(net(0), net(1)), good, path=path)
    assert path.read_bytes() == b"something else" != before


# ── bad input ────────────────────────────────────────────────────────────────────────────────


def measure(*models: nn.Module, data: Any = None) -> Outcomes:
    return assess(
        candidates(*models), [Distribution(name="clean", data=examples() if data is None else data)]
    )


def test_models_need_the_same_classes() -> None:
    with pytest.raises(DataError, match="distribution 'clean': model 'b': it predicts 5 classes, expected 3"):
        measure(net(), net(classes=5))


def test_labels_that_do_not_fit() -> None:
    x, y = examples()
    with pytest.raises(DataError, match="'clean': model 'a': labels run from 0 to 6, but the model has 3"):
        measure(net(), data=(x, y * 3))
    with pytest.raises(DataError, match="'clean': model 'a': expected integer labels"):
        measure(net(), data=(x, y.float()))
    with pytest.raises(DataError, match="'clean': .*no target"):
        measure(net(), data=[x])
    with pytest.raises(DataError, match="labels run from 0 to 255"):  # an ignored label is for pixels only
        measure(net(), data=(x, torch.where(y == 1, 255, y)))


def test_a_distribution_of_later_classes_is_held_to_the_first() -> None:
    x, _ = examples()
    wide = Distribution(name="wide", data=(x, torch.full((24,), 4)))
    with pytest.raises(DataError, match="distribution 'wide': model 'a': labels run from 4 to 4"):
        assess(candidates(net()), [distributions()[0], wide])


def test_empty_distributions() -> None:
    with pytest.raises(DataError, match="distribution 'clean': the data are empty"):
        measure(net(), data=[])
    with pytest.raises(DataError, match="no distributions to measure on"):
        assess(candidates(net()), [])


class Sick(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        out = x[:, :3].clone()
        out[x[:, 0] > 100] = self.value
        return out


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_outputs_that_are_not_finite_are_named(value: float) -> None:
    x, y = examples()
    x[17, 0] = 1000
    data = list(zip(x.split(5), y.split(5), strict=True))
    with pytest.raises(DataError, match="distribution 'clean': model 'b': the output for example 17 is"):
        measure(net(), Sick(value), data=data)


def test_names_are_their_own() -> None:
    one = distributions()[0]
    with pytest.raises(DataError, match="two distributions are named 'clean'"):
        assess(candidates(net()), [one, one])
    with pytest.raises(DataError, match="two models are named 'a'"):
        assess(candidates(net()) * 2, [one])
    with pytest.raises(DataError, match="no models"):
        assess([], [one])


def test_many_classes_are_held_too() -> None:
    wide = 2**15 + 1
    scores = torch.zeros(2, wide)
    scores[:, -1] = 1
    found = measure(nn.Identity(), data=(scores, torch.tensor([0, wide - 1])))["clean"]
    assert found.predicted.tolist() == [[wide - 1] * 2]


def test_the_measures_take_what_it_records() -> None:
    outcomes = assess(candidates(net(0), net(0), net(1)), distributions())
    found = prune_potential(outcomes, resamples=20)
    assert all(limit.value >= 0.5 for limit in found.limits)  # the first pruned model is the reference
    assert excess_error(outcomes, refits=20, resamples=20).points[0].difference == 0


def test_noise_and_attacks_as_distributions() -> None:
    draw = torch.Generator().manual_seed(0)
    images, labels = torch.rand(12, 1, 6, 6, generator=draw), torch.randint(3, (12,), generator=draw)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    suite = [
        Distribution(name="clean", data=(images, labels), nominal=True),
        Distribution(name="noise", data=shifted((images, labels), GaussianNoise(0.3)), family="noise"),
        Distribution(name="attack", data=(images, labels), attack=FGSM(0.3)),
    ]
    found = assess(candidates(model, model), suite, batch_size=5)
    for one in found.observed:
        assert torch.equal(one.predicted[0], one.predicted[1])
    clean, _, attack = (one.errors[0] for one in found.observed)
    assert attack > clean
    assert not torch.equal(found["noise"].confidence, found["clean"].confidence)

"""Cycles: the modes by what they start from, the control's batches, and the same end after any kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import shapleaf as sl
from chains import RECIPE, Counting, Killed, Stumbling, dies, images, same, small
from shapleaf.retraining import METHODS, Retraining, cycle, train
from shapleaf.retraining.methods import Step
from shapleaf.retraining.rebuilding import rebuilt, records
from shapleaf.weights import nonzeros

module = sys.modules["shapleaf.retraining.train"]
DATA, SAMPLE = images(), images(8, seed=2)
KEEPS = (0.8, 0.7, 0.5, 0.3)
SETTINGS = Retraining(keeps=KEEPS, recipe=RECIPE, retrains=2)


@dataclass(frozen=True)
class Noting:
    """FT that notes the weights it was given."""

    given: list[nn.Module]
    name: str = "noting"

    def check(self, model: nn.Module, keep: int, sample: Any) -> None:
        """All can be reached."""

    def prune(self, model: nn.Module, keep: int, sample: Any, seed: int) -> Step:
        step = METHODS["FT"].prune(model, keep, sample, seed)
        self.given.append(sl.prune(model, sl.plan(sl.trace(model, DATA[0][:2]), {})).model)
        return step

    def __repr__(self) -> str:
        return "noting"


def run(path: Path, method: Any = "FT", settings: Retraining = SETTINGS, **other: Any) -> sl.Cycle:
    return cycle(small(), method, settings, DATA, sample=SAMPLE, path=path, **other)


def networks(made: sl.Cycle, path: Path) -> list[nn.Module]:
    return [one.load() for one in made.candidates(small(9), path)]


def test_points_of_a_cascade(tmp_path: Path) -> None:
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dense = nonzeros(model)
    assert dense == 370 == sum(parameter.numel() for parameter in model.parameters())
    made = cycle(model, "FT", SETTINGS, DATA, sample=SAMPLE, path=tmp_path, net="1", seed=2)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [point.keep for point in made.points] == [*KEEPS]
    assert [point.retrained for point in made.points] == [False, True, False, True]
    assert [bool(point.weights) for point in made.points] == [False, True, False, True]
    for point in made.points:
        assert 1 - point.keep <= point.removed < 1 - point.keep + 0.12
    assert sl.Cycle.load(tmp_path / "cycle.safetensors") == made
    assert (made.method, made.net, made.seed, made.mode, made.dense) == ("FT", "1", 2, "cascade", 370)
    for candidate, point in zip(made.candidates(small(3), tmp_path), made.points[1::2], strict=True):
        network = candidate.load()
        assert 1 - sum(p.numel() for p in network.parameters()) / 370 == point.removed == candidate.removed
        assert not network.training
        assert candidate.net == "1"
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "000.record.safetensors",
        "001.record.safetensors",
        "001.weights.safetensors",
        "002.record.safetensors",
        "003.record.safetensors",
        "003.weights.safetensors",
        "cycle.safetensors",
    ]


def test_o17_a_cascade_goes_on_from_current_weights(tmp_path: Path) -> None:
    given: list[nn.Module] = []
    made = run(tmp_path, Noting(given))
    theta, first, second, third = given
    assert same(theta, small())
    assert first[0].weight.shape[0] < 8  # what the first step left
    assert same(second, rebuilt(small(), made, 1, tmp_path))
    assert third[0].weight.shape[0] < second[0].weight.shape[0]


def test_o17_one_shot_begins_with_the_original_for_each_retraining(tmp_path: Path) -> None:
    given: list[nn.Module] = []
    made = run(tmp_path, Noting(given), replace(SETTINGS, mode="one-shot"))
    theta, _, again, _ = given
    assert same(theta, small())
    assert same(again, small())
    assert [point.first for point in made.points] == [0, 0, 2, 2]
    assert [sum(p.numel() for p in one.parameters()) for one in networks(made, tmp_path)] == [
        round(370 * (1 - point.removed)) for point in made.points if point.weights
    ]


def test_rewinding_sets_kept_weights_back(tmp_path: Path) -> None:
    """With a learning rate of zero the retrained weights are the early ones, sliced."""
    early = small(5)
    still = replace(RECIPE, lr=0.0)
    settings = Retraining(
        keeps=KEEPS, recipe=still, retrains=2, mode="rewind", early=dict(early.state_dict())
    )
    made = run(tmp_path, settings=settings)
    for place in (1, 3):
        network = rebuilt(small(), made, place, tmp_path)
        kept = sorted(range(8), key=lambda unit: -small()[0].weight[unit].abs().sum())
        kept = sorted(kept[: network[0].weight.shape[0]])
        assert place == 3 or torch.equal(network[0].weight, early[0].weight[kept])
        rows = {tuple(row.flatten().tolist()) for row in early[0].weight}
        assert {tuple(row.flatten().tolist()) for row in network[0].weight} <= rows


def test_early_weights_are_a_snapshot_of_train(tmp_path: Path) -> None:
    model = small(5)
    train(model, DATA, RECIPE, path=tmp_path / "train", snapshots=(1,))
    settings = Retraining(
        keeps=(0.5,),
        recipe=replace(RECIPE, start=1),
        mode="rewind",
        early=tmp_path / "train" / "epoch-001.safetensors",
    )
    made = cycle(model, "FT", settings, DATA, sample=SAMPLE, path=tmp_path / "cycle")
    assert len(networks(made, tmp_path / "cycle")) == 1
    other = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(sl.DataError, match="early= holds the weights of another network"):
        cycle(other, "FT", settings, DATA, sample=SAMPLE, path=tmp_path / "b")


def test_o16_the_control_sees_the_same_batches(tmp_path: Path) -> None:
    settings = replace(SETTINGS, recipe=replace(RECIPE, augment=Counting()))
    pruned = run(tmp_path / "a", settings=settings)
    control = run(tmp_path / "b", "control", settings)
    digests = [[point.batches for point in made.points] for made in (pruned, control)]
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 3  # none, and one for each retraining
    assert [point.removed for point in control.points] == [0.0] * 4
    assert [one.role for one in control.candidates(small(), tmp_path / "b")] == ["control"] * 2
    one = networks(control, tmp_path / "b")[0]
    assert not same(one, small())
    assert run(tmp_path / "c", settings=settings, seed=1).points[1].batches != digests[0][1]


def test_a_control_with_more_that_is_not_zero_has_lost_nothing(tmp_path: Path) -> None:
    model = small()
    torch.nn.init.zeros_(model[7].bias)
    control = cycle(model, "control", SETTINGS, DATA, sample=SAMPLE, path=tmp_path)
    last = control.candidates(model, tmp_path)[-1]
    assert nonzeros(last.load()) > nonzeros(model)
    assert last.subject.removed == 0


def test_each_retraining_sees_images_of_its_own(tmp_path: Path) -> None:
    augment = Counting()
    run(tmp_path, settings=replace(SETTINGS, recipe=replace(RECIPE, augment=augment)))
    assert augment.seen == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def whole(
    path: Path, method: Any = "FT", settings: Retraining = SETTINGS
) -> tuple[sl.Cycle, list[nn.Module]]:
    made = run(path, method, settings)
    return made, networks(made, path)


def counted(settings: Retraining, at: int = 10**9) -> Retraining:
    return replace(settings, recipe=replace(RECIPE, augment=Counting(at)))


@pytest.mark.parametrize("mode", ["cascade", "one-shot", "rewind"])
def test_killed_anywhere_it_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY", 0.0)
    early = small(5).state_dict() if mode == "rewind" else None
    settings = replace(SETTINGS, mode=mode, early=early)
    expected, finals = whole(tmp_path / "whole", settings=counted(settings))
    for at in (0, 8) if mode == "cascade" else (8,):  # batches; six for each retraining
        path = tmp_path / f"train {at}"
        with pytest.raises(Killed):
            run(path, settings=counted(settings, at))
        made, found = whole(path, settings=counted(settings))
        assert made == expected
        assert all(map(same, found, finals))
    for at in (1, 2) if mode == "cascade" else (3,):  # prunings
        path = tmp_path / f"prune {at}"
        stumbling = Stumbling(METHODS["FT"], at)
        with pytest.raises(Killed):
            run(path, stumbling, counted(settings))
        made, found = whole(path, Stumbling(METHODS["FT"]), counted(settings))
        assert made == expected
        assert all(map(same, found, finals))


@pytest.mark.parametrize("mode", ["cascade", "one-shot", "rewind"])
def test_single_weights(tmp_path: Path, mode: Any) -> None:
    """They stay at zero through retrainings, a kill in the middle of one, and rewinding."""
    early = small(5).state_dict() if mode == "rewind" else None
    settings = replace(SETTINGS, mode=mode, early=early)
    expected, finals = whole(tmp_path / "whole", "SiPP", counted(settings))
    for point, network in zip(expected.points[1::2], finals, strict=True):
        assert 1 - point.keep <= point.removed < 1 - point.keep + 0.1
        assert network[0].weight.shape == (8, 1, 3, 3)
        chain = records(expected, expected.points.index(point), tmp_path / "whole")
        assert len(chain) == (2 if mode == "one-shot" or point.keep == 0.7 else 4)
        for mask in (mask for record in chain for mask in record):  # what is gone stays gone
            assert bool((network.get_parameter(mask.parameter)[~mask.keep()] == 0).all())
        for mask in chain[-1]:
            assert bool((network.get_parameter(mask.parameter)[mask.keep()] != 0).any())
        assert nonzeros(network) == round(370 * (1 - point.removed))
    with pytest.raises(Killed):
        run(tmp_path / "killed", "SiPP", counted(settings, 9))
    made, found = whole(tmp_path / "killed", "SiPP", counted(settings))
    assert made == expected
    assert all(map(same, found, finals))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("FT", "SiPP", "control")])
@pytest.mark.filterwarnings("ignore:compensation made the")
def test_every_method_killed_and_resumed(tmp_path: Path, name: str) -> None:
    expected, finals = whole(tmp_path / "whole", name, counted(SETTINGS))
    with pytest.raises(Killed):
        run(tmp_path / "killed", name, counted(SETTINGS, 8))
    made, found = whole(tmp_path / "killed", name, counted(SETTINGS))
    assert made == expected
    assert all(map(same, found, finals))


@pytest.mark.slow
def test_killed_again_and_again_nothing_is_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY", 0.0)
    seen: list[int] = []
    method = Stumbling(METHODS["FT"])
    for _ in range(11):
        augment = Counting(len(seen) + 1, dies, seen)
        with pytest.raises(Killed):
            run(tmp_path, method, replace(SETTINGS, recipe=replace(RECIPE, augment=augment)))
    run(tmp_path, method, replace(SETTINGS, recipe=replace(RECIPE, augment=Counting(seen=seen))))
    assert len(seen) == 12
    assert len(method.seen) == 4


def stopping(file: str, *, before: bool) -> Callable[[Any, Any], None]:
    """``os.replace``, where the process ends before or after the first time that such a file is written."""
    real = os.replace

    def stop(source: Any, target: Any) -> None:
        hit = file in Path(target).name
        if hit and before:
            dies()
        real(source, target)
        if hit:
            dies()

    return stop


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("file", ["weights", "cycle", "001.record", "start"])
def test_killed_while_a_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, before: bool
) -> None:
    settings = replace(SETTINGS, keeps=KEEPS[:3])
    expected, finals = whole(tmp_path / "whole", settings=settings)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stopping(file, before=before))
        with pytest.raises(Killed):
            run(tmp_path / "killed", settings=settings)
    made, found = whole(tmp_path / "killed", settings=settings)
    assert made == expected
    assert all(map(same, found, finals))
    assert not list(tmp_path.glob("**/.*"))


def test_a_process_killed_outright(tmp_path: Path) -> None:
    script = """
import os, signal, sys
sys.path[:0] = sys.argv[2:]
import torch
torch.set_num_threads(1)
import test_cycles as t
kill = t.Counting(8, lambda: os.kill(os.getpid(), signal.SIGKILL))
t.run(t.Path(sys.argv[1]), settings=t.replace(t.SETTINGS, recipe=t.replace(t.RECIPE, augment=kill)))
"""
    here = Path(__file__).parent
    command = [sys.executable, "-c", script, str(tmp_path / "a"), str(here), str(here.parent)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    expected, finals = whole(tmp_path / "b", settings=counted(SETTINGS))
    made, found = whole(tmp_path / "a", settings=counted(SETTINGS))
    assert made == expected
    assert all(map(same, found, finals))


def test_a_finished_cycle_is_read(tmp_path: Path) -> None:
    made = run(tmp_path)
    assert run(tmp_path, Stumbling(METHODS["FT"], 0)) == made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "random"}, "holds a cycle with other settings, method="),
        (
            {"settings": replace(SETTINGS, keeps=(0.8, 0.6))},
            r"keeps=0\.8, 0\.7, 0\.5, 0\.3, expected 0\.8, 0\.6",
        ),
        ({"settings": replace(SETTINGS, mode="one-shot")}, "mode=cascade, expected one-shot"),
        ({"settings": replace(SETTINGS, recipe=replace(RECIPE, lr=0.1))}, "recipe="),
        ({"settings": replace(SETTINGS, retrains=4)}, "retrains=2, expected 4"),
        ({"model": small(1)}, "weights="),
        ({"data": images(25)}, "data="),
        ({"sample": images(9)}, "sample="),
        ({"seed": 1}, "seed=0, expected 1"),
        ({"net": "1"}, "net=0, expected 1"),
    ],
)
def test_a_foreign_folder_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run(tmp_path)
    given: dict[str, Any] = {"model": small(), "method": "FT", "settings": SETTINGS, "data": DATA}
    with pytest.raises(sl.DataError, match=message):
        cycle(**{**given, "sample": SAMPLE, "path": tmp_path, **change})


def test_what_cannot_be_reached_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(sl.BudgetError, match="cannot be met"):
        run(tmp_path, settings=replace(SETTINGS, keeps=(0.5, 0.01)))
    assert not [*tmp_path.iterdir()]


def test_a_loss_that_is_not_finite_stops_and_what_was_done_stays(tmp_path: Path) -> None:
    def nan() -> None:
        batch = augment.seen
        batch.append(0)

    @dataclass(frozen=True)
    class Spoiling(Counting):
        def __call__(self, given: torch.Tensor, ids: tuple[int, ...], epoch: int) -> torch.Tensor:
            changed = super().__call__(given, ids, epoch)
            return changed * float("inf") if epoch == 3 else changed

        def __repr__(self) -> str:
            return "Spoiling()"

    augment = Spoiling(how=nan)
    with pytest.raises(sl.CriterionError, match="stopped in epoch 2, step 1 of 3"):
        run(tmp_path, settings=replace(SETTINGS, recipe=replace(RECIPE, augment=augment)))
    found = sl.Cycle.load(tmp_path / "cycle.safetensors")
    assert [bool(point.weights) for point in found.points] == [False, True, False, False]
    assert len(networks(found, tmp_path)) == 1
    assert (tmp_path / "retrain-003" / "training.safetensors").exists()


def test_labels_and_samples_that_do_not_fit(tmp_path: Path) -> None:
    """What was pruned before the labels were looked at is in the folder."""
    with pytest.raises(sl.DataError, match="labels run from 0 to 5, but the model has 2 classes"):
        cycle(small(), "FT", SETTINGS, (DATA[0], 5 * DATA[1]), sample=SAMPLE, path=tmp_path / "a")
    assert [bool(p.weights) for p in sl.Cycle.load(tmp_path / "a" / "cycle.safetensors").points] == [
        False
    ] * 2
    with pytest.raises(sl.DataError, match="the data are empty"):
        cycle(small(), "FT", SETTINGS, DATA, sample=[], path=tmp_path / "b")
    with pytest.raises(sl.DataError, match="the training data are empty"):
        cycle(small(), "FT", SETTINGS, (DATA[0][:0], DATA[1][:0]), sample=SAMPLE, path=tmp_path / "c")
    assert not (tmp_path / "b").exists()
    assert not (tmp_path / "c").exists()


def test_unusable_settings() -> None:
    with pytest.raises(sl.BudgetError, match="keeps must decrease"):
        Retraining(keeps=(0.5, 0.6), recipe=RECIPE)
    with pytest.raises(sl.DataError, match="mode='twice'"):
        Retraining(keeps=(0.5,), recipe=RECIPE, mode="twice")  # type: ignore[arg-type]
    with pytest.raises(sl.DataError, match="rewind"):
        Retraining(keeps=(0.5,), recipe=RECIPE, mode="rewind")
    with pytest.raises(sl.DataError, match="rewind"):
        Retraining(keeps=(0.5,), recipe=RECIPE, early={})
    with pytest.raises(sl.DataError, match="no method is named 'WTF'; there are: "):
        cycle(small(), "WTF", SETTINGS, DATA, sample=SAMPLE, path="nowhere")

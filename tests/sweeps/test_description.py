"""Studies as files: what they make, and how they are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from shapleaf.errors import BudgetError, DataError
from shapleaf.sweeps import Study

PRUNING = """
name = "p"
methods = ["FT", "random"]
seeds = [0, 1]
[[networks]]
name = "a"
model = "shapleaf.demo:network"
[data]
spec = "digits"
"""


def written(folder: Path, text: str, name: str = "study.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_pruning_study_is_methods_by_seeds_by_networks(tmp_path: Path) -> None:
    text = PRUNING + '[[networks]]\nname = "b"\nmodel = "shapleaf.demo:network"\n'
    study = Study.read(written(tmp_path, text))
    assert study.labels == (
        "a unpruned 0", "a FT 0", "a random 0", "a unpruned 1", "a FT 1", "a random 1",
        "b unpruned 0", "b FT 0", "b random 0", "b unpruned 1", "b FT 1", "b random 1",
    )  # fmt: skip
    assert study.run == "shapleaf.sweeps.pruning:run"
    assert study.settings["retraining"] == {
        "preset": "minutes",
        "network": "cifar-resnet20",
        "mode": "cascade",
    }
    assert "corruptions" not in study.settings["shifts"]  # all that change such images


def test_more_methods_seeds_and_networks_leave_the_settings_as_they_are(tmp_path: Path) -> None:
    small = Study.read(written(tmp_path, PRUNING))
    more = PRUNING.replace('"FT"', '"FT", "Shapley"').replace("[0, 1]", "[0, 1, 2]")
    large = Study.read(written(tmp_path, more))
    assert large.settings == small.settings
    assert set(small.keys) < set(large.keys)


def test_other_weights_are_another_trial(tmp_path: Path) -> None:
    text = PRUNING.replace("[data]", f'weights = "{tmp_path}/w"\n[data]')
    keys = []
    for content in ("one", "two"):
        (tmp_path / "w").write_text(content)
        keys.append(Study.read(written(tmp_path, text)).keys)
    assert not set(keys[0]) & set(keys[1])


def test_json_and_trials_one_by_one(tmp_path: Path) -> None:
    described = {"name": "t", "run": "m:f", "trials": [{"x": 1}, {"x": 2}], "settings": {"y": 3}}
    study = Study.read(written(tmp_path, json.dumps(described), "study.json"))
    assert study == Study(name="t", run="m:f", trials=({"x": 1}, {"x": 2}), settings={"y": 3})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds", "seed", "unknown key 'seed'; there are: name, methods, networks, data, seeds, shifts"),
        ("spec", "specs", "'data.spec' is missing"),
        ('spec = "digits"', 'spec = "digits"\ncrop = 3', "unknown key 'data.crop'; there are: spec"),
        ('model = "sha', 'modle = "x"\nmodel = "sha', "unknown key 'networks.0.modle'; there are: name"),
        ('["FT", "random"]', "[]", "'methods' is []: list should have at least 1"),
        ("[0, 1]", '["0"]', "'seeds.0' is '0': input should be a valid integer"),
        ('"random"', '"magic"', "no method is named 'magic'; there are: "),
        ("[data]", "[shifts]\ncorruptions = ['fogg']\n[data]", "no corruption is named 'fogg'; there are: "),
        ("[data]", "[retraining]\npreset = 'days'\n[data]", "'retraining.preset' is 'days': input should be"),
        ("[data]", "[retraining]\nmode = 'rewind'\n[data]", "mode='rewind' sets weights back"),
        ("[data]", 'weights = "nowhere"\n[data]', "weights of network 'a': cannot read nowhere"),
        ("[data]", '[[networks]]\nname = "a"\nmodel = "m:f"\n[data]', "two networks of study 'p'"),
        ("name =", "name", "study.toml is no TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_would_be_right(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        Study.read(written(tmp_path, PRUNING.replace(old, new, 1)))


def test_ratios_must_decrease(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="decrease"):
        Study.read(written(tmp_path, PRUNING + "[retraining]\nkeeps = [0.2, 0.5]\n"))


def test_files_that_are_no_studies(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none.toml does not exist"):
        Study.read(tmp_path / "none.toml")
    with pytest.raises(DataError, match="cannot read"):
        Study.read(tmp_path)
    with pytest.raises(DataError, match="is no JSON"):
        Study.read(written(tmp_path, "{", "a.json"))
    with pytest.raises(DataError, match="holds a list, expected an object"):
        Study.read(written(tmp_path, "[]", "a.json"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot read"):
        Study.read(tmp_path / "binary.toml")

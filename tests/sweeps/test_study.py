"""Studies: how trials are named, and to whom a folder belongs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from shapleaf.errors import DataError
from shapleaf.sweeps import Study
from shapleaf.sweeps.study import bind, label


def test_a_key_depends_on_the_values_alone_and_can_name_a_folder() -> None:
    one = Study(name="a", run="m:f", trials=({"method": "Shapley+refit", "seed": 0, "of": {"name": "../x"}},))
    two = Study(name="b", run="m:g", trials=({"of": {"name": "../x"}, "seed": 0, "method": "Shapley+refit"},))
    assert one.keys[0][-16:] == two.keys[0][-16:]  # the words before are in the order given
    assert re.fullmatch(r"Shapley\+refit-0-..-x-[0-9a-f]{16}", one.keys[0])
    assert "/" not in one.keys[0]
    other = Study(name="a", run="m:f", trials=({"method": "Shapley refit", "seed": 0},))
    assert other.keys[0] != one.keys[0]


def test_labels_leave_out_what_is_empty_but_not_zero() -> None:
    assert label({"a": "", "b": None, "seed": 0, "net": {"name": "n"}}) == "0 n"


def test_json_and_back() -> None:
    study = Study(name="a", run="m:f", trials=({"x": 1}, {"x": [1, {"y": None}]}), settings={"keeps": [0.5]})
    assert Study.from_json(study.to_json()) == study


@pytest.mark.parametrize(
    ("change", "said"),
    [({"trials": ()}, "has no trials"),
     ({"trials": ({"x": 1}, {"x": 1})}, 'has a trial twice: {"x": 1}'),
     ({"trials": ({"x": {1}},)}, "trial 0 must be JSON"),
     ({"trials": ({"x": float("nan")},)}, "trial 0 must be JSON"),
     ({"settings": {"x": print}}, "its settings must be JSON")],
)  # fmt: skip
def test_what_a_study_refuses(change: dict, said: str) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        Study(**{"name": "a", "run": "m:f", "trials": ({"x": 1},)} | change)


def test_what_is_run_must_be_a_function(toys: Path) -> None:
    for run, said in (("sweeptoys:constant", "is a int"), ("sweeptoys:none", "has no 'none'"),
                      ("nowhere:f", "cannot import nowhere"), ("f", "names nothing")):  # fmt: skip
        with pytest.raises(DataError, match=said):
            Study(name="a", run=run, trials=({"x": 1},)).function()


def test_a_folder_belongs_to_one_study_which_may_grow(tmp_path: Path) -> None:
    study = Study(name="a", run="m:f", trials=({"x": 1},), settings={"keeps": (0.5, 0.2), "seed": 0})
    bind(study, tmp_path)
    bind(replace(study, trials=({"x": 1}, {"x": 2})), tmp_path)
    for change, said in (({"name": "b"}, "its name is 'a', not 'b'"), ({"run": "m:g"}, "its run is"),
                         ({"settings": {"keeps": (0.5,), "seed": 0}}, r"keeps is \[0.5, 0.2\], here \[0.5\]"),
                         ({"settings": {"keeps": (0.5, 0.2)}}, "there seed is 0, here None")):  # fmt: skip
        with pytest.raises(DataError, match=f"holds another study; .*{said}"):
            bind(replace(study, **change), tmp_path)
    deep = replace(study, settings={"retraining": {"mode": "cascade", "epochs": 1}})
    bind(deep, tmp_path / "deep")
    with pytest.raises(DataError, match=r"there retraining.epochs is 1, here 2\."):
        bind(replace(deep, settings={"retraining": {"mode": "cascade", "epochs": 2}}), tmp_path / "deep")
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        bind(study, tmp_path)
    (tmp_path / "study.json").write_text("[]")
    with pytest.raises(DataError, match="is no object"):
        bind(study, tmp_path)

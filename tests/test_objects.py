"""Small objects as JSON: what is written is read again, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import shapleaf as sl
from shapleaf import _objects
from shapleaf.errors import CriterionError, DataError

RULES = (sl.Epsilon, sl.Gamma, sl.ZPlus, sl.AlphaBeta)
TARGETS = (sl.Logit, sl.LogitDifference, sl.Loss, sl.Relative)


@pytest.mark.parametrize(
    "value",
    [
        sl.Gamma(0.1, 0.0),
        sl.Epsilon(0),
        sl.AlphaBeta(1, 0),
        sl.Loss(),
        sl.Logit(3),
        sl.Relative(sl.LogitDifference("true", 2)),
    ],
)
def test_round_trip(value: object) -> None:
    text = json.dumps(_objects.to_plain(value, RULES + TARGETS))
    assert _objects.from_plain(json.loads(text), RULES + TARGETS, "it") == value


def test_only_what_is_known_is_written() -> None:
    with pytest.raises(CriterionError, match=r"Mean\(\) cannot be saved as JSON; there are Epsilon, Gamma"):
        _objects.to_plain(sl.Mean(), RULES)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], "it is a list, expected an object"),
        ({}, "it is named None; there are Epsilon, Gamma"),
        ({"name": "os.system"}, "it is named 'os.system'"),
        ({"name": "__init__"}, "it is named '__init__'"),
        ({"name": ["Gamma"]}, "it is named"),
        ({"name": "Logit"}, "it is named 'Logit'"),  # known elsewhere
        ({"name": "Gamma", "apply": 1}, "it has an unknown key 'apply'; there are name, gamma, eps"),
        ({"name": "Gamma", "gamma": "1"}, "gamma of it is '1', expected a finite number"),
        ({"name": "Gamma", "gamma": True}, "gamma of it is 'True'"),
        ({"name": "Gamma", "gamma": float("nan")}, "gamma of it is 'nan'"),
        ({"name": "Gamma", "gamma": float("inf")}, "gamma of it is 'inf'"),
        ({"name": "Gamma", "gamma": 10**400}, "gamma of it is '1000000"),
        ({"name": "Gamma", "gamma": {"name": "Gamma"}}, "gamma of it is"),
        ({"name": "Gamma", "gamma": -1}, r"it: Gamma\(gamma=...\) must not be negative"),
        ({"name": "AlphaBeta", "alpha": 3}, "it: AlphaBeta keeps relevance if"),
    ],
)
def test_hostile_values(found: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _objects.from_plain(found, RULES, "it")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"name": "Logit", "of": None}, "of of it is None, expected a whole number or a word"),
        ({"name": "Logit", "of": 1.5}, "of of it is 1.5"),
        ({"name": "Logit", "of": "eval"}, r"it: Logit\(of=...\) is the number of a class"),
        ({"name": "Relative", "target": "Logit"}, "target of it is a str, expected an object"),
        ({"name": "Relative", "target": {"name": "Gamma"}}, "target of it is named 'Gamma'"),
    ],
)
def test_hostile_targets(found: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _objects.from_plain(found, TARGETS, "it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no JSON"),
        (b"\x80\x04\x95", "is no JSON"),  # the beginning of a pickle
        (b'{"a": 1, "a": 2}', "an object has a key twice"),
        (b"[" * 200_000, "is no JSON"),
        (b"1" * 5000, "is no JSON"),
        (b" " * 1_000_001, "larger than 1,000,000 bytes"),
    ],
)
def test_hostile_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        _objects.read(tmp_path / "file.json")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read .*: Is a directory"):
        _objects.read(tmp_path)
    with pytest.raises(DataError, match="larger than"):
        _objects.read("/dev/zero")

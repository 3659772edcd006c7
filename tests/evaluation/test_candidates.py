"""Candidates: models or what loads them, under names of their own."""

from __future__ import annotations

import pytest
from torch import nn

from shapleaf import DataError
from shapleaf.evaluation.candidates import Candidate, checked


def test_a_model_or_what_loads_it() -> None:
    model = nn.Linear(2, 2)
    assert Candidate(name="a", model=model).load() is model
    assert Candidate(name="a", model=lambda: model).load() is model


def test_what_loads_no_model() -> None:
    with pytest.raises(DataError, match="model 'a' was loaded as a dict, expected a torch.nn.Module"):
        Candidate(name="a", model=dict).load()  # type: ignore[arg-type]


def test_what_it_is_is_a_subject() -> None:
    subject = Candidate(
        name="a", model=nn.Identity(), method="FT", removed=0.25, net="1", role="control"
    ).subject
    assert (subject.name, subject.method, subject.removed, subject.net, subject.role) == (
        "a",
        "FT",
        0.25,
        "1",
        "control",
    )


def test_names_are_their_own() -> None:
    with pytest.raises(DataError, match="two models are named 'a'"):
        checked([Candidate(name="a", model=nn.Identity())] * 2)
    with pytest.raises(DataError, match="no models"):
        checked([])

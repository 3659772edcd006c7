"""Sweeps as tables, and outcomes side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shapleaf.errors import DataError
from shapleaf.records import Failure, Observed, Outcomes, Subject, Sweep


def outcomes(*names: str, labels: tuple[int, ...] = (0, 1)) -> Outcomes:
    """What models predict: as many zeros and then ones as their names are long."""
    predicted = torch.tensor([[len(name), 0] for name in names])
    observed = Observed(
        distribution="clean", labels=torch.tensor(labels), predicted=predicted, confidence=predicted / 10
    )
    return Outcomes(subjects=tuple(Subject(name=name) for name in names), observed=(observed,))


def test_rows_with_other_columns_are_filled_up() -> None:
    a, b = Sweep.of("s", [{"x": 1}]), Sweep.of("s", [{"y": 2.5, "x": 2}])
    both = Sweep.joined("s", [a, b])
    assert both.columns == ("x", "y")
    assert both.rows == ((1, None), (2, 2.5))
    assert both.to_csv() == "x,y\n1,\n2,2.5\n"
    assert both.column("y") == (None, 2.5)


def test_save_and_load_keep_types_and_digits(tmp_path: Path) -> None:
    row = {"name": "a,b", "whole": 3, "part": 0.1 + 0.2, "round": 1.0, "yes": True, "none": None}
    found = replace(Sweep.of("s", [row], outcomes("d")), failed=(Failure(trial="t", error="e"),))
    found.save(tmp_path / "sweep")
    loaded = Sweep.load(tmp_path / "sweep")
    assert loaded == found
    assert list(map(type, loaded.rows[0])) == [str, int, float, float, bool, type(None)]
    assert found.to_csv(tmp_path / "table.csv") == (tmp_path / "table.csv").read_text()
    assert '"a,b",3,0.30000000000000004,1.0,True,' in found.to_csv()


def test_failures_stand_below_the_table() -> None:
    failed = (Failure(trial="FT 0", error="DataError: no"),)
    assert str(Sweep.joined("s", [Sweep.of("s", [{"x": 1}])], failed)).endswith(
        "1\nfailed: FT 0: DataError: no"
    )


def test_outcomes_stand_beside_each_other_and_a_shared_model_counts_once() -> None:
    a, b = outcomes("dense", "one"), outcomes("dense", "three")
    both = Sweep.joined("s", [Sweep.of("s", [], a), Sweep.of("s", []), Sweep.of("s", [], b)]).outcomes
    assert both is not None
    assert [subject.name for subject in both.subjects] == ["dense", "one", "three"]
    assert both["clean"].predicted.tolist() == [[5, 0], [3, 0], [5, 0]]
    assert both["clean"].confidence.shape == (3, 2)
    assert Sweep.joined("s", []).outcomes is None


def test_different_data_cannot_be_joined() -> None:
    a = Sweep.of("s", [], outcomes("a"))
    with pytest.raises(DataError, match="different data"):
        Sweep.joined("s", [a, Sweep.of("s", [], outcomes("b", labels=(1, 1)))])
    with pytest.raises(DataError, match="different data"):
        Sweep.joined("s", [a, Sweep.of("s", [], replace(outcomes("b"), observed=()))])


def test_two_models_of_one_name_cannot_be_joined() -> None:
    a = outcomes("a")
    b = replace(a, subjects=(Subject(name="a", removed=0.5),))
    with pytest.raises(DataError, match="different models under the name 'a'"):
        Sweep.joined("s", [Sweep.of("s", [], a), Sweep.of("s", [], b)])


def test_bad_rows_and_columns() -> None:
    with pytest.raises(DataError, match="a row has 2 values, expected one for each of x"):
        Sweep(study="s", columns=("x",), rows=((1, 2),))
    with pytest.raises(DataError, match="no column is named 'y'; there are: x"):
        Sweep.of("s", [{"x": 1}]).column("y")

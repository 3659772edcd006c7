"""Flips, pruning-identified examples and counts by class, of three classes by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from measured import masks
from shapleaf.errors import DataError
from shapleaf.evaluation import class_counts, flips, identified
from shapleaf.records import Observed, Outcomes, Subject

LABELS = [0, 0, 1, 1, 2]
PREDICTED = [
    [0, 0, 1, 2, 0],  # dense: right on 0, 1, 2
    [0, 1, 1, 1, 1],  # a: loses 1, wins 3, changes 4 from one mistake to another
    [0, 1, 1, 2, 0],  # b
    [2, 1, 1, 1, 0],  # c
    [2, 2, 2, 2, 2],  # apart
]


def outcomes(*, nominal: bool = True) -> Outcomes:
    seen = Observed(
        distribution="clean",
        nominal=nominal,
        labels=torch.tensor(LABELS),
        predicted=torch.tensor(PREDICTED),
        confidence=torch.ones(5, 5),
    )
    pruned = [Subject(name=name, method="WT", removed=0.5) for name in "abc"]
    dense = Subject(name="dense", role="reference")
    apart = Subject(name="apart", role="separate", net="1")
    return Outcomes(subjects=(dense, *pruned, apart), observed=(seen,), classes=("x", "y", "z"))


def test_flips_by_hand() -> None:
    found = flips(outcomes(), "a")
    assert (found.reference, found.distribution, found.classes) == ("dense", "clean", ("x", "y", "z"))
    assert (found.lost.tolist(), found.won.tolist(), found.changed.tolist()) == ([1], [3], [1, 3, 4])
    assert found.examples.tolist() == [2, 2, 1]
    assert found.reference_right.tolist() == [2, 1, 0]
    assert found.right.tolist() == [1, 2, 0]
    assert (found.lost_by_class.tolist(), found.won_by_class.tolist()) == ([1, 0, 0], [0, 1, 0])


def test_a_model_against_itself_flips_nothing() -> None:
    found = flips(outcomes(), "dense")
    assert [len(ids) for ids in (found.lost, found.won, found.changed)] == [0, 0, 0]


def test_counts_by_class() -> None:
    found = class_counts(outcomes())[0]
    assert found.examples.tolist() == [2, 2, 1]
    assert found.right.tolist() == [[2, 1, 0], [1, 2, 0], [1, 1, 0], [0, 2, 0], [0, 0, 1]]
    assert found.lost.tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 0], [2, 0, 0], [0, 0, 0]]
    assert found.won.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
    for k, name in enumerate("abc", 1):
        assert found.lost[k].tolist() == flips(outcomes(), name).lost_by_class.tolist()
        assert found.won[k].tolist() == flips(outcomes(), name).won_by_class.tolist()


def test_identified_is_where_the_majority_changed() -> None:
    # Of a, b, c most predict 0, 1, 1, 1, 0; the reference 0, 0, 1, 2, 0.
    assert identified(outcomes(), ["a", "b", "c"]).tolist() == [1, 3]
    assert identified(outcomes(), ["a"]).tolist() == flips(outcomes(), "a").changed.tolist()
    assert identified(outcomes(), ["a", "b"]).tolist() == [1, 3]  # equally many: the lower class, 1 of 1, 2


def test_classes_without_names_are_numbered() -> None:
    assert flips(replace(outcomes(), classes=()), "a").classes == ("0", "1", "2")


def test_bad_input() -> None:
    with pytest.raises(DataError, match="no model is named 'x'"):
        flips(outcomes(), "x")
    with pytest.raises(DataError, match="no distribution is named 'fog'"):
        flips(outcomes(), "a", distribution="fog")
    with pytest.raises(DataError, match="none of the distributions is nominal"):
        flips(outcomes(nominal=False), "a")
    assert flips(outcomes(nominal=False), "a", distribution="clean").lost.tolist() == [1]
    with pytest.raises(DataError, match="net '1' has 0 models of role 'reference'"):
        flips(outcomes(), "apart")
    with pytest.raises(DataError, match="no models to identify examples by"):
        identified(outcomes(), [])
    dense, a = Subject(name="dense", role="reference"), Subject(name="a")
    dots = Outcomes(subjects=(dense, a), observed=(masks([[[1, 0, 0]]] * 2),), classes=("0", "1"))
    for measure in (lambda: flips(dots, "a"), lambda: identified(dots, ["a"]), lambda: class_counts(dots)):
        with pytest.raises(DataError, match="holds segmentations"):
            measure()

"""Noise, features and classes: what the sections show."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import robust
from shapleaf.records import ClassCounts, Robustness
from shapleaf.reporting.likeness import classes, features, noise


@pytest.fixture(scope="module")
def small() -> Robustness:
    return robust.robustness(methods=("WT", "FT"), points=3, shifts=2)


def test_noise_names_its_yardstick_and_the_shares_removed(small: Robustness) -> None:
    part = noise(small.similarity)
    assert part is not None
    assert part["yardsticks"] == ["separate"]
    (name, plots, table), (other, _, _) = part["charts"]
    assert (name, other) == ("Matching labels", "Softmax distance")
    assert [(plot.name, plot.note) for plot in plots] == [
        ("WT", "15, 84, 97 % removed"),
        ("FT", "15, 84, 97 % removed"),
    ]
    assert [layer.style for layer in plots[0].layers if "line" in layer.style] == [
        "line h0",
        "line h3",
        "line h5",
    ]
    assert [layer.style for layer in plots[0].layers][-1] == "level"
    pruned = [f"{method}, {share} % removed" for method in ("WT", "FT") for share in (15, 84, 97)]
    assert [row for row, _ in table.rows] == [*pruned, "separate"]
    mean = 100 * float(small.similarity.matching[2, 0].mean())
    assert table.rows[0][1][0].text == f"{mean:.3g}"


def test_without_pruned_models_there_is_no_section(small: Robustness) -> None:
    found = small.similarity
    names = ("subjects", "against", "matching", "matching_interval", "distance", "distance_interval")
    alone = replace(found, correct=None, **{name: getattr(found, name)[:2] for name in names})
    assert noise(alone) is None


def test_one_size_of_noise_is_enough(small: Robustness) -> None:
    found = small.similarity
    names = ("matching", "matching_interval", "distance", "distance_interval", "correct")
    one = replace(found, epsilons=(0.1,), **{name: getattr(found, name)[:, :1] for name in names})
    part = noise(one)
    assert part is not None
    assert part["charts"][0][2].head == ("matching labels (% of examples) at ε =", "0.1")


def test_the_heat_map_is_shaded_by_confidence(small: Robustness) -> None:
    part = features(small.features)
    assert part is not None
    assert part["table"].head == ("features of", "dense 0", "WT 15 % 0", "separate")
    name, cells = part["table"].rows[0]
    assert name == "dense 0"
    assert [(cell.text, cell.small, cell.shade) for cell in cells][2] == ("0.47", "± 0.02", 5)
    assert part["table"].rows[-1][0] == "all features"
    assert (part["kept"], part["features"], part["examples"]) == ("102", "1,024", "250")


def test_classes_are_those_of_the_model_pruned_as_far_as_nominal_data_allow(small: Robustness) -> None:
    counts = {"examples": torch.tensor([100, 50, 0])}
    zero = torch.zeros(len(small.subjects), 3, dtype=torch.int64)
    lost, won = zero.clone(), zero.clone()
    lost[3, 0], won[3, 1], lost[3, 1] = 7, 3, 1  # WT 84 %, which the potential allows
    lost[4, 0] = 99  # WT 97 %, which it does not
    clean = ClassCounts(distribution="clean", right=zero, lost=lost, won=won, **counts)
    fog = ClassCounts(distribution="fog", right=zero, lost=zero, won=zero, **counts)
    worse = ClassCounts(distribution="worse", right=zero, lost=lost + lost, won=won, **counts)
    found = replace(small, classes=(fog, clean, worse), class_names=("cat", "dog", "emu"))
    part = classes(found)
    assert part is not None
    assert part["all"] == 3
    (name, table), (other, _) = part["tables"]
    assert (name, other) == ("clean", "worse")
    assert [head.replace("\N{NO-BREAK SPACE}", " ") for head in table.head] == [
        "class", "WT, 84 % removed", "FT, 84 % removed"]  # fmt: skip
    assert [row for row, _ in table.rows] == ["cat", "dog"]  # the emu has no examples
    cat, dog = table.rows[0][1][0], table.rows[1][1][0]
    assert (cat.text, cat.small, cat.style) == ("−7.0", "7 lost, 0 won", "worse")
    assert (dog.text, dog.small, dog.style) == ("+4.0", "1 lost, 3 won", "better")


def test_no_classes_no_section(small: Robustness) -> None:
    assert classes(replace(small, classes=())) is None


def test_a_method_beyond_its_potential_shows_its_least_pruned_model(small: Robustness) -> None:
    none = replace(small.potential, limits=())
    part = classes(replace(small, potential=none))
    assert part is not None
    assert "15" in part["tables"][0][1].head[1]

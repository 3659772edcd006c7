"""Which rule a layer has: by name, by kind, by depth, and by the presets."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf.errors import CriterionError, DataError
from shapleaf.relevance import BOUNDS, PRESETS, Composite, banded
from shapleaf.relevance.composite import bands

LOW, MID, HIGH, FULL = sl.ZPlus(1), sl.ZPlus(2), sl.ZPlus(3), sl.ZPlus(4)


def slots(network: str, convolutions: int, linears: int) -> tuple[list[float], list[float]]:
    calls = [f"c{i}:conv2d#0" for i in range(convolutions)] + [f"l{i}:linear#0" for i in range(linears)]
    rules = [rule.eps for rule in banded(LOW, MID, HIGH, FULL, network=network).assign(calls).values()]  # type: ignore[attr-defined]
    return rules[:convolutions], rules[convolutions:]


@pytest.mark.parametrize(
    ("network", "convolutions", "ends"),
    [("vgg", 13, (4, 9)), ("resnet18", 20, (5, 15)), ("resnet50", 53, (11, 43))],
)
def test_bands_of_convolutional_networks_end_where_pxps_do(
    network: str, convolutions: int, ends: tuple[int, int]
) -> None:
    first, second = ends
    expected = [1] * first + [2] * (second - first) + [3] * (convolutions - second)
    assert slots(network, convolutions, 3) == (expected, [4, 4, 4])


@pytest.mark.parametrize(
    "each", [4, 6]
)  # torchvision and timm; Hugging Face, with queries, keys and values apart
def test_bands_of_transformers_end_with_blocks(each: int) -> None:
    expected = [1] * (3 * each) + [2] * (6 * each) + [3] * (3 * each)
    assert slots("vit", 1, 12 * each + 1)[1] == [*expected, 4]


def test_the_first_place_that_fits_holds() -> None:
    calls = ["stem:conv2d#0", "body.0:conv2d#0", "body.0:conv2d#1", "body.1:linear#0"]
    composite = Composite((("body.0:conv2d#1", MID), ("body*", LOW), (":conv*", HIGH)), FULL)
    assert [*composite.assign(calls).values()] == [HIGH, LOW, MID, LOW]
    assert [*Composite(default=FULL).assign(calls).values()] == [FULL] * 4


def test_a_kind_of_layer_need_not_be_there() -> None:
    for kind in (":conv3d#*", "*:conv*", ":*mm#*", "*:linear#*", ":matmul#0"):
        assert Composite(((kind, LOW),)).assign(["a:conv1d#0"]) in (
            {"a:conv1d#0": LOW},
            {"a:conv1d#0": sl.Epsilon()},
        )


def test_one_layer_alone_is_first_and_not_last() -> None:
    assert Composite((((0, 0.5), LOW), ((0.5, 1), HIGH))).assign(["a:linear#0"]) == {"a:linear#0": LOW}


def test_presets() -> None:
    assert sl.preset_composite("epsilon") == Composite() == Composite(default=sl.Epsilon(1e-6))
    assert sl.preset_composite("cp-lrp").attention == "cp"
    calls = ["a:conv2d#0", "b:linear#0"]
    assert [*sl.preset_composite("epsilon-plus").assign(calls).values()] == [sl.ZPlus(), sl.Epsilon()]
    assert [*sl.preset_composite("epsilon-gamma").assign(calls).values()] == [sl.Gamma(0.25), sl.Epsilon()]
    assert {*sl.preset_composite("pxp-vit").assign(calls).values()} == {sl.Epsilon()}
    assert {f"pxp-{name}" for name in BOUNDS} < {*PRESETS}


def test_rules_change_scores_where_they_lie() -> None:
    """Only what lies below a layer feels its rule."""
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    graph, data = sl.trace(net, x[:1]), [(x, torch.tensor([0, 1, 0, 1]))]
    plain = sl.attribute(net, graph, data, sl.LRP()).values
    mixed = sl.attribute(net, graph, data, sl.LRP(Composite((("2", sl.ZPlus()),)))).values
    assert torch.equal(mixed["2"], plain["2"])
    assert not torch.allclose(mixed["0"], plain["0"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Composite((("layer9*", LOW),)).assign(["a:conv2d#0"]), "no layer is named 'layer9"),
        (
            lambda: Composite(((":linear", LOW),)).assign(["a:linear#0"]),
            "named ':linear'.*as ':linear#\\*' is",
        ),
        (lambda: Composite(((":linaer#*", LOW),)).assign(["a:linear#0"]), "no layer is named ':linaer"),
        (lambda: Composite((("*:conv#*", LOW),)).assign(["a:conv2d#0"]), "no layer is named"),
        (lambda: Composite((((0.5, 0.5), LOW),)), "0 <= start < stop <= 1, received"),
        (lambda: Composite(((0, LOW),)), "a place is a layer's name .* received 0"),  # type: ignore[arg-type]
        (lambda: Composite(((LOW, "a"),)), "a place is a layer's name .* received ZPlus"),  # type: ignore[arg-type]
        (lambda: Composite(((("0", "1"), LOW),)), "a place is a layer's name"),  # type: ignore[arg-type]
        (lambda: Composite((("a", "zplus"),)), "the rule at 'a' is a rule.*LRP.preset"),  # type: ignore[arg-type]
        (lambda: Composite(default=sl.ZPlus), "Composite.default=.*write ZPlus()"),  # type: ignore[arg-type]
        (lambda: Composite(("a", LOW)), "pairs of a place and a rule, .* received 'a' among them"),  # type: ignore[arg-type]
        (lambda: Composite({"a": LOW}), "pairs of a place and a rule, received {"),  # type: ignore[arg-type]
        (lambda: Composite((((0.5, 2), LOW),)), "band of depth"),
        (lambda: Composite(attention="flash"), 'attention is "attnlrp" or "cp"'),  # type: ignore[arg-type]
        (lambda: banded(LOW, MID, HIGH, FULL, network="alexnet"), "bands are known of vgg, resnet18"),
        (lambda: sl.preset_composite("best"), "no preset is named 'best'; there are lrp-0, epsilon"),
    ],
)
def test_bad_composites(make: object, message: str) -> None:
    with pytest.raises(CriterionError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_as_json(name: str) -> None:
    composite = PRESETS[name]
    assert Composite.from_json(json.loads(json.dumps(composite.to_json()))) == composite


def test_places_as_json() -> None:
    composite = Composite((("body.0:conv2d#1", MID), ((0, 0.3), LOW), ((1, 1), HIGH)), FULL, "cp")
    assert Composite.from_json(json.loads(json.dumps(composite.to_json()))) == composite
    assert Composite.from_json({}) == Composite()


def test_rules_of_users_cannot_be_saved() -> None:
    class Mine(sl.Epsilon):
        pass

    with pytest.raises(CriterionError, match="cannot be saved as JSON"):
        Composite(default=Mine()).to_json()


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (3, "the composite is a int, expected an object"),
        ({"rule": []}, "the composite has an unknown key 'rule'; there are rules, default, attention"),
        ({"rules": {}}, "the rules of the composite are a dict, expected a list"),
        ({"rules": [3]}, "rule 0 of the composite is a int"),
        ({"rules": [{"name": "ZPlus"}]}, "the place of rule 0 of the composite is None, expected a pattern"),
        ({"rules": [{"place": [0, "1"], "name": "ZPlus"}]}, "the place of rule 0"),
        ({"rules": [{"place": [0, True], "name": "ZPlus"}]}, "the place of rule 0"),
        (
            {"rules": [{"place": [0.5, 0.1], "name": "ZPlus"}]},
            "the composite: a place is .*, and a band of depth is",
        ),
        (
            {"rules": [{"place": [0, float("nan")], "name": "ZPlus"}]},
            "the composite: a place is .*, and a band of depth is",
        ),
        ({"rules": [{"place": "*", "name": "Zplus"}]}, "rule 0 of the composite is named 'Zplus'"),
        ({"default": {"name": "Epsilon", "esp": 1}}, "the default of the composite has an unknown key 'esp'"),
        ({"attention": ["cp"]}, "the composite: attention is"),
    ],
)
def test_hostile_json(found: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Composite.from_json(found)


def test_bands_end_where_they_are_told_to() -> None:
    assert bands(()) == ((0, 1),)
    assert bands((0.5,)) == ((0, 0.5), (0.5, 1))
    for ends in ((0.5, 0.5), (0.0,), (1.0,), (0.7, 0.3), (float("nan"),)):
        with pytest.raises(CriterionError, match="bands end at rising depths between 0 and 1"):
            bands(ends)

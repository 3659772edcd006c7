"""What there is to choose, for which model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import shapleaf as sl
from harmed import harmed
from shapleaf.errors import CriterionError
from shapleaf.relevance import Composite
from shapleaf.relevance.composite import LINEARS
from shapleaf.tuning.space import Space


def space(model: nn.Module, *shape: int, **options: Any) -> Space:
    return Space(sl.Tuning(**options), sl.trace(model, torch.zeros(1, *shape)))


def convolutional() -> nn.Module:
    convs = [layer for _ in range(4) for layer in (nn.Conv2d(2, 2, 1), nn.ReLU())]
    return nn.Sequential(*convs, nn.Flatten(), nn.Linear(2, 2))


class Attentive(nn.Module):
    """Attention of two heads, eager or fused."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.qkv = nn.Linear(4, 12)
        self.head = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.fused:
            return self.head(nn.functional.scaled_dot_product_attention(q, k, v)).mean(1)
        return self.head((q @ k.transpose(1, 2)).softmax(-1) @ v).mean(1)


def test_slots_are_those_that_have_layers() -> None:
    """Four convolutions lie at depths 0, 1/3, 2/3 and 1; a band without any is none."""
    assert [*space(convolutional(), 2, 1, 1).places.values()] == [LINEARS, (0, 0.3), (0.3, 0.7), (0.7, 1)]
    few = space(convolutional(), 2, 1, 1, bands=(0.1, 0.2)).places
    assert few == {"linear": LINEARS, "0-0.1": (0, 0.1), "0.2-1": (0.2, 1)}
    assert space(harmed().float(), 2).places == {"last": (1, 1), "0-0.3": (0, 0.3)}
    assert [*space(convolutional(), 2, 1, 1, bands=()).places] == ["linear", "0-1"]


@pytest.mark.parametrize("fused", [True, False])
def test_attention_is_chosen_where_there_is_any(fused: bool) -> None:
    assert space(Attentive(fused=fused), 3, 4).options["attention"] == ("attnlrp", "cp")
    assert "attention" not in space(convolutional(), 2, 1, 1).options


def test_what_is_tried_first() -> None:
    """Epsilon everywhere, wherever it stands among the rules, then the others; gamma within its range."""
    found = space(
        harmed().float(), 2, rules=(sl.Gamma(5.0), sl.Epsilon(), sl.ZPlus()), absolute=(None,)
    ).first
    rest = {"absolute": "signed"}
    assert found == (
        {"last": "Epsilon", "0-0.3": "Epsilon", **rest},
        {"last": "Gamma", "last gamma": 1.0, "0-0.3": "Gamma", "0-0.3 gamma": 1.0, **rest},
        {"last": "ZPlus", "0-0.3": "ZPlus", **rest},
    )


def test_choices_become_a_criterion() -> None:
    options: dict[str, Any] = {
        "rules": (sl.Epsilon(), sl.Epsilon(0.1), sl.Gamma(0.25, 0.0)),
        "gamma": (0.1, 9),
    }
    made = space(convolutional(), 2, 1, 1, bands=(0.5,), target=sl.Logit(1), **options).criterion(
        {
            "linear": "Epsilon(eps=0.1)",
            "0-0.5": "Gamma",
            "0-0.5 gamma": 0.5,
            "0.5-1": "Epsilon(eps=1e-06)",
            "absolute": "signed",
        }
    )
    ruled = ((LINEARS, sl.Epsilon(0.1)), ((0, 0.5), sl.Gamma(0.5, 0.0)), ((0.5, 1), sl.Epsilon()))
    assert made == sl.LRP(Composite(ruled), sl.Logit(1), None)


def test_without_a_range_gamma_is_what_it_is() -> None:
    found = space(harmed().float(), 2, gamma=None)
    gamma = found.everywhere("Gamma")
    assert gamma == {"last": "Gamma", "0-0.3": "Gamma", "absolute": "sample"}
    assert found.criterion(gamma).rules.assign(["a:linear#0"]) == {"a:linear#0": sl.Gamma()}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "trials=...\\) must be at least 1"),
        ({"rules": ()}, "rules=...\\) needs different values"),
        ({"rules": (sl.Epsilon(), sl.Epsilon())}, "rules=...\\) needs different values"),
        ({"rules": (sl.ZPlus(),)}, "needs Epsilon\\(\\) among them"),
        ({"rules": (sl.Epsilon(), sl.Logit())}, "Logit.* cannot be saved as JSON"),
        ({"gamma": (0.0, 1.0)}, "gamma=...\\) is a range above 0"),
        ({"gamma": (1.0, 0.5)}, "gamma=...\\) is a range above 0"),
        ({"attention": "cp"}, "attention=...\\) needs different values"),
        ({"attention": ("flash",)}, "attention is"),
        ({"absolute": ("units",)}, "absolute=...\\) is None"),
        ({"target": sl.Restricted((0, 1))}, "cannot be saved as JSON"),
        ({"bands": "alexnet"}, "bands are known of vgg, resnet18"),
        ({"bands": (0.7, 0.3)}, "bands end at rising depths"),
        ({"groups": "conv*"}, r"groups='conv\*': expected a sequence, such as \('conv\*',\)"),
        (
            {"restricted": sl.Restricted((0, 1), sl.LogitDifference())},
            r"has another target than target=Logit\(of='true'\); name it once, Tuning\(target=LogitDiff",
        ),
        ({"restricted": sl.Restricted((0, 1)), "target": sl.Logit(2)}, "class 2 of its target is none of"),
        ({"rates": ()}, "rates=...\\) needs different values"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CriterionError, match=message):
        sl.Tuning(**options)


@pytest.mark.parametrize("own", [sl.Logit(), sl.Relative(sl.LogitDifference())], ids=["unnamed", "the same"])
def test_a_target_that_is_named_once(own: sl.Target) -> None:
    settings = sl.Tuning(restricted=sl.Restricted((0, 1), own), target=sl.Relative(sl.LogitDifference()))
    assert settings.target == sl.Relative(sl.LogitDifference())

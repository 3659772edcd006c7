"""Presets by their cost, and the paper's own."""

from __future__ import annotations

import pytest

import shapleaf as sl
from shapleaf.retraining import PAPER, RECIPES, preset


@pytest.mark.parametrize(("name", "epochs"), [("minutes", 12), ("hours", 40), ("paper", 23 * 182)])
def test_epochs_of_a_cycle(name: str, epochs: int) -> None:
    settings = preset(name)  # type: ignore[arg-type]
    assert len(settings.parts) * settings.recipe.epochs == epochs
    assert settings.mode == "cascade"


def test_the_papers_networks() -> None:
    for network, (keeps, retrains) in PAPER.items():
        settings = preset("paper", network)
        assert (settings.keeps, len(settings.parts)) == (keeps, retrains)
    assert preset("paper", "cifar-vgg16").recipe == RECIPES["cifar-vgg16-retrain"]
    assert preset("paper", "voc-deeplabv3").recipe.lr == 0.02


def test_unknown_names() -> None:
    with pytest.raises(sl.DataError, match="no preset is named 'days'; there are: minutes, hours, paper"):
        preset("days")  # type: ignore[arg-type]
    with pytest.raises(sl.DataError, match="the paper has no network 'lenet'"):
        preset("paper", "lenet")

"""Which weights can be pruned, and the count that everything goes by."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf.weights import nonzeros, prunable
from zoo import NETS, Apply, Weights, example, resnet20


def test_o15_resnet20_has_272474_parameters() -> None:
    model = resnet20()
    assert sum(p.numel() for p in model.parameters()) == 272_474
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
    assert nonzeros(model) == 272_474
    assert len(prunable(model)) == 22
    assert prunable(model) == prunable(model, torch.zeros(2, 3, 32, 32))


def test_zeros_and_tied_weights_count_once_or_not() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[0].weight.data[0] = 0
    assert nonzeros(model) == 6 + 9
    model[1].weight = model[0].weight
    assert nonzeros(model) == 6
    assert prunable(model) == prunable(model, torch.ones(2, 3)) == ("0.weight",)


@pytest.mark.parametrize("name", ["plain", "conv1d", "conv3d", "transformer"])
def test_modules_and_calls_agree(name: str) -> None:
    model, inputs = NETS[name]()
    assert prunable(model) == prunable(model, inputs)
    assert all(dict(model.named_parameters())[found].ndim > 1 for found in prunable(model))


def test_embeddings_and_what_they_share_stay() -> None:
    model = Apply(lambda self, x: self.out(self.words(x)), words=nn.Embedding(5, 3), out=nn.Linear(3, 5))
    words = torch.tensor([[1, 4]])
    assert prunable(model) == prunable(model, words) == ("out.weight",)
    model.out.weight = model.words.weight
    for data in (None, words):
        with pytest.raises(sl.PlanError, match="no weights of linear layers"):
            prunable(model, data)


def test_calls_without_a_module_need_data() -> None:
    model = Weights(lambda self, x: x @ self.w, w=(4, 6))
    assert prunable(model, example(3, 4).float()) == ("w",)
    with pytest.raises(sl.PlanError, match="Weights has no weights .*; pass data, on which the model is run"):
        prunable(model)


def test_patterns_choose_layers() -> None:
    model = resnet20()
    assert prunable(model, layers=["0"]) == ("0.weight",)
    assert len(prunable(model, layers=["*.a", "*.b"])) == 18
    assert prunable(model, layers=["*.short.0.weight"]) == ("6.short.0.weight", "9.short.0.weight")
    with pytest.raises(sl.PlanError, match="no layer is named 'fc'; the layers are: 0, 3.a, 3.b"):
        prunable(model, layers=["0", "fc"])


def test_a_model_without_linear_calls() -> None:
    for data in (None, example(2, 3)):
        with pytest.raises(sl.PlanError, match="Sequential has no weights of linear layers"):
            prunable(nn.Sequential(nn.ReLU(), nn.LayerNorm(3)).double(), data)

"""Targets: what each is worth, whose classes they take, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf import _context
from shapleaf.errors import CriterionError, DataError, ShapleafError
from shapleaf.testing import check_criterion
from zoo import conv, head, settle

X = torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 0])
LOGITS = torch.tensor([[1.0, 4.0, 2.0], [0.0, 3.0, -1.0], [5.0, 5.0, 7.0], [1.0, 2.0, 2.5]])


def net() -> nn.Module:
    return settle(nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 5), nn.ReLU(), head(5)))


def worth(target: sl.Target, output: Any = LOGITS, labels: Any = Y) -> list[float]:
    """What falls when a unit is removed."""
    return (-target.cost(output, labels, _context.cross_entropy)).tolist()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (sl.Logit(2), [2, -1, 7, 2.5]),
        (sl.Logit(), [1, 3, 7, 1]),
        (sl.LogitDifference(1, 2), [2, 4, -2, -0.5]),
        (sl.LogitDifference(), [-3, 3, 2, -1.5]),
        (sl.LogitDifference("true", 0), [0, 3, 2, 0]),
        (sl.LogitDifference(0, "true"), [0, -3, -2, 0]),
        (sl.LogitDifference(1), [2, 3, -2, -0.5]),
    ],
    ids=repr,
)
def test_what_it_is_worth(target: sl.Target, expected: list[float]) -> None:
    assert worth(target) == expected
    assert worth(target, {"logits": LOGITS}) == expected
    places = LOGITS[:, :, None].expand(-1, -1, 6).clone()  # the mean over places
    places[:, :, 0] += 6 * 6
    shifted = [value + (6 if isinstance(target, sl.Logit) else 0) for value in expected]
    assert worth(target, places, Y[:, None].expand(-1, 6)) == pytest.approx(shifted)


def test_the_loss_is_its_own_cost() -> None:
    expected = F.cross_entropy(LOGITS, Y, reduction="none")
    assert torch.equal(sl.Loss().cost(LOGITS, Y, _context.cross_entropy), expected)


def test_labels_are_needed_where_they_are_read() -> None:
    needed = [sl.Loss(), sl.Logit(), sl.LogitDifference(), sl.LogitDifference(1, "true")]
    assert [target.labelled for target in needed] == [True] * 4
    assert not sl.Logit(0).labelled
    assert not sl.LogitDifference(0).labelled


def test_half_precision_is_left_for_differences() -> None:
    output = torch.tensor([[1024.0, 1023.5]], dtype=torch.bfloat16)
    assert sl.LogitDifference(0, 1).cost(output, None, _context.cross_entropy).dtype == torch.float32


@pytest.mark.parametrize(
    "criterion", [sl.Sensitivity, sl.Taylor, sl.Saliency, sl.GradientActivation], ids=lambda c: c.__name__
)
@pytest.mark.parametrize(
    "target", [sl.Logit(1), sl.Logit(), sl.LogitDifference(2, 0), sl.LogitDifference()], ids=repr
)
def test_gradients_are_those_of_the_target(criterion: Callable[..., sl.Criterion], target: sl.Target) -> None:
    model = net()
    graph = sl.trace(model, X)

    def score(criterion: sl.Criterion, **options: Any) -> Tensor:
        return sl.attribute(model, graph, [(X, Y)], criterion, aggregate=None, **options).values["0"]

    as_loss = score(criterion(), loss=lambda out, y: target.cost(out, y, _context.cross_entropy))
    assert torch.equal(score(criterion(target=target)), as_loss)


def test_a_unit_whose_removal_lowers_the_logit_is_needed() -> None:
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [1.0]]))
        model[1].weight.copy_(torch.tensor([[3.0, -2.0]]))
    x = torch.ones(1, 1, dtype=torch.float64)
    graph = sl.trace(model, x)
    for criterion in (
        sl.Taylor(signed=True, target=sl.Logit(0)),
        sl.LeaveOneOut(target=sl.Logit(0)),
        sl.Shapley(sl.Exact(), target=sl.Logit(0)),
        sl.IntegratedGradients(2, target=sl.Logit(0)),
    ):
        assert sl.attribute(model, graph, x, criterion, aggregate=None).values["0"].tolist() == [[3.0, -2.0]]


@pytest.mark.parametrize(
    "criterion",
    [
        sl.Saliency(sl.Logit()),
        sl.GradientActivation(True, sl.Reference(), sl.LogitDifference()),
        sl.IntegratedGradients(3, target=sl.Logit(2)),
        sl.Occlusion(target=sl.Logit()),  # a wider window goes by the order of units
    ],
    ids=repr,
)
def test_criteria_with_targets_keep_the_contract(criterion: sl.Criterion) -> None:
    check_criterion(criterion)


def attribute(target: sl.Target, data: Any) -> sl.Scores:
    model = net()
    return sl.attribute(model, sl.trace(model, X), data, sl.Taylor(target=target))


@pytest.mark.parametrize(
    ("target", "data", "error", "text"),
    [
        (sl.Logit(3), X, CriterionError, r"class 3 is out of range: the model has 3 classes \(0 to 2\)"),
        (sl.LogitDifference(0, 7), X, CriterionError, "class 7 is out of range"),
        (sl.Logit(), X, DataError, "target"),
        (sl.Logit(), (X, Y + 1), DataError, "labels run from 1 to 3, but the model has 3 classes"),
        (sl.Logit(), (X, Y - 1), DataError, "labels run from -1 to 1"),
        (
            sl.Logit(),
            (X, torch.rand(4, 3)),
            DataError,
            r"whole numbers of shape \(4,\), received torch.f",
        ),
        (sl.Logit(), (X, torch.zeros(4, 2, dtype=torch.long)), DataError, r"received torch.int64 \(4, 2\)"),
    ],
    ids=["class", "classes", "unlabelled", "high", "low", "probabilities", "maps"],
)
def test_bad_data(target: sl.Target, data: Any, error: type[ShapleafError], text: str) -> None:
    with pytest.raises(error, match=text):
        attribute(target, data)


def test_bad_configuration() -> None:
    for make in (
        lambda: sl.Logit(-1),
        lambda: sl.Logit("best"),  # type: ignore[arg-type]
        lambda: sl.Logit(True),
        lambda: sl.LogitDifference("next"),  # type: ignore[arg-type]
        lambda: sl.LogitDifference(0, "other"),  # type: ignore[arg-type]
    ):
        with pytest.raises(CriterionError, match=r'is the number of a class or "true"'):
            make()
    with pytest.raises(CriterionError, match="is always zero; name two classes"):
        sl.LogitDifference(2, 2)


def test_outputs_without_classes() -> None:
    with pytest.raises(CriterionError, match=r"a logit needs scores of shape \(examples, classes\)"):
        worth(sl.Logit(0), torch.zeros(4))
    with pytest.raises(CriterionError, match="returns scores of one class only"):
        worth(sl.LogitDifference(0), torch.zeros(4, 1))


@pytest.mark.parametrize(
    "kind", [sl.LeaveOneOut, sl.Shapley, sl.IntegratedGradients, sl.Occlusion, sl.DeepLIFT, sl.Conductance]
)
def test_a_share_has_no_value_elsewhere(kind: Callable[..., sl.Criterion]) -> None:
    model = net()
    with pytest.raises(CriterionError, match=r"no value elsewhere.*use target=Logit\(of='true'\)"):
        sl.attribute(model, sl.trace(model, X), [(X, Y)], kind(target=sl.Relative()))

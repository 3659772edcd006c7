"""Targets: what each is worth, whose classes they take, and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
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


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
def test_classes_are_whole_numbers_of_any_kind(kind: Callable[[int], Any]) -> None:
    zero, two = kind(0), kind(2)
    assert repr(sl.Logit(two)) == "Logit(of=2)"
    assert repr(sl.LogitDifference(two, zero)) == "LogitDifference(of=2, against=0)"
    assert sl.Restricted((zero, two)) == sl.Restricted((0, 2))
    with pytest.raises(CriterionError, match="is always zero"):
        sl.LogitDifference(two, 2)


def test_classes_may_be_an_array() -> None:
    for classes in (np.array([2, 0]), torch.tensor([2, 0]), range(2, -1, -2)):
        assert sl.Restricted(classes) == sl.Restricted((2, 0))
    for wrong in (np.array([0, 1]), np.bool_(True), torch.tensor(True), 1.0):
        with pytest.raises(CriterionError, match=r"Logit\(of=...\) is the number of a class"):
            sl.Logit(wrong)


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


# ------------------------------------------------------------------------------------------------------------
# A few classes

INNER = [sl.Loss(), sl.Logit(), sl.LogitDifference(), sl.Relative(sl.Logit()), sl.Relative(sl.Loss())]
FEW = (2, 0)


def few_data() -> tuple[Tensor, Tensor]:
    return X, torch.tensor([0, 2, 2, 0])


def fewer(model: nn.Module) -> nn.Module:
    """The same model with a head of classes 0 and 2 alone."""
    small = net()
    small[4] = head(5, 2).double()
    small.load_state_dict({k: v[[0, 2]] if k.startswith("4.") else v for k, v in model.state_dict().items()})
    return small.eval()


def test_other_scores_do_not_count() -> None:
    inf = torch.inf
    assert sl.Restricted(FEW).scores(LOGITS)[:2].tolist() == [[1, -inf, 2], [0, -inf, -1]]
    assert sl.Restricted(FEW, excluded=0).scores({"logits": LOGITS})[0].tolist() == [1, 0, 2]
    places = LOGITS[:, :, None].expand(-1, -1, 6)
    assert torch.equal(sl.Restricted(FEW).scores(places)[..., 5], sl.Restricted(FEW).scores(LOGITS))
    assert worth(sl.Restricted(FEW, sl.LogitDifference(0))) == [-1, 1, -2, -1.5]  # not against class 1
    assert worth(sl.Restricted((0, 2), sl.LogitDifference(0), excluded=0)) == [-1, 0, -2, -1.5]


@pytest.mark.parametrize(
    "criterion",
    [
        *(partial(sl.Taylor, True, target=inner) for inner in INNER),
        *(partial(sl.LRP, sl.ZPlus(), target=inner) for inner in INNER),
        *(partial(sl.Shapley, sl.Exact(), target=inner) for inner in INNER[:3]),
    ],
    ids=repr,
)
def test_it_is_a_classifier_of_these_classes(criterion: partial[Any]) -> None:
    """Scores are those of a model whose head has no other classes."""
    inner = criterion.keywords["target"]
    (x, y), model = few_data(), net()
    small = fewer(model)
    mine = sl.attribute(
        model, sl.trace(model, x), [(x, y)], criterion(target=sl.Restricted(FEW, inner)), aggregate=None
    )
    theirs = sl.attribute(small, sl.trace(small, x), [(x, y // 2)], criterion(), aggregate=None)
    for name, values in mine.values.items():
        assert values.isfinite().all()
        torch.testing.assert_close(values, theirs.values[name], rtol=1e-9, atol=1e-12)
    assert mine.settings["loss"] == ("cross_entropy" if "Loss" in repr(inner) else "none")


def test_zero_is_a_score_that_may_win() -> None:
    output = torch.tensor([[-1.0, 9.0, -2.0]], requires_grad=True)
    cost = sl.Restricted((0, 2), sl.Loss(), excluded=0).cost(
        output, torch.tensor([0]), _context.cross_entropy
    )
    assert cost.item() == pytest.approx(1 + torch.tensor([-1.0, 0, -2]).exp().sum().log().item())
    cost.sum().backward()
    assert output.grad is not None
    assert output.grad[0, 1] == 0


def test_a_few_classes_need_labels_as_their_target_does() -> None:
    assert sl.Restricted(FEW).labelled
    assert not sl.Restricted(FEW, sl.Logit(0)).labelled
    assert worth(sl.Restricted(FEW, sl.Logit(0)), labels=None) == [1, 0, 5, 1]


@pytest.mark.parametrize("excluded", [-torch.inf, 0.0])
@pytest.mark.parametrize("inner", INNER, ids=repr)
def test_a_label_of_no_class(inner: sl.Target, excluded: float) -> None:
    target = sl.Restricted(FEW, inner, excluded)
    with pytest.raises(DataError, match=r"label 1 is none of the classes 2, 0; leave.*shapleaf.per_class"):
        worth(target)
    with pytest.raises(DataError, match="needs labels that are numbers of classes, received torch.float32"):
        worth(target, labels=torch.rand(4, 3))


def test_classes_that_there_are_not() -> None:
    with pytest.raises(CriterionError, match="class 3 is out of range: the model has 3 classes"):
        worth(sl.Restricted((0, 3), sl.Logit(0)))
    for inner in (sl.Logit(1), sl.LogitDifference(1, 0), sl.LogitDifference(0, 1), sl.Relative(sl.Logit(1))):
        with pytest.raises(CriterionError, match="class 1 of its target is none of its classes"):
            sl.Restricted(FEW, inner)
    for classes in ((), (1,), (1, 1), (0, -1), (0, "one"), (0, True)):
        with pytest.raises(CriterionError, match="at least two numbers of classes, each once"):
            sl.Restricted(classes)  # type: ignore[arg-type]
    for excluded in (torch.inf, torch.nan):
        with pytest.raises(CriterionError, match="excluded is minus infinity or a finite score"):
            sl.Restricted(FEW, excluded=excluded)


def test_a_share_within_a_few_classes_has_no_value_elsewhere() -> None:
    model = net()
    with pytest.raises(
        CriterionError, match=r"use target=Restricted\(classes=\(2, 0\), target=Logit\(of='true'"
    ):
        sl.attribute(
            model, sl.trace(model, X), [few_data()], sl.LeaveOneOut(target=sl.Restricted(FEW, sl.Relative()))
        )


@pytest.mark.parametrize(
    "make",
    [
        sl.LRP, sl.Taylor, sl.Saliency, sl.DeepLIFT, sl.Conductance, sl.IntegratedGradients, sl.Shapley,
        sl.LeaveOneOut, sl.Occlusion, sl.Relative, partial(sl.Restricted, (0, 1)),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("target", "fix"),
    [
        (3, "Logit(3), received 3"),
        ("true", "Logit('true'), received 'true'"),
        ("loss", "Logit() or Loss(), received 'loss'"),
        (sl.Logit, "Logit(...), received <class"),
        (None, "Logit() or Loss(), received None"),
    ],
)
def test_what_is_no_target(make: Any, target: Any, fix: str) -> None:
    with pytest.raises(CriterionError, match=re.escape(f"(target=...) is a target such as {fix}")):
        make(target=target)

"""Metrics by hand-made numbers, against scikit-learn and SciPy, and against hand-counted MACs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import log_loss, top_k_accuracy_score
from torch import Tensor, nn

from shapleaf.data import Batch
from shapleaf.errors import CriterionError, DataError
from shapleaf.evaluation import Accuracy, Agreement, ExampleMetric, Loss, Macs, ModelMetric, Params
from shapleaf.evaluation.metrics import _recurrent_stack, wilson


def batch(target: Tensor | None, inputs: Tensor | None = None) -> Batch:
    return Batch(torch.ones(len(target)) if inputs is None and target is not None else inputs, target)


def macs(model: nn.Module, *inputs: Tensor) -> float:
    return Macs().rows(model, None, Batch(inputs))[0].value


# ── over examples ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    # Brown, Cai, DasGupta 2001 use the same interval; 15 of 20 and the ends are worked out by hand from
    # (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n).
    [
        (0.75, 20, 53.1299, 88.8138),
        (0.0, 10, 0.0, 27.7533),
        (1.0, 10, 72.2467, 100.0),
        (0.5, 1, 5.4620, 94.5380),
    ],
)
def test_wilson_interval(share: float, count: int, low: float, high: float) -> None:
    seen = wilson(share, count)
    assert seen == pytest.approx((100 * share, low, high), abs=1e-4)


def test_the_wilson_interval_is_where_the_score_test_rejects() -> None:
    # Its definition, independent of the closed form: |p̂ - p| = z √(p(1-p)/n) at both ends.
    _, *ends = wilson(0.3, 50)
    for end in (end / 100 for end in ends):
        assert abs(0.3 - end) / math.sqrt(end * (1 - end) / 50) == pytest.approx(norm.ppf(0.975), abs=1e-12)


@pytest.mark.parametrize("top", [1, 2, 3])
def test_accuracy_is_scikit_learns(top: int) -> None:
    scores, labels = torch.randn(200, 5, dtype=torch.float64), torch.randint(5, (200,))
    values = Accuracy(top).observe(scores, batch(labels), None)
    expected = top_k_accuracy_score(labels, scores, k=top, labels=range(5))
    assert values.mean().item() == pytest.approx(expected, abs=1e-12)
    assert Accuracy(top).summarise(values).value == pytest.approx(100 * expected, abs=1e-10)


@pytest.mark.parametrize("classes", [3, 5, 10, 17])
def test_of_equal_scores_the_first_class_is_the_best(classes: int) -> None:
    scores, labels = torch.zeros(classes, classes), torch.arange(classes)
    for top in (1, 2, classes):
        assert Accuracy(top).observe(scores, batch(labels), None).tolist() == (labels < top).tolist()
    rounded = torch.randn(500, classes).round()
    assert Accuracy().observe(rounded, batch(rounded.argmax(1)), None).all()
    pixels = torch.randn(4, classes, 6, 6).round()
    assert Accuracy().observe(pixels, batch(pixels.argmax(1).to(torch.uint8)), None).all()


def test_loss_is_scikit_learns_with_a_normal_interval() -> None:
    scores, labels = torch.randn(200, 5, dtype=torch.float64), torch.randint(5, (200,))
    values = Loss().observe(scores, batch(labels), None)
    mean, low, high = Loss().summarise(values)
    assert mean == pytest.approx(log_loss(labels, scores.softmax(1)), abs=1e-12)
    half = norm.ppf(0.975) * values.numpy().std(ddof=1) / math.sqrt(200)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=1e-12)


def test_one_example_has_no_spread() -> None:
    assert Loss().summarise(torch.tensor([0.5]).double()) == (0.5, None, None)


def test_the_interval_covers_95_percent() -> None:
    # 2,000 samples of 40 examples each, true mean 1: coverage within three standard errors of 95 %
    # for the normal interval (here of normal values), and conservative for Wilson's at p = 0.9.
    draws = torch.randn(2000, 40, dtype=torch.float64) + 1
    covered = sum(low <= 1 <= high for _, low, high in map(Loss().summarise, draws))  # type: ignore[operator]
    assert abs(covered / 2000 - 0.943) < 0.016  # Student's t with 39 degrees covers 94.3 % at 1.96
    coins = (torch.rand(2000, 40) < 0.9).double()
    hits = sum(low <= 90 <= high for _, low, high in map(Accuracy().summarise, coins))  # type: ignore[operator]
    assert abs(hits / 2000 - 0.9433) < 0.016  # the exact coverage of Wilson's interval at n = 40, p = 0.9


def test_probabilities_as_targets() -> None:
    target = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    assert Accuracy().observe(torch.eye(2).flip(1), batch(target), None).tolist() == [0.0, 0.0]
    assert Accuracy().observe(torch.eye(2), batch(target), None).tolist() == [1.0, 1.0]


def test_numbers_to_be_predicted_are_no_probabilities() -> None:
    # With one output every cross-entropy is zero and every class the right one, whatever the targets are.
    for numbers in (torch.tensor([[5.0], [-3.0]]), torch.tensor([[0.1, 2.0], [0.5, 0.5]])):
        for metric in (Accuracy(), Loss()):
            with pytest.raises(DataError, match=r"expected integer labels .* For regression pass loss="):
                metric.observe(torch.randn(numbers.shape), batch(numbers), None)


def test_predictions_at_several_positions_count_by_their_share() -> None:
    scores = torch.zeros(1, 3, 4)
    scores[0, 1] = 1.0
    assert Accuracy().observe(scores, batch(torch.tensor([[1, 1, 1, 0]])), None).tolist() == [0.75]
    assert Agreement().observe(scores, batch(None, torch.ones(1)), -scores).tolist() == [0.0]


def test_agreement() -> None:
    mine, theirs = torch.tensor([[1.0, 0], [1, 0], [0, 1]]), torch.tensor([[5.0, 0], [0, 5], [0, 5]])
    values = Agreement().observe(mine, batch(None, torch.ones(3)), theirs)
    assert values.tolist() == [1.0, 0.0, 1.0]
    assert Agreement().summarise(values).value == pytest.approx(200 / 3)


def test_a_loss_of_ones_own() -> None:
    def squared(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().sum(1)

    metric = Loss(squared)
    assert metric.observe(torch.ones(2, 3), batch(torch.zeros(2, 3)), None).tolist() == [3.0, 3.0]
    assert repr(metric) == "Loss(squared)"
    assert repr(Loss()) == "Loss()"


@pytest.mark.parametrize(
    ("metric", "output", "target", "error", "message"),
    [
        (
            Accuracy(),
            torch.zeros(2, 3),
            torch.tensor([0, 3]),
            DataError,
            r"labels run from 0 to 3, .* 3 classes",
        ),
        (Accuracy(), torch.zeros(2, 3), torch.tensor([0, -1]), DataError, r"labels run from -1 to 0"),
        (Loss(), torch.zeros(2, 3), torch.tensor([0, 3]), DataError, r"labels run from 0 to 3"),
        (Accuracy(4), torch.zeros(2, 3), torch.tensor([0, 1]), DataError, r"top=4.* only 3 classes"),
        (
            Accuracy(),
            torch.tensor([[0.0, 1], [math.nan, 0]]),
            torch.tensor([0, 1]),
            DataError,
            r"example 1 is NaN",
        ),
        (
            Loss(),
            torch.tensor([[0.0, 1], [math.nan, 0]]),
            torch.tensor([0, 1]),
            CriterionError,
            r"example 1.* nan",
        ),
        (
            Accuracy(),
            torch.zeros(2),
            torch.tensor([0, 1]),
            DataError,
            r"shape \(2, classes\), received \(2,\)",
        ),
        (Accuracy(), torch.zeros(3, 2), torch.tensor([0, 1]), DataError, r"received \(3, 2\)"),
        (
            Accuracy(),
            torch.zeros(2, 3),
            torch.tensor([0.0, 1.0]),
            DataError,
            r"integer labels of shape \(2,\)",
        ),
        (
            Accuracy(),
            torch.zeros(2, 3),
            torch.tensor([[0], [1]]),
            DataError,
            r"shape \(2,\), received .*\(2, 1\)",
        ),
        (Accuracy(), torch.zeros(2, 3), (torch.ones(2),), DataError, r"tensor of labels, received tuple"),
        (Agreement(), torch.zeros(2, 3), torch.tensor([0, 1]), DataError, r"pass reference="),
    ],
)
def test_what_does_not_fit_is_refused(
    metric: ExampleMetric, output: Tensor, target: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        metric.observe(output, Batch(torch.ones(2), target), None)


def test_minus_infinity_is_a_score_like_any_other() -> None:
    scores = torch.tensor([[0.0, -math.inf], [-math.inf, 0.0]])
    assert Accuracy().observe(scores, batch(torch.tensor([0, 0])), None).tolist() == [1.0, 0.0]


def test_configuration_is_checked() -> None:
    with pytest.raises(CriterionError, match="top must be at least 1, received 0"):
        Accuracy(0)


def test_kinds_of_metrics() -> None:
    assert all(isinstance(m, ExampleMetric) for m in (Accuracy(), Loss(), Agreement()))
    assert all(isinstance(m, ModelMetric) for m in (Params(), Macs()))
    assert not isinstance(Params(), ExampleMetric)
    assert Accuracy(5).name == "accuracy (top 5)"
    assert Accuracy(5) == Accuracy(5) != Accuracy()


# ── of the model ─────────────────────────────────────────────────────────────────────────────


def test_params_count_shared_tensors_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4))
    assert Params().rows(model, None, Batch(torch.ones(1, 4)))[0].value == 40
    model[1].weight = model[0].weight
    row = Params().rows(model, nn.Linear(3, 2), Batch(torch.ones(1, 4)))[0]
    assert (row.value, row.reference, row.better) == (24, 8, "lower")


def test_macs_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    assert macs(net, torch.ones(5, 3, 8, 8)) == 6 * 6 * 8 * 3 * 9 + 288 * 10
    assert macs(nn.Conv2d(4, 4, 3, groups=4, padding=1), torch.ones(2, 4, 5, 5)) == 25 * 4 * 9
    assert macs(nn.ConvTranspose2d(4, 2, 2, stride=2), torch.ones(1, 4, 3, 3)) == 9 * 4 * 2 * 4


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


def test_macs_of_attention_which_torchs_counter_misses_on_the_cpu() -> None:
    tokens, width, wide = 5, 16, 32
    scores = 2 * tokens * tokens * width
    projections = 4 * tokens * width * width
    assert macs(Attention(), torch.ones(2, 4, tokens, width // 4)) == scores
    layer = nn.TransformerEncoderLayer(width, 4, wide, batch_first=True)
    assert macs(layer, torch.ones(2, tokens, width)) == scores + projections + 2 * tokens * width * wide
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.LSTM(4, 6, batch_first=True), 5 * 4 * 6 * (4 + 6)),
        (
            nn.LSTM(4, 6, num_layers=2, bidirectional=True, batch_first=True),
            5 * 2 * 4 * 6 * ((4 + 6) + (12 + 6)),
        ),
        (nn.GRU(4, 6, batch_first=True), 5 * 3 * 6 * (4 + 6)),
        (nn.RNN(4, 6, batch_first=True), 5 * 6 * (4 + 6)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_macs_of_recurrent_layers(layer: nn.Module, expected: int, dtype: torch.dtype) -> None:
    assert macs(layer.to(dtype), torch.ones(3, 5, 4, dtype=dtype)) == expected


def test_macs_of_a_recurrent_stack_as_cudnn_calls_it() -> None:
    # 5 positions of one example; matrices and biases of one LSTM layer from 4 to 6.
    assert _recurrent_stack((1, 5, 4), [(24, 4), (24, 6), (24,), (24,)], 4) == 2 * 5 * 24 * 10


def test_macs_take_dict_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(3, 2), nn.Linear(5, 2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.left(a) + self.right(b)

    row = Macs().rows(Two(), None, Batch({"a": torch.ones(4, 3), "b": torch.ones(4, 5)}))[0]
    assert row.value == 16

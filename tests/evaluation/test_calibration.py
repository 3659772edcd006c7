"""Calibration error: by hand, its bins, and an interval that is honest about few examples."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from measured import chain, masks, seen
from shapleaf.data import Batch
from shapleaf.errors import CriterionError, DataError
from shapleaf.evaluation import CalibrationError, ExampleMetric, calibration, evaluate
from shapleaf.records import Outcomes, Subject


def values(*pairs: tuple[float, float, int]) -> Tensor:
    """Probability, 1 if right, and how many examples are so."""
    return torch.tensor([[p, right] for p, right, n in pairs for _ in range(n)], dtype=torch.float64)


def test_by_hand() -> None:
    # Half the examples at .9 of which 3/4 are right: .15; half at .3 of which 1/2 are: .2.
    both = values((0.9, 1, 3), (0.9, 0, 1), (0.3, 1, 2), (0.3, 0, 2))
    assert CalibrationError().summarise(both).value == pytest.approx(17.5)
    # In one bin the two errors cancel: mean probability .6, accuracy 5/8.
    assert CalibrationError(bins=1).summarise(both).value == pytest.approx(2.5)


def test_a_bin_holds_its_upper_end() -> None:
    ends = values((0.5, 1, 1), (0.51, 0, 1), (1.0, 1, 1), (0.0, 0, 1))
    # Two bins: (0, .5] has .5 right and 0 wrong, (.5, 1] has .51 wrong and 1 right.
    assert CalibrationError(bins=2).summarise(ends).value == pytest.approx(100 * (0.5 + 0.51) / 4)


def test_what_evaluate_observes() -> None:
    scores = torch.tensor([[0.7, 0.3], [0.2, 0.8]]).log()
    seen_ = CalibrationError().observe(scores, Batch(torch.ones(2), torch.tensor([0, 0])), None)
    assert torch.allclose(seen_, torch.tensor([[0.7, 1.0], [0.8, 0.0]], dtype=torch.float64))
    row = evaluate(nn.Identity(), (scores, torch.tensor([0, 0])), [CalibrationError()])["calibration error"]
    assert row.value == pytest.approx(100 * (0.3 + 0.8) / 2, abs=1e-4)
    assert (row.unit, row.better) == ("%", "lower")


def drawn(examples: int, off: float, seed: int) -> Tensor:
    """A model that is right less often, by ``off``, than it is sure."""
    draw = torch.Generator().manual_seed(seed)
    sure = 0.5 + 0.5 * torch.rand(examples, generator=draw, dtype=torch.float64)
    right = torch.rand(examples, generator=draw, dtype=torch.float64) < sure - off
    return torch.stack([sure, right.double()], 1)


@pytest.mark.parametrize(("off", "least"), [(0.0, 36), (0.03, 34), (0.1, 34)])
def test_the_interval_covers_the_truth(off: float, least: int) -> None:
    metric = CalibrationError(resamples=200)
    found = [metric.summarise(drawn(400, off, seed)) for seed in range(40)]
    assert sum((one.low or 0) <= 100 * off <= (one.high or 0) for one in found) >= least
    assert all((one.low or 0) <= one.value <= (one.high or 0) for one in found)


def test_few_examples_alone_do_not_make_a_model_badly_calibrated() -> None:
    found = [CalibrationError(resamples=200).summarise(drawn(100, 0.0, seed)) for seed in range(20)]
    assert sum(one.low == 0 for one in found) >= 18
    assert min(one.value for one in found) > 1  # what the figure alone would say


def test_of_outcomes() -> None:
    outcomes = chain([0.5], [seen("clean", [10, 40], 100, nominal=True), seen("fog", [0, 5], 20, family="w")])
    found = calibration(outcomes, resamples=50)
    assert [round(one.value, 4) for one in found] == [0, 30, 10, 15]
    assert [(one.subject, one.distribution) for one in found][1] == ("WT 0 0.5", "clean")
    assert (found[2].family, found[2].nominal, found[0].nominal) == ("w", False, True)
    alone = CalibrationError(resamples=50).summarise(values((0.9, 0, 40), (0.9, 1, 60)))
    assert (found[1].low, found[1].high) == (
        pytest.approx(alone.low, abs=1e-4),
        pytest.approx(alone.high, abs=1e-4),
    )


def test_distributions_are_taken_together_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"a": [3, 30], "b": [10, 20], "c": [1, 2], "d": [7, 70]}
    observed = [seen(name, wrong, 20 if name == "c" else 100) for name, wrong in counts.items()]
    outcomes = chain([0.5], observed)
    first = calibration(outcomes, resamples=30)
    monkeypatch.setattr(sys.modules["shapleaf.evaluation.calibration"], "_CELLS", 1)
    alone = calibration(outcomes, resamples=30)
    assert [(one.distribution, one.subject) for one in first] == [
        (name, subject.name) for name in counts for subject in outcomes.subjects
    ]
    for one, other in zip(first, alone, strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-9)


def test_bad_input() -> None:
    one = Outcomes(subjects=(Subject(name="a"),), observed=(masks([[[1, 0, 0]]]),))
    with pytest.raises(DataError, match="holds segmentations"):
        calibration(one)
    with pytest.raises(DataError, match=r"scores of shape \(examples, classes\)"):
        CalibrationError().observe(
            torch.zeros(1, 2, 3), Batch(torch.ones(1), torch.zeros(1, 3, dtype=torch.int64)), None
        )
    inf = torch.tensor([[0.0, 1.0], [0.0, torch.inf]])
    with pytest.raises(DataError, match="output for example 1 is not finite"):
        CalibrationError().observe(inf, Batch(torch.ones(2), torch.tensor([0, 1])), None)
    for arguments in ({"bins": 0}, {"resamples": 0}):
        with pytest.raises(CriterionError, match="must be at least 1, received 0"):
            CalibrationError(**arguments)
    assert isinstance(CalibrationError(), ExampleMetric)

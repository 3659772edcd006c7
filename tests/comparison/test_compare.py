"""Criteria side by side: by hand on units that do not interact, and on digits from end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf.comparison.attributions import Attributed, Seconds
from shapleaf.comparison.compare import _row
from shapleaf.integrations.datasets import load_data
from shapleaf.records import Comparison
from sides import WORTH, Fixed, gain

BY_HAND: dict[str, Any] = {
    "loss": gain,
    "aggregate": sl.Mean(),
    "rates": (),
    "overlaps": (0.25, 0.5, 0.75),
    "sizes": (1, 2, 3),
    "samples": (2,),
}


@pytest.fixture
def run(model: nn.Module, data: Any) -> Any:
    def compared(criteria: Any, **settings: Any) -> Comparison:
        graph = sl.trace(model, torch.zeros(1, 1).double())
        return sl.compare(model, graph, criteria, data, data, settings=sl.Comparing(**(BY_HAND | settings)))

    return compared


def test_two_opposite_orders_by_hand(run: Any) -> None:
    found = run({"right": Fixed(WORTH), "wrong": Fixed(tuple(-w for w in WORTH))})
    assert found.within.tolist() == found.overall.tolist() == [[1, -1], [-1, 1]]
    # A quarter: unit 0 against unit 1; a half: 0, 2 against 1, 3; three quarters: 0, 2, 3 against 1, 3, 2.
    assert [found.overlap("right", "wrong", share) for share in (0.25, 0.5, 0.75)] == [
        0,
        0,
        pytest.approx(2 / 3),
    ]
    right, wrong = found.criteria
    assert (right.ablation.within, wrong.ablation.overall) == (1, -1)
    assert (right.sensitivity, wrong.sensitivity) == pytest.approx((1, -1), abs=1e-9)
    assert right.stability == wrong.stability == ()
    assert found.scores["right"]["0"].tolist() == pytest.approx(WORTH)
    assert found.curves is None


def test_exact_criteria_of_a_linear_loss_all_say_the_same(run: Any) -> None:
    found = run({"one out": sl.LeaveOneOut(), "taylor": sl.Taylor(signed=True), "path": sl.Shapley()})
    assert torch.allclose(found.within, torch.ones(3, 3).double())
    for one in found.criteria:
        assert one.sensitivity == pytest.approx(1, abs=1e-9)
        assert [s.within for s in one.stability] == [pytest.approx(1)]
    assert found["one out"].evaluations == 5
    assert found["taylor"].evaluations is None


def test_removals_are_measured_by_a_target(run: Any) -> None:
    """The network's one output falls by ``WORTH * x``: the same as the loss of the tests above rises."""
    criteria = {"logit": sl.Taylor(signed=True, target=sl.Logit(0)), "loss": sl.Taylor(signed=True)}
    found = run(criteria, loss=sl.Logit(0), samples=())
    logit, loss = found["logit"], found["loss"]
    assert (logit.sensitivity, logit.ablation.within) == (pytest.approx(1, abs=1e-9), 1)
    assert found.scores["loss"]["0"].tolist() == [0] * 4  # cross-entropy of a single class
    assert loss.sensitivity is None
    assert found.settings["removals by"] == "Logit(of=0)"
    assert found.settings["loss"] == "cross_entropy"
    assert "removals by" not in run(criteria, samples=()).settings


def test_parts_that_are_left_out(run: Any) -> None:
    found = run({"taylor": sl.Taylor()}, overlaps=(), subsets=0, ablated=0, samples=())
    assert (found.faithfulness, found.curves, found.shares) == (None, None, ())
    assert (found["taylor"].sensitivity, found["taylor"].ablation, found["taylor"].stability) == (
        None,
        None,
        (),
    )
    assert found.table()["header"] == ["criterion", "seconds", "steps"]


def test_what_cannot_be_compared(run: Any) -> None:
    for none in ({}, [sl.Taylor()]):
        with pytest.raises(sl.CriterionError, match="there are no named criteria to compare"):
            run(none)
    with pytest.raises(sl.PlanError, match="none"):
        run({"taylor": sl.Taylor()}, groups=["none*"])
    with pytest.raises(sl.CriterionError, match=r"samples=\[10, 30\]: there are only 6 calibration examples"):
        run({"taylor": sl.Taylor()}, samples=[10, 30])
    with pytest.raises(sl.CriterionError, match="criterion 'bad': group 0: the criterion returned shape"):
        run({"taylor": sl.Taylor(), "bad": Fixed((1.0,))})


def test_cost_is_in_processor_time_and_on_an_accelerator_by_the_clock(case: Any) -> None:
    scores = sl.attribute(case().model, case().graph, None, Fixed(WORTH))
    one = Attributed(Fixed(WORTH), scores, {}, Seconds(wall=6.0, cpu=2.0))
    step = Seconds(wall=1.0, cpu=0.5)
    assert _row("a", one, step, torch.device("cpu")).steps == 4
    assert _row("a", one, step, torch.device("cuda")).steps == 6


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_gradients_may_be_off(run: Any, off: Any) -> None:
    with off():
        found = run({"taylor": sl.Taylor(), "norm": sl.WeightNorm()})
    assert found["taylor"].steps > 0


class Frozen(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def test_a_model_without_gradients_has_no_training_step(model: nn.Module, data: Any) -> None:
    frozen, settings = Frozen(model), sl.Comparing(**BY_HAND)
    graph = sl.trace(frozen, torch.zeros(1, 1).double())
    found = sl.compare(frozen, graph, {"one out": sl.LeaveOneOut()}, data, data, settings=settings)
    assert (found.step, found["one out"].steps) == (None, None)
    assert "steps" not in found.table()["header"]
    assert found["one out"].ablation.within == 1


@pytest.mark.filterwarnings("ignore:compensation made the loss")
def test_digits_from_end_to_end(tmp_path: Path) -> None:
    train, test = load_data("digits", split="train"), load_data("digits", split="test")
    layers = (nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10))
    model = nn.Sequential(nn.Flatten(), *layers)
    images, labels = train.sample(400, 0).tensors()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for part in torch.arange(400).repeat(4).split(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[part]), labels[part]).backward()
        optimizer.step()
    optimizer.zero_grad()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = sl.trace(model, images[:1])
    sample, rest = train.sample(40, 1).batches(), test.sample(100, 0).batches()
    criteria = {"one out": sl.LeaveOneOut(), "norm": sl.WeightNorm(), "surgeon": sl.OptimalBrainSurgeon(),
                "random": sl.Random()}  # fmt: skip
    settings = sl.Comparing(rates=(0, 0.3, 0.6), subsets=4, ablated=8, examples=40, samples=(10, 20), draws=1,
                            compensate=sl.LeastSquares(sample))  # fmt: skip
    found = sl.compare(model, graph, criteria, sample, rest, settings=settings)

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert found.curves is not None
    assert len(found.curves.curves) == 4 * 3
    straight = sl.attribute(model, graph, sample, sl.LeaveOneOut())
    curves = sl.pruning_curves(model, {"one out": straight}, rest, rates=(0, 0.3, 0.6))
    assert found.curve("one out").area == curves.area("one out")[0]
    assert found.curve("one out").area > found.curve("one out", "most").area
    assert found["one out"].ablation.overall > found["random"].ablation.overall
    assert 0 < found["surgeon"].stability[0].within <= 1
    assert abs(found.correlation("one out", "random").overall) < 0.4
    assert all(one.steps > 0 for one in found.criteria)
    header = found.table()["header"]
    assert header[:4] == ["criterion", "A_PR", "Top-PR", "A_PR, most first"]
    assert found.settings["removals on"] == "40"
    found.save(tmp_path / "comparison")
    assert Comparison.load(tmp_path / "comparison") == found

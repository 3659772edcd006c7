"""Pruning curves: every point against weights set to zero by hand, and what is measured how often."""

from __future__ import annotations

import copy
from importlib import import_module
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import shapleaf as sl
from shapleaf.errors import CriterionError, DataError, PlanError, StaleGraphError
from shapleaf.evaluation import RATES
from zoo import conv, example, head, settle

CLASSES = 4
UNITS = 17
SOME = (0, 0.25, 0.5, 0.8)


class Counting(nn.Sequential):
    """Counts the examples that it ran on, all copies together."""

    seen: ClassVar[list[int]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return super().forward(x)


@pytest.fixture
def case() -> tuple[nn.Module, sl.Graph, list[tuple[Tensor, Tensor]]]:
    """Two groups of 7 and 10 units; labels are what the network itself says, but for every fifth."""
    layers = [conv(2, 7), nn.BatchNorm2d(7), nn.ReLU(), conv(7, 10), nn.ReLU(), head(10, CLASSES)]
    model = settle(Counting(*layers))
    x = example(60, 2, 5, 5) + example(60, 2, 1, 1, seed=2)
    out = model(x).detach()
    with torch.no_grad():
        model[5][2].bias -= out.mean(0)  # so that all classes occur
        y = model(x).argmax(1)
    y[::5] = (y[::5] + 1) % CLASSES
    graph = sl.trace(model, x[:1])
    Counting.seen.clear()
    return model, graph, [(x[:35], y[:35]), (x[35:], y[35:])]


def scored(case: Any, criterion: sl.Criterion | None = None, **options: Any) -> sl.Scores:
    return sl.attribute(*case, criterion or sl.Taylor(target=sl.Logit()), **options)


def by_hand(case: Any, scores: sl.Scores, removed: int, *, most: bool = False) -> Tensor:
    """What reads the units with the lowest scores is zero; the last of a group stays."""
    model, _, data = case
    every = [
        (float(v), name, unit) for name, values in scores.values.items() for unit, v in enumerate(values)
    ]
    left, gone = {name: len(values) for name, values in scores.values.items()}, 0
    masked = copy.deepcopy(model)
    readers = {"0": masked[3].weight, "3": masked[5][2].weight}
    with torch.no_grad():
        for _, name, unit in sorted(every, reverse=most):
            if gone < removed and left[name] > 1:
                left[name], gone = left[name] - 1, gone + 1
                readers[name][:, unit] = 0
        return torch.cat([masked(x).argmax(1) == y for x, y in data])


@pytest.mark.parametrize("order", ["least", "most"])
@pytest.mark.parametrize(
    "criterion", [sl.Taylor(target=sl.Logit()), sl.LRP(), sl.Random(), sl.WeightNorm()], ids=repr
)
def test_o12_every_point_is_that_of_weights_set_to_zero(case, criterion: sl.Criterion, order: Any) -> None:
    scores = scored(case, criterion)
    (found,) = sl.pruning_curves(case[0], scores, case[2], orders=(order,)).select(repr(criterion), order)
    assert found.rates == RATES == tuple(k / 20 for k in range(20))
    for rate, removed, right in zip(found.rates, found.removed, found.right, strict=True):
        count = min(int(rate * UNITS + 1e-9), UNITS - 2)
        assert removed == count / UNITS
        assert torch.equal(right, by_hand(case, scores, count, most=order == "most"))


def test_o12_plans_are_nested_and_no_plan_is_no_change(case, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[sl.Plan] = []

    def recorded(model: nn.Module, plan: sl.Plan, **options: Any) -> Any:
        plans.append(plan)
        return sl.prune(model, plan, **options)

    monkeypatch.setattr(import_module("shapleaf.evaluation.pruning_curves"), "prune", recorded)
    model, _, data = case
    (found,) = sl.pruning_curves(model, scored(case), data).curves
    assert len(plans) == 18  # none for rate 0, nor for 0.05, which is less than a unit
    for larger, smaller in pairwise(plans):
        assert all(set(smaller.keep[name]) <= set(larger.keep[name]) for name in larger.keep)
    with torch.no_grad():
        whole = torch.cat([model(x).argmax(1) == y for x, y in data])
    assert torch.equal(found.right[0], whole)
    assert torch.equal(found.right[1], whole)
    assert found.accuracy[0] == 80
    assert (found.removed[1], found.params[1], found.macs[1]) == (0, 1, 1)
    for name in ("params", "macs"):
        shares = getattr(found, name)
        last, before = getattr(plans[-1].after, name), getattr(plans[-1].before, name)
        assert shares[-1] == last / before
        assert list(shares) == sorted(shares, reverse=True)


def test_o12_the_logits_of_masks_are_those_of_slices(case) -> None:
    model, _, data = case
    for rate in SOME:
        plan = sl.allocate(scored(case), sl.Units(remove=int(rate * UNITS)), multiple_of=1)
        for x, _ in data:
            masked, pruned = sl.masked(model, plan)(x), sl.prune(model, plan).model(x)
            torch.testing.assert_close(pruned, masked, rtol=1e-12, atol=1e-12)
            assert rate or torch.equal(pruned, model(x))


def test_groups_keep_their_last_unit(case) -> None:
    values = {"0": torch.arange(7.0), "3": torch.arange(10.0) + 100}
    scores = sl.Scores(graph=case[1], values=values, criterion="mine")
    (found,) = sl.pruning_curves(case[0], scores, case[2], rates=(0.4, 0.5, 0.9, 0.95, 0.99)).curves
    assert found.removed == (6 / 17, 8 / 17, 15 / 17, 15 / 17, 15 / 17)
    assert torch.equal(found.right[0], by_hand(case, scores, 6))
    assert torch.equal(found.right[-1], by_hand(case, scores, 15))


def test_the_model_is_tested_once_and_pruned_ones_once_each(case) -> None:
    named = {"taylor": [scored(case), scored(case, sl.LRP())], "random": scored(case, sl.Random())}
    Counting.seen.clear()
    found = sl.pruning_curves(case[0], named, case[2], rates=SOME, orders=("least", "most"))
    tested = [count for count in Counting.seen if count > 2]  # those of 2 are proofs
    assert tested == [35, 25] * (1 + 3 * 2 * 3)
    assert [(one.criterion, one.order, one.seed) for one in found.curves] == [
        *[("taylor", order, seed) for order in ("least", "most") for seed in (0, 1)],
        ("random", "least", 0), ("random", "most", 0),
    ]  # fmt: skip
    apart = sl.pruning_curves(case[0], {"taylor": named["taylor"][1]}, case[2], rates=SOME)
    assert torch.equal(apart.curves[0].right, found.select("taylor")[1].right)
    assert found.settings["units"] == str(UNITS)
    assert (found.settings["groups"], found.settings["examples"]) == ("2", "60")
    assert found.settings["strategy"] == "Global()"


def test_what_is_needed_most_goes_first_as_a_control(case) -> None:
    found = sl.pruning_curves(case[0], {"taylor": scored(case)}, case[2], orders=("least", "most"))
    assert found.area("taylor")[0] > found.area("taylor", "most")[0] + 0.1


def test_other_strategies(case) -> None:
    scores = scored(case)
    found = sl.pruning_curves(case[0], scores, case[2], rates=(0.5,), strategy=sl.Uniform())
    plan = sl.allocate(scores, sl.Units(remove=8), strategy=sl.Uniform(), multiple_of=1)
    assert found.curves[0].params[0] == plan.after.params / plan.before.params
    assert found.settings["strategy"] == "Uniform()"
    assert found != sl.pruning_curves(case[0], scores, case[2], rates=(0.5,))


def test_what_compensates_is_that_of_prune(case) -> None:
    model, _, data = case
    scores, steps = scored(case), (sl.FoldMean(data), sl.LeastSquares(data))
    found = sl.pruning_curves(model, {"mine": scores}, data, rates=SOME, compensate=steps)
    assert found.compensations == ("FoldMean() + LeastSquares()",)
    plan = sl.allocate(scores, sl.Units(remove=8), multiple_of=1)
    pruned = sl.prune(model, plan, compensate=steps).model
    right = torch.cat([pruned(x).argmax(1) == y for x, y in data])
    assert torch.equal(found.curves[0].right[2], right)
    plain = sl.pruning_curves(model, {"mine": scores}, data, rates=SOME)
    assert torch.equal(found.curves[0].right[0], plain.curves[0].right[0])  # nothing to make up for
    both = sl.records.PruningCurves.joined([plain, found])
    assert both.area("mine", compensation="FoldMean() + LeastSquares()") > both.area(
        "mine", compensation="none"
    )


def test_a_compensation_that_harms_shows_in_the_curve(case) -> None:
    """Where prune alone would warn."""

    class Harms:
        data = case[2]

        def compensate(self, pruned: nn.Module, reference: nn.Module, plan: sl.Plan) -> tuple[str, ...]:
            pruned[5][2].bias.data[0] += 100
            return ()

        def __repr__(self) -> str:
            return "Harms()"

    found = sl.pruning_curves(case[0], scored(case), case[2], rates=(0, 0.5), compensate=Harms())
    share = float((torch.cat([y for _, y in case[2]]) == 0).double().mean())
    assert found.curves[0].accuracy.tolist() == pytest.approx([80, 100 * share])
    assert found.compensations == ("Harms()",)


def test_curves_of_a_scan_are_of_its_own_order(case) -> None:
    scores = sl.scan(case[0], scored(case), case[2])
    options: Any = {"rates": (0, 0.5), "strategy": sl.Tradeoff()}
    assert sl.pruning_curves(case[0], scores, case[2], **options).curves[0].removed == (0, 8 / 17)
    assert sl.pruning_curves(case[0], scores, case[2], **options | {"strategy": None}, orders=("most",))
    for strategy in (sl.Tradeoff(), sl.ErrorLevel()):
        with pytest.raises(CriterionError, match=r'needed most first; pass orders=\("least",\)'):
            sl.pruning_curves(case[0], scores, case[2], orders=("most",), strategy=strategy)


def test_a_few_classes_alone(case) -> None:
    model, _, data = case
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    few = sl.Restricted((1, 3))
    chosen = torch.isin(y, torch.tensor([1, 3]))
    part = (x[chosen], y[chosen])
    assert 5 < len(part[0]) < len(x)
    (found,) = sl.pruning_curves(model, scored(case), part, rates=(0, 0.5), restricted=few).curves
    small = copy.deepcopy(model)
    with torch.no_grad():
        small[5][2].weight.data, small[5][2].bias.data = small[5][2].weight[[1, 3]], small[5][2].bias[[1, 3]]
    assert torch.equal(found.right[0], small(part[0]).argmax(1) * 2 + 1 == part[1])
    assert found.accuracy[0] > sl.pruning_curves(model, scored(case), part, rates=(0,)).curves[0].accuracy[0]
    with pytest.raises(DataError, match="label . is none of the classes 1, 3"):
        sl.pruning_curves(model, scored(case), data, restricted=few)


def test_the_model_is_left_as_it_was(case) -> None:
    model = case[0].train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores, random = scored(case), torch.get_rng_state()
    sl.pruning_curves(model, scores, case[2], rates=SOME, compensate=sl.RecalibrateBatchNorm(case[2]))
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_one_pass_of_the_data_is_enough(case) -> None:
    scores = scored(case)
    once, again = (sl.pruning_curves(case[0], scores, d, rates=SOME) for d in (iter(case[2]), case[2]))
    assert once == again


@pytest.mark.parametrize("rates", [(), (0.5, 0.25), (0, 0, 0.5), (-0.1, 0.5), (0, 1)])
def test_rates_out_of_range(case, rates: tuple[float, ...]) -> None:
    with pytest.raises(CriterionError, match="rates are ascending shares from 0 to below 1"):
        sl.pruning_curves(case[0], scored(case), case[2], rates=rates)


def test_what_it_refuses(case) -> None:
    model, graph, data = case
    scores = scored(case)
    for orders in ((), ("first",), ("least", "least")):
        with pytest.raises(CriterionError, match='orders are "least", "most" or both'):
            sl.pruning_curves(model, scores, data, orders=orders)  # type: ignore[arg-type]
    with pytest.raises(CriterionError, match=r"orders='least': expected a sequence, such as \('least',\)"):
        sl.pruning_curves(model, scores, data, orders="least")  # type: ignore[arg-type]
    for named in ({}, {"a": ()}):
        with pytest.raises(CriterionError, match="there are no scores to prune by"):
            sl.pruning_curves(model, named, data)
    part = sl.attribute(model, graph, data, sl.Taylor(), groups=["3"])
    with pytest.raises(
        CriterionError, match="'a', seed 0 are of groups 0, 3; scores 'b', seed 1 of 3. Score"
    ):
        sl.pruning_curves(model, {"a": scores, "b": [scores, part]}, data)
    other = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)).double()
    foreign = sl.attribute(other, sl.trace(other, torch.zeros(1, 2).double()), None, sl.WeightNorm())
    with pytest.raises(CriterionError, match="'a', seed 0 and 'b', seed 0 belong to different graphs"):
        sl.pruning_curves(model, {"a": scores, "b": foreign}, data)
    with pytest.raises(StaleGraphError):
        sl.pruning_curves(other, scores, data)
    with pytest.raises(PlanError, match="scores 'a', seed 0: the scores of 0 are per example"):
        sl.pruning_curves(model, {"a": scored(case, aggregate=None)}, data)
    with pytest.raises(DataError, match="has no target"):
        sl.pruning_curves(model, scores, [x for x, _ in data])
    with pytest.raises(DataError, match="can be only once"):
        sl.pruning_curves(model, scores, data, compensate=sl.LeastSquares(iter(data)))
    with pytest.raises(DataError, match="labels run from"):
        sl.pruning_curves(model, scores, [(x, y + 2) for x, y in data])


def test_segmentations_have_no_curve() -> None:
    model = settle(nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 3)))
    data = (example(3, 2, 5, 5), torch.zeros(3, 5, 5, dtype=torch.long))
    scores = sl.attribute(model, sl.trace(model, data[0][:1]), data, sl.Taylor())
    with pytest.raises(
        DataError, match=r"of classifiers, but the model returned \(3, 3, 5, 5\) for 3 examples"
    ):
        sl.pruning_curves(model, scores, data)


def test_a_point_that_fails_says_which(case) -> None:
    model, _, data = case

    class Breaks:
        data = None

        def compensate(self, pruned: nn.Module, reference: nn.Module, plan: sl.Plan) -> tuple[str, ...]:
            pruned[0].weight.data.fill_(torch.nan)
            return ()

    with pytest.raises(DataError, match="scores 'mine', seed 0: rate 0.5: the output for example 0 is NaN"):
        sl.pruning_curves(model, {"mine": scored(case)}, data, rates=(0, 0.5), compensate=Breaks())

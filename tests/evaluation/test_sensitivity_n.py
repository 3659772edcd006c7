"""Sensitivity-n: perfect where theory says so, and the same as a slow loop."""

from __future__ import annotations

import copy
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf._rng import stream

Data = list[tuple[torch.Tensor, torch.Tensor]]
UNITS, EXAMPLES = 9, 20


def linear_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return output.gather(1, target[:, None])[:, 0]


@pytest.fixture
def case() -> tuple[nn.Module, sl.Graph, Data]:
    model = nn.Sequential(nn.Linear(3, UNITS), nn.ReLU(), nn.Linear(UNITS, 4)).double()
    with torch.no_grad():  # so that units interact, as in a trained network
        for parameter in model.parameters():
            parameter.mul_(4)
    x, y = torch.randn(EXAMPLES, 3).double(), torch.randint(4, (EXAMPLES,))
    return model, sl.trace(model, x[:1]), [(x[:13], y[:13]), (x[13:], y[13:])]


def scored(case: Any, criterion: sl.Criterion, **options: Any) -> sl.Scores:
    return sl.attribute(*case, criterion, **({"aggregate": None} | options))


def test_a_linear_loss_is_foretold_at_every_size(case) -> None:
    scores = scored(case, sl.Taylor(signed=True), loss=linear_loss)
    found = sl.faithfulness(case[0], scores, case[2], loss=linear_loss)
    curve = found.curve("0", repr(sl.Taylor(signed=True)))
    assert [row.removed for row in curve] == [1, 2, 3, 4, 5, 6, 7]
    for row in curve:
        assert (row.example, row.pooled) == pytest.approx((1, 1), abs=1e-9)
        assert row.spearman == pytest.approx(1, abs=1e-3)  # sets drawn twice differ by rounding
        assert row.predicted == pytest.approx(row.rise, abs=1e-12)
    assert found.area("0", repr(sl.Taylor(signed=True)), "example") == pytest.approx(1, abs=1e-9)


def test_one_pass_of_the_data_is_enough(case) -> None:
    model, _, data = case
    scores, removal = scored(case, sl.LeaveOneOut()), sl.CalibrationMean()
    once, again = (sl.faithfulness(model, scores, d, removal=removal) for d in (iter(data), data))
    assert once == again


def test_leaving_one_out_is_perfect_at_one(case) -> None:
    scores = scored(case, sl.LeaveOneOut())
    one, half = sl.faithfulness(case[0], scores, case[2], sizes=[0.5, 1]).rows
    assert (one.example, one.pooled, one.spearman) == pytest.approx((1, 1, 1), abs=1e-12)
    assert one.sets == UNITS
    assert half.example < 0.999


def test_shapley_values_sum_to_the_rise_when_all_are_gone(case) -> None:
    scores = scored(case, sl.Shapley(sl.Exact()))
    (row,) = sl.faithfulness(case[0], scores, case[2], sizes=[1.0]).rows
    assert row.predicted == pytest.approx(row.rise, abs=1e-12)
    assert (row.removed, row.sets, row.examples) == (UNITS, 1, 0)
    assert (row.example, row.pooled, row.spearman) == (None, None, None)


def test_random_scores_foretell_nothing(case) -> None:
    named = {str(seed): scored(case, sl.Random(), seed=seed) for seed in range(40)}
    found = sl.faithfulness(case[0], named, case[2], sizes=[1, 0.5])
    pooled = torch.tensor([row.pooled for row in found.rows])
    # With 9 units whose sum does not matter, one r has a deviation of about 1 / sqrt(8).
    assert abs(pooled.mean().item()) < 0.12
    assert pooled.square().mean().sqrt().item() == pytest.approx(8**-0.5, abs=0.07)


def test_shapley_values_are_more_faithful_than_gradients(case) -> None:
    named = {"shapley": scored(case, sl.Shapley(sl.Exact())), "taylor": scored(case, sl.Taylor(signed=True))}
    found = sl.faithfulness(case[0], named, case[2])
    areas = [found.area("0", name, "example") for name in named]
    assert areas[0] > areas[1] > 0.2


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


@pytest.mark.parametrize("size", [1, 5])
def test_a_slow_loop_agrees(case, size: int) -> None:
    """One network pass for each set, one r for each example; a set per unit at 1, 60 draws at 5."""
    model, _, data = case
    scores = scored(case, sl.Taylor())
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    losses = nn.CrossEntropyLoss(reduction="none")
    if size == 1:
        sets = list(combinations(range(UNITS), 1))
    else:
        generator = stream(3, "faithfulness", "0", size)
        sets = [generator.permutation(UNITS)[:size].tolist() for _ in range(60)]
    rises, sums = [], []
    for gone in sets:
        hidden = model[:2](x).detach()
        cut = hidden.clone()
        cut[:, list(gone)] = 0
        rises.append((losses(model[2](cut), y) - losses(model[2](hidden), y)).detach().numpy())
        sums.append(scores.values["0"][:, list(gone)].sum(1).numpy())
    rises, sums = np.stack(rises), np.stack(sums)
    (row,) = sl.faithfulness(model, scores, data, sizes=[size], subsets=60, seed=3).rows
    each = [pearson(sums[:, e], rises[:, e]) for e in range(EXAMPLES)]
    p, r = sums.mean(1), rises.mean(1)
    assert row.example == pytest.approx(np.mean(each), abs=1e-9)
    assert row.examples == EXAMPLES
    assert row.pooled == pytest.approx(pearson(p, r), abs=1e-9)
    assert row.spearman == pytest.approx(pearson(ranks(p), ranks(r)), abs=1e-9)
    assert (row.predicted, row.rise) == pytest.approx((p.mean(), r.mean()), abs=1e-12)


def test_scale_and_offset_are_forgiven(case) -> None:
    scores = scored(case, sl.Taylor())
    other = sl.Scores(graph=scores.graph, values={"0": 3 * scores.values["0"] + 7})
    rows = sl.faithfulness(case[0], {"a": scores, "b": other}, case[2], sizes=[3, 6]).rows
    for a, b in zip(rows[:2], rows[2:], strict=True):
        assert (a.example, a.pooled, a.spearman) == pytest.approx((b.example, b.pooled, b.spearman), abs=1e-9)


def test_batches_and_company_do_not_matter(case) -> None:
    model, _, data = case
    named = {"taylor": scored(case, sl.Taylor()), "shapley": scored(case, sl.Shapley())}
    both = sl.faithfulness(model, named, data, sizes=[4])
    whole = [tuple(torch.cat(parts) for parts in zip(*data, strict=True))]
    for name, scores in named.items():
        (alone,) = sl.faithfulness(model, {name: scores}, whole, sizes=[2, 4]).curve("0", name)[1:]
        (row,) = both.curve("0", name)
        assert (row.example, row.pooled, row.rise) == pytest.approx(
            (alone.example, alone.pooled, alone.rise), abs=1e-12
        )
    other = sl.faithfulness(model, named, data, sizes=[4], seed=1)
    assert other.rows[0].rise != both.rows[0].rise


def test_aggregated_scores_have_pooled_correlations_only(case) -> None:
    per_example, mean = scored(case, sl.Taylor()), scored(case, sl.Taylor(), aggregate=sl.Mean())
    named = {"each": per_example, "mean": mean, "norm": scored(case, sl.WeightNorm())}
    each, aggregated, norm = sl.faithfulness(case[0], named, case[2], sizes=[6]).rows
    assert aggregated.pooled == pytest.approx(each.pooled, abs=1e-12)
    assert (aggregated.example, aggregated.examples) == (norm.example, norm.examples) == (None, 0)
    assert each.examples == EXAMPLES
    assert norm.pooled is not None


def test_examples_that_do_not_vary_are_left_out(case) -> None:
    """Scores without a difference, and an example whose hidden units are all off, have no correlation."""
    model, graph, data = case
    scores = scored(case, sl.Taylor())
    values = scores.values["0"].clone()
    values[:5] = 0.1
    flat = sl.Scores(graph=graph, values={"0": values})
    with torch.no_grad():
        model[0].bias.fill_(-1)
    data[1][0][0] = 0
    (row,) = sl.faithfulness(model, flat, data, sizes=[4]).rows
    alive = (model[:2](torch.cat([x for x, _ in data])) > 0).any(1)
    assert not alive[13]
    assert row.examples == alive[5:].sum() > 5
    assert np.isfinite(row.example)
    constant = sl.Scores(graph=graph, values={"0": torch.ones(UNITS)})
    (row,) = sl.faithfulness(model, constant, data, sizes=[4]).rows
    assert (row.example, row.pooled, row.spearman) == (None, None, None)


def test_removal_is_that_of_the_criteria_by_default(case) -> None:
    scores = scored(case, sl.LeaveOneOut(sl.CalibrationMean()))
    zero, mean = (
        sl.faithfulness(case[0], scores, case[2], sizes=[1], removal=removal).rows[0]
        for removal in (None, sl.CalibrationMean())
    )
    assert mean.example == pytest.approx(1, abs=1e-9)
    assert zero.example < 0.999


def test_the_model_is_left_as_it_was(case) -> None:
    model, _, data = case
    scores = scored(case, sl.Taylor())
    model.train()
    model[1].eval()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    sl.faithfulness(model, scores, data, sizes=[3])
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert [module.training for module in model] == [True, False, True]
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("target", [sl.Logit(), sl.Logit(2), sl.LogitDifference(0, 1)], ids=repr)
def test_scores_of_a_logit_are_measured_against_its_fall(case, target: sl.Target) -> None:
    """Behind the last linear layer a logit is linear in the units; its loss is not."""
    model, _, data = case
    scores = scored(case, sl.Taylor(signed=True, target=target))
    given = data if target.labelled else [x for x, _ in data]
    for row in sl.faithfulness(model, scores, given, loss=target).rows:
        assert (row.example, row.pooled) == pytest.approx((1, 1), abs=1e-9)
        assert row.predicted == pytest.approx(row.rise, abs=1e-12)
    assert sl.faithfulness(model, scores, data, sizes=[4]).rows[0].example < 0.999


def test_the_target_is_told(case) -> None:
    found = sl.faithfulness(case[0], scored(case, sl.WeightNorm()), case[2], sizes=[4], loss=sl.Logit(1))
    lines = str(found).splitlines()
    assert lines[0] == "Faithfulness to Logit(of=1) when units are removed"
    assert "target=Logit(of=1), subsets=100, examples=20, removal=Zero, loss=none" in lines[-1]


def test_it_is_saved_and_printed(case, tmp_path) -> None:
    named = {"taylor": scored(case, sl.Taylor()), "norm": scored(case, sl.WeightNorm())}
    found = sl.faithfulness(case[0], named, case[2], subsets=20)
    found.save(tmp_path / "found")
    assert sl.Faithfulness.load(tmp_path / "found") == found
    lines = str(found).splitlines()
    assert len([line for line in lines if "3 to 7" in line]) == 2
    assert "subsets=20, examples=20, removal=Zero, loss=cross_entropy, seed=0" in lines[-1]


@pytest.mark.parametrize("sizes", [[], [0], [13], [-1], [0.0], [1.5], [float("nan")], [2, 0]])
def test_sizes_out_of_range(case, sizes: list[float]) -> None:
    with pytest.raises(sl.CriterionError, match="group 0 has 9 units; give whole numbers from 1 to 9"):
        sl.faithfulness(case[0], scored(case, sl.WeightNorm()), case[2], sizes=sizes)


def test_bad_input(case) -> None:
    model, graph, data = case
    scores = scored(case, sl.Taylor())
    with pytest.raises(sl.CriterionError, match="subsets=1: a correlation needs at least 2"):
        sl.faithfulness(model, scores, data, subsets=1)
    with pytest.raises(sl.CriterionError, match="there are no scores"):
        sl.faithfulness(model, {}, data)
    with pytest.raises(sl.CriterionError, match="group 0: scores of 20 examples, but data of 13"):
        sl.faithfulness(model, scores, data[:1])
    with pytest.raises(sl.CriterionError, match=r"no value where units are removed; use loss=Logit\(of"):
        sl.faithfulness(model, scores, data, loss=sl.Relative())
    with pytest.raises(
        sl.CriterionError, match=r"use loss=Restricted\(classes=\(0, 1\), target=Logit\(of='true'"
    ):
        sl.faithfulness(model, scores, data, loss=sl.Restricted((0, 1), sl.Relative()))
    with pytest.raises(sl.CriterionError, match="class 4 is out of range: the model has 4 classes"):
        sl.faithfulness(model, scores, data, loss=sl.Logit(4))
    with pytest.raises(sl.StaleGraphError):
        sl.faithfulness(nn.Linear(3, 2), scores, data)
    other = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)).double()
    strange = sl.attribute(other, sl.trace(other, data[0][0]), None, sl.WeightNorm())
    with pytest.raises(sl.CriterionError, match="scores 'a' and 'b' belong to different graphs"):
        sl.faithfulness(model, {"a": scores, "b": strange}, data)
    none = sl.Scores(graph=graph, values={})
    with pytest.raises(sl.CriterionError, match="scores 'a' are of groups 0; scores 'b' of nothing"):
        sl.faithfulness(model, {"a": scores, "b": none}, data)

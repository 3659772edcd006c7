"""Random plans: as many units as asked for, and readers' weights that are right on average."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf import _context, masking
from shapleaf._draws import adapt, different
from shapleaf.surgery.reweighing import _factors
from zoo import NETS, Weights, conv, example, head, settle, state

MODES = ("random", "partial")
SHARES = np.array([0.4, 0.25, 0.15, 0.1, 0.05, 0.03, 0.02, 0.0])


def drawn(units: int, mode: str, runs: int) -> np.ndarray:
    generator = np.random.default_rng(1)
    return np.stack([_factors(SHARES, units, mode, generator) for _ in range(runs)])


@pytest.mark.parametrize(("units", "runs"), [(2, 10_000), (4, 20_000)])
def test_o11_the_mean_of_the_weights_is_what_they_were(units: int, runs: int) -> None:
    """Within three standard errors of each mean (of 14, so another seed in 25 would miss one)."""
    found = drawn(units, "random", runs)
    error = found.std(0) / len(found) ** 0.5
    assert (np.abs(found.mean(0) - 1)[:-1] <= 3 * error[:-1]).all()
    assert (found[:, -1] == 0).all()


@pytest.mark.parametrize("units", [1, 2, 4, 6])
def test_o11_as_many_units_as_asked_for(units: int) -> None:
    for mode in MODES:
        counts = (drawn(units, mode, 400) > 0).sum(1)
        assert abs(counts.mean() - units) <= 1
        if mode == "random":
            expected = float(different(SHARES, adapt(SHARES, np.array([units])))[0])
            assert counts.mean() == pytest.approx(expected, abs=4 * counts.std() / 20 + 1e-12)


def test_partial_keeps_the_largest_as_they_are() -> None:
    """Four of eight: 5 draws, so those with a fifth are sure, and the rest stand for the others."""
    assert adapt(SHARES, np.array([4])).tolist() == [5]
    found = drawn(4, "partial", 4_000)
    assert (found[:, :2] == 1).all()
    error = found[:, 2:-1].std(0) / len(found) ** 0.5
    assert (np.abs(found[:, 2:-1].mean(0) - 1) <= 3 * error).all()
    assert found.var(0).sum() < drawn(4, "random", 1_000).var(0).sum()


def test_as_many_as_there_are_with_a_score_stay_as_they_are() -> None:
    for mode in MODES:
        assert drawn(7, mode, 3).tolist() == [[1, 1, 1, 1, 1, 1, 1, 0]] * 3
        assert drawn(8, mode, 1).tolist() == [[1] * 8]


def small() -> nn.Module:
    return settle(nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 5, bias=False), nn.ReLU(), head(5)))


MAPS = example(8, 3, 6, 6)


def setting(model: nn.Module) -> tuple[sl.Plan, sl.Scores]:
    scores = sl.attribute(model, sl.trace(model, MAPS[:1]), MAPS, sl.PFP())
    return sl.allocate(scores, sl.Units(keep=6), strategy=sl.ErrorLevel(), multiple_of=1), scores


@pytest.mark.parametrize("mode", MODES)
def test_o11_at_the_level_of_the_reader(mode: Any) -> None:
    """The pruned models' weights, put back in their places, have the intact ones as their mean."""
    model = small()
    plan, scores = setting(model)
    runs, whole = 300, model[2].weight.detach()
    sums, squares = torch.zeros_like(whole[0]), torch.zeros_like(whole[0])
    first = plan.keep["0"]
    for seed in range(runs):
        random, reweigh = sl.redraw(plan, scores, mode=mode, seed=seed)
        put = torch.zeros_like(whole[0])
        units = torch.tensor(random.keep["0"])
        put[units] = whole[0][units] * reweigh.factors["0"].view(-1, 1, 1)
        sums, squares = sums + put, squares + put.square()
    mean = sums / runs
    error = ((squares / runs - mean.square()).clamp_min(0) / runs).sqrt()
    sure = [unit for unit in range(6) if error[unit].max() == 0]
    assert mode == "partial" or not sure
    assert ((mean - whole[0]).abs() <= 3 * error + 1e-12).all()
    assert len(first) < 6


@pytest.mark.parametrize("mode", MODES)
def test_pruning_and_reweighing_is_masking_by_the_factors(mode: Any) -> None:
    """The readers' weights times the factor: as if what they read were."""
    model = small()
    kept = state(model)
    plan, scores = setting(model)
    random, reweigh = sl.redraw(plan, scores, mode=mode, seed=4)
    pruned, receipt = sl.prune(model, random, compensate=reweigh)
    factors = {}
    for name, size in (("0", 6), ("2", 5)):
        full = torch.zeros(size).double()
        full[list(random.keep[name])] = reweigh.factors.get(name, torch.ones(size).double())
        factors[name] = full
    h = F.relu(model[0](MAPS)) * factors["0"].view(-1, 1, 1)
    h = F.relu(model[2](h)) * factors["2"].view(-1, 1, 1)
    assert torch.allclose(pruned(MAPS), model[4](h), rtol=1e-10)
    assert state(model) == kept
    assert any("were multiplied by" in note for note in receipt.effects[0].notes)
    assert (random.made_by["redraw"], random.made_by["redraw_seed"]) == (mode, "4")


REFUSED = {"autoencoder"}
"""Nets where a weight that reads units does something else, too."""


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_net_is_reweighed_or_refused(name: str) -> None:
    """Factors of two on everything that is kept: the masked model with masks of two."""
    model, inputs = NETS[name]()
    graph = sl.trace(model, inputs)
    plan = sl.plan(graph, {g.name: range(g.size) for g in graph})
    for group in graph:
        reweigh = sl.Reweigh({group.name: 2 * torch.ones(group.size)})
        if any(site.weight is None for site in group.sites):
            with pytest.raises(sl.PlanError, match="no weights"):
                sl.prune(model, plan, compensate=reweigh)
            continue
        if name in REFUSED:
            with pytest.raises(sl.PlanError, match="cannot be multiplied for what it reads"):
                sl.prune(model, plan, compensate=reweigh)
            continue
        pruned = sl.prune(model, plan, compensate=reweigh).model
        gates = masking.Gates([group])
        masks = masking.Masks({group.name: 2 * torch.ones(1, group.size).double()})
        with torch.no_grad():
            out = _context.forward(pruned, inputs)
            with masking.Reader(model, gates, masks):
                expected = _context.forward(model, inputs)
        for a, b in zip(_context.tensors(out), _context.tensors(expected), strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_the_same_seed_draws_the_same() -> None:
    plan, scores = setting(small())
    (a, one), (b, two), (c, _) = (sl.redraw(plan, scores, seed=seed) for seed in (7, 7, 8))
    assert a == b
    assert all(torch.equal(one.factors[name], two.factors[name]) for name in one.factors)
    assert a != c


def tied() -> nn.Module:
    """What one weight does twice."""
    return settle(
        Weights(
            lambda self, x: F.linear(F.linear(F.relu(F.linear(x, self.w)), self.w.T), self.v),
            w=(8, 6),
            v=(2, 6),
        )
    )


def test_a_weight_that_does_more_is_not_multiplied() -> None:
    model = tied()
    graph = sl.trace(model, example(2, 6))
    group = graph.groups[0]
    plan = sl.plan(graph, {group.name: range(1, group.size)})
    with pytest.raises(sl.PlanError, match="cannot be multiplied"):
        sl.prune(model, plan, compensate=sl.Reweigh({group.name: torch.ones(group.size - 1)}))


def test_bad_input() -> None:
    model = small()
    plan, scores = setting(model)
    values = scores.values
    other = sl.trace(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.zeros(1, 3))
    with pytest.raises(sl.StaleGraphError, match="attribute the model that the plan is for"):
        sl.redraw(plan, sl.Scores(graph=other, values={"0": torch.ones(4)}))
    for wrong, message in (
        ({}, "no scores per unit"),
        ({"0": values["0"][None], "2": values["2"]}, "no scores per unit"),
        ({"0": values["0"] * 0, "2": values["2"]}, "all zero"),
        ({"0": values["0"] - 1.5, "2": values["2"]}, "not negative"),
    ):
        with pytest.raises(sl.CriterionError, match=message):
            sl.redraw(plan, sl.Scores(graph=plan.graph, values=wrong))
    with pytest.raises(sl.PlanError, match='"random" or "partial", received'):
        sl.redraw(plan, scores, mode="top")  # type: ignore[arg-type]
    with pytest.raises(sl.PlanError, match="one finite factor"):
        sl.prune(model, plan, compensate=sl.Reweigh({"0": torch.ones(6)}))
    with pytest.raises(sl.PlanError, match="no group is named"):
        sl.prune(model, plan, compensate=sl.Reweigh({"x": torch.ones(6)}))


def test_tied_groups_are_refused() -> None:
    model, inputs = NETS["branches"]()
    graph = sl.trace(model, inputs)
    plan = sl.plan(graph, {name: [0, 1] for name in graph.ties[0]})
    scores = sl.Scores(graph=graph, values={g.name: torch.ones(g.size) for g in graph})
    with pytest.raises(sl.PlanError, match="must keep the same share as first#2"):
        sl.redraw(plan, scores)

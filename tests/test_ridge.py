"""Ridge regressions: against lstsq, in pieces, side by side, with the penalty chosen across halves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from shapleaf import _ridge
from shapleaf._ridge import PENALTIES, Fit, Ridge, scale
from zoo import example


def halves(n: int) -> Tensor:
    return torch.arange(n) % 2


def solved(rows: Tensor, targets: Tensor, *, intercept: bool = True) -> Fit:
    ridge = Ridge(intercept=intercept)
    ridge.add(rows, targets, halves(rows.shape[1]))
    return ridge.solve()


def by_hand(
    rows: Tensor, targets: Tensor, penalty: float, *, intercept: bool = True
) -> tuple[Tensor, Tensor]:
    """(X'X + penalty * D) w = X'y about the means, one group, D each feature's sum of squares."""
    centre = rows.mean(0) if intercept else torch.zeros_like(rows[0])
    aim = targets.mean(0) if intercept else torch.zeros_like(targets[0])
    x, y = rows - centre, targets - aim
    own = x.square().sum(0)
    matrix = torch.linalg.solve(x.T @ x + penalty * torch.diag(own + 1e-3 * own.mean()), x.T @ y)
    return matrix, aim - centre @ matrix


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("n", [12, 200])
def test_it_solves_the_equations_of_the_penalty_it_chose(n: int, intercept: bool) -> None:
    """12 rows of 9 features: a half has fewer rows than features, the whole more."""
    rows, noise = example(1, n, 9), example(1, n, 4, seed=2)
    targets = rows[..., :4] * 2 + 3 + noise
    fit = solved(rows, targets, intercept=intercept)
    assert math.isfinite(fit.penalty)
    matrix, shift = by_hand(rows[0], targets[0], fit.penalty, intercept=intercept)
    assert torch.allclose(fit.matrix[0], matrix, atol=1e-10)
    assert torch.allclose(fit.intercept[0], shift, atol=1e-10)
    if not intercept:
        assert not fit.intercept.any()


def test_without_noise_it_is_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ridge, "PENALTIES", (1e-12,))
    rows = example(1, 60, 5) + 1
    targets = rows @ example(1, 5, 2, seed=2) - 7
    fit = solved(rows, targets)
    ones = torch.cat([rows[0], torch.ones(60, 1)], 1)
    expected = torch.linalg.lstsq(ones, targets[0]).solution
    assert torch.allclose(fit.matrix[0], expected[:-1], atol=1e-8)
    assert torch.allclose(fit.intercept[0], expected[-1], atol=1e-8)


def test_the_penalty_is_the_one_that_predicts_the_other_half_best() -> None:
    rows, targets = example(1, 30, 6), example(1, 30, 2, seed=5)
    targets = targets + rows[..., :2]
    even, odd = ((rows[0, k::2], targets[0, k::2]) for k in (0, 1))

    def missed(penalty: float) -> float:
        total = 0.0
        for (x, y), (other, aim) in ((even, odd), (odd, even)):
            matrix, shift = by_hand(x, y, penalty)
            total += float((aim - other @ matrix - shift).square().sum())
        return total

    best = min(PENALTIES, key=missed)
    finer = min((best, best / 10**0.5, best * 10**0.5), key=missed)
    assert solved(rows, targets).penalty == pytest.approx(finer)


def test_primal_is_dual() -> None:
    """The equations of the features, and of the rows, give the same."""
    rows, targets = example(3, 5, 8), example(3, 5, 2, seed=2)
    gram, cross = rows.mT @ rows, rows.mT @ targets
    for penalty in (1e-4, 1.0):
        assert torch.allclose(
            _ridge._primal(gram, cross, penalty), _ridge._dual(rows, targets, penalty), atol=1e-8
        )


@pytest.mark.parametrize("n", [6, 100])
@pytest.mark.parametrize("intercept", [True, False])
def test_pieces_are_the_whole(n: int, intercept: bool) -> None:
    rows, targets = example(2, n, 7) + 1, example(2, n, 3, seed=2)
    targets = targets + rows[..., :3]
    ridge = Ridge(intercept=intercept)
    for first in range(0, n, 4):
        part = slice(first, first + 4)
        ridge.add(rows[:, part], targets[:, part], halves(n)[part])
    whole, pieces = solved(rows, targets, intercept=intercept), ridge.solve()
    assert pieces.penalty == whole.penalty
    assert torch.allclose(pieces.matrix, whole.matrix, atol=1e-10)
    assert torch.allclose(pieces.intercept, whole.intercept, atol=1e-10)


def test_solving_twice_is_the_same() -> None:
    ridge = Ridge()
    ridge.add(example(1, 20, 3), example(1, 20, 2, seed=2), halves(20))
    first, second = ridge.solve(), ridge.solve()
    assert torch.equal(first.matrix, second.matrix)
    assert torch.equal(first.intercept, second.intercept)


def test_groups_are_regressions_of_their_own_under_one_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ridge, "PENALTIES", (0.1,))
    monkeypatch.setattr(_ridge, "_FINER", 1.0)
    rows, targets = example(3, 40, 4), example(3, 40, 2, seed=2)
    targets = targets + 2 * rows[..., :2]
    together = solved(rows, targets)
    for group in range(3):
        alone = solved(rows[group : group + 1], targets[group : group + 1])
        assert torch.allclose(together.matrix[group], alone.matrix[0])
        assert torch.allclose(together.intercept[group], alone.intercept[0])


def test_noise_gets_an_infinite_penalty_and_its_mean() -> None:
    rows, targets = example(1, 30, 25, seed=1), example(1, 30, 50, seed=2) + 4
    fit = solved(rows, targets)
    assert fit.penalty == math.inf
    assert not fit.matrix.any()
    assert torch.allclose(fit.intercept, targets.mean(1))


def test_one_example_changes_nothing_but_the_mean() -> None:
    """A single example (of one half) cannot tell what holds for others."""
    rows, targets = example(1, 1, 3), example(1, 1, 2, seed=2)
    fit = solved(rows, targets)
    assert fit.penalty == math.inf
    assert not fit.matrix.any()
    assert torch.equal(fit.intercept, targets[:, 0])
    assert not solved(rows, targets, intercept=False).intercept.any()


@pytest.mark.parametrize("n", [8, 60])
def test_constant_and_equal_features(n: int) -> None:
    """One that never changes, and one that comes twice."""
    x = example(1, n, 1)
    rows = torch.cat([x, x, torch.full_like(x, 0.1)], 2)
    fit = solved(rows, 3 * x + 1)
    assert torch.allclose(rows @ fit.matrix + fit.intercept[:, None], 3 * x + 1, atol=1e-2)
    assert torch.allclose(fit.matrix[0, 0], fit.matrix[0, 1], atol=1e-8)
    assert fit.matrix[0, 2].abs() < 1e-6


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1e3 / 3, -12345.678])
@pytest.mark.parametrize("n", [2, 41])
def test_where_nothing_changes_only_the_mean_is_fitted(value: float, n: int) -> None:
    rows, targets = torch.full((1, n, 3), value).double(), torch.full((1, n, 2), 5.0).double()
    fit = solved(rows, targets)
    assert torch.allclose(rows @ fit.matrix + fit.intercept[:, None], targets)
    assert fit.matrix.isfinite().all()


def test_it_counts_in_double_precision() -> None:
    """Float32 rows far from zero."""
    x = example(1, 500, 2)
    rows = (x + 100).float()
    fit = solved(rows, (x @ torch.ones(1, 2, 1).double()).float())
    assert fit.matrix.dtype == torch.float64
    assert torch.allclose(fit.matrix, torch.ones(1, 2, 1).double(), atol=1e-3)


def test_a_penalty_is_in_units_of_each_feature() -> None:
    """Features measured in other units give the same predictions."""
    rows = example(1, 50, 3)
    targets = rows.sum(2, keepdim=True) + example(1, 50, 1, seed=2)
    units = torch.tensor([1.0, 2.0, 0.5]).double()
    a, b = solved(rows, targets), solved(rows * units, targets)
    assert torch.allclose(a.matrix[0], b.matrix[0] * units[:, None], atol=1e-2)
    gram = torch.diag(torch.tensor([4.0, 0, 2])).double()
    assert torch.allclose(scale(gram), torch.tensor([4.002, 0.002, 2.002]).double())

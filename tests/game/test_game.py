"""The contract of games and estimates."""

import torch

from shapleaf.game import Estimate, Estimator, Exact, Game, Path, Permutation
from shapleaf.game.game import ends, precise
from shapleaf.game.toys import TableGame


def test_toy_games_and_estimators_meet_their_protocols():
    assert isinstance(TableGame(torch.zeros(1, 4)), Game)
    assert all(isinstance(estimator, Estimator) for estimator in (Exact(), Permutation(), Path()))
    assert not isinstance(Exact(), Game)


def test_ends_are_the_losses_without_and_with_everybody():
    game = TableGame(torch.tensor([[5.0, 4, 3, 1], [9, 8, 7, 6]]))
    nobody, everybody = ends(game)
    assert nobody.tolist() == [5, 9]
    assert everybody.tolist() == [1, 6]
    assert nobody.dtype == torch.float64
    assert game.evaluations == 2


def test_precise_is_double():
    assert precise(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float64


def test_estimates_compare_by_value():
    def estimate(value):
        return Estimate(
            values=torch.tensor([[value]]), stderr=None, evaluations=3, shared=False, gap=torch.zeros(1)
        )

    assert estimate(1.0) == estimate(1.0)
    assert estimate(1.0) != estimate(2.0)

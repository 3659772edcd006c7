"""Path values freed of their bias: unbiased with many marginals, hardly touched by few."""

import pytest
import torch

from games import network
from shapleaf.errors import CriterionError
from shapleaf.game import Corrected, Exact, Path
from shapleaf.game.corrected import _correction
from shapleaf.game.toys import UnanimityGame


def biased():
    """Products of six units, which two points of the straight line misjudge: 11/72 instead of 1/6."""
    worth = torch.ones(200, 1, dtype=torch.float64)
    return UnanimityGame([range(6)], worth, players=7)


def test_samples_are_marginal_contributions_along_the_walks():
    game = network(ids=(4, 9, 11), players=5)
    corrected = Corrected(marginals=13)
    everybody = game.loss(torch.ones(3, 5, dtype=torch.float64))
    orders, places = corrected._walks(game, 7)
    units, samples = corrected._samples(game, 7, everybody)
    for example in range(3):
        for step, place in enumerate(places[example].tolist()):
            order = orders[place // 5, example].tolist()
            mask = torch.ones(3, 5, dtype=torch.float64)
            mask[example, order[: place % 5]] = 0
            before = game.loss(mask)[example]
            mask[example, order[place % 5]] = 0
            assert units[example, step] == order[place % 5]
            assert samples[example, step].item() == pytest.approx((game.loss(mask)[example] - before).item())


def test_cost():
    game = network()
    estimate = Corrected(Path(), 40).estimate(game)
    assert estimate.evaluations == game.evaluations == 3 * 5 * 4 + 41 + 2


def test_many_marginals_remove_the_bias():
    game = biased()
    path = Path(2, "line")
    before = path.estimate(game).values.mean(0)
    after = Corrected(path, 400).estimate(game)
    assert before[0].item() == pytest.approx(11 / 72)
    error = (after.values.mean(0) - game.shapley()[0]).abs()
    assert (error <= 3 * after.common).all()
    assert error.max() < 0.5 * abs(11 / 72 - 1 / 6)


def test_few_marginals_change_little_where_there_is_no_bias():
    worth = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)).double()
    game = UnanimityGame([(0, 1), (1, 2, 3), (0, 3)], worth, players=6)
    path = Path(2, "line")
    shift = Corrected(path, 6).estimate(game).values - path.estimate(game).values
    sampled = worth.abs().mean()
    assert shift.abs().max() < 0.1 * sampled


def test_errors_are_covered_about_as_often_as_they_say():
    """The mean over 64 examples of a random ReLU network, biased by the line, over 40 seeds."""
    game = network(range(64))
    exact = Exact().estimate(game).values.mean(0)
    covered = []
    for seed in range(40):
        estimate = Corrected(Path(8, "line"), 40).estimate(game, seed)
        covered.append(
            ((estimate.values.mean(0) - exact).abs() / estimate.common.clamp_min(1e-12))[exact != 0]
        )
    ratio = torch.cat(covered)
    assert (ratio <= 1).double().mean().item() == pytest.approx(0.68, abs=0.1)
    assert (ratio <= 2).double().mean().item() == pytest.approx(0.95, abs=0.05)


def test_it_beats_the_path_it_corrects():
    game = network(range(64))
    exact = Exact().estimate(game).values.mean(0)

    def error(estimator):
        return (estimator.estimate(game).values.mean(0) - exact).square().mean().sqrt().item()

    assert error(Corrected(Path(8, "line"), 100)) < 0.5 * error(Path(8, "line"))


def test_units_never_met_are_left_alone_and_as_uncertain_as_the_others_were_wrong():
    units = torch.tensor([[0, 1], [0, 1], [0, 1], [0, 1]])
    errors = torch.tensor([[1.0, -1], [1.1, -0.9], [0.9, -1.1], [1, -1]], dtype=torch.float64)
    correction, common = _correction(units, errors, torch.ones(3, dtype=torch.float64))
    assert correction.tolist() == pytest.approx([1, -1, 0], abs=0.01)
    assert common[2].item() == pytest.approx(1, abs=0.01)
    assert common[0] < 0.1


def test_cutting_examples_off_does_not_change_their_walks():
    corrected = Corrected(marginals=7)
    whole, part = (corrected._walks(network(ids), 0) for ids in (range(5), range(2, 5)))
    assert all(torch.equal(a[..., 2:, :], b) for a, b in zip(whole, part, strict=True))


def test_wrong_arguments_are_named():
    with pytest.raises(CriterionError, match="marginals >= 1, received 0"):
        Corrected(marginals=0)

"""Sampling until the ranking is settled: what stops it, how it is interrupted, and how it goes on."""

import math

import pytest
import torch

from games import network
from shapleaf.errors import CriterionError
from shapleaf.game import Adaptive, Estimator, Exact, Path, Permutation, adaptive
from shapleaf.game.toys import FunctionGame, TableGame


def separated(noise=1.0, examples=50, players=8):
    """Units worth 1, 2, 3 … each, and a product of two that makes orders matter."""
    worth = torch.arange(1.0, players + 1, dtype=torch.float64)
    return FunctionGame(
        lambda mask: -(mask * worth).sum(1) - noise * mask[:, 0] * mask[:, 1], players, range(examples)
    )


def test_it_stops_when_the_ranking_is_settled():
    """Half a step of the walk decides the product: units 0 and 1 get 1.5 and 2.5, far from either cut."""
    estimate = Adaptive(Permutation(antithetic=False)).estimate(separated())
    assert isinstance(Adaptive(), Estimator)
    assert estimate.stopped == "settled"
    assert estimate.evaluations == 2 * 7 + 2
    torch.testing.assert_close(estimate.values[:, 2:].mean(0), torch.arange(3.0, 9, dtype=torch.float64))


def test_the_more_certain_the_more_draws():
    spent = [
        Adaptive(Permutation(antithetic=False), confidence=level, evaluations=20_000).estimate(
            network(range(20))
        )
        for level in (0.95, 0.99, 0.999)
    ]
    assert [estimate.stopped for estimate in spent] == ["settled"] * 3
    assert spent[0].evaluations < spent[1].evaluations < spent[2].evaluations


def test_what_is_settled_is_right_as_often_as_it_says():
    """Units on the wrong side of the cut, over 40 seeds, against the exact values."""
    game = network(range(20))
    exact = Exact().estimate(game).values
    scores = exact.mean(0) + 2 * exact.std(0, correction=0)
    wrong = 0
    for seed in range(40):
        values = Adaptive(Permutation(), keep=(0.5,), confidence=0.9).estimate(game, seed).values
        found = values.mean(0) + 2 * values.std(0, correction=0)
        wrong += len(set(found.argsort()[:5].tolist()) - set(scores.argsort()[:5].tolist()))
    # Each misplaced unit displaces another one.
    assert 2 * wrong / (40 * 10) <= 0.15


def test_evaluations_are_never_exceeded():
    for limit in (20, 37, 100):
        estimate = Adaptive(Permutation(), confidence=1, evaluations=limit).estimate(network(range(3)))
        assert estimate.stopped == "evaluations"
        assert limit - 18 < estimate.evaluations <= limit


def test_a_stderr_stops_it():
    loose, tight = (
        Adaptive(Permutation(), confidence=1, stderr=level, evaluations=10**5).estimate(network(range(9)))
        for level in (0.05, 0.02)
    )
    assert (loose.stopped, tight.stopped) == ("stderr", "stderr")
    assert 3 < tight.evaluations / loose.evaluations < 14  # the square of 2.5 is 6.25


def test_seconds_stop_it_after_one_draw_at_least(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(adaptive.time, "monotonic", lambda: float(next(clock)))
    estimate = Adaptive(Path(), confidence=1, seconds=20).estimate(network(range(3)))
    assert estimate.stopped == "seconds"
    assert Adaptive(Path(), confidence=1, seconds=0).estimate(network(range(3))).evaluations == 2 + 30


def test_draws_are_those_of_the_sampler_itself():
    game = network(range(6))
    for sampler in (Permutation(8), Path(5, "signs", 8), Permutation(4, shared=True)):
        limit = 2 + sampler.rounds * sampler.cost(10)
        estimate = Adaptive(sampler, confidence=1, evaluations=limit).estimate(game, seed=3)
        plain = sampler.estimate(game, seed=3)
        torch.testing.assert_close(estimate.values, plain.values, rtol=0, atol=1e-14)
        torch.testing.assert_close(estimate.stderr, plain.stderr, rtol=0, atol=1e-14)
        assert estimate.shared == plain.shared


class Interrupted(FunctionGame):
    """Ctrl-C after so many evaluations."""

    def __init__(self, after):
        base = network(range(6))
        super().__init__(base._function, base.players, base.ids, name=base.name)
        self.after = after

    def loss(self, mask):
        if self.evaluations >= self.after:
            raise KeyboardInterrupt
        return super().loss(mask)


def test_an_interruption_returns_what_is_known():
    estimate = Adaptive(Permutation(), confidence=1).estimate(Interrupted(2 + 18 + 5))
    assert estimate.stopped == "interrupted"
    expected = Permutation(2).estimate(network(range(6))).values
    torch.testing.assert_close(estimate.values, expected, rtol=0, atol=1e-14)
    with pytest.raises(KeyboardInterrupt):
        Adaptive(Permutation(), confidence=1).estimate(Interrupted(2 + 5))


def test_a_later_call_goes_on_from_the_journal(tmp_path):
    limited = Adaptive(Permutation(), confidence=1, evaluations=2 + 18 * 6, journal=str(tmp_path / "journal"))
    Adaptive(Permutation(), confidence=1, journal=limited.journal).estimate(Interrupted(2 + 18 * 2 + 5))
    game = network(range(6))
    resumed = limited.estimate(game)
    # Two draws were there; what the interrupted third one cost is counted too.
    assert game.evaluations == 2 + 18 * 3
    assert resumed.evaluations == 2 + 18 * 5 + 5
    torch.testing.assert_close(resumed.values, Permutation(10).estimate(network(range(6))).values)
    finished = network(range(6))
    assert torch.equal(limited.estimate(finished).values, resumed.values)
    assert finished.evaluations == 2


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(adaptive, "SAVE_EVERY", 0.0)

    class Killed(Interrupted):
        def loss(self, mask):
            try:
                return super().loss(mask)
            except KeyboardInterrupt:
                raise SystemError from None

    run = Adaptive(Permutation(), confidence=1, evaluations=2 + 18 * 5, journal=str(tmp_path))
    with pytest.raises(SystemError):
        run.estimate(Killed(2 + 18 * 3 + 5))
    game = network(range(6))
    whole = run.estimate(game)
    assert game.evaluations == 2 + 18 * 2
    torch.testing.assert_close(whole.values, Permutation(10).estimate(network(range(6))).values)


def test_seeds_samplers_and_groups_have_journals_of_their_own(tmp_path):
    def run(sampler, seed, name):
        Adaptive(sampler, journal=str(tmp_path)).estimate(network(range(6), name=name), seed)
        return len(list(tmp_path.iterdir()))

    assert [run(Permutation(), 0, "a"), run(Permutation(), 0, "a"), run(Permutation(), 1, "a")] == [1, 1, 2]
    assert [run(Permutation(), 0, "b"), run(Path(), 0, "b")] == [3, 4]


def test_a_journal_of_another_game_is_refused(tmp_path):
    Adaptive(journal=str(tmp_path)).estimate(network(range(6)))
    with pytest.raises(CriterionError, match="knows group fc with other losses"):
        Adaptive(journal=str(tmp_path)).estimate(network(range(1, 7)))


def test_shared_draws_do_not_average_out():
    game = TableGame(torch.randn(1, 64, generator=torch.Generator().manual_seed(0)).double().repeat(20, 1))
    own, shared = (
        Adaptive(Permutation(shared=shared), confidence=1, std=0, stderr=0.1, evaluations=10**5).estimate(
            game
        )
        for shared in (False, True)
    )
    assert shared.evaluations > 5 * own.evaluations


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adaptive(keep=(0.5, 1.0)), "shares between 0 and 1"),
        (lambda: Adaptive(confidence=0.2), "0.5 <= confidence <= 1"),
        (lambda: Adaptive(Path(16, "line")), "draws nothing at random"),
        (lambda: Adaptive(Exact()), "draws nothing at random"),
        (
            lambda: Adaptive(Permutation(), evaluations=19).estimate(network()),
            "costs 18 evaluations for the 10",
        ),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(CriterionError, match=message):
        make()


def test_without_limits_it_would_go_on():
    assert Adaptive().seconds == math.inf

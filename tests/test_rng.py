"""Named streams: the same draws for the same names, on any machine and numpy."""

import numpy as np
import pytest

from shapleaf._rng import stream


def test_draws_are_written_down() -> None:
    # Philox keyed by BLAKE2b of the names: a change here changes every seeded result of every user.
    assert stream(0, "permutation", "conv1", 7).permutation(6).tolist() == [0, 4, 1, 2, 5, 3]
    assert stream(0).random() == 0.14897628281291264
    assert stream(0, "a").integers(1000, size=4).tolist() == [164, 175, 517, 437]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((0, "x"), (1, "x")),
        ((0, "x"), (0, "y")),
        ((0, "x", 1), (0, "x", 2)),
        ((0, "x", 1), (0, "x", "1")),
        ((0, "a", "b"), (0, "ab")),
        ((0, "a,b"), (0, "a", "b")),
        ((0, "x"), (0, "x", 0)),
    ],
)
def test_other_names_give_other_draws(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    assert stream(*a).random(4).tolist() != stream(*b).random(4).tolist()


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8])
def test_numpy_integers_are_integers(kind: type) -> None:
    assert stream(kind(3), "x", kind(7)).random() == stream(3, "x", 7).random()


def test_streams_are_independent_of_each_other_and_of_numpys_own() -> None:
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    first = stream(0, "x")
    first.random(100)
    assert stream(0, "x").random() != first.random()
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


def test_draws_of_many_streams_look_uniform() -> None:
    draws = np.array([stream(0, "unit", i).random() for i in range(2000)])
    assert abs(draws.mean() - 0.5) < 4 * (1 / 12 / 2000) ** 0.5
    assert np.abs(np.histogram(draws, 10, (0, 1))[0] - 200).max() < 4 * 200**0.5

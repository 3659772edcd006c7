"""Named streams: the same draws for the same names, on any machine and numpy."""

import numpy as np
import pytest

from shapleaf._rng import each, stream


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


def test_streams_of_many_ids_are_written_down() -> None:
    # Philox at the counter (0, 0, part, id): a change here changes every corruption of every user.
    draws = [generator.random() for generator in each(stream(0, "x"), (0, 1, 2**40))]
    assert draws == [0.9295754980290691, 0.5798131962321748, 0.4491279770942287]
    first = np.random.Philox(key=stream(0, "x").bit_generator.state["state"]["key"], counter=[0, 0, 3, 8])
    assert (
        next(each(stream(0, "x"), [8], part=3)).random(5).tolist()
        == np.random.Generator(first).random(5).tolist()
    )


def test_streams_of_many_ids_do_not_depend_on_each_other() -> None:
    base = stream(0, "x")
    base.random(3)
    base.integers(5, dtype=np.uint32)  # leaves half a word behind
    together = [generator.random(7).tolist() for generator in each(base, (3, 1, 3))]
    alone = [next(each(stream(0, "x"), [i])).random(7).tolist() for i in (3, 1, 3)]
    assert together == alone
    assert together[0] != together[1]
    assert next(each(stream(0, "x"), [3], part=1)).random() != alone[0][0]
    assert next(each(stream(1, "x"), [3])).random() != alone[0][0]

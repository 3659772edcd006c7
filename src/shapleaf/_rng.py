"""Named random streams: the same draw whatever the batch size, rank or call order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np


def stream(seed: int, *names: object) -> np.random.Generator:
    """A generator that depends on the seed and the names alone.

    Name what is drawn and for whom, down to the example, and the draw no longer
    depends on how the work was cut into batches or spread over processes.

    >>> a = stream(0, "permutation", "conv1", 7).permutation(4)
    >>> b = stream(0, "permutation", "conv1", 7).permutation(4)
    >>> bool((a == b).all())
    True
    """
    # A numpy integer prints in one way in numpy 1 and another in numpy 2.
    plain = tuple(int(name) if isinstance(name, np.integer) else name for name in (seed, *names))
    digest = hashlib.blake2b(repr(plain).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def each(base: np.random.Generator, ids: Iterable[int], part: int = 0) -> Iterator[np.random.Generator]:
    """The stream of each id among many, 25 times cheaper than a :func:`stream` for each.

    All have the key of ``base``, a new :func:`stream`. What tells them apart is Philox's counter of four
    words: the highest is the id, the next is ``part``, so that each has 2^128 blocks of its own. It is one
    generator that is yielded time after time; draw from it before the next.

    >>> [generator.random() for generator in each(stream(0, "noise"), (4, 5))] == [
    ...     generator.random() for i in (4, 5) for generator in each(stream(0, "noise"), [i])
    ... ]
    True
    """
    philox = base.bit_generator
    state = dict(philox.state, buffer_pos=4, has_uint32=0, uinteger=0)  # nothing is left of former blocks
    key = state["state"]["key"]
    for number in ids:
        counter = np.array([0, 0, part, number], dtype=np.uint64)
        philox.state = {**state, "state": {"counter": counter, "key": key}}
        yield base

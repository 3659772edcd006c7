"""Named random streams: the same draw whatever the batch size, rank or call order."""

from __future__ import annotations

import hashlib

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

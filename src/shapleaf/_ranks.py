"""Several processes under ``torchrun``: who works on which examples, and putting the results together."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor


def ranks() -> tuple[int, int]:
    """This process's rank and the number of processes; ``(0, 1)`` without ``torch.distributed``.

    >>> ranks()
    (0, 1)
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started, on processors, while the block runs; nothing without it.

    >>> with joined():
    ...     ranks()
    (0, 1)
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def shares(examples: int, world: int) -> list[range]:
    """Consecutive runs of examples, one per rank, as even as can be.

    >>> shares(5, 3)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    ends = [-(-examples * rank // world) for rank in range(world + 1)]
    return [range(*pair) for pair in itertools.pairwise(ends)]


def gather(mine: Tensor, examples: int, dim: int = 0) -> Tensor:
    """All examples' values along ``dim``, from every rank's own share; each rank gets all of them.

    >>> gather(torch.tensor([1.0, 2.0]), 2).tolist()
    [1.0, 2.0]
    """
    _, world = ranks()
    if world == 1:
        return mine
    # Collectives want equal shapes: the shares differ by one example at most.
    sizes = [len(share) for share in shares(examples, world)]
    moved = mine.movedim(dim, 0)
    padded = moved.new_zeros(max(sizes), *moved.shape[1:])
    padded[: len(moved)] = moved
    parts = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded)
    whole = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
    return whole.movedim(0, dim)


def largest(value: float) -> float:
    """The largest of all ranks' values, so that what hangs on a clock is decided alike.

    >>> largest(1.5)
    1.5
    """
    if ranks()[1] == 1:
        return value
    found = torch.tensor([value], dtype=torch.float64)
    if dist.get_backend() == "nccl":
        found = found.cuda()
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return float(found)

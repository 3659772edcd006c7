"""Several processes share the examples, and every one ends with the scores of a single process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from shapleaf._ranks import gather, ranks, shares

TAILS = "0-1", "0-2", "1-2"
WORKER = """
import sys
import torch, torch.distributed as dist
from torch import nn
import shapleaf as sl

torch.set_num_threads(1)
dist.init_process_group("gloo")
torch.manual_seed(0)
layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5)
model = nn.Sequential(*layers).eval()
x, y = torch.randn(11, 3, 6, 6), torch.arange(11) % 5
criteria = {
    "path": sl.Shapley(), "orders": sl.Shapley(sl.Permutation(2)),
    "paper": sl.Shapley(sl.Permutation(2, False, True)),
    "exact": sl.Shapley(sl.Exact()), "one": sl.LeaveOneOut(), "taylor": sl.Taylor(),
    "owen": sl.Shapley(sl.OwenMoments(2)), "dasp": sl.Shapley(sl.DASP(2)),
}
graph = sl.trace(model, x)
for name, criterion in criteria.items():
    scores = sl.attribute(model, graph, [(x[:8], y[:8]), (x[8:], y[8:])], criterion)
    scores.save(f"{sys.argv[1]}/{name}-{dist.get_rank()}-{dist.get_world_size()}.safetensors")
dist.destroy_process_group()
"""


def run(world: int, folder: Path) -> None:
    script = folder / "worker.py"
    script.write_text(WORKER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    subprocess.run([*launch, str(script), str(folder)], check=True, timeout=300)


def test_two_ranks_give_the_scores_of_one(tmp_path: Path) -> None:
    import shapleaf as sl

    run(1, tmp_path)
    run(2, tmp_path)
    names = sorted(path.name.removesuffix("-0-1.safetensors") for path in tmp_path.glob("*-0-1.safetensors"))
    assert names == ["dasp", "exact", "one", "orders", "owen", "paper", "path", "taylor"]
    for name in names:
        one, *two = (
            sl.Scores.load(tmp_path / f"{name}-{tail}.safetensors") for tail in ("0-1", "0-2", "1-2")
        )
        for scores in two:
            assert (scores.samples, scores.evaluations) == (one.samples, one.evaluations)
            for group, values in one.values.items():
                torch.testing.assert_close(scores.values[group], values, rtol=0, atol=1e-6)
                if group in one.stderr:
                    torch.testing.assert_close(scores.stderr[group], one.stderr[group], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("examples", "world"), [(5, 3), (2, 4), (6, 2), (1, 1)])
def test_shares_are_consecutive_and_even(examples: int, world: int) -> None:
    found = shares(examples, world)
    assert [example for share in found for example in share] == list(range(examples))
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_alone_nothing_is_gathered() -> None:
    mine = torch.ones(3, 2)
    assert ranks() == (0, 1)
    assert gather(mine, 3) is mine

"""RecalibrateBatchNorm: statistics move by what pruning changed, and by nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shapleaf as sl
from zoo import conv, example, gap, head, run, settle, state

MAPS = example(20, 3, 6, 6, seed=3)
pytestmark = pytest.mark.filterwarnings("ignore:compensation made the error")  # networks are not trained


def network() -> nn.Module:
    return settle(
        nn.Sequential(
            conv(3, 6), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 5, bias=False), nn.BatchNorm2d(5), nn.ReLU(),
            conv(5, 4), nn.BatchNorm2d(4), head(4),
        )
    )  # fmt: skip


def recalibrated(model: nn.Module, keep: dict[str, Any], data: Any = MAPS) -> sl.Pruned:
    plan = sl.plan(sl.trace(model, MAPS[:2]), keep)
    return sl.prune(model, plan, compensate=sl.RecalibrateBatchNorm(data))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)


def test_statistics_that_pruning_does_not_touch_stay() -> None:
    model = network()
    pruned = recalibrated(model, {"3": [0, 2]}).model
    assert torch.allclose(pruned[1].running_mean, model[1].running_mean, rtol=1e-12)
    assert torch.allclose(pruned[1].running_var, model[1].running_var, rtol=1e-9)
    assert torch.allclose(pruned[4].running_mean, model[4].running_mean[[0, 2]], rtol=1e-12)
    assert not torch.allclose(pruned[7].running_mean, model[7].running_mean)


def test_every_channel_leaves_with_the_mean_and_the_variance_that_it_had() -> None:
    model = network()
    pruned = recalibrated(model, {"0": [0, 1, 4]}).model
    plain = sl.prune(model, sl.plan(sl.trace(model, MAPS[:2]), {"0": [0, 1, 4]})).model
    with torch.no_grad():
        before, now = moments(model[:4](MAPS)), moments(plain[:4](MAPS))
        ratio = now[1] / before[1]
        moved = now[0] - (before[0] - model[4].running_mean) * ratio.sqrt()
        assert torch.allclose(pruned[4].running_mean, moved)
        assert torch.allclose(pruned[4].running_var, model[4].running_var * ratio)
        # The next norm reads what this one, recalibrated, lets through.
        for depth in (5, 8):
            for expected, found in zip(
                moments(model[:depth](MAPS)), moments(pruned[:depth](MAPS)), strict=True
            ):
                assert torch.allclose(found, expected, atol=1e-3)
    assert pruned[4].running_mean.dtype == torch.float64


@pytest.mark.parametrize("memory", [2**30, 0])
@pytest.mark.parametrize("sizes", [[4, 16], [1] * 20])
def test_how_the_data_are_cut_does_not_matter(sizes: list[int], memory: int) -> None:
    """Joined, or in one pass for each norm."""
    model = network()
    plan = sl.plan(sl.trace(model, MAPS[:2]), {"0": [0, 1, 4]})
    whole, parts = (
        sl.prune(model, plan, compensate=sl.RecalibrateBatchNorm(data, memory=memory)).model
        for data in (MAPS, [*MAPS.split(sizes)])
    )
    for name, expected in whole.named_buffers():
        assert torch.allclose(parts.get_buffer(name), expected, rtol=1e-12, atol=1e-12)


def test_images_of_several_sizes_are_pooled_by_their_places() -> None:
    model = settle(nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 5), nn.BatchNorm2d(5), head(5)))
    images = [MAPS, example(4, 3, 9, 9, seed=5)]
    pruned = recalibrated(model, {"0": [0, 3]}, images).model
    bare = sl.prune(model, sl.plan(sl.trace(model, MAPS[:2]), {"0": [0, 3]})).model
    with torch.no_grad():
        before, now = (
            torch.cat([net[:3](maps).transpose(0, 1).flatten(1) for maps in images], 1)
            for net in (model, bare)
        )
    ratio = now.var(1, correction=0) / before.var(1, correction=0)
    moved = now.mean(1) - (before.mean(1) - model[3].running_mean) * ratio.sqrt()
    assert torch.allclose(pruned[3].running_var, model[3].running_var * ratio)
    assert torch.allclose(pruned[3].running_mean, moved)


def test_a_norm_that_reads_one_value_is_refused() -> None:
    model = settle(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.BatchNorm1d(4)))
    x = example(3, 6)
    plan = sl.plan(sl.trace(model, x), {"0": range(4)})
    with pytest.raises(sl.PlanError, match=r"^3 reads one value of each channel.*more examples"):
        sl.prune(model, plan, compensate=sl.RecalibrateBatchNorm(x[:1]))
    sl.prune(model, plan, compensate=sl.RecalibrateBatchNorm([x[:1], x[1:]]))


@pytest.mark.parametrize(
    "norm", [lambda: nn.BatchNorm2d(5, track_running_stats=False), lambda: nn.InstanceNorm2d(5)]
)
def test_norms_without_statistics_are_left_alone(norm: Callable[[], nn.Module]) -> None:
    model = settle(nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 5), norm(), head(5)))
    pruned, receipt = recalibrated(model, {"0": [0, 3]})
    assert gap(run(pruned, MAPS), run(sl.prune(model, receipt.plan).model, MAPS)) == 0


def test_momentum_and_counters_do_not_matter() -> None:
    """Momentum None, as for a cumulative average, is a setting of training."""
    model, other = network(), network()
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    a, b = (recalibrated(each, {"0": [0, 1, 4]}).model for each in (model, other))
    assert gap(run(a, MAPS), run(b, MAPS)) == 0
    assert a[4].num_batches_tracked == 0


def test_a_program_is_recalibrated_as_its_model_is() -> None:
    model = network()
    exported = sl.program(model, MAPS)
    a, b = (recalibrated(each, {"0": [0, 1, 4]}).model for each in (model, exported))
    assert gap(run(a, MAPS), run(b, MAPS)) < 1e-9
    assert (
        gap(
            run(a, MAPS),
            run(sl.prune(model, sl.plan(sl.trace(model, MAPS[:2]), {"0": [0, 1, 4]})).model, MAPS),
        )
        > 1e-3
    )


@pytest.mark.parametrize("train", [True, False])
def test_modes_and_the_reference_stay(train: bool) -> None:
    model = network().train(train)
    before = state(model)
    pruned = recalibrated(model, {"0": [0, 1, 4]}).model
    assert state(model) == before
    assert all(module.training == train for module in pruned.modules())


def test_a_failure_restores_every_buffer() -> None:
    model = network()
    plan = sl.plan(sl.trace(model, MAPS[:2]), {"0": [0, 1, 4]})

    class Fails:
        data = None

        def compensate(self, pruned: nn.Module, reference: nn.Module, plan: sl.Plan) -> Any:
            raise KeyboardInterrupt

    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        sl.prune_(model, plan, compensate=[sl.RecalibrateBatchNorm(MAPS), Fails()])
    assert state(model) == before

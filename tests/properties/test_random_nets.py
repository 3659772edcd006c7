"""Nets put together at random, pruned at random: what holds for the zoo holds for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import shapleaf as sl
from zoo import Apply, example, gap, run, settle

Block = tuple[nn.Module, int]
fast = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
ACTIVATIONS = (
    nn.ReLU,
    nn.GELU,
    nn.Sigmoid,
    nn.Hardswish,
    nn.PReLU,
    nn.Softplus,
    lambda: nn.ReLU(inplace=True),
)
WIDTHS = st.sampled_from([2, 3, 4, 6, 8])


class Kind:
    """Vectors or feature maps: the layers that blocks are made of."""

    def __init__(self, maps: bool) -> None:
        self.maps = maps

    def layer(self, draw: Any, i: int, o: int, groups: int = 1) -> nn.Module:
        bias = draw(st.booleans())
        if not self.maps:
            return nn.Linear(i, o, bias=bias)
        kernel, dilation = draw(st.sampled_from([(1, 1), (3, 1), (3, 2)]))
        return nn.Conv2d(
            i, o, kernel, padding=kernel // 2 * dilation, dilation=dilation, bias=bias, groups=groups
        )

    def norm(self, width: int) -> nn.Module:
        return nn.BatchNorm2d(width) if self.maps else nn.BatchNorm1d(width)


def plain(draw: Any, kind: Kind, width: int) -> Block:
    out = draw(WIDTHS)
    return kind.layer(draw, width, out), out


def activation(draw: Any, kind: Kind, width: int) -> Block:
    return draw(st.sampled_from(ACTIVATIONS))(), width


def norm(draw: Any, kind: Kind, width: int) -> Block:
    return kind.norm(width), width


def residual(draw: Any, kind: Kind, width: int) -> Block:
    middle = draw(WIDTHS)
    body = nn.Sequential(
        kind.layer(draw, width, middle), activation(draw, kind, middle)[0], kind.layer(draw, middle, width)
    )
    return Apply(lambda self, x: x + self.body(x), body=body), width


def projected(draw: Any, kind: Kind, width: int) -> Block:
    out = draw(WIDTHS)
    a, b = kind.layer(draw, width, out), kind.layer(draw, width, out)
    return Apply(lambda self, x: self.a(x) * torch.sigmoid(self.b(x)), a=a, b=b), out


def concat(draw: Any, kind: Kind, width: int) -> Block:
    out = draw(WIDTHS)
    return Apply(
        lambda self, x: torch.cat([x, F.relu(self.a(x))], 1), a=kind.layer(draw, width, out)
    ), width + out


def halves(draw: Any, kind: Kind, width: int) -> Block:
    assume(width % 2 == 0 and width > 2)
    a = kind.layer(draw, width // 2, width // 2)

    def apply(self: Any, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return torch.cat([self.a(right), left], 1)

    return Apply(apply, a=a), width


def twice(draw: Any, kind: Kind, width: int) -> Block:
    return Apply(lambda self, x: self.a(F.relu(self.a(x))), a=kind.layer(draw, width, width)), width


def mirrored(draw: Any, kind: Kind, width: int) -> Block:
    return Apply(lambda self, x: self.a(x.flip(1)), a=kind.layer(draw, width, width)), width


def summed(draw: Any, kind: Kind, width: int) -> Block:
    return Apply(lambda self, x: x * torch.tanh(x.sum(1, keepdim=True))), width


def depthwise(draw: Any, kind: Kind, width: int) -> Block:
    assume(kind.maps)
    times = draw(st.integers(1, 2))
    return kind.layer(draw, width, width * times, groups=width), width * times


def grouped(draw: Any, kind: Kind, width: int) -> Block:
    assume(kind.maps and width % 2 == 0)
    out = draw(st.sampled_from([2, 4, 8]))
    return kind.layer(draw, width, out, groups=2), out


def excited(draw: Any, kind: Kind, width: int) -> Block:
    assume(kind.maps)
    squeeze = draw(WIDTHS)
    return Apply(
        lambda self, x: x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))[:, :, None, None],
        down=nn.Linear(width, squeeze), up=nn.Linear(squeeze, width),
    ), width  # fmt: skip


def places(draw: Any, kind: Kind, width: int) -> Block:
    assume(kind.maps)
    options = (
        nn.MaxPool2d(3, 1, 1),
        nn.AvgPool2d(3, 1, 1),
        nn.Upsample(scale_factor=1.5),
        nn.ReflectionPad2d(1),
        nn.ZeroPad2d(1),
    )
    return draw(st.sampled_from(options)), width


BLOCKS: tuple[Callable[..., Block], ...] = (
    plain, plain, activation, activation, norm, residual, projected, concat, halves, twice, mirrored, summed,
    depthwise, grouped, excited, places,
)  # fmt: skip


@st.composite
def nets(draw: Any) -> tuple[nn.Module, Tensor]:
    """A classifier of images or of vectors."""
    kind, width = Kind(draw(st.booleans())), 3
    x = example(2, 3, 5, 5) if kind.maps else example(2, 3)
    layers: list[nn.Module] = []
    first, width = plain(draw, kind, width)
    layers.append(first)
    for block in draw(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=6)):
        assume(width <= 24)
        module, width = block(draw, kind, width)
        layers.append(module)
    if kind.maps:
        pool = draw(st.sampled_from([1, 2]))
        layers += [nn.AdaptiveAvgPool2d(pool), nn.Flatten()]
        width *= pool * pool
    return settle(nn.Sequential(*layers, nn.Linear(width, 3)), seed=draw(st.integers(0, 9))), x


def plans(draw: Any, graph: sl.Graph) -> sl.Plan:
    """Any units of any group; tied groups keep equal numbers."""
    keep: dict[str, list[int]] = {}
    for group in graph:
        tie = next((tie for tie in graph.ties if group.name in tie), ())
        known = [len(keep[name]) for name in tie if name in keep]
        count = known[0] if known else draw(st.integers(1, group.size))
        keep[group.name] = sorted(draw(st.permutations(range(group.size)))[:count])
    return sl.plan(graph, keep)


@fast
@given(data=st.data())
def test_masked_equals_pruned_and_costs_are_real(data: Any) -> None:
    model, x = data.draw(nets())
    try:
        graph = sl.trace(model, x)
    except sl.TraceError:
        return
    plan = plans(data.draw, graph)
    pruned, receipt = sl.prune(model, plan)
    expected, received = run(sl.masked(model, plan), x), run(pruned, x)
    assert bool(received[0].isfinite().all())
    assert gap(expected, received) < 1e-11
    assert receipt.error is not None
    assert receipt.error < 1e-11
    with FlopCounterMode(display=False) as counter:
        run(pruned, x)
    assert plan.after.params == sum(p.numel() for p in pruned.parameters())
    assert plan.after.macs == counter.get_total_flops() / 4


@fast
@given(data=st.data())
def test_keeping_all_is_identity_and_pruning_twice_is_composing(data: Any) -> None:
    model, x = data.draw(nets())
    try:
        graph = sl.trace(model, x)
    except sl.TraceError:
        return
    same = sl.prune(model, sl.plan(graph, {})).model
    assert all(torch.equal(a, b) for a, b in zip(run(model, x), run(same, x), strict=True))
    first = plans(data.draw, graph)
    once = sl.prune(model, first).model
    try:
        graph = sl.trace(once, x)
    except sl.TraceError:
        return
    second = plans(data.draw, graph)
    try:
        composed = first.compose(second)
    except sl.PlanError:  # what was a group of a grouped convolution is several units once it is alone
        return
    twice, at_once = sl.prune(once, second).model, sl.prune(model, composed).model
    assert gap(run(at_once, x), run(twice, x)) < 1e-11


@pytest.mark.parametrize("block", BLOCKS[4:], ids=lambda block: block.__name__)
def test_every_block_leaves_something_to_remove(block: Callable[..., Block]) -> None:
    """A random net of which nothing can be removed shows nothing: each block alone must pass units."""

    @settings(fast, max_examples=5)
    @given(data=st.data())
    def check(data: Any) -> None:
        kind = Kind(maps=True)
        module, width = block(data.draw, kind, 4)
        model = settle(nn.Sequential(nn.Conv2d(3, 4, 1), module, nn.Conv2d(width, 2, 1)))
        assert len(sl.trace(model, example(1, 3, 5, 5)))

    check()

"""Small nets, one per way in which units can be coupled, in float64 with inputs to trace them on.

``NETS`` maps a name to a builder of ``(model, inputs)``. Weights are random and BatchNorm statistics far from
their defaults, so that a fault shows. ``train=True`` nets contain what only runs in train mode.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

import shapleaf as sl
from shapleaf import _context
from shapleaf._calls import Calls
from shapleaf._rng import stream

Builder = Callable[[], tuple[nn.Module, Any]]
NETS: dict[str, Builder] = {}


def settle(model: nn.Module, seed: int = 0) -> nn.Module:
    """Float64, eval mode, every parameter and every statistic random."""
    generator = torch.Generator().manual_seed(seed)
    model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 1 / max(parameter[0].numel(), 1) ** 0.5 if parameter.ndim > 1 else 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale)
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                if module.weight is not None:
                    module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
                if module.running_mean is not None:
                    module.running_mean.copy_(
                        torch.randn(module.running_mean.shape, generator=generator) * 0.3
                    )
                    module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return model


def example(*shape: int, seed: int = 1) -> Tensor:
    """Random inputs in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def net(*shape: int) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Register a net that takes one tensor of this shape."""

    def register(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        NETS[build.__name__] = lambda: (settle(build()), example(*shape))
        return build

    return register


class Apply(nn.Module):
    """Modules by name, and how they are put together."""

    def __init__(self, run: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.run = run

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self, *args, **kwargs)


class Weights(nn.Module):
    """Raw parameters and a function of them."""

    def __init__(self, run: Callable[..., Tensor], **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def conv(i: int, o: int, k: int = 3, **options: Any) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(i, o, k, **{"padding": k // 2, **options})


def head(channels: int, classes: int = 3) -> nn.Sequential:
    """Global average pooling and a linear classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


@net(2, 5)
def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


@net(1, 3, 8, 8)
def plain() -> nn.Module:
    return nn.Sequential(
        conv(3, 6), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), conv(6, 8, bias=False), nn.BatchNorm2d(8),
        nn.ReLU(inplace=True), head(8),
    )  # fmt: skip


@net(2, 3, 9, 9)
def strided() -> nn.Module:
    return nn.Sequential(
        conv(3, 6, stride=2),
        nn.Hardswish(),
        conv(6, 8, dilation=2, padding=2),
        nn.PReLU(8),
        nn.AvgPool2d(2),
        head(8),
    )


def _residual(self: Any, x: Tensor) -> Tensor:
    x = F.relu(self.bn0(self.stem(x)))
    x = F.relu(x + self.bn2(self.c2(F.relu(self.bn1(self.c1(x))))))
    return self.head(F.relu(self.down(x) + self.c4(F.relu(self.c3(x)))))


@net(1, 3, 8, 8)
def residual() -> nn.Module:
    return Apply(
        _residual, stem=conv(3, 6), bn0=nn.BatchNorm2d(6), c1=conv(6, 5), bn1=nn.BatchNorm2d(5),
        c2=conv(5, 6, bias=False), bn2=nn.BatchNorm2d(6), c3=conv(6, 7, stride=2), c4=conv(7, 8),
        down=conv(6, 8, 1, stride=2), head=head(8),
    )  # fmt: skip


def _option_a(self: Any, x: Tensor) -> Tensor:
    x = F.relu(self.bn0(self.stem(x)))
    shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
    return self.head(F.relu(self.bn2(self.c2(F.relu(self.bn1(self.c1(x))))) + shortcut))


@net(1, 3, 8, 8)
def option_a() -> nn.Module:
    return Apply(
        _option_a, stem=conv(3, 4, bias=False), bn0=nn.BatchNorm2d(4), c1=conv(4, 8, stride=2, bias=False),
        bn1=nn.BatchNorm2d(8), c2=conv(8, 8, bias=False), bn2=nn.BatchNorm2d(8), head=head(8),
    )  # fmt: skip


def _dense(self: Any, x: Tensor) -> Tensor:
    features = [self.stem(x)]
    for layer in (self.a, self.b):
        features.append(layer(torch.cat(features, 1)))
    return self.head(torch.cat(features, 1))


@net(1, 3, 6, 6)
def dense() -> nn.Module:
    def layer(i: int) -> nn.Module:
        return nn.Sequential(nn.BatchNorm2d(i), nn.ReLU(), conv(i, 4))

    return Apply(
        _dense, stem=conv(3, 5), a=layer(5), b=layer(9), head=nn.Sequential(nn.BatchNorm2d(13), head(13))
    )


@net(1, 3, 8, 8)
def depthwise() -> nn.Module:
    return nn.Sequential(
        conv(3, 6), nn.ReLU6(),
        conv(6, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6(inplace=True),
        conv(12, 12, groups=12, stride=2), nn.BatchNorm2d(12), nn.ReLU6(), conv(12, 8, 1),
        conv(8, 16, groups=8), nn.ReLU(), head(16),
    )  # fmt: skip


@net(1, 3, 6, 6)
def grouped() -> nn.Module:
    return nn.Sequential(
        conv(3, 8), nn.ReLU(), conv(8, 12, groups=4), nn.BatchNorm2d(12), nn.ReLU(), conv(12, 6, 1),
        nn.ReLU(), conv(6, 6, groups=3, bias=False), head(6),
    )  # fmt: skip


@net(2, 3, 4, 4)
def transposed() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(),
        nn.ConvTranspose2d(6, 8, 2, stride=2, groups=2), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3, bias=False),
        nn.ELU(), nn.ConvTranspose2d(4, 4, 3, groups=4), conv(4, 2),
    )  # fmt: skip


def _shuffle_by_view(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


@net(1, 3, 6, 6)
def shuffle() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        x = F.relu(_shuffle_by_view(self.a(x), 2))
        x = F.relu(F.channel_shuffle(self.b(x), 3))
        return self.head(self.c(self.shuffle(self.d(x))))

    return Apply(
        run,
        a=conv(3, 8),
        b=conv(8, 12),
        d=conv(12, 8),
        shuffle=nn.ChannelShuffle(4),
        c=conv(8, 6),
        head=head(6),
    )


def _unit(i: int) -> nn.Module:
    return nn.Sequential(
        conv(i, i, 1, bias=False), nn.BatchNorm2d(i), nn.ReLU(), conv(i, i, groups=i), nn.BatchNorm2d(i),
        conv(i, i, 1), nn.ReLU(),
    )  # fmt: skip


@net(1, 3, 6, 6)
def shufflenet() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        x = self.stem(x)
        for unit in (self.u1, self.u2):
            left, right = x.chunk(2, dim=1)
            x = _shuffle_by_view(torch.cat([left, unit(right)], 1), 2)
        return self.head(self.last(x))

    return Apply(run, stem=conv(3, 8), u1=_unit(4), u2=_unit(4), last=conv(8, 6), head=head(6))


@net(1, 3, 8, 8)
def flatten() -> nn.Module:
    return nn.Sequential(
        conv(3, 4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(10, 3),
    )


@net(2, 6)
def shared() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.last(self.twice(self.twice(x).relu()).sigmoid())

    return Apply(run, first=nn.Linear(6, 8), twice=nn.Linear(8, 8), last=nn.Linear(8, 2))


@net(2, 6)
def siamese() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.tower(x), self.tower(x.flip(1))], 1))

    return Apply(run, tower=nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)), last=nn.Linear(10, 2))


@net(2, 6)
def tied() -> nn.Module:
    """One Parameter in two modules."""
    model = nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3)
    )
    model[4].weight = model[2].weight
    return model


@net(2, 6)
def autoencoder() -> nn.Module:
    """One Parameter read in two layouts."""
    return Weights(
        lambda self, x: F.linear(torch.tanh(F.linear(x, self.w, self.b)), self.w.t()), w=(9, 6), b=(9,)
    )


@net(1, 3, 8, 8)
def unet() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        top = F.relu(self.enc(x))
        low = F.relu(self.mid(F.max_pool2d(top, 2)))
        up = F.interpolate(low, scale_factor=2, mode="bilinear", align_corners=False)
        near = F.interpolate(F.relu(self.deep(F.max_pool2d(low, 2))), size=x.shape[2:], mode="nearest")
        return self.out(F.relu(self.dec(torch.cat([top, up, near], dim=1))))

    return Apply(run, enc=conv(3, 4), mid=conv(4, 6), deep=conv(6, 5), dec=conv(15, 4), out=conv(4, 2, 1))


@net(1, 3, 6, 6)
def squeeze_excite() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        x = F.silu(self.stem(x))
        gate = torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        x = x * gate
        y = self.fc2(F.relu(self.fc1(x.mean((2, 3)))))
        return self.head(x * F.hardsigmoid(y).view(y.shape[0], -1, 1, 1))

    return Apply(
        run,
        stem=conv(3, 8),
        down=conv(8, 4, 1),
        up=conv(4, 8, 1),
        fc1=nn.Linear(8, 3),
        fc2=nn.Linear(3, 8),
        head=head(8),
    )


@net(2, 3, 20)
def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 6, 5), nn.BatchNorm1d(6), nn.GELU(), nn.MaxPool1d(2), nn.ZeroPad1d(1),
        nn.Conv1d(6, 4, 3, groups=2), nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


@net(1, 2, 5, 5, 5)
def conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2),
        nn.ConvTranspose3d(4, 6, 2), nn.Mish(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 2),
    )  # fmt: skip


@net(2, 6)
def branches() -> nn.Module:
    """Equal parts of one tensor go different ways: their groups are tied."""

    def run(self: Any, x: Tensor) -> Tensor:
        a, b = F.relu(self.first(x)).chunk(2, dim=1)
        c, d, e = self.second(x).tensor_split(3, dim=1)
        return self.a(a) + self.b(b) * self.e(torch.cat([c, d, e], 1))

    return Apply(
        run,
        first=nn.Linear(6, 12),
        second=nn.Linear(6, 6),
        a=nn.Linear(6, 3),
        b=nn.Linear(6, 3),
        e=nn.Linear(6, 3),
    )


@net(2, 6)
def gated() -> nn.Module:
    """Two gated units: one splits by hand, one is PyTorch's."""

    def run(self: Any, x: Tensor) -> Tensor:
        value, gate = self.first(x).chunk(2, dim=-1)
        return self.last(F.glu(self.second(value * gate.sigmoid()), dim=-1))

    return Apply(run, first=nn.Linear(6, 16), second=nn.Linear(8, 10), last=nn.Linear(5, 2))


@net(1, 3, 6, 6)
def padded() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.a(F.pad(x, (1, 2, 1, 0), value=0.7)))
        x = F.relu(self.b(F.pad(x, (0, 0, 0, 0, 1, 2), value=-0.4)))
        return self.head(self.c(x))

    return Apply(
        run, a=conv(3, 5, padding=0), b=conv(8, 6, padding=1, padding_mode="reflect"),
        c=conv(6, 4, padding=1, padding_mode="replicate"), head=head(4),
    )  # fmt: skip


@net(2, 3, 6, 6)
def dropouts() -> nn.Module:
    return nn.Sequential(
        conv(3, 6), nn.Dropout2d(0.2), nn.ReLU(), conv(6, 6), nn.AlphaDropout(0.1), nn.Flatten(2),
        nn.Dropout1d(0.3), nn.Conv1d(6, 5, 3), nn.Flatten(), nn.Dropout(0.4, inplace=True), nn.Linear(170, 8),
        nn.Dropout(0.5), nn.Linear(8, 2),
    )  # fmt: skip


@net(2, 6)
def functional() -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        x = F.relu(F.linear(x, self.w1, self.b1))
        x = torch.tanh(x @ self.w2 + self.b2)
        return torch.einsum("nk,ok->no", x * self.scale, self.w3)

    return Weights(run, w1=(8, 6), b1=(8,), w2=(8, 7), b2=(7,), scale=(7,), w3=(2, 7))


@net(2, 6)
def unused() -> nn.Module:
    """``extra`` never runs."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    model[0].extra = nn.Linear(8, 5)
    return model


@net(2, 3, 6, 6)
def channel_mean() -> nn.Module:
    """A statistic over units: masking and slicing differ."""

    def run(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.head(F.relu(self.b(x * x.mean(1, keepdim=True))))

    return Apply(run, a=conv(3, 6), b=conv(6, 5), head=head(5))


@net(2, 3, 6, 6)
def channel_sum() -> nn.Module:
    """A sum over units is exact: an absent unit adds nothing."""

    def run(self: Any, x: Tensor) -> Tensor:
        x = torch.exp(self.a(x))
        return self.head(F.relu(self.b(x * x.sum(1, keepdim=True))))

    return Apply(run, a=conv(3, 6), b=conv(6, 5), head=head(5))


@net(2, 3, 6, 6)
def auxiliary() -> nn.Module:
    """``aux`` runs in train mode only."""

    def run(self: Any, x: Tensor) -> Any:
        x = F.relu(self.a(x))
        out = self.head(F.relu(self.b(x)))
        return (out, self.aux(x)) if self.training else out

    aux = nn.Sequential(conv(6, 4), nn.BatchNorm2d(4), nn.ReLU(), head(4))
    return Apply(run, a=conv(3, 6), b=conv(6, 5), head=head(5), aux=aux)


@net(2, 3, 6, 6)
def multi_output() -> nn.Module:
    def run(self: Any, x: Tensor) -> Any:
        x = F.relu(self.a(x))
        return {"logits": self.head(self.b(x)), "maps": [self.c(x)], "none": None}

    return Apply(run, a=conv(3, 6), b=conv(6, 5), head=head(5), c=conv(6, 2))


@net(2, 4, 7)
def tokens() -> nn.Module:
    """Linear layers over the last of three axes, a learned position table, another layout on the way."""

    def run(self: Any, x: Tensor) -> Tensor:
        x = self.embed(x) + self.table.weight
        x = x + self.out(F.gelu(self.hidden(x)))
        return self.head(self.mix(x.transpose(1, 2)).mean(2))

    return Apply(
        run, embed=nn.Linear(7, 6), table=Weights(lambda self, x: x, weight=(4, 6)), hidden=nn.Linear(6, 9),
        out=nn.Linear(9, 6), mix=nn.Conv1d(6, 5, 1), head=nn.Linear(5, 2),
    )  # fmt: skip


def keywords() -> tuple[nn.Module, Any]:
    """Keyword arguments in, a dict out."""

    def run(self: Any, image: Tensor, *, extra: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        x = F.relu(self.a(image) * scale).mean((2, 3))
        return {"logits": self.c(torch.cat([x, F.relu(self.b(extra))], 1))}

    model = Apply(run, a=conv(3, 6), b=nn.Linear(4, 5), c=nn.Linear(11, 2))
    return settle(model), {"image": example(2, 3, 5, 5), "extra": example(2, 4), "scale": 0.5}


def two_inputs() -> tuple[nn.Module, Any]:
    """Two positional tensors that meet by multiplication."""

    def run(self: Any, x: Tensor, y: Tensor) -> Tensor:
        return self.c(F.relu(self.a(x)) * self.b(y))

    model = Apply(run, a=nn.Linear(3, 6), b=nn.Linear(4, 6), c=nn.Linear(6, 2))
    return settle(model), (example(2, 3), example(2, 4, seed=2))


def dict_input() -> tuple[nn.Module, Any]:
    """One positional dict."""

    def run(self: Any, batch: dict[str, Tensor]) -> Tensor:
        return self.c(F.relu(self.a(batch["x"]) + self.b(batch["y"])))

    model = Apply(run, a=nn.Linear(3, 6), b=nn.Linear(4, 6), c=nn.Linear(6, 2))
    return settle(model), ({"x": example(2, 3), "y": example(2, 4, seed=2)},)


class Block(nn.Module):
    """Attention over four heads of two dimensions and a hidden layer, each behind a norm, both added."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.n1, self.n2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.o, self.up, self.down = map(nn.Linear, (8, 8, 8, 10), (24, 8, 10, 8))

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        qkv = self.qkv(self.n1(x)).view(n, t, 3, self.num_heads, -1)
        y = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4).unbind(0))
        x = x + self.o(y.transpose(1, 2).reshape(n, t, -1))
        return x + self.down(F.gelu(self.up(self.n2(x))))


def transformer() -> tuple[nn.Module, Any]:
    """Words and positions, two blocks, the mean of all tokens."""

    def run(self: Any, words: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(words) + self.place.weight).mean(1))

    model = Apply(
        run, embed=nn.Embedding(7, 8), place=Weights(lambda self, x: x, weight=(1, 5, 8)),
        blocks=nn.Sequential(Block(), Block()), head=nn.Linear(8, 3),
    )  # fmt: skip
    return settle(model), torch.tensor([[1, 2, 3, 4, 5], [6, 0, 1, 2, 3]])


NETS |= {build.__name__: build for build in (keywords, two_inputs, dict_input, transformer)}

INEXACT = frozenset({"channel_mean", "transformer"})
"""Nets with groups that are not exact."""


def random_plan(graph: sl.Graph, seed: int, least: int = 1) -> sl.Plan:
    """A plan with a keep ratio of its own for every group; tied groups keep equal shares."""
    draw = stream(seed, "plan")
    keep: dict[str, list[int]] = {}
    shares: dict[str, int] = {}
    for group in graph:
        portions = graph.portions(group.name)
        drawn = max(min(least, portions), round(portions * draw.uniform(0.2, 1.0)))
        count = graph.units(group.name, shares.setdefault(graph.tied(group.name)[0], drawn))
        keep[group.name] = sorted(draw.permutation(group.size)[:count].tolist())
    return sl.plan(graph, keep)


def half_plan(graph: sl.Graph) -> sl.Plan:
    """Every second unit of every group, or every second portion of them."""
    keep = {}
    for group in graph:
        portion = graph.units(group.name, 1)
        keep[group.name] = [unit for unit in range(group.size) if unit // portion % 2 == 0]
    return sl.plan(graph, keep)


def forward(model: nn.Module, inputs: Any) -> list[Tensor]:
    """The output's tensors."""
    return _context.tensors(_context.forward(model, inputs))


def run(model: nn.Module, inputs: Any) -> list[Tensor]:
    """The output's tensors, without gradients."""
    with torch.no_grad():
        return forward(model, inputs)


def gap(a: list[Tensor], b: list[Tensor]) -> float:
    """Largest difference relative to the largest value of the first."""
    assert [t.shape for t in a] == [t.shape for t in b]
    scale = max(float(t.abs().max()) for t in a)
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True)) / scale


def prove(model: nn.Module, inputs: Any, graph: sl.Graph, seeds: int = 2) -> None:
    """Masked equals pruned for half of all units and for random plans."""
    for plan in (half_plan(graph), *(random_plan(graph, seed) for seed in range(seeds))):
        pruned = sl.prune(model, plan).model
        assert gap(run(sl.masked(model, plan), inputs), run(pruned, inputs)) < 1e-12


def prove_exact(model: nn.Module, inputs: Any, graph: sl.Graph, seeds: int = 2) -> None:
    """Masked equals pruned where only exact groups lose units."""
    for plan in (half_plan(graph), *(random_plan(graph, seed) for seed in range(seeds))):
        exact = sl.plan(graph, {name: units for name, units in plan.keep.items() if graph[name].exact})
        assert exact.pruned
        pruned = sl.prune(model, exact).model
        assert gap(run(sl.masked(model, exact), inputs), run(pruned, inputs)) < 1e-12


class Names(Calls):
    """The names of all calls of a forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.seen: list[str] = []

    def call(self, key: str, func: Any, args: Any, kwargs: Any) -> Any:
        self.seen.append(key)
        return super().call(key, func, args, kwargs)


def between(f: Callable[[Tensor], Tensor], after: int = 8) -> nn.Module:
    """``f`` between a layer ``a`` with 8 outputs and a layer ``b`` with ``after`` inputs, on vectors of 6."""
    return settle(
        Apply(lambda self, x: self.b(f(F.relu(self.a(x)))), a=nn.Linear(6, 8), b=nn.Linear(after, 3))
    )


def between_maps(f: Callable[[Tensor], Tensor], after: int = 8) -> nn.Module:
    """The same for feature maps of 3 channels."""
    return settle(Apply(lambda self, x: self.b(f(F.relu(self.a(x)))), a=conv(3, 8), b=head(after)))


def state(model: nn.Module, *optimizers: torch.optim.Optimizer) -> dict[str, Any]:
    """What must not change: objects, bytes, versions, gradients, modes, hooks, attributes, randomness."""
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    held = {
        f"{number}/{name}/{key}": value
        for number, optimizer in enumerate(optimizers)
        for name, tensor in tensors.items()
        for key, value in optimizer.state.get(tensor, {}).items()
    }
    every = {**tensors, **{f"{n}.grad": t.grad for n, t in tensors.items() if t.grad is not None}}
    every |= {name: value for name, value in held.items() if isinstance(value, Tensor)}
    return {
        "objects": {name: id(t) for name, t in every.items()},
        "bytes": {n: (t.shape, t.stride(), t.dtype, t.numpy(force=True).tobytes()) for n, t in every.items()},
        "flags": {name: (t.requires_grad, t._version) for name, t in model.named_parameters()},
        "modules": {name: (id(m), m.training) for name, m in model.named_modules()},
        "hooks": [len(v) for m in model.modules() for k, v in vars(m).items() if "hooks" in k],
        "global hooks": [len(hooks) for hooks in _global_hooks()],
        "attributes": {
            f"{name}.{key}": value
            for name, module in model.named_modules()
            for key, value in vars(module).items()
            if isinstance(value, int | float | str | tuple)
        },
        "optimizers": repr(held),
        "modes": len(torch.overrides._get_current_function_mode_stack()),
        "random": (torch.get_rng_state().tolist(), repr(np.random.get_state()), repr(random.getstate())),  # noqa: NPY002
        "grad mode": torch.is_grad_enabled(),
    }


def _global_hooks() -> list[dict[int, Any]]:
    every = vars(nn.modules.module)
    return [value for name, value in every.items() if name.startswith("_global") and isinstance(value, dict)]


def lived_in(model: nn.Module, inputs: Any) -> nn.Module:
    """As a user has it in the middle of training: gradients, hooks, one module in eval mode, one frozen."""
    modules = [*model.modules()]
    model.train()
    modules[-1].eval()
    modules[0].register_forward_hook(lambda *_: None)
    next(iter(model.parameters())).requires_grad_(False)
    sum(t.sum() for t in forward(model, inputs) if t.requires_grad).backward()
    return model


class Shortcut(nn.Module):
    """Two convolutions and their shortcut."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.a, self.b = conv(i, o, stride=stride, bias=False), conv(o, o, bias=False)
        self.na, self.nb = nn.BatchNorm2d(o), nn.BatchNorm2d(o)
        self.short = nn.Sequential()
        if stride > 1:
            self.short = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.short(x) + self.nb(self.b(F.relu(self.na(self.a(x))))))


def resnet20() -> nn.Module:
    """Of CIFAR-10, with 1x1 convolutions as shortcuts (option B)."""
    widths = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
    return nn.Sequential(
        conv(3, 16, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *(Shortcut(*w) for w in widths),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip

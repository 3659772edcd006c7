"""One rule per family of ops: units pass, are coupled, or are frozen, and the graph says which."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.tracing.ops import RULES, pointwise, rule_for, unknown
from zoo import Apply, between, between_maps, conv, example, half_plan, head, prove, prove_exact, settle

Function = Callable[[Tensor], Tensor]
VECTORS, MAPS = example(2, 6), example(2, 3, 6, 6)


def sizes(graph: sl.Graph) -> dict[str, int]:
    return {group.name: group.size for group in graph}


def out_of_place(x: Tensor) -> Tensor:
    z = torch.empty_like(x)
    z.copy_(x)
    return z.add_(1)


PASS: dict[str, tuple[Function, int]] = {
    "pointwise": (lambda x: torch.where(x > 0.1, x * 2 + 1, -x.exp()), 8),
    "in place": (lambda x: F.leaky_relu(x.mul_(2), inplace=True).clamp_(-1, 1), 8),
    "hardswish": (lambda x: F.hardswish(x) + F.logsigmoid(x) + F.hardswish(x.clone(), inplace=True), 8),
    "scalar tensor": (lambda x: x * torch.tensor(2.0), 8),
    "copy": (out_of_place, 8),
    "out=": (lambda x: torch.add(x, x, out=torch.empty_like(x)), 8),
    "views": (lambda x: x.view(x.shape[0], -1, 1).transpose(1, 2).squeeze(1)[:, :, None].flatten(1), 8),
    "flip": (lambda x: x.flip(1), 8),
    "repeat": (lambda x: x.repeat(1, 2), 16),
    "interleave": (lambda x: x.repeat_interleave(2, dim=1), 16),
    "cat": (lambda x: torch.cat([x, x.new_zeros(len(x), 2), x * x], 1), 18),
    "stack": (lambda x: torch.stack([x, x * x], 1).flatten(1), 16),
    "stack last": (lambda x: torch.stack([x, x * x], -1).flatten(1), 16),
    "pad": (lambda x: F.pad(x, (1, 2), value=0.5), 11),
    "sum": (lambda x: x / (x.exp().sum(1, keepdim=True) + 1), 8),
    "glu": (lambda x: F.glu(torch.cat([x, x * x], 1)), 8),
    "to": (lambda x: x.to(torch.float32).double(), 8),
    "data": (lambda x: x.data * 2 + x, 8),
    "cut off in place": (lambda x: x.mul(2).detach_(), 8),
    "new tensor": (lambda x: x.detach().clone(), 8),
    "shape in place": (lambda x: x.mul(1).unsqueeze_(1).transpose_(1, 2).mul(2).squeeze_(2).t_().t(), 8),
    "complex": (lambda x: torch.complex(x, x * x).abs(), 8),
    "complex and back": (lambda x: torch.view_as_real(torch.polar(x, x)).sum(2), 8),
    "pairs become complex": (lambda x: torch.view_as_complex(torch.stack([x, x * x], -1)).abs(), 8),
    "made to measure": (
        lambda x: x + x.new_ones(len(x), x.shape[1]) * torch.zeros(1, x.shape[1]).double(),
        8,
    ),
    "expanded to measure": (lambda x: x * x.sum(1, keepdim=True).expand(-1, x.shape[1]), 8),
    "expanded as another": (lambda x: x * x.sum(1, keepdim=True).expand_as(x), 8),
    "rrelu": (F.rrelu, 8),
    "one operand broadcast": (lambda x: x * x.sum(1, keepdim=True), 8),
    "roll of examples": (lambda x: x.roll(1, 0), 8),
    "dropout": (lambda x: F.dropout(F.alpha_dropout(x, 0.2), 0.5, training=False), 8),
}


@pytest.mark.parametrize("name", PASS)
def test_units_pass(name: str) -> None:
    f, after = PASS[name]
    model = between(f, after)
    graph = sl.trace(model, VECTORS)
    assert sizes(graph) == {"a": 8}
    assert graph["a"].exact
    prove(model, VECTORS, graph)


COUPLE: dict[str, tuple[Function, int, int]] = {
    "with its mirror image": (lambda x: x + x.flip(1), 8, 4),
    "glu": (F.glu, 4, 4),
    "equal parts multiplied": (lambda x: torch.mul(*x.chunk(2, 1)), 4, 4),
    "equal parts added, four of them": (lambda x: sum(x.chunk(4, 1)), 2, 2),  # type: ignore[dict-item, return-value]
    "columns of a view": (lambda x: x.view(len(x), 2, -1).transpose(1, 2).reshape(len(x), -1), 8, 4),
    "columns of a view, twice": (
        lambda x: x.view(len(x), 2, 2, -1).transpose(1, 3).reshape(len(x), -1),
        8,
        2,
    ),
    "a sum over a part of a view": (lambda x: x.view(len(x), 2, -1).sum(1), 4, 4),
    "constants along a part of a view": (
        lambda x: (x.view(len(x), -1, 2) * torch.arange(1.0, 3)).flatten(1),
        8,
        4,
    ),
    "shuffle": (lambda x: F.channel_shuffle(x[..., None], 4)[..., 0], 8, 2),
}


@pytest.mark.parametrize("name", COUPLE)
def test_units_are_coupled(name: str) -> None:
    f, after, units = COUPLE[name]
    model = between(f, after)
    graph = sl.trace(model, VECTORS)
    assert sizes(graph) == {"a": units}
    prove(model, VECTORS, graph)


BLUR: dict[str, Function] = {
    "mean": lambda x: x - x.mean(1, keepdim=True),
    "max": lambda x: x - x.max(1, keepdim=True).values,
    "amax": lambda x: x - x.amax(1, keepdim=True),
    "var": lambda x: x / (x.var(1, keepdim=True) + 1),
    "logsumexp": lambda x: x - x.logsumexp(1, keepdim=True),
    "prod": lambda x: x + x.prod(1, keepdim=True),
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(-1),
}


@pytest.mark.parametrize("name", BLUR)
def test_a_statistic_over_units_is_not_exact(name: str) -> None:
    graph = sl.trace(between(BLUR[name]), VECTORS)
    assert sizes(graph) == {"a": 8}
    assert not graph["a"].exact
    assert name.removeprefix("a") in graph["a"].reason


FREEZE: dict[str, tuple[Function, int, str]] = {
    "no rule": (lambda x: x.renorm(2, 0, 1.0), 8, "no rule (renorm in the model, test_ops.py"),
    "strides": (lambda x: x.as_strided((len(x), 8), (8, 1)), 8, "no rule (as_strided in"),
    "squeezed in place": (lambda x: x[:, None, :, None].squeeze_(), 8, "drops axes that it does not name"),
    "other bits": (lambda x: x.view(torch.int64).view(torch.float64), 8, "no rule (view in"),
    "slice": (lambda x: x[:, :5], 5, "takes a part with fixed bounds (slice in"),
    "every second": (lambda x: x[:, ::2], 4, "takes a part with fixed bounds (slice in"),
    "select": (lambda x: x * x[:, :1], 8, "takes a part with fixed bounds (slice in"),
    "unbind": (lambda x: torch.stack(x.unbind(1), 1), 8, "takes a part with fixed bounds (unbind in"),
    "unequal parts": (lambda x: x.split([5, 3], 1)[0], 5, "the sizes of the parts are fixed in the code"),
    "single units": (lambda x: torch.cat(x.split(1, 1)[::-1], 1), 8, "a part of one unit only (split in"),
    "crop": (lambda x: F.pad(x, (-1, 0)), 7, "takes a part with fixed bounds (constant_pad_nd in"),
    "roll": (lambda x: x.roll(1, 1), 8, "moves places along units (roll in"),
    "roll of all": (lambda x: x.roll(3), 8, "moves places along units (roll in"),
    "windows": (lambda x: x.unfold(1, 2, 2).sum(2), 4, "moves places along units (unfold in"),
    "full-length constant": (lambda x: x * torch.arange(8.0), 8, "meets a tensor without units there (mul"),
    "expanded": (lambda x: x * x.sum(1, keepdim=True).expand(-1, 8), 8, "meets a tensor without units"),
    "values in Python": (lambda x: x + x.sum().item(), 8, "the code reads values (_local_scalar_dense in"),
    "values in NumPy": (lambda x: x + torch.from_numpy(x.numpy()), 8, "the code reads values (numpy in"),
    "values in lists": (lambda x: x + len(x.tolist()), 8, "the code reads values (tolist in"),
    "loss in one call": (lambda x: x * F.l1_loss(x, x.flip(0), reduction="sum"), 8, "read inside :l1_loss#0"),
}  # fmt: skip


def held(model: nn.Module, inputs: Tensor) -> str:
    """Why nothing of this model can be removed."""
    with pytest.raises(sl.TraceError) as caught:
        sl.trace(model, inputs)
    return str(caught.value)


@pytest.mark.parametrize("name", FREEZE)
def test_units_are_frozen_and_the_op_is_named(name: str) -> None:
    f, after, reason = FREEZE[name]
    assert reason in held(between(f, after), VECTORS)


def test_writing_into_a_slice_freezes() -> None:
    def fill(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :3] = 0
        return x

    def other(x: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        z[:, 2:5] = x[:, 2:5]
        return z

    for f in (fill, other):
        assert "takes a part with fixed bounds" in held(between(f), VECTORS)


def double_all(x: Tensor) -> Tensor:
    x.view(len(x), 2, -1).mul_(2)
    return x


def raise_row(x: Tensor) -> Tensor:
    x.view(len(x), 2, -1)[:, 0].add_(1)
    return x


@pytest.mark.parametrize("write", [double_all, raise_row])
def test_writing_through_a_view_couples_what_the_view_does(write: Function) -> None:
    """The code names two rows, so a unit is a column of them."""
    model = between(write)
    graph = sl.trace(model, VECTORS)
    assert sizes(graph) == {"a": 4}
    prove(model, VECTORS, graph)


SPATIAL: dict[str, Function] = {
    "max_pool2d": lambda x: F.max_pool2d(x, 3, 2, 1),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "adaptive": lambda x: F.adaptive_max_pool2d(F.adaptive_avg_pool2d(x, 4), 2),
    "upsample": lambda x: F.interpolate(F.interpolate(x, scale_factor=2), size=5, mode="bicubic"),
    "pads": lambda x: F.pad(
        F.pad(F.pad(x, (1, 2, 0, 1), mode="reflect"), (1, 1, 1, 1), mode="replicate"), (0, 1)
    ),
    "crop in space": lambda x: F.pad(x, (-1, -1, -2, 0)),
    "space to depth": lambda x: x.view(*x.shape[:2], 3, 2, 3, 2).permute(0, 3, 5, 1, 2, 4).flatten(1, 3),
    "instance norm": F.instance_norm,
    "circular": lambda x: F.pad(x, (1, 1, 2, 0), mode="circular"),
    "rotated": lambda x: x.rot90(1, (2, 3)),
    "roll in space": lambda x: x.roll((1, 2), (2, 3)),
}


@pytest.mark.parametrize("name", SPATIAL)
def test_units_pass_through_what_mixes_places(name: str) -> None:
    model = between_maps(SPATIAL[name], 32 if "depth" in name else 8)
    graph = sl.trace(model, MAPS)
    assert sizes(graph) == {"a": 8}
    assert graph["a"].exact
    prove(model, MAPS, graph)


SPATIAL_FREEZE: dict[str, tuple[Function, int, str]] = {
    "over units": (
        lambda x: F.max_pool1d(x.flatten(2).transpose(1, 2), 2)[..., None],
        36,
        "mixes places of units",
    ),
    "across channels": (lambda x: F.local_response_norm(x, 3), 8, "mixes places of units (avg_pool3d"),
    "circular across channels": (
        lambda x: F.pad(x.transpose(1, 3), (1, 1, 0, 0), mode="circular").transpose(1, 3),
        10,
        "wraps around units (in the model, test_ops.py",
    ),
    "group norm by number": (lambda x: F.group_norm(x, 2), 8, "group_norm in the model, test_ops.py"),
}


@pytest.mark.parametrize("name", SPATIAL_FREEZE)
def test_feature_maps_are_frozen_and_the_op_is_named(name: str) -> None:
    f, after, reason = SPATIAL_FREEZE[name]
    assert reason in held(between_maps(f, after), MAPS)


def test_units_of_a_layer_norm_are_not_exact_and_the_others_are() -> None:
    model = settle(
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    )
    graph = sl.trace(model, VECTORS)
    assert sizes(graph) == {"0": 8, "2": 5}
    assert graph["0"].exact
    assert not graph["2"].exact
    assert "normalises over units (native_layer_norm in 3, " in graph["2"].reason
    assert {f"{s.tensor}[{s.dim}]" for s in graph["2"].slices} == {
        "2.weight[0]", "2.bias[0]", "3.weight[0]", "3.bias[0]", "4.weight[1]",
    }  # fmt: skip
    prove_exact(model, VECTORS, graph)
    assert sl.prune(model, half_plan(graph)).model[3].normalized_shape == (3,)


def test_padded_places_must_stay_and_the_others_need_not() -> None:
    def run(self: nn.Module, x: Tensor) -> Tensor:
        return self.c(F.pad(self.a(x), (2, 1)) + self.b(x))

    model = settle(Apply(run, a=nn.Linear(6, 4), b=nn.Linear(6, 7), c=nn.Linear(7, 2)))
    graph = sl.trace(model, VECTORS)
    (group,) = graph
    assert {s.tensor: s.index.flatten().tolist() for s in group.slices} == {
        "a.weight": [0, 1, 2, 3], "a.bias": [0, 1, 2, 3], "b.weight": [2, 3, 4, 5], "b.bias": [2, 3, 4, 5],
        "c.weight": [2, 3, 4, 5],
    }  # fmt: skip
    prove(model, VECTORS, graph)


def test_equal_parts_on_different_ways_are_tied() -> None:
    def run(self: nn.Module, x: Tensor) -> Tensor:
        p, q = self.a(x).chunk(2, 1)
        return self.b(p) * self.c(q)

    model = settle(Apply(run, a=nn.Linear(6, 8), b=nn.Linear(4, 2), c=nn.Linear(4, 2)))
    graph = sl.trace(model, VECTORS)
    assert graph.ties == (("a", "a#2"),)
    with pytest.raises(sl.PlanError, match="tied groups must keep equal shares"):
        sl.plan(graph, {"a": [0]})
    prove(model, VECTORS, graph)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_batch_norm_is_aligned_with_the_channels(dimensions: int) -> None:
    norm = [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d][dimensions - 1](5)
    layer = [nn.Conv1d, nn.Conv2d, nn.Conv3d][dimensions - 1]
    model = settle(nn.Sequential(layer(3, 5, 1), norm, nn.ReLU(), layer(5, 2, 1)))
    graph = sl.trace(model, example(2, 3, *[4] * dimensions))
    assert {s.tensor for s in graph["0"].slices} == {
        "0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "3.weight",
    }  # fmt: skip
    assert graph.norms == (("0:conv1d#0".replace("1d", f"{dimensions}d"), "1"),)


def test_weights_made_from_parameters_alone() -> None:
    """A statistic over weights is not exact; a product of parameters has no place for a mask."""

    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
            return F.conv2d(x, (self.weight - mean) / std, self.bias)

    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.u, self.v = nn.Parameter(torch.zeros(5, 3)), nn.Parameter(torch.zeros(3, 8))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.u @ self.v)

    model = settle(nn.Sequential(conv(3, 8), nn.ReLU(), Standardised(8, 5, 3), nn.ReLU(), head(5)))
    graph = sl.trace(model, MAPS)
    assert {group.name: group.exact for group in graph} == {"0": False, "2": True}

    model = settle(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), LowRank(), nn.Linear(5, 2)))
    graph = sl.trace(model, VECTORS)
    assert sizes(graph) == {"0": 8, "2": 5}
    assert "contracts parameters with each other" in next(
        b.reason for b in graph.blocked if b.tensor == "2.u"
    )
    prove(model, VECTORS, graph)


def test_an_op_without_a_rule_is_unknown_unless_pytorch_calls_it_pointwise() -> None:
    aten = torch.ops.aten
    assert rule_for(aten.renorm.default, RULES) is unknown
    assert rule_for(aten.sin.default, RULES) is rule_for(aten.sin_.default, RULES) is pointwise
    assert rule_for(aten.view.default, RULES) is not rule_for(aten.view.dtype, RULES)
    assert rule_for(aten.view.dtype, RULES) is unknown

"""Models made to break the tracer: each is right and proven, or held with the op and the line named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import shapleaf as sl
from zoo import Apply, Weights, between, example, gap, half_plan, prove, random_plan, run, settle

VECTORS = example(2, 6)


@pytest.fixture(autouse=True, scope="module")
def library() -> Iterator[None]:
    """An op of the user's own, of which nobody knows what it does to units: it turns them around."""
    library = torch.library.Library("breakers", "DEF")
    library.define("turn(Tensor x) -> Tensor")
    library.impl("turn", lambda x: x.flip(-1).contiguous(), "CompositeExplicitAutograd")
    yield
    library._destroy()


class TwoWays(nn.Module):
    """The way depends on what the first layer makes of the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(6, 8), nn.Linear(8, 7), nn.Linear(8, 7), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.d(F.relu(self.b(x) if x.sum() > 1 else self.c(x)))


class Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy()[:, ::-1].copy())


class Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * x.sigmoid()


def write_some(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, 2:5] = x[:, 2:5]
    return y


def shares_storage() -> nn.Module:
    """The bias of one layer is a part of the weight of another."""
    layers = (nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 7), nn.Linear(7, 2))
    model = settle(nn.Sequential(*layers))
    model[0].bias = nn.Parameter(model[1].weight.detach()[0])
    return model


HELD: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "an op without a rule": (
        lambda: between(lambda x: -torch.ops.breakers.turn(x)),
        "this op has no rule (turn in the model, test_breakers.py:",
    ),
    "a branch on values": (
        TwoWays,
        "the code reads values (_local_scalar_dense in the model, test_breakers.py:",
    ),
    "a length in the code": (
        lambda: between(lambda x: x * torch.arange(1.0, 9).double()),
        "meets a tensor without units there (mul in the model, test_breakers.py:",
    ),
    "a part written in place": (
        lambda: between(write_some),
        "takes a part with fixed bounds (slice in the model, test_breakers.py:",
    ),
    "an autograd function in NumPy": (
        lambda: between(Turned.apply),
        "the code reads values (numpy in the model, test_breakers.py:",
    ),
    "complex pairs of units": (
        lambda: between(lambda x: torch.view_as_complex(x[:, :2]).abs()[:, None], 1),
        "takes a part with fixed bounds (slice in the model, test_breakers.py:",
    ),
    "strides": (
        lambda: between(lambda x: x.as_strided((len(x), 8), (8, 1))),
        "this op has no rule (as_strided in the model, test_breakers.py:",
    ),
    "numbers of units": (
        lambda: between(lambda x: x.gather(1, x.argsort(1))),
        "works along units (sort in the model, test_breakers.py:",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_held_and_named(name: str) -> None:
    build, reason = HELD[name]
    with pytest.raises(sl.TraceError) as caught:
        sl.trace(settle(build()), VECTORS)
    assert reason in str(caught.value)


def test_what_lies_beside_an_op_without_a_rule_is_free() -> None:
    """The report says which axes the op holds, and where; everything else is pruned and proven."""
    layers = {"a": (6, 8), "b": (8, 7), "c": (7, 5), "d": (5, 2)}
    model = settle(
        Apply(
            lambda self, x: self.d(F.relu(self.c(torch.ops.breakers.turn(self.b(F.relu(self.a(x))))))),
            **{name: nn.Linear(*sizes) for name, sizes in layers.items()},
        )
    )
    graph = sl.trace(model, VECTORS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("a", 8, True), ("c", 5, True)]
    assert "this op has no rule (turn in the model, test_breakers.py:" in str(graph)
    prove(model, VECTORS, graph)

    def turned(op: Any) -> None:
        op.give(op.out, [labels.flip(-1) for labels in op.flow.of(op.tensors[0])])

    taught = sl.trace(model, VECTORS, rules={"turn": turned})
    assert [(g.name, g.size) for g in taught] == [("a", 8), ("b", 7), ("c", 5)]
    prove(model, VECTORS, taught)
    wrong = sl.trace(model, VECTORS, rules={"turn": lambda op: op.give(op.out, op.flow.of(op.tensors[0]))})
    with pytest.raises(sl.PlanError, match="differs from the masked one"):
        sl.prune(model, sl.plan(wrong, {"b": [0, 1, 2]}))


SIZES: dict[str, Callable[[Tensor], Tensor]] = {
    "len": lambda x: x.view(len(x), len(x[0])),
    "pairs": lambda x: x.view(len(x), -1, 2).flip(2).flatten(1),
    "a float": lambda x: x.view(len(x), 2, int(x.shape[1] / 2)).transpose(1, 2).flatten(1),
    "a product": lambda x: x.view(math.prod(x.shape)).view(len(x), -1),
    "numel": lambda x: x.view(x.numel() // x.shape[1], x.numel() // len(x)),
    "a division": lambda x: x.view(len(x), 2, x.shape[1] // 2).transpose(1, 2).flatten(1),
    "a sum": lambda x: x.view(len(x), x.shape[1] + 1 - 1),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_the_code_computes_follow(name: str) -> None:
    model = between(SIZES[name])
    graph = sl.trace(model, VECTORS)
    (group,) = graph
    assert (group.name, group.exact, group.blocked) == ("a", True, "")
    for plan in (half_plan(graph), random_plan(graph, 0)):
        pruned = sl.prune(model, plan).model
        assert gap(run(sl.masked(model, plan), VECTORS), run(pruned, VECTORS)) < 1e-12


FIXED: dict[str, Callable[[Tensor], Tensor]] = {
    "four parts": lambda x: x.view(len(x), 4, -1).transpose(1, 2).flatten(1),
    "parts of four": lambda x: x.view(len(x), -1, 4).transpose(1, 2).flatten(1),
    "four pairs": lambda x: x.view(len(x), int(x.shape[1] / 2), 2).flatten(1),
    "eight": lambda x: x.reshape(-1, 8),
    "by float": lambda x: x.view(len(x), int(2.0**3)),
}


@pytest.mark.parametrize("name", FIXED)
def test_sizes_that_the_code_names_never_give_a_wrong_model(name: str) -> None:
    """A view may run on fewer units and part them otherwise: the group is marked, with the line, or fits."""
    model = between(FIXED[name])
    graph = sl.trace(model, VECTORS)
    (group,) = graph
    if group.blocked:
        assert "test_breakers.py:" in group.blocked
        assert "holds a size that does not follow" in group.blocked
        with pytest.raises(sl.PlanError, match="cannot lose units: test_breakers.py"):
            sl.prune(model, half_plan(graph))
    else:
        prove(model, VECTORS, graph)


def write_slices(x: Tensor) -> Tensor:
    """The two halves, which the code names by their share, are written one by one."""
    y = torch.zeros_like(x)
    for mine, theirs in zip(y.chunk(2, 1), x.chunk(2, 1), strict=True):
        mine.copy_(theirs * 2)
    return y


def write_through_a_view(x: Tensor) -> Tensor:
    y = x.clone()
    y.view(len(y), -1, 2)[..., 0].mul_(3)
    return y


def write_to_an_alias(x: Tensor) -> Tensor:
    y = x.view_as(x)
    y += 1
    return x * 2


WRITES = {f.__name__: f for f in (write_slices, write_through_a_view, write_to_an_alias)}


@pytest.mark.parametrize("name", WRITES)
def test_writes_into_views_are_right(name: str) -> None:
    model = between(WRITES[name])
    graph = sl.trace(model, VECTORS)
    prove(model, VECTORS, graph)


def test_parameters_that_share_storage_are_held() -> None:
    graph = sl.trace(shares_storage(), VECTORS)
    held = {f"{b.tensor}[{b.dim}]" for b in graph.blocked if "shares its storage" in b.reason}
    assert {"0.bias[0]", "1.weight[0]", "1.weight[1]"} <= held
    prove(shares_storage(), VECTORS, graph)


def test_a_parameter_in_two_layouts() -> None:
    model = settle(
        Weights(
            lambda self, x: (F.relu(F.relu(x @ self.v) @ self.w) @ self.w.T) @ self.u,
            v=(6, 8),
            w=(8, 5),
            u=(8, 2),
        )
    )
    graph = sl.trace(model, VECTORS)
    assert [(g.name, g.size) for g in graph] == [("v", 8), ("w", 5)]
    prove(model, VECTORS, graph)


def test_complex_tensors() -> None:
    """Real weights, complex activations; complex weights carry no units, and hold what they meet."""
    model = between(
        lambda x: torch.fft.ifft(torch.fft.fft(torch.complex(x, x)[:, None], dim=1), dim=1)[:, 0].abs()
    )
    graph = sl.trace(model, VECTORS)
    assert [(g.size, g.exact) for g in graph] == [(8, True)]
    prove(model, VECTORS, graph)
    model = between(lambda x: x)
    model.phase = nn.Parameter(torch.ones(8, dtype=torch.complex128))
    model.run = lambda self, x: self.b((self.a(x) * self.phase).abs())
    with pytest.raises(sl.TraceError, match=r"meets a tensor without units there \(mul in the model"):
        sl.trace(model, VECTORS)


@pytest.mark.parametrize("apply", [Gate.apply, lambda x: checkpoint(F.gelu, x, use_reentrant=False)])
def test_functions_of_autograd_and_checkpoints_are_looked_into(apply: Callable[[Tensor], Tensor]) -> None:
    model = between(apply)
    graph = sl.trace(model, VECTORS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("a", 8, True)]
    prove(model, VECTORS, graph)

"""The verb: what it accepts, what it refuses, what it leaves behind, and code that nobody can trace."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import shapleaf as sl
from shapleaf.testing import untouched
from zoo import (
    NETS,
    Apply,
    Weights,
    between,
    conv,
    example,
    gap,
    head,
    lived_in,
    prove,
    run,
    settle,
    state,
)  # fmt: skip

VECTORS = example(2, 6)


def names(graph: sl.Graph) -> list[str]:
    return [group.name for group in graph]


@pytest.mark.parametrize("name", NETS)
def test_the_model_is_left_as_it_was(name: str) -> None:
    model, inputs = NETS[name]()
    lived_in(model, inputs)
    before, given = state(model), str(inputs)
    sl.trace(model, inputs)
    assert state(model) == before
    assert str(inputs) == given


def test_the_model_is_left_as_it_was_after_an_exception() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(7, 2)).double()
    model[1](torch.zeros(2, 8).double()).sum().backward()
    before = state(model)
    with pytest.raises(
        sl.TraceError, match=r"in eval mode the model failed on inputs of \(2, 6\) torch.float64"
    ):
        sl.trace(model, VECTORS)
    assert state(model) == before


def test_tracing_twice_gives_equal_graphs_whatever_the_weights_and_the_batch() -> None:
    for name in ("residual", "shufflenet", "unet"):
        model, inputs = NETS[name]()
        assert sl.trace(model, inputs) == sl.trace(settle(model, seed=5), inputs)
        wider = sl.trace(model, torch.cat([inputs] * 3))
        assert wider.groups == sl.trace(model, inputs).groups
        assert wider.ops == sl.trace(model, inputs).ops


def test_a_graph_survives_a_file(tmp_path: Any) -> None:
    graph = sl.trace(*NETS["squeeze_excite"]())
    graph.save(tmp_path / "graph.safetensors")
    assert sl.Graph.load(tmp_path / "graph.safetensors") == graph


def test_inputs_may_be_a_tensor_a_tuple_or_a_mapping() -> None:
    model, inputs = NETS["keywords"]()
    graph = sl.trace(model, UserDict(inputs))
    assert graph == sl.trace(model, inputs)
    assert names(graph) == ["a", "b"]
    assert names(sl.trace(*NETS["two_inputs"]())) == ["a"]
    with pytest.raises(sl.TraceError, match="example inputs hold a set"):
        sl.trace(
            Apply(
                lambda self, x, y: self.b(F.relu(self.a(x))), a=nn.Linear(6, 8), b=nn.Linear(8, 2)
            ).double(),
            (VECTORS, {1}),
        )


def test_axes_can_be_kept_by_name() -> None:
    model, inputs = NETS["mlp"]()
    assert names(sl.trace(model, inputs, keep=("0.bias",))) == ["2"]
    with pytest.raises(sl.TraceError, match="nothing in this model can be removed: kept by the caller"):
        sl.trace(model, inputs, keep=("2.weight",))
    with pytest.raises(sl.TraceError, match="keep= names no parameter or buffer of the model: 3.weight"):
        sl.trace(model, inputs, keep=("2.weight", "3.weight"))


def test_a_model_without_storage_can_be_traced() -> None:
    model, inputs = NETS["residual"]()
    expected = sl.trace(model, inputs)
    graph = sl.trace(model.to("meta"), inputs.to("meta"))
    assert (graph.groups, graph.ops, graph.ties) == (expected.groups, expected.ops, expected.ties)


def test_tracing_under_inference_mode_and_of_a_model_that_uses_it() -> None:
    model, inputs = NETS["residual"]()
    expected = sl.trace(model, inputs)
    with torch.inference_mode():
        assert sl.trace(model, inputs * 1) == sl.trace(model, inputs) == expected

    class Inference(nn.Sequential):
        @torch.inference_mode()
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    model = settle(Inference(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)))
    graph = sl.trace(model, VECTORS)
    assert names(graph) == ["0"]
    prove(model, VECTORS, graph)


def test_batch_norm_in_train_mode_with_one_example() -> None:
    model = settle(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)))
    graph = sl.trace(model, VECTORS[:1])
    assert names(graph) == ["0"]
    assert graph.notes == ()
    prove(model, VECTORS, graph)


def test_a_train_mode_that_fails_is_noted() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)) + (torch.zeros(7) if self.training else 0))

    model = settle(Apply(run, a=nn.Linear(6, 8), b=nn.Linear(8, 2)))
    graph = sl.trace(model, VECTORS)
    assert names(graph) == ["a"]
    assert graph.notes[0].startswith(
        "train mode was not traced: in train mode the model failed on inputs of (4, 6)"
    )


def test_constraints_of_train_mode_count() -> None:
    """In train mode alone the units meet a constant of fixed length."""

    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)) + (torch.zeros(8) if self.training else 0))

    with pytest.raises(sl.TraceError, match="meets a tensor without units there"):
        sl.trace(settle(Apply(run, a=nn.Linear(6, 8), b=nn.Linear(8, 2))), VECTORS)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * x


class Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy(force=True)).sin()


def test_a_custom_autograd_function_is_looked_into() -> None:
    model = between(Square.apply)
    graph = sl.trace(model, VECTORS)
    assert graph["a"].exact
    prove(model, VECTORS, graph)
    with pytest.raises(sl.TraceError, match="the code reads values"):
        sl.trace(between(Sine.apply), VECTORS)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpointing_is_looked_into(reentrant: bool) -> None:
    def run(self: Any, x: Tensor) -> Any:
        return self.c(checkpoint(lambda z: F.relu(self.b(F.relu(self.a(z)))), x, use_reentrant=reentrant))

    model = settle(Apply(run, a=nn.Linear(6, 8), b=nn.Linear(8, 5), c=nn.Linear(5, 2)))
    graph = sl.trace(model, VECTORS)
    assert names(graph) == ["a", "b"]
    prove(model, VECTORS, graph)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_scripted_functions_are_looked_into() -> None:
    @torch.jit.script
    def twice(x: Tensor) -> Tensor:
        return torch.relu(x) * 2

    model = between(twice)
    graph = sl.trace(model, VECTORS)
    assert names(graph) == ["a"]
    prove(model, VECTORS, graph)


def test_a_branch_on_values_freezes_what_is_alive_and_what_comes_later() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        x = F.relu(self.b(F.relu(self.a(x))))
        x = self.c(x) if x.sum() > 0 else self.d(x)
        return self.f(F.relu(self.e(F.relu(x))))

    layers = {"a": (6, 8), "b": (8, 7), "c": (7, 5), "d": (7, 5), "e": (5, 4), "f": (4, 2)}
    model = settle(Apply(run, **{name: nn.Linear(*sizes) for name, sizes in layers.items()}))
    graph = sl.trace(model, VECTORS)
    assert names(graph) == ["a"]
    assert any(
        "the code reads values (_local_scalar_dense in the model" in block.reason for block in graph.blocked
    )
    prove(model, VECTORS, graph)


def test_a_branch_on_activations_freezes_all_that_follows() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(F.relu(y if y.sum() > 0 else self.c(x)))

    model = settle(Apply(run, a=nn.Linear(6, 8), b=nn.Linear(8, 2), c=nn.Linear(6, 8)))
    with pytest.raises(sl.TraceError, match="so it may go another way for others"):
        sl.trace(model, VECTORS)


@pytest.mark.parametrize("x", [VECTORS, VECTORS.abs()])
def test_a_branch_on_inputs_alone_is_noted(x: Tensor) -> None:
    """Pruning cannot change the way that a batch takes; what other batches run was not traced."""

    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x))) * (2 if x.min() < 0 else 3)

    model = settle(Apply(run, a=nn.Linear(6, 8), b=nn.Linear(8, 2)))
    graph = sl.trace(model, x)
    assert names(graph) == ["a"]
    (note,) = graph.notes
    assert "reads values of the inputs" in note
    assert "test_trace.py:" in note
    prove(model, x, graph)


def test_a_branch_on_inputs_to_parameters_not_seen_holds_everything() -> None:
    def either(self: Any, x: Tensor) -> Tensor:
        return self.b(self.a(x)) if x.sum() > 0 else self.c(self.a(x))

    model = settle(Apply(either, a=nn.Linear(4, 8), b=nn.Linear(8, 2), c=nn.Linear(8, 2)))
    with pytest.raises(
        sl.TraceError, match=r"reads values of the inputs .*c\.weight lies on a way not taken"
    ):
        sl.trace(model, torch.ones(2, 4, dtype=torch.float64))


def test_a_branch_on_sizes_or_on_randomness_does_not() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)) * (2 if len(x) > 1 or torch.rand(()).item() < 0.5 else 3))

    assert names(sl.trace(settle(Apply(run, a=nn.Linear(6, 8), b=nn.Linear(8, 2))), VECTORS)) == ["a"]


def test_a_parameter_in_two_layouts_belongs_to_one_group() -> None:
    model = settle(
        Weights(
            lambda self, x: F.relu(F.relu(x @ self.v) @ self.w) @ self.w.t() @ self.u,
            v=(6, 8),
            w=(8, 8),
            u=(8, 2),
        )
    )
    graph = sl.trace(model, VECTORS)
    assert {s.dim for s in graph["v"].slices if s.tensor == "w"} | {s.dim for s in graph["w"].slices} == {
        0,
        1,
    }
    prove(model, VECTORS, graph)


def test_a_recurrent_cell_by_hand() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        x, h = self.a(x), x.new_zeros(len(x), 5)
        for _ in range(3):
            h = self.cell(x, h)
        return self.b(h)

    model = settle(Apply(run, a=nn.Linear(6, 8), cell=nn.GRUCell(8, 5), b=nn.Linear(5, 2)))
    graph = sl.trace(model, VECTORS)
    assert names(graph) == ["a"]
    prove(model, VECTORS, graph)
    assert sl.prune(model, sl.plan(graph, {"a": range(3)})).model.cell.input_size == 3


def test_module_names_may_hold_anything_but_dots() -> None:
    model = nn.Sequential()
    model.add_module("a:b#0", nn.Linear(6, 8))
    model.add_module("drop:out#1", nn.Dropout())
    model.add_module("c", nn.Linear(8, 2))
    settle(model)
    graph = sl.trace(model, VECTORS)
    assert names(graph) == ["a:b#0"]
    assert graph.dropouts == (("drop:out#1", "a:b#0"),)
    prove(model, VECTORS, graph)


def test_reads_of_different_tensors_have_different_sources() -> None:
    """Also where the first is gone before the second comes to be: numbers are not used twice."""
    graph = sl.trace(*NETS["shared"]())
    sources = [site.source for site in graph["first"].sites]
    assert len(set(sources)) == len(sources) == 3


def test_written_in_place_a_tensor_is_another_source() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        x = self.a(x)
        y = self.b(x)
        return y + self.b(x.add_(1)) + self.c(x)

    model = settle(Apply(run, a=nn.Linear(6, 8), b=nn.Linear(8, 2), c=nn.Linear(8, 2)))
    graph = sl.trace(model, VECTORS)
    assert [site.source == graph["a"].sites[0].source for site in graph["a"].sites] == [True, False, False]
    assert graph["a"].sites[1].source == graph["a"].sites[2].source
    prove(model, VECTORS, graph)


def test_masks_are_laid_on_the_argument_that_is_read() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.h(F.conv2d(bias=self.b.bias, weight=self.b.weight, input=F.relu(self.a(x))))

    model, maps = settle(Apply(run, a=conv(3, 4), b=conv(4, 5, 1), h=head(5))), example(1, 3, 5, 5)
    graph = sl.trace(model, maps)
    assert [site.arg for group in graph for site in group.sites] == [2, 0]
    prove(model, maps, graph)


# Further inputs


class Branching(nn.Module):
    """Long inputs go through another layer than short ones, and are read beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 2)
        self.long, self.wide = nn.Linear(8, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        if x.shape[1] > 3:
            return self.b(h) + self.wide(F.relu(self.long(h)))
        return self.b(h)


def test_what_further_inputs_reach_is_part_of_the_units() -> None:
    model = settle(Branching())
    short, long = example(2, 2, 6), example(2, 5, 6)
    alone, both = sl.trace(model, short), sl.trace(model, short, also=[long])
    assert names(alone) == ["a"]
    assert {s.tensor for s in alone["a"].slices} == {"a.weight", "a.bias", "b.weight"}
    assert names(both) == ["a", "long"]
    assert {s.tensor for s in both["a"].slices} == {"a.weight", "a.bias", "b.weight", "long.weight"}
    assert {site.call for site in both["a"].sites} == {"b:linear#0", "long:linear#0"}
    assert both.inputs == alone.inputs
    assert both.ops == alone.ops  # costs are those of the example inputs
    with untouched(model):
        sl.trace(model, short, also=[long, {"x": long}])
    prove(model, short, both)
    plan = sl.plan(both, {"a": [0, 3, 7], "long": [2]})
    pruned = sl.prune(model, plan).model
    assert gap(run(sl.masked(model, plan), long), run(pruned, long)) < 1e-12
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        sl.prune(model, sl.plan(alone, {"a": [0, 3, 7]})).model(long)


def test_code_that_cannot_be_resized_on_a_further_way_is_found_there() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        return self.b(h.view(len(x), -1, 4, 2).flatten(2) if x.shape[1] > 3 else h)

    model = settle(Apply(forward, a=nn.Linear(6, 8), b=nn.Linear(8, 2)))
    short, long = example(2, 2, 6), example(2, 5, 6)
    assert not sl.trace(model, short)["a"].blocked
    assert "test_trace.py" in sl.trace(model, short, also=[long])["a"].blocked

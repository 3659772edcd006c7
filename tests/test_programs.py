"""Programs: models whose code names its sizes are pruned all the same, and equal the masked program."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.programs import Program
from zoo import (
    NETS,
    Apply,
    conv,
    example,
    gap,
    half_plan,
    head,
    lived_in,
    prove,
    prove_exact,
    run,
    settle,
    state,
)  # fmt: skip

TOKENS = example(2, 5, 6)
PICTURES = example(2, 3, 6, 6)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2)).softmax(-1) @ v


def heads(self: Any, x: Tensor) -> Tensor:
    """Four heads of eight, by number; the block around it normalises and adds."""
    n, t, _ = x.shape
    x = self.n(self.e(x))
    q, k, v = (f(x).view(n, t, 4, 8).transpose(1, 2) for f in (self.q, self.k, self.v))
    return self.o(attend(q, k, v).transpose(1, 2).reshape(n, t, 32)).mean(1)


def attention() -> nn.Module:
    layers = {name: nn.Linear(12, 32) for name in "qkv"}
    return settle(Apply(heads, e=nn.Linear(6, 12), n=nn.LayerNorm(12), **layers, o=nn.Linear(32, 3)))


def check(model: nn.Module, inputs: Any) -> tuple[Program, sl.Graph]:
    """The program computes what the model does and is pruned as masked, whatever is removed."""
    exported = sl.program(model, inputs)
    assert gap(run(model, inputs), run(exported, inputs)) < 1e-12
    graph = sl.trace(exported, inputs)
    assert [g.blocked for g in graph] == [""] * len(graph)
    (prove if all(g.exact for g in graph) else prove_exact)(exported, inputs, graph)
    kept = sl.prune(exported, sl.plan(graph, {})).model
    assert all(torch.equal(a, b) for a, b in zip(run(exported, inputs), run(kept, inputs), strict=True))
    return exported, graph


def test_literal_heads_are_refused_as_a_module_and_pruned_as_a_program() -> None:
    model = attention()
    before = state(model)
    blocked = sl.trace(model, TOKENS)["q"]
    assert "holds a size that does not follow" in blocked.blocked
    with pytest.raises(
        sl.PlanError, match=r"group q .* Prune its program: shapleaf\.program\(model, inputs\)"
    ):
        sl.prune(model, sl.plan(sl.trace(model, TOKENS), {"q": (0, 2)}))
    exported, graph = check(model, TOKENS)
    assert state(model) == before
    assert {g.name: (g.size, g.exact) for g in graph} == {"e": (12, False), "q": (4, True)}
    plan = sl.plan(graph, {"q": (0, 2)})
    pruned, receipt = sl.prune(exported, plan)
    assert receipt.error < 1e-12
    assert gap(run(sl.masked(exported, plan), TOKENS), run(pruned, TOKENS)) < 1e-12
    assert {edit.attribute: (edit.before, edit.after) for edit in receipt.edits} == {
        "view_size2": (4, 2), "view_1_size2": (4, 2), "view_2_size2": (4, 2), "reshape_shape2": (32, 16),
    }  # fmt: skip
    assert {edit.module for edit in receipt.edits} == {"sizes"}
    assert (exported.sizes.view_size2, pruned.sizes.view_size2) == (4, 2)
    rows = torch.cat([torch.arange(8), torch.arange(16, 24)])  # by hand: heads 0 and 2
    weights = {
        name: (model.get_submodule(name).weight[rows], model.get_submodule(name).bias[rows]) for name in "qkv"
    }
    x = model.n(model.e(TOKENS))
    q, k, v = (F.linear(x, *weights[name]).view(2, 5, 2, 8).transpose(1, 2) for name in "qkv")
    merged = attend(q, k, v).transpose(1, 2).reshape(2, 5, 16)
    expected = F.linear(merged, model.o.weight[:, rows], model.o.bias).mean(1)
    assert gap([expected.detach()], run(pruned, TOKENS)) < 1e-12


def test_the_residual_stream_goes_with_its_norms() -> None:
    exported = sl.program(attention(), TOKENS)
    plan = sl.plan(sl.trace(exported, TOKENS), {"e": range(0, 12, 3)})
    pruned, receipt = sl.prune(exported, plan)
    assert receipt.error is None
    assert (pruned.sizes.layer_norm_normalized_shape0, pruned.n.weight.shape) == (4, (4,))
    assert run(pruned, TOKENS)[0].shape == (2, 3)


def test_an_rms_norm_goes_with_its_units() -> None:
    model = settle(nn.Sequential(nn.Linear(6, 8), nn.RMSNorm(8), nn.Linear(8, 3)))
    exported = sl.program(model, TOKENS)
    pruned, receipt = sl.prune(exported, sl.plan(sl.trace(exported, TOKENS), {"0": (1, 4)}))
    assert receipt.error is None
    assert (pruned.sizes.rms_norm_normalized_shape0, pruned.get_submodule("1").weight.shape) == (2, (2,))
    expected = sl.prune(model, sl.plan(sl.trace(model, TOKENS), {"0": (1, 4)})).model
    assert gap(run(expected, TOKENS), run(pruned, TOKENS)) < 1e-12


def test_parts_by_number_follow_one_by_one() -> None:
    """``torch.split(x, [16, 16])`` and unequal parts alike; so do slices."""

    def parts(self: Any, x: Tensor) -> Tensor:
        a, b = torch.split(self.a(x), [16, 16], -1)
        c, d, e = torch.split(self.b(x), [8, 4, 2], -1)
        f = self.c(x)
        return (
            self.o(a)
            + self.p(b.relu())
            + self.q(c * f[:, :8])
            + self.r(d * f[:, 8:12])
            + self.s(e * f[:, -2:])
        )

    layers = {"a": nn.Linear(6, 32), "b": nn.Linear(6, 14), "c": nn.Linear(6, 14)}
    ends = {n: nn.Linear(s, 2) for n, s in zip("opqrs", (16, 16, 8, 4, 2), strict=True)}
    model = settle(Apply(parts, **layers, **ends))
    vectors = example(2, 6)
    with pytest.raises(sl.PlanError):  # the module holds the parts of a, and those of b altogether
        sl.prune(model, half_plan(sl.trace(model, vectors)))
    exported, graph = check(model, vectors)
    assert [(g.name, g.size) for g in graph] == [("a", 16), ("a#2", 16), ("b", 8), ("b#2", 4), ("b#3", 2)]
    assert graph.ties == (("a", "a#2"),)
    plan = sl.plan(graph, {"b": range(5), "b#2": (3,), "b#3": (1,)})
    sizes = sl.prune(exported, plan).model.sizes
    split = [getattr(sizes, f"split_with_sizes_1_split_sizes{i}") for i in range(3)]
    bounds = sizes.slice_2_end, sizes.slice_4_start, sizes.slice_4_end, sizes.slice_6_start
    assert (split, bounds) == ([5, 1, 1], (5, 5, 6, 6))


def test_a_part_of_one_group_is_held_and_the_rest_is_free() -> None:
    """Five of eight channels that go the same ways: how many of the five stay, no number of units says."""

    def parts(self: Any, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(torch.cat([y[:, :5].relu(), y[:, 5:]], 1)) + self.d(self.c(x))

    layers = {"a": nn.Linear(6, 8), "b": nn.Linear(8, 2), "c": nn.Linear(6, 4), "d": nn.Linear(4, 2)}
    graph = check(settle(Apply(parts, **layers)), example(2, 6))[1]
    assert [(g.name, g.size) for g in graph] == [("a", 3), ("c", 4)]
    assert graph["a"].slices[0].index.flatten().tolist() == [5, 6, 7]
    (held,) = (b for b in graph.blocked if (b.tensor, b.dim) == ("a.weight", 0))
    assert held.size == 5
    assert held.reason == "sizes.slice_2_end counts some of these units only (the model, slice_2)"


@pytest.mark.parametrize(
    "count",
    [lambda q: int(q.shape[2] ** 0.4), lambda q: len("abcd"), lambda q: math.prod((2, 2))],
    ids=["float", "len", "prod"],
)
def test_computed_sizes_follow(count: Any) -> None:
    """Four heads, by arithmetic that no integer survives."""

    def compute(self: Any, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (f(x) for f in (self.q, self.k, self.v))
        q, k, v = (y.view(n, t, count(q), 8).transpose(1, 2) for y in (q, k, v))
        return self.o(attend(q, k, v).transpose(1, 2).flatten(2)).mean(1)

    model = settle(Apply(compute, **{name: nn.Linear(6, 32) for name in "qkv"}, o=nn.Linear(32, 3)))
    assert "holds a size that does not follow" in sl.trace(model, TOKENS)["q"].blocked
    exported, graph = check(model, TOKENS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("q", 4, True)]
    assert sl.prune(exported, half_plan(graph)).model.sizes.view_size2 == 2


def test_grouped_and_depthwise_convolutions_and_group_norms_follow() -> None:
    model = settle(
        nn.Sequential(
            conv(3, 8),
            conv(8, 8, groups=8),
            nn.GroupNorm(4, 8),
            nn.ConvTranspose2d(8, 8, 2, groups=4),
            head(8),
        )
    )
    exported, graph = check(model, PICTURES)
    assert [(g.name, g.size) for g in graph] == [("0", 4)]
    sizes = sl.prune(exported, half_plan(graph)).model.sizes
    assert (sizes.conv2d_1_groups, sizes.group_norm_num_groups, sizes.conv_transpose2d_groups) == (4, 2, 2)


def selective(self: Any, x: Tensor) -> Tensor:
    """A selective kernel (Li et al. 2019), as in timm's skresnet: each channel chooses between two paths."""
    paths = torch.stack([self.a(x), self.b(x)], 1)
    choice = self.e(self.r(paths.sum(1).mean((2, 3), keepdim=True)).relu())
    choice = choice.view(x.shape[0], 2, choice.shape[1] // 2, 1, 1).softmax(1)
    return self.h((paths * choice).sum(1))


def test_a_selective_kernel() -> None:
    layers = {"a": conv(3, 8), "b": conv(3, 8, 5), "r": conv(8, 4, 1), "e": conv(4, 16, 1), "h": head(8)}
    exported, graph = check(settle(Apply(selective, **layers)), PICTURES)
    assert {g.name: (g.size, g.exact) for g in graph} == {"a": (8, True), "r": (4, True)}
    pruned = sl.prune(exported, half_plan(graph)).model
    assert (pruned.sizes.view_size1, pruned.sizes.view_size2, pruned.e.weight.shape[0]) == (2, 4, 8)


def test_segformer() -> None:
    hf = pytest.importorskip("transformers")
    config = hf.SegformerConfig(
        hidden_sizes=[16, 32], depths=[1, 1], num_encoder_blocks=2, num_attention_heads=[2, 4],
        sr_ratios=[2, 1], patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2],
    )  # fmt: skip
    model = settle(hf.SegformerForImageClassification(config))
    pictures = example(1, 3, 32, 32)
    held = [g.name for g in sl.trace(model, pictures) if g.blocked]
    assert held == ["segformer.stages.1.patch_embeddings.proj"]
    exported, graph = check(model, pictures)
    pruned = sl.prune(exported, sl.plan(graph, {held[0]: range(16)})).model
    assert pruned.sizes.reshape_8_shape2 == 16


@pytest.mark.parametrize("name", sorted(set(NETS) - {"keywords"}))
def test_programs_of_the_zoo_have_the_units_of_their_models(name: str) -> None:
    """``keywords`` takes any inputs by name, which ``torch.export`` does not."""
    model, inputs = NETS[name]()
    exported, graph = check(model, inputs)
    assert isinstance(exported, Program)
    mine, theirs = ({g.name: (g.size, g.exact) for g in found} for found in (graph, sl.trace(model, inputs)))
    assert mine == theirs


def test_names_and_values_are_the_models_and_nothing_is_shared() -> None:
    model, inputs = NETS["plain"]()
    lived_in(model, inputs)
    before = state(model)
    exported = sl.program(model, inputs)
    assert state(model) == before
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    found = {**dict(exported.named_parameters()), **dict(exported.named_buffers())}
    assert {*found} == {*own}
    for name, tensor in found.items():
        assert torch.equal(tensor, own[name])
        assert tensor.data_ptr() != own[name].data_ptr()
    sl.prune_(exported, half_plan(sl.trace(exported, inputs)))
    assert state(model) == before


def test_constants_are_buffers_and_are_cut() -> None:
    def scaled(self: Any, x: Tensor) -> Tensor:
        return self.b(self.a(x) * self.scale)

    model = settle(Apply(scaled, a=nn.Linear(6, 8), b=nn.Linear(8, 2)))
    model.scale = torch.arange(1.0, 9.0).double()
    with pytest.raises(sl.TraceError, match="meets a tensor without units there"):
        sl.trace(model, example(2, 6))
    exported, graph = check(model, example(2, 6))
    assert sl.prune(exported, sl.plan(graph, {"a": (1, 6)})).model.scale.tolist() == [2, 7]


def test_a_child_of_the_name_is_left_alone() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(self.sizes(x).view(-1, 4, 2).flatten(1))

    model = settle(Apply(run, sizes=nn.Linear(6, 8), b=nn.Linear(8, 2)))
    exported, graph = check(model, example(2, 6))
    assert isinstance(exported.sizes_, nn.Module)
    assert [size.module for size in graph.sizes] == ["sizes_"]


def test_inputs_by_name_and_any_number_of_examples() -> None:
    class Two(Apply):
        def forward(self, x: Tensor, *, y: Tensor) -> Tensor:
            return self.b(self.a(x).view(-1, 2, 4).flatten(1)) + y

    model = settle(Two(print, a=nn.Linear(6, 8), b=nn.Linear(8, 2)))
    inputs = {"x": example(1, 6), "y": example(1, 2)}
    exported, graph = check(model, inputs)
    pruned = sl.prune(exported, half_plan(graph)).model
    for count in (1, 3, 7):
        given = {"x": example(count, 6, seed=count), "y": example(count, 2)}
        assert gap(run(exported, given), run(model, given)) < 1e-12
        assert gap(run(pruned, given), run(sl.masked(exported, half_plan(graph)), given)) < 1e-12


def test_what_cannot_be_exported_says_so_and_stays_as_it_is() -> None:
    model = settle(Apply(lambda self, x: self.a(x) if x.sum() > 0 else x, a=nn.Linear(6, 6)))
    before = state(model)
    with pytest.raises(sl.TraceError, match="the model cannot be exported: "):
        sl.program(model, example(2, 6))
    assert state(model) == before


def sizes(program: nn.Module) -> dict[str, int]:
    return {name: value for name, value in vars(program.sizes).items() if type(value) is int}


def test_a_failure_puts_the_sizes_back() -> None:
    exported = sl.program(attention(), TOKENS)
    graph = sl.trace(exported, TOKENS)
    before, code = sizes(exported), exported.code
    plan = sl.plan(graph, {"q": (0, 2)})
    wrong = tuple(size for size in graph.sizes if size.attribute != "reshape_shape2")
    broken = replace(plan, graph=replace(graph, sizes=wrong))
    with pytest.raises(sl.PlanError, match=r"the pruned model does not run \(reshape: ") as caught:
        sl.prune_(exported, broken)
    assert "shapleaf.program" not in str(caught.value)
    assert (sizes(exported), exported.code) == (before, code)
    assert sl.prune_(exported, plan).error < 1e-12


def test_an_interrupted_trace_leaves_plain_integers() -> None:
    exported = sl.program(attention(), TOKENS)
    with pytest.raises(sl.TraceError):
        sl.trace(exported, TOKENS[..., :3])
    assert sizes(exported)
    assert {type(value) for value in vars(exported.sizes).values() if isinstance(value, int)} == {int, bool}


def test_the_receipt_is_replayed_on_a_fresh_program_elsewhere(tmp_path: Path) -> None:
    exported = sl.program(attention(), TOKENS)
    graph = sl.trace(exported, TOKENS)
    graph.save(tmp_path / "graph.safetensors")
    plan = sl.plan(sl.Graph.load(tmp_path / "graph.safetensors"), {"q": (1, 3), "e": range(5)})
    pruned, receipt = sl.prune(exported, plan)
    receipt.save(tmp_path / "receipt.safetensors")
    assert sl.Receipt.load(tmp_path / "receipt.safetensors") == receipt
    torch.save((pruned.state_dict(), run(pruned, TOKENS)), tmp_path / "state.pt")
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch, shapleaf as sl
from test_programs import TOKENS, attention
from zoo import gap, run, settle
fresh = sl.program(settle(attention(), seed=5), TOKENS)
sl.replay(fresh, sl.Receipt.load({str(tmp_path / "receipt.safetensors")!r}))
weights, expected = torch.load({str(tmp_path / "state.pt")!r})
fresh.load_state_dict(weights)
assert gap(run(fresh, TOKENS), expected) == 0, gap(run(fresh, TOKENS), expected)
print(fresh.sizes.view_size2, fresh.sizes.layer_norm_normalized_shape0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2", "5"], done.stderr


def test_pruning_twice_is_pruning_by_the_composed_plan() -> None:
    exported = sl.program(attention(), TOKENS)
    first = sl.plan(sl.trace(exported, TOKENS), {"q": (0, 2, 3)})
    once = sl.prune(exported, first).model
    twice = sl.prune(once, sl.plan(sl.trace(once, TOKENS), {"q": (1, 2)})).model
    direct = sl.prune(exported, sl.plan(sl.trace(exported, TOKENS), {"q": (2, 3)})).model
    assert sizes(twice) == sizes(direct)
    assert gap(run(twice, TOKENS), run(direct, TOKENS)) == 0


@pytest.mark.parametrize("criterion", [sl.Taylor(), sl.Shapley(), sl.WeightNorm()])
def test_programs_are_scored_and_allocated(criterion: Any) -> None:
    exported = sl.program(attention(), TOKENS)
    data = [(example(4, 5, 6, seed=3), torch.tensor([0, 1, 2, 0]))]
    scores = sl.attribute(exported, sl.trace(exported, TOKENS), data, criterion)
    plan = sl.allocate(scores, sl.Params(keep=0.6))
    assert plan.after.params <= 0.6 * plan.before.params
    assert run(sl.prune(exported, plan).model, TOKENS)[0].shape == (2, 3)


def test_the_scores_are_those_of_the_model() -> None:
    model, inputs = NETS["plain"]()
    data = [(example(6, 3, 8, 8, seed=3), torch.tensor([0, 1, 2, 0, 1, 2]))]
    values = []
    for each in (model, sl.program(model, inputs)):
        scores = sl.attribute(each, sl.trace(each, inputs), data, sl.Taylor())
        values.append(scores.values)
    assert values[0].keys() == values[1].keys()
    for name, mine in values[0].items():
        assert torch.allclose(mine, values[1][name], rtol=1e-10)


def test_means_fold_into_biases_and_into_new_ones() -> None:
    """A convolution with a bias, one without and a Linear without: they end as those of the model do."""
    layers = [
        conv(3, 6),
        nn.ReLU(),
        conv(6, 5, bias=False),
        nn.Tanh(),
        conv(5, 4, 1),
        nn.Flatten(),
        nn.Sigmoid(),
    ]
    model = settle(nn.Sequential(*layers, nn.Linear(144, 3, bias=False)))
    data = [(example(4, 3, 6, 6, seed=3), None)]
    exported = sl.program(model, PICTURES)
    assert exported.get_submodule("2").bias is None
    made = []
    for each in (model, exported):
        plan = sl.plan(sl.trace(each, PICTURES), {"0": (0, 2), "2": (1, 3), "4": (0, 3)})
        pruned, receipt = sl.prune(each, plan, compensate=sl.FoldMean(data))
        made.append(dict(pruned.named_parameters()))
        assert dict(receipt.biases) == {"2": 2, "7": 3}
    assert made[0].keys() == made[1].keys()
    assert all(torch.allclose(t, made[1][name], rtol=1e-12) for name, t in made[0].items())
    fresh = sl.replay(sl.program(model, PICTURES), receipt)
    fresh.load_state_dict(pruned.state_dict())
    assert gap(run(fresh, PICTURES), run(pruned, PICTURES)) == 0


def test_a_new_bias_goes_if_pruning_fails() -> None:
    model = settle(
        nn.Sequential(nn.Linear(6, 8), nn.Unflatten(1, (4, 2)), nn.Flatten(), nn.Linear(8, 2, bias=False))
    )
    vectors = example(2, 6)
    exported = sl.program(model, vectors)
    graph = sl.trace(exported, vectors)
    broken = replace(sl.plan(graph, {"0": (0,)}), graph=replace(graph, sizes=()))
    before = run(exported, vectors)
    with pytest.raises(sl.PlanError, match="the pruned model does not run"):
        sl.prune_(exported, broken, compensate=sl.FoldMean([(vectors, None)]))
    assert exported.get_submodule("3").bias is None
    assert gap(before, run(exported, vectors)) == 0


def test_a_mean_behind_a_sum_of_its_own_is_refused() -> None:
    def summed(self: Any, x: Tensor) -> Tensor:
        return F.linear(self.a(x), self.b.weight) + self.b.bias * 2

    exported = sl.program(settle(Apply(summed, a=nn.Linear(6, 8), b=nn.Linear(8, 2))), example(2, 6))
    plan = sl.plan(sl.trace(exported, example(2, 6)), {"a": (0, 1)})
    with pytest.raises(sl.PlanError, match=r"no place for a mean behind b\.weight, which :linear#1 reads"):
        sl.prune(exported, plan, compensate=sl.FoldMean([(example(4, 6), None)]))


ONNX = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def test_a_pruned_program_is_exported_for_any_number_of_examples(tmp_path: Path) -> None:
    exported = sl.program(attention(), TOKENS[:1])
    pruned = sl.prune(exported, sl.plan(sl.trace(exported, TOKENS), {"q": (0, 2), "e": range(6)})).model
    assert sl.export(pruned, TOKENS, tmp_path / "model.pt2") < 1e-12
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for count in (1, 5):
        x = example(count, 5, 6, seed=count)
        assert gap([loaded(x).detach()], run(pruned, x)) < 1e-12


@pytest.mark.parametrize("suffix", [pytest.param(".onnx", marks=ONNX)])
def test_a_pruned_program_is_exported_to_onnx(suffix: str, tmp_path: Path) -> None:
    for module in ("onnx", "onnxscript"):
        pytest.importorskip(module)
    runtime = pytest.importorskip("onnxruntime")
    exported = sl.program(attention().float(), TOKENS.float())
    graph = sl.trace(exported, TOKENS.float())
    pruned = sl.prune(exported, sl.plan(graph, {"q": (0, 2)})).model
    path = tmp_path / f"model{suffix}"
    assert sl.export(pruned, TOKENS.float(), path) < 1e-5
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = example(7, 5, 6).float()
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert torch.allclose(torch.from_numpy(found), run(pruned, x)[0], atol=1e-5)

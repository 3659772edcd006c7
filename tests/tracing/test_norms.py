"""Normalisations with their own op, and embeddings: what a unit is, and whether it is exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import shapleaf as sl
from shapleaf.testing import untouched
from zoo import Apply, conv, example, half_plan, head, prove, prove_exact, run, settle

VECTORS, MAPS = example(2, 6), example(2, 3, 6, 6)


BLIND = {"flip": lambda op: op.give(op.out, op.flow.of(op.tensors[0]))}
"""A rule that does not see that units change places."""


def owners(group: Any) -> dict[str, list[list[int]]]:
    return {f"{s.tensor}[{s.dim}]": s.index.tolist() for s in group.slices}


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_units_that_share_a_statistic_are_not_exact(norm: type[nn.Module]) -> None:
    model = settle(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), norm(5), nn.Linear(5, 2)))
    graph = sl.trace(model, VECTORS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("0", 8, True), ("2", 5, False)]
    assert " in 3, " in graph["2"].reason
    assert owners(graph["2"])["3.weight[0]"] == [[i] for i in range(5)]
    prove_exact(model, VECTORS, graph)
    pruned, receipt = sl.prune(model, sl.plan(graph, {"2": [1, 4]}))
    assert receipt.error is None
    assert pruned[3].normalized_shape == (2,)
    hidden = F.relu(model[0](VECTORS))
    kept = model[2](hidden)[:, [1, 4]]
    extra = {"bias": model[3].bias[[1, 4]]} if norm is nn.LayerNorm else {}
    function = F.layer_norm if norm is nn.LayerNorm else F.rms_norm
    normed = function(kept, (2,), model[3].weight[[1, 4]], eps=model[3].eps, **extra)
    expected = normed @ model[4].weight[:, [1, 4]].t() + model[4].bias
    assert torch.allclose(pruned(VECTORS), expected, atol=1e-12)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_a_wrong_order_after_a_norm_is_seen(norm: type[nn.Module]) -> None:
    layers = {"a": nn.Linear(6, 8), "n": norm(8), "b": nn.Linear(8, 2)}
    model = settle(Apply(lambda self, x: self.b(self.n(self.a(x)).flip(1)), **layers))
    graph = sl.trace(model, VECTORS, rules=BLIND)
    with pytest.raises(sl.PlanError, match="differs from the masked one"):
        sl.prune(model, sl.plan(graph, {"a": [0, 1, 2]}))


def test_a_layer_norm_over_places_leaves_units_exact() -> None:
    model = settle(
        Apply(lambda self, x: self.b(self.n(self.a(x))), a=conv(3, 8), n=nn.LayerNorm(6), b=head(8))
    )
    graph = sl.trace(model, MAPS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("a", 8, True)]
    prove(model, MAPS, graph)


@pytest.mark.parametrize("affine", [True, False])
def test_the_unit_of_a_group_norm_is_a_whole_group(affine: bool) -> None:
    model = settle(nn.Sequential(conv(3, 8), nn.GroupNorm(4, 8, affine=affine), nn.ReLU(), head(8)))
    graph = sl.trace(model, MAPS)
    pairs = [[0, 1], [2, 3], [4, 5], [6, 7]]
    mine = {"1.weight[0]": pairs, "1.bias[0]": pairs} if affine else {}
    assert owners(graph["0"]) == {"0.weight[0]": pairs, "0.bias[0]": pairs, "3.2.weight[1]": pairs, **mine}
    assert graph["0"].exact
    prove(model, MAPS, graph)
    assert sl.prune(model, sl.plan(graph, {"0": [1, 2, 3]})).model[1].num_groups == 3


@pytest.mark.parametrize("affine", [True, False])
def test_a_group_norm_over_all_channels_is_a_layer_norm(affine: bool) -> None:
    """Its units are channels, and not exact: the pruned model takes its statistic over those that stay."""
    model = settle(nn.Sequential(conv(3, 8), nn.GroupNorm(1, 8, affine=affine), nn.ReLU(), head(8)))
    graph = sl.trace(model, MAPS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("0", 8, False)]
    assert graph["0"].reason.startswith("normalises over units (native_group_norm in 1, ")
    pruned, receipt = sl.prune(model, sl.plan(graph, {"0": [1, 2, 6]}))
    assert receipt.error is None
    assert pruned[1].num_groups == 1
    extra = [p[[1, 2, 6]] for p in (model[1].weight, model[1].bias)] if affine else []
    normed = F.group_norm(model[0](MAPS)[:, [1, 2, 6]], 1, *extra)
    expected = normed.relu().mean((2, 3)) @ model[3][2].weight[:, [1, 2, 6]].t() + model[3][2].bias
    assert torch.allclose(pruned(MAPS), expected, atol=1e-12)


def test_a_wrong_order_after_a_group_norm_is_seen() -> None:
    layers = {"a": conv(3, 8), "n": nn.GroupNorm(1, 8), "b": head(8)}
    model = settle(Apply(lambda self, x: self.b(self.n(self.a(x)).relu().flip(1)), **layers))
    graph = sl.trace(model, MAPS, rules=BLIND)
    with pytest.raises(sl.PlanError, match="differs from the masked one"):
        sl.prune(model, sl.plan(graph, {"a": [0, 1, 2]}))


def test_the_groups_of_an_attribute_follow_and_a_number_in_the_code_holds() -> None:
    def by_attribute(self: Any, x: Tensor) -> Tensor:
        return self.b(F.group_norm(self.a(x), self.parts))

    model = settle(Apply(by_attribute, a=conv(3, 8), b=head(8)))
    model.parts = 4
    graph = sl.trace(model, MAPS)
    assert [(g.name, g.size) for g in graph] == [("a", 4)]
    assert sl.prune(model, half_plan(graph)).model.parts == 2
    prove(model, MAPS, graph)
    model = settle(
        Apply(lambda self, x: self.b(F.group_norm(self.a(x), num_groups=4)), a=conv(3, 8), b=head(8))
    )
    with pytest.raises(sl.TraceError, match=r"group_norm in the model, test_norms.py:\d+ holds its sizes"):
        sl.trace(model, MAPS)


def test_an_embedding_keeps_its_vocabulary_and_its_width_is_units() -> None:
    model = settle(nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)))
    words = torch.tensor([[1, 2, 3], [4, 5, 8]])
    graph = sl.trace(model, words)
    assert [(g.name, g.size, g.exact) for g in graph] == [("0", 6, True), ("1", 8, True)]
    assert owners(graph["0"]) == {k: [[i] for i in range(6)] for k in ("0.weight[1]", "1.weight[1]")}
    (rows,) = (b for b in graph.blocked if b.tensor == "0.weight")
    assert (rows.dim, rows.size) == (0, 9)
    assert rows.reason.startswith("an index into a vocabulary (embedding in 0, ")
    prove(model, words, graph)
    assert sl.prune(model, sl.plan(graph, {"0": [0, 5]})).model[0].embedding_dim == 2


def test_a_bag_of_words_is_an_embedding() -> None:
    for mode in ("sum", "mean", "max"):
        model = settle(nn.Sequential(nn.EmbeddingBag(9, 6, mode=mode), nn.Tanh(), nn.Linear(6, 2)))
        words = torch.tensor([[1, 2, 3], [4, 5, 8]])
        graph = sl.trace(model, words)
        assert [(g.name, g.size, g.exact) for g in graph] == [("0", 6, True)]
        prove(model, words, graph)
        assert sl.prune(model, sl.plan(graph, {"0": [0, 5]})).model[0].embedding_dim == 2


WEIGHTS: dict[str, Any] = {
    "weight norm": parametrizations.weight_norm,
    "older weight norm": nn.utils.weight_norm,
    "weight norm over everything": lambda layer: parametrizations.weight_norm(layer, dim=None),
    "spectral norm": parametrizations.spectral_norm,
    "older spectral norm": nn.utils.spectral_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("kind", ["linear", "convolution"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_norms_of_weights_are_statistics_over_inputs(name: str, kind: str) -> None:
    """What a layer reads has a share in the norm of its weight, so it is not exact."""
    norm = WEIGHTS[name]
    layers = [nn.Linear(6, 8), nn.Linear(8, 7)] if kind == "linear" else [conv(3, 8), conv(8, 7)]
    last = nn.Linear(7, 2) if kind == "linear" else head(7)
    inputs = VECTORS if kind == "linear" else MAPS
    model = settle(nn.Sequential(norm(layers[0]), nn.ReLU(), norm(layers[1]), nn.ReLU(), last))
    with untouched(model):
        graph = sl.trace(model, inputs)
    assert [(g.name, g.size) for g in graph] == [("0", 8), ("2", 7)]
    assert not graph["0"].exact
    assert graph["2"].exact == (name in ("weight norm", "older weight norm"))
    assert "a statistic over units" in graph["0"].reason
    pruned, _ = sl.prune(model, half_plan(graph))
    sizes = ("out_features", "in_features") if kind == "linear" else ("out_channels", "in_channels")
    assert [getattr(pruned[2], size) for size in sizes] == [4, 4]
    with torch.no_grad():
        assert run(pruned, inputs)[0].shape == (2, 2 if kind == "linear" else 3)
        assert pruned[2].weight.shape[:2] == (4, 4)
    if graph["2"].exact:
        prove_exact(model, inputs, graph)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.filterwarnings("ignore:compensation made the error")  # the network is not trained
@pytest.mark.parametrize("name", WEIGHTS)
def test_optimizers_compensation_and_replay_know_computed_weights(name: str) -> None:
    def build() -> nn.Module:
        norm = WEIGHTS[name]
        return settle(
            nn.Sequential(norm(nn.Linear(6, 8)), nn.ReLU(), norm(nn.Linear(8, 7, bias=False)), head(7)[2])
        )

    model = build().train()
    graph = sl.trace(model, VECTORS)
    optimizer = torch.optim.Adam(model.parameters())
    model(VECTORS).sum().backward()
    optimizer.step()
    identities = [id(parameter) for parameter in model.parameters()]
    receipt = sl.prune_(model, sl.plan(graph, {"0": [0, 3], "2": [1, 2, 5]}), optimizer=optimizer)
    assert [id(parameter) for parameter in model.parameters()] == identities
    assert all(s["exp_avg"].shape == p.shape for p, s in optimizer.state.items())
    model(VECTORS).sum().backward()
    optimizer.step()
    assert (
        str(sl.replay(build(), receipt).load_state_dict(model.state_dict()))
        == "<All keys matched successfully>"
    )
    folded = sl.prune(build(), half_plan(graph), compensate=sl.FoldMean([(VECTORS, None)])).model
    assert folded[2].bias.shape == (4,)


def test_a_parametrization_of_other_kinds_is_looked_into() -> None:
    class Bounded(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight.tanh() * 2

    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 2))
    nn.utils.parametrize.register_parametrization(model[2], "weight", Bounded())
    parametrizations.orthogonal(model[4])
    settle(model)
    graph = sl.trace(model, VECTORS)
    assert [(g.name, g.size, g.exact) for g in graph] == [("0", 8, True), ("2", 7, True)]
    held = {b.tensor: b.reason for b in graph.blocked}
    assert held["4.parametrizations.weight.original"].startswith(
        "works along units (tril in 4.parametrizations"
    )
    prove(model, VECTORS, graph)
    assert sl.prune(model, half_plan(graph)).model[2].in_features == 4

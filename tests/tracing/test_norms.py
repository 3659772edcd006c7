"""Normalisations with their own op, and embeddings: what a unit is, and whether it is exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from zoo import Apply, conv, example, half_plan, head, prove, prove_exact, settle

VECTORS, MAPS = example(2, 6), example(2, 3, 6, 6)


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
def test_a_wrong_regrouping_after_a_norm_is_seen(norm: type[nn.Module]) -> None:
    """The code names 4 columns by number, so with fewer units it regroups what is left."""
    layers = {"a": nn.Linear(6, 8), "n": norm(8), "b": nn.Linear(8, 2)}
    model = settle(
        Apply(
            lambda self, x: self.b(self.n(self.a(x)).view(len(x), -1, 4).transpose(1, 2).flatten(1)), **layers
        )
    )
    with pytest.raises(sl.PlanError, match=r"differs from the masked one|cannot lose units"):
        sl.prune(model, half_plan(sl.trace(model, VECTORS)))


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


def test_a_group_norm_over_all_channels_is_one_unit() -> None:
    model = settle(nn.Sequential(conv(3, 8), nn.GroupNorm(1, 8), nn.ReLU(), head(8)))
    with pytest.raises(sl.TraceError, match=r"all of 0.weight\[0\] is one unit"):
        sl.trace(model, MAPS)


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

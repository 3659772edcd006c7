"""Sizes that layers hold follow their weights; dropout rates follow the units that stay."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

import shapleaf as sl
from shapleaf.cuts import attributes
from shapleaf.records import Edit
from zoo import NETS, Apply, Block, conv, example, half_plan, head, settle

SIZES = (
    "in_features", "out_features", "in_channels", "out_channels", "groups", "num_features",
    "num_parameters", "input_size", "embedding_dim", "normalized_shape", "num_heads",
)  # fmt: skip


def sizes(model: nn.Module) -> dict[str, Any]:
    return {
        f"{name}.{attribute}": getattr(module, attribute)
        for name, module in model.named_modules()
        for attribute in SIZES
        if hasattr(module, attribute)
    }


def expected(model: nn.Module) -> dict[str, Any]:
    """What layers built for these weights would say, worked out from the weights of every module alone."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            found[f"{name}.out_features"], found[f"{name}.in_features"] = module.weight.shape
        elif isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            found[f"{name}.in_channels"] = module.weight.shape[0]
            found[f"{name}.out_channels"] = module.weight.shape[1] * module.groups
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            found[f"{name}.out_channels"] = module.weight.shape[0]
            found[f"{name}.in_channels"] = module.weight.shape[1] * module.groups
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            found[f"{name}.num_features"] = len(module.running_mean)
        elif isinstance(module, nn.LayerNorm):
            found[f"{name}.normalized_shape"] = tuple(module.weight.shape)
        elif isinstance(module, nn.Embedding):
            found[f"{name}.embedding_dim"] = module.weight.shape[1]
        elif isinstance(module, Block):
            found[f"{name}.num_heads"] = module.o.weight.shape[1] // 2
        elif isinstance(module, nn.PReLU):
            found[f"{name}.num_parameters"] = len(module.weight)
    return found


@pytest.mark.parametrize("name", NETS)
def test_every_layer_says_what_its_weights_are(name: str) -> None:
    model, inputs = NETS[name]()
    pruned, receipt = sl.prune(model, half_plan(sl.trace(model, inputs)))
    found = sizes(pruned)
    assert expected(pruned).items() <= found.items()
    before = sizes(model)
    edits = {f"{e.module}.{e.attribute}": (e.before, e.after) for e in receipt.edits}
    assert edits == {key: (before[key], found[key]) for key in found if before[key] != found[key]}


def test_groups_follow_down_to_one() -> None:
    model = settle(
        nn.Sequential(conv(3, 6), conv(6, 12, groups=6), nn.ConvTranspose2d(12, 12, 3, groups=6), head(12))
    )
    graph = sl.trace(model, example(1, 3, 5, 5))
    pruned = sl.prune(model, sl.plan(graph, {"0": [4]})).model
    assert [(m.in_channels, m.out_channels, m.groups) for m in pruned[:3]] == [
        (3, 1, 1),
        (1, 2, 1),
        (2, 2, 1),
    ]


def test_a_layer_that_holds_a_tied_weight_under_another_name_follows() -> None:
    model, inputs = NETS["tied"]()
    pruned = sl.prune(model, sl.plan(sl.trace(model, inputs), {"0": [0, 5, 6]})).model
    assert [(m.in_features, m.out_features) for m in (pruned[2], pruned[4])] == [(3, 3), (3, 3)]
    assert pruned[2].weight is pruned[4].weight


def test_only_numbers_that_are_what_they_were_are_set() -> None:
    model = nn.Sequential(nn.Linear(np.int64(3), 4), nn.LayerNorm(4))
    shape = Edit(module="1", attribute="normalized_shape", before=(4,), after=(2,))
    width = Edit(module="0", attribute="in_features", before=3, after=2)
    attributes.redo(model, (Edit(module="0", attribute="out_features", before=4, after=2), shape, width))
    assert (model[0].in_features, model[0].out_features, model[1].normalized_shape) == (2, 2, (2,))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit(module="9", attribute="out_features", before=4, after=2), "no module '9'"),
        (Edit(module="0", attribute="out_features", before=5, after=2), "holds 4 there: build it"),
        (Edit(module="0", attribute="out_features", before=4, after=2.5), "from 4 to 2.5"),
        (Edit(module="0", attribute="out_features", before=4, after=True), "from 4 to True"),
        (Edit(module="0", attribute="out_features", before=4, after="x"), "from 4 to 'x'"),
        (Edit(module="0", attribute="out_features", before=4, after=(2, 3)), "to "),
        (Edit(module="0", attribute="out_features", before=4, after=2, index=0), "sets 0.out_features"),
        (Edit(module="1", attribute="normalized_shape", before=4, after=2, index=1), "sets 1.normal"),
        (Edit(module="1", attribute="normalized_shape", before=4, after=2, index=-1), "sets 1.normal"),
        (Edit(module="0", attribute="training", before=1, after=0), "sets 0.training"),
        (Edit(module="0", attribute="forward", before=4, after=2), "holds None there"),
        (Edit(module="0", attribute="weight", before=4, after=2), "sets 0.weight"),
        (Edit(module="0", attribute="__class__", before="torch.Linear", after="torch.ReLU"), "cannot become"),
        (Edit(module="2", attribute="__class__", before="x", after="y"), "2 is a MultiheadAttention and"),
    ],
)
def test_edits_that_are_none_of_surgery_are_refused(edit: Edit, message: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.MultiheadAttention(4, 2))
    with pytest.raises(sl.PlanError, match=message):
        attributes.redo(model, (edit,))
    assert str(model) == str(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.MultiheadAttention(4, 2)))


def test_dropout_rates_scale_by_the_share_that_stays() -> None:
    model, inputs = NETS["dropouts"]()
    graph = sl.trace(model, inputs)
    plan = sl.plan(graph, {"0": range(3), "10": range(2)})
    pruned, receipt = sl.prune(model, plan, scale_dropout=True)
    assert (pruned[1].p, pruned[4].p, pruned[11].p) == (0.1, 0.1, 0.125)
    assert [(e.module, e.before, e.after) for e in receipt.edits if e.attribute == "p"] == [
        ("1", 0.2, 0.1),
        ("11", 0.5, 0.125),
    ]
    assert sl.prune(model, plan).model[1].p == model[1].p == 0.2


def test_a_dropout_without_a_rate_is_left_alone() -> None:
    model = nn.Sequential(nn.Dropout(0.0), nn.Dropout(0.5))
    assert attributes.scale_dropouts(model, {"0": 0.5, "1": 0.5}) == (
        Edit(module="1", attribute="p", before=0.5, after=0.25),
    )
    assert copy.deepcopy(model)[1].p == 0.25


def test_norms_and_tables_follow() -> None:
    model, inputs = NETS["transformer"]()
    pruned, receipt = sl.prune(model, half_plan(sl.trace(model, inputs)))
    blocks = [pruned.blocks[i] for i in range(2)]
    assert [b.n1.normalized_shape for b in blocks] == [b.n2.normalized_shape for b in blocks] == [(4,), (4,)]
    assert (pruned.embed.num_embeddings, pruned.embed.embedding_dim) == (7, 4)
    assert [(b.qkv.in_features, b.qkv.out_features, b.o.in_features) for b in blocks] == [(4, 12, 4)] * 2
    assert [b.num_heads for b in blocks] == [2, 2]
    assert model.blocks[0].num_heads == 4
    edits = {f"{e.module}.{e.attribute}": (e.before, e.after) for e in receipt.edits}
    assert edits["blocks.1.n2.normalized_shape"] == ((8,), (4,))
    assert edits["blocks.0.num_heads"] == (4, 2)


def test_a_group_norm_keeps_the_width_of_its_groups() -> None:
    model = settle(nn.Sequential(conv(3, 12), nn.GroupNorm(4, 12), head(12)))
    pruned = sl.prune(model, sl.plan(sl.trace(model, example(1, 3, 5, 5)), {"0": [0, 2, 3]})).model
    assert (pruned[1].num_groups, pruned[1].num_channels) == (3, 9)
    assert (model[1].num_groups, model[1].num_channels) == (4, 12)


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(4, elementwise_affine=False), nn.GroupNorm(2, 4, affine=False)]
)
def test_layers_without_tensors_have_no_sizes_to_read(norm: nn.Module) -> None:
    assert attributes._sizes(norm) == {}


def test_resizing_sets_what_the_plan_leaves_and_can_be_redone() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(self.a(x).view(len(x), *self.grid).flatten(1))

    model = settle(Apply(run, a=nn.Linear(6, 8), b=nn.Linear(8, 2)))
    model.grid = (2, 4)
    plan = sl.plan(sl.trace(model, example(2, 6)), {"a": [1, 2, 3]})
    edits = attributes.resize(model, plan)
    assert edits == (Edit(module="", attribute="grid", index=1, before=4, after=3),)
    assert model.grid == (2, 3)
    assert attributes.resize(model, plan) == ()
    model.grid = [2, 4]
    attributes.redo(model, edits)
    assert model.grid == [2, 3]

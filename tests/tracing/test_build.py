"""Groups, slices, sites, ties and reasons: by hand, by golden text, and by what NaN and permutations show."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.masking import Gate, Gates, Reader
from shapleaf.records import Group
from zoo import NETS, Apply, conv, example, forward, gap, head, run, settle

GOLDEN = (
    "plain", "option_a", "dense", "depthwise", "grouped", "shufflenet", "squeeze_excite", "flatten",
    "branches", "channel_mean",
)  # fmt: skip


def spelled_out(graph: sl.Graph) -> str:
    """The printed graph, and all that it leaves out."""
    lines = [str(graph)]
    for group in graph:
        lines += ["", group.name]
        lines += [f"  {s.tensor}[{s.dim}] {s.index.tolist()}" for s in group.slices]
        lines += [f"  read by {s.call} argument {s.arg} with {s.weight}[{s.dim}]" for s in group.sites]
    lines += [
        "",
        *(f"{op.call}: {op.scale:g}" + "".join(f" x {_length(a)}" for a in op.axes) for op in graph.ops),
    ]
    return "\n".join(lines)


def _length(axis: Any) -> str:
    terms = [f"{n:g} {group}" for group, n in zip(axis.groups, axis.per_unit, strict=True)]
    return f"({' + '.join([*([str(axis.fixed)] if axis.fixed else []), *terms])})"


@pytest.mark.parametrize("name", GOLDEN)
def test_printed_graphs(name: str, golden: Callable[[str, str], None]) -> None:
    golden(name, spelled_out(sl.trace(*NETS[name]())))


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict([*model.named_parameters(), *model.named_buffers()])


def permuted(model: nn.Module, group: Group, seed: int = 0) -> nn.Module:
    """A copy whose units of one group stand in another order, in all their slices."""
    model = copy.deepcopy(model)
    order = torch.randperm(group.size, generator=torch.Generator().manual_seed(seed))
    for piece in group.slices:
        tensor = named_tensors(model)[piece.tensor]
        source = torch.arange(tensor.shape[piece.dim])
        source[piece.index.flatten()] = piece.index[order].flatten()
        tensor.data = tensor.detach().index_select(piece.dim, source)
    return model


@pytest.mark.parametrize("name", NETS)
def test_the_order_of_units_does_not_matter(name: str) -> None:
    model, inputs = NETS[name]()
    for group in sl.trace(model, inputs):
        assert gap(run(model, inputs), run(permuted(model, group), inputs)) < 1e-12, group.name


def test_permuting_with_one_slice_missing_is_noticed() -> None:
    model, inputs = NETS["residual"]()
    for group in sl.trace(model, inputs):
        wrong = replace(group, slices=group.slices[:-1])
        assert gap(run(model, inputs), run(permuted(model, wrong), inputs)) > 1e-3, group.name


def reach(model: nn.Module, graph: sl.Graph, group: Group, unit: int, inputs: Any) -> Iterator[str]:
    """Poison what produces a unit; where NaN then differs from what the graph says.

    Every place that the graph names is compared and then healed, so a reader that the graph does not
    know lets NaN through to other groups' places or to the output.
    """
    model = copy.deepcopy(model)
    read = {(site.weight, site.dim) for site in group.sites}
    for piece in group.slices:
        if (piece.tensor, piece.dim) not in read:
            named_tensors(model)[piece.tensor].data.index_fill_(piece.dim, piece.index[unit], torch.nan)
    sites = {(site.call, site.arg): site.index == unit for site in group.sites}
    wrong, reached = [], 0

    def heal(place: tuple[str, int], gate: Gate, read: Tensor) -> Tensor:
        nonlocal reached
        expected = sites.get(place, torch.tensor(False)).expand_as(read)
        reached += int(expected.sum())
        if not torch.equal(read.isnan(), expected):
            wrong.append(f"{place}: {int(read.isnan().sum())} places, expected {int(expected.sum())}")
        return torch.where(read.isnan(), 0.0, read)

    with torch.no_grad(), Reader(model, Gates(graph), heal):
        outputs = forward(model, inputs)
    yield from wrong
    if any(bool(output.isnan().any()) for output in outputs):
        yield "the output"
    if not reached:
        yield "no place was reached"


@pytest.mark.parametrize("name", sorted({*NETS} - {"transformer"}))  # a norm spreads it over all units
def test_a_nan_in_a_unit_reaches_exactly_the_places_that_the_graph_names(name: str) -> None:
    model, inputs = NETS[name]()
    graph = sl.trace(model, inputs)
    for group in graph:
        for unit in range(group.size):
            assert [*reach(model, graph, group, unit, inputs)] == [], (group.name, unit)


@pytest.mark.parametrize("name", ["residual", "squeeze_excite", "shared", "channel_sum"])
def test_a_missing_site_lets_the_nan_through(name: str) -> None:
    model, inputs = NETS[name]()
    graph = sl.trace(model, inputs)
    for group in graph:
        wrong = replace(group, sites=group.sites[1:])
        others = tuple(wrong if other is group else other for other in graph)
        assert [*reach(model, replace(graph, groups=others), wrong, 0, inputs)], group.name


def owners(group: Group) -> dict[str, Any]:
    """Slices as ``tensor[dim]`` to the positions of every unit, flat where a unit has one."""
    return {
        f"{s.tensor}[{s.dim}]": s.index.flatten().tolist() if s.index.shape[1] == 1 else s.index.tolist()
        for s in group.slices
    }


def test_a_plain_net_by_hand() -> None:
    graph = sl.trace(*NETS["mlp"]())
    eight, six = [*range(8)], [*range(6)]
    assert [owners(group) for group in graph] == [
        {"0.weight[0]": eight, "0.bias[0]": eight, "2.weight[1]": eight},
        {"2.weight[0]": six, "2.bias[0]": six, "4.weight[1]": six},
    ]
    (site,) = graph["0"].sites
    assert (site.call, site.arg, site.weight, site.dim) == ("2:linear#0", 0, "2.weight", 1)
    assert site.index.tolist() == eight


def test_a_residual_stage_by_hand() -> None:
    """Everything that is added to the trunk is one group with it."""
    group = sl.trace(*NETS["residual"]())["stem"]
    bn = lambda name: [f"{name}.{part}[0]" for part in ("weight", "bias", "running_mean", "running_var")]  # noqa: E731
    assert sorted(owners(group)) == sorted(
        [
            "stem.weight[0]",
            "stem.bias[0]",
            *bn("bn0"),
            "c2.weight[0]",
            *bn("bn2"),
            "c1.weight[1]",
            "c3.weight[1]",
            "down.weight[1]",
        ]
    )
    assert {site.call for site in group.sites} == {"c1:conv2d#0", "c3:conv2d#0", "down:conv2d#0"}
    assert len({site.source for site in group.sites}) == 2  # c3 and down read the same tensor


def test_a_concatenation_by_hand() -> None:
    groups = {group.name: owners(group) for group in sl.trace(*NETS["dense"]())}
    assert groups["a.2"]["b.2.weight[1]"] == [5, 6, 7, 8]
    assert groups["b.2"]["head.0.weight[0]"] == [9, 10, 11, 12]
    assert groups["stem"]["head.1.2.weight[1]"] == [0, 1, 2, 3, 4]


def test_flattened_maps_by_hand() -> None:
    group = sl.trace(*NETS["flatten"]())["0"]
    assert owners(group)["4.weight[1]"] == [[*range(16 * i, 16 * i + 16)] for i in range(4)]
    assert group.sites[0].index.tolist() == [i for i in range(4) for _ in range(16)]


def test_a_shuffle_by_hand() -> None:
    groups = {group.name: owners(group) for group in sl.trace(*NETS["shuffle"]())}
    assert groups["a"]["a.weight[0]"] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert groups["a"]["b.weight[1]"] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_parts_that_go_different_ways_by_hand() -> None:
    graph = sl.trace(*NETS["branches"]())
    assert owners(graph["first#2"]) == {
        "first.weight[0]": [*range(6, 12)], "first.bias[0]": [*range(6, 12)], "b.weight[1]": [*range(6)],
    }  # fmt: skip
    assert graph.ties == (("first", "first#2"),)


def test_a_group_is_named_after_what_produces_it() -> None:
    """Also where the reader's parameters come first."""
    model = settle(Apply(lambda self, x: self.a(F.relu(self.z(x))), a=nn.Linear(8, 2), z=nn.Linear(6, 8)))
    assert [group.name for group in sl.trace(model, example(1, 6))] == ["z"]


def test_tied_parameters_are_one_tensor_with_aliases() -> None:
    graph = sl.trace(*NETS["tied"]())
    tensors = {info.name: info for info in graph.tensors}
    assert tensors["2.weight"].aliases == ("4.weight",)
    assert "4.weight" not in tensors
    (group,) = graph
    assert {(s.tensor, s.dim) for s in group.slices if s.tensor == "2.weight"} == {
        ("2.weight", 0),
        ("2.weight", 1),
    }


def test_what_never_runs_is_frozen() -> None:
    graph = sl.trace(*NETS["unused"]())
    assert [group.name for group in graph] == ["0"]
    held = {f"{b.tensor}[{b.dim}]" for b in graph.blocked if b.reason == "nothing reads it in eval mode"}
    assert held == {"0.extra.weight[0]", "0.extra.weight[1]", "0.extra.bias[0]"}


def test_what_runs_in_train_mode_only_is_frozen_inside_and_coupled_outside() -> None:
    graph = sl.trace(*NETS["auxiliary"]())
    assert "aux.0.weight[1]" in owners(graph["a"])
    reasons = {b.reason for b in graph.blocked if b.tensor.startswith("aux.0") and b.dim == 0}
    assert reasons == {"nothing reads it in eval mode"}


def test_parameters_that_share_storage_are_frozen() -> None:
    model = settle(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)))
    model[2].weight = nn.Parameter(torch.cat([model[0].weight.detach(), torch.zeros(8, 2)], 1).double())
    model[0].weight = nn.Parameter(model[2].weight.detach()[:, :6])
    with pytest.raises(sl.TraceError, match="shares its storage with another tensor"):
        sl.trace(model, example(1, 6))
    model = settle(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 7), nn.Linear(7, 5), nn.Linear(5, 3)))
    model[0].view = model[1].weight.detach().view(-1)
    assert [group.name for group in sl.trace(model, example(1, 6))] == ["2"]


def test_dropouts_and_norms_are_noted() -> None:
    graph = sl.trace(*NETS["dropouts"]())
    assert graph.dropouts == (("1", "0"), ("4", "3"), ("6", "3"), ("9", "7"), ("11", "10"))
    graph = sl.trace(*NETS["plain"]())
    assert graph.norms == (("0:conv2d#0", "1"), ("4:conv2d#0", "5"))


def test_a_batch_norm_that_is_not_the_only_reader_is_not_noted_and_one_that_runs_twice_not_named() -> None:
    model = settle(
        Apply(
            lambda self, x: self.h(
                self.twice(self.a(x)) + self.twice(self.b(x)) + self.n(y := self.c(x)) + y
            ),
            a=conv(3, 4),
            b=conv(3, 4),
            c=conv(3, 4),
            twice=nn.BatchNorm2d(4),
            n=nn.BatchNorm2d(4),
            h=head(4),
        )
    )
    assert sl.trace(model, example(1, 3, 5, 5)).norms == (("a:conv2d#0", ""), ("b:conv2d#0", ""))


@pytest.mark.parametrize("tokens", [3, 4])
def test_a_batch_norm_over_tokens_is_no_part_of_a_linear_layer(tokens: int) -> None:
    model = settle(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(tokens), nn.ReLU(), nn.Linear(4, 2)))
    assert sl.trace(model, example(2, tokens, 4)).norms == ()
    model = settle(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)))
    assert sl.trace(model, example(2, 4)).norms == (("0:linear#0", "1"),)


def test_nothing_to_remove_is_an_error_that_says_why() -> None:
    with pytest.raises(sl.TraceError, match=r"nothing in this model can be removed: .*the model's output"):
        sl.trace(nn.Linear(3, 4), torch.zeros(1, 3))
    with pytest.raises(sl.TraceError, match="it has no parameters with units"):
        sl.trace(nn.ReLU(), torch.zeros(1, 3))

"""The graph: look-up, fingerprint, the check against a model, printing, and what it refuses to be."""

import dataclasses

import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf.errors import PlanError, ShapleafError, StaleGraphError, TraceError
from shapleaf.records import Axis, Blocked, Graph, Group, Op, Slice, TensorInfo


def net(hidden: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(3, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 2))


def test_groups_by_name_order_and_number(graph: Graph) -> None:
    assert graph["fc"].size == 3
    assert [group.name for group in graph] == ["conv", "fc"]
    assert len(graph) == 2


def test_an_unknown_group_is_named_with_the_known_ones(graph: Graph) -> None:
    with pytest.raises(PlanError, match=r"no group is named 'conv1'; the groups are: conv, fc\."):
        graph["conv1"]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (("fc",), ["fc"]),
        (("*c*",), ["conv", "fc"]),
        (("fc", "conv"), ["conv", "fc"]),
        (("[cd]onv",), ["conv"]),
    ],
)
def test_select_by_shell_patterns(graph: Graph, patterns: tuple[str, ...], names: list[str]) -> None:
    assert [group.name for group in graph.select(*patterns)] == names


def test_a_pattern_that_matches_nothing_is_an_error(graph: Graph) -> None:
    with pytest.raises(PlanError, match=r"no group is named 'layer\*'"):
        graph.select("conv", "layer*")


def test_fingerprint_is_that_of_the_architecture() -> None:
    same, other = (sl.trace(net(hidden), torch.zeros(2, 3)).fingerprint for hidden in (8, 9))
    assert sl.trace(net(8), torch.zeros(5, 3)).fingerprint == same
    assert other != same
    assert sl.trace(net(8).double(), torch.zeros(2, 3, dtype=torch.float64)).fingerprint != same
    assert len(same) == 16


def test_check_accepts_the_same_architecture_with_other_weights() -> None:
    sl.trace(net(), torch.zeros(2, 3)).check(net())


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (net(9), r"0\.weight is \(\(9, 3\), 'float32'\), expected \(\(8, 3\), 'float32'\)"),
        (net().double(), r"0\.weight is \(\(8, 3\), 'float64'\), expected"),
        (nn.Sequential(nn.Linear(3, 8)), r"1\.weight is absent, expected"),
        (
            nn.Sequential(*net(), nn.Linear(2, 2)),
            r"4\.weight is \(\(2, 2\), 'float32'\), expected absent",
        ),
    ],
)
def test_check_shows_the_first_difference(other: nn.Module, difference: str) -> None:
    with pytest.raises(
        StaleGraphError, match=f"belongs to another model: {difference}.* Trace the model again"
    ):
        sl.trace(net(), torch.zeros(2, 3)).check(other)


def test_every_verb_refuses_another_model() -> None:
    graph = sl.trace(net(), torch.zeros(2, 3))
    data = [(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long))]
    plan = sl.plan(graph, {"0": (0,)})
    receipt = sl.prune(net(), plan).receipt
    for verb in (
        lambda: sl.attribute(net(9), graph, data),
        lambda: sl.masked(net(9), plan),
        lambda: sl.prune(net(9), plan),
        lambda: sl.prune_(net(9), plan),
        lambda: sl.replay(net(9), receipt),
    ):
        with pytest.raises(StaleGraphError, match="another model"):
            verb()


def test_a_model_without_units_cannot_be_traced() -> None:
    with pytest.raises(TraceError, match="nothing in this model can be removed"):
        sl.trace(nn.Linear(3, 2), torch.zeros(1, 3))


def test_it_prints_its_groups_ties_and_blocked_axes(graph: Graph) -> None:
    third = dataclasses.replace(graph["fc"], name="fc2", slices=(), exact=True, reason="")
    blocked = tuple(Blocked(tensor=f"w{i}", dim=1, size=2, reason="an unknown op") for i in range(6))
    tied = dataclasses.replace(
        graph,
        groups=(*graph.groups, third),
        ties=(("fc", "fc2"),),
        blocked=(*graph.blocked, *blocked),
        notes=("train mode was not traced: no labels",),
    )
    assert str(tied) == (
        f"Graph {graph.fingerprint}\n"
        "group  units  tensors  sites  exact\n"
        "─────  ─────  ───────  ─────  ───────────────────────\n"
        "conv       4        2      1  yes\n"
        "fc         3        2      1  normalised across units\n"
        "fc2        3        0      1  yes\n"
        "10 units in 3 groups, 7 axes blocked\n"
        "tied: fc = fc2\n"
        "  the model's output: out.weight[0]\n"
        "  an unknown op: w0[1], w1[1], w2[1], w3[1] and 2 more\n"
        "train mode was not traced: no labels"
    )


def _with_group(graph: Graph, **changes: object) -> Graph:
    return dataclasses.replace(graph, groups=(dataclasses.replace(graph["conv"], **changes), graph["fc"]))


def _with_slice(graph: Graph, **changes: object) -> Graph:
    first, second = graph["conv"].slices
    return _with_group(graph, slices=(dataclasses.replace(first, **changes), second))


def _with_site(graph: Graph, **changes: object) -> Graph:
    return _with_group(graph, sites=(dataclasses.replace(graph["conv"].sites[0], **changes),))


FAULTS = {
    "two groups of one name": (lambda g: dataclasses.replace(g, groups=(g["fc"], g["fc"])), "one name"),
    "two tensors of one name": (
        lambda g: dataclasses.replace(g, tensors=(*g.tensors, g.tensors[0])),
        "one name",
    ),
    "no units": (lambda g: _with_group(g, size=0, slices=(), sites=()), "0 units"),
    "unknown tensor": (lambda g: _with_slice(g, tensor="w"), r"owns w\[0\], which does not exist"),
    "unknown axis": (lambda g: _with_slice(g, dim=4), r"owns conv\.weight\[4\], which does not exist"),
    "negative axis": (lambda g: _with_slice(g, dim=-1), r"owns conv\.weight\[-1\], which does not exist"),
    "index too large": (lambda g: _with_slice(g, index=torch.arange(4)[:, None] + 1), "integers from 0 to 3"),
    "index negative": (lambda g: _with_slice(g, index=torch.arange(4)[:, None] - 1), "integers from 0 to 3"),
    "index of floats": (lambda g: _with_slice(g, index=torch.arange(4.0)[:, None]), "integers from 0 to 3"),
    "index empty": (lambda g: _with_slice(g, index=torch.zeros(4, 0, dtype=torch.long)), "integers from 0"),
    "index of other units": (
        lambda g: _with_slice(g, index=torch.arange(3)[:, None]),
        r"\(units, positions\)",
    ),
    "index flat": (lambda g: _with_slice(g, index=torch.arange(4)), r"\(units, positions\)"),
    "position owned twice": (
        lambda g: _with_slice(g, index=torch.tensor([[0], [1], [2], [2]])),
        r"a position of conv\.weight\[0\] belongs to two units",
    ),
    "position owned by two groups": (
        lambda g: dataclasses.replace(g, groups=(*g.groups, dataclasses.replace(g["fc"], name="twin"))),
        "belongs to two units",
    ),
    "site of unknown unit": (lambda g: _with_site(g, index=torch.full((16,), 4)), "integers from -1 to 3"),
    "site of unknown weight": (lambda g: _with_site(g, weight="w"), r"read by w\[1\], which does not exist"),
    "site of unknown axis": (lambda g: _with_site(g, dim=2), r"read by fc\.weight\[2\]"),
    "tie of unknown groups": (lambda g: dataclasses.replace(g, ties=(("fc", "x"),)), "tie fc = x"),
    "op of unknown groups": (
        lambda g: dataclasses.replace(
            g, ops=(Op(call="c", scale=1.0, axes=(Axis(fixed=1, groups=("x",), per_unit=(1.0,)),)),)
        ),
        "names unknown groups",
    ),
    "op without lengths": (
        lambda g: dataclasses.replace(
            g, ops=(Op(call="c", scale=1.0, axes=(Axis(fixed=1, groups=("fc",), per_unit=()),)),)
        ),
        "names unknown groups",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_parts_that_do_not_fit_are_refused(graph: Graph, fault: str) -> None:
    change, message = FAULTS[fault]
    with pytest.raises(PlanError, match=f"the graph is inconsistent: .*{message}"):
        change(graph)


TENSOR = {"shape": [1, 3], "dtype": "float32", "low": 0, "high": 1.5}


def nested(depth: int) -> object:
    spec: object = TENSOR
    for _ in range(depth):
        spec = {"list": [spec]}
    return spec


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        TENSOR,
        {"list": [TENSOR, {"value": None}, {"value": 3}, {"value": "a"}, {"list": []}]},
        {"dict": {"x": TENSOR, "flag": {"value": True}}},
        nested(50),
    ],
)
def test_described_inputs_are_accepted(graph: Graph, inputs: object) -> None:
    assert dataclasses.replace(graph, inputs=inputs).inputs == inputs


@pytest.mark.parametrize(
    "inputs",
    [
        3,
        [],
        {},
        {"shape": [1, 3]},
        {**TENSOR, "dtype": "save"},
        {**TENSOR, "dtype": "__name__"},
        {**TENSOR, "dtype": 3},
        {**TENSOR, "shape": 3},
        {**TENSOR, "shape": [-1]},
        {**TENSOR, "shape": ["1"]},
        {**TENSOR, "low": "0"},
        {"list": [TENSOR, 3]},
        {"dict": [TENSOR]},
        {"value": [1]},
        {"module": "os"},
        nested(51),
    ],
)
def test_other_inputs_are_not(graph: Graph, inputs: object) -> None:
    with pytest.raises(PlanError, match="inputs are not described"):
        dataclasses.replace(graph, inputs=inputs)


def test_a_group_may_own_positions_beside_those_of_another(graph: Graph) -> None:
    info = TensorInfo(name="cat.weight", shape=(2, 7), dtype="float32", parameter=True)
    beside = [
        dataclasses.replace(g, slices=(Slice(tensor="cat.weight", dim=1, index=torch.arange(a, b)[:, None]),))
        for g, a, b in zip(graph.groups, (0, 4), (4, 7), strict=True)
    ]
    assert len(dataclasses.replace(graph, groups=tuple(beside), tensors=(*graph.tensors, info))) == 2


def test_errors_of_records_are_ours() -> None:
    with pytest.raises(ShapleafError):
        Graph(groups=(Group(name="g", size=0, slices=(), sites=()),), tensors=())

"""One record of every kind, small enough to be written out."""

import pytest
import torch

from shapleaf.records import (
    Axis,
    Blocked,
    Cost,
    Edit,
    Graph,
    Group,
    LatencyTable,
    Measurement,
    Op,
    Plan,
    Receipt,
    Report,
    Scores,
    Site,
    Slice,
    TensorInfo,
    TimedCall,
)


def units(first: int, count: int, positions: int = 1) -> torch.Tensor:
    """Indices of consecutive units with consecutive positions each."""
    return torch.arange(first, first + count * positions).view(count, positions)


@pytest.fixture
def graph() -> Graph:
    """conv (4 channels) -> flatten (4 positions each) -> fc (3) -> out, with a group that is not exact."""
    conv = Group(
        name="conv",
        size=4,
        slices=(
            Slice(tensor="conv.weight", dim=0, index=units(0, 4)),
            Slice(tensor="fc.weight", dim=1, index=units(0, 4, 4)),
        ),
        sites=(
            Site(call="fc:linear#0", arg=0, index=torch.arange(4).repeat_interleave(4), weight="fc.weight"),
        ),
    )
    fc = Group(
        name="fc",
        size=3,
        slices=(
            Slice(tensor="fc.weight", dim=0, index=units(0, 3)),
            Slice(tensor="out.weight", dim=1, index=units(0, 3)),
        ),
        sites=(Site(call="out:linear#0", arg=0, index=torch.arange(3), weight="out.weight", source=1),),
        exact=False,
        reason="normalised across units",
    )
    tensors = {"conv.weight": (4, 1, 2, 2), "fc.weight": (3, 16), "out.weight": (2, 3)}
    return Graph(
        groups=(conv, fc),
        tensors=tuple(
            TensorInfo(name=name, shape=shape, dtype="float32", parameter=True)
            for name, shape in tensors.items()
        ),
        ops=(
            Op(
                call="fc:linear#0",
                scale=1.0,
                axes=(
                    Axis(fixed=0, groups=("conv",), per_unit=(4.0,)),
                    Axis(fixed=0, groups=("fc",), per_unit=(1.0,)),
                ),
            ),
        ),
        blocked=(Blocked(tensor="out.weight", dim=0, size=2, reason="the model's output"),),
        inputs={"shape": [1, 1, 3, 3], "dtype": "float32", "low": -1.5, "high": 2},
    )


@pytest.fixture
def scores(graph: Graph) -> Scores:
    return Scores(
        graph=graph,
        values={"conv": torch.tensor([0.5, -0.25, 1000.0, 2.0]), "fc": torch.tensor([1.0, 2.0, 3.0])},
        stderr={"conv": torch.tensor([0.1, 0.2, 0.3, 0.4])},
        samples=1,
        evaluations={"conv": 50},
        criterion="Shapley()",
        settings={"seed": "0"},
    )


@pytest.fixture
def plan(graph: Graph) -> Plan:
    return Plan(
        graph=graph,
        keep={"conv": (0, 3), "fc": (0, 1, 2)},
        before=Cost(units=7, params=70, macs=48),
        after=Cost(units=5, params=38, macs=24),
        made_by={"budget": "Macs(keep=0.5)"},
    )


@pytest.fixture
def receipt(plan: Plan) -> Receipt:
    edits = (
        Edit(module="conv", attribute="out_channels", before=4, after=2),
        Edit(module="", attribute="rate", before=0.5, after=0.25),
    )
    return Receipt(plan=plan, edits=edits, biases=(("fc", 3),), compensation="FoldMean()", error=1.2e-7)


@pytest.fixture
def report(receipt: Receipt, scores: Scores) -> Report:
    rows = (
        Measurement(metric="accuracy", value=91.5, low=90.0, high=93.0, reference=92.0, unit="%"),
        Measurement(metric="latency", value=1.5, reference=3.0, unit="ms", better="lower"),
        Measurement(metric="loss", value=float("nan")),
    )
    return Report(title="slim", rows=rows, receipt=receipt, scores=scores, settings={"device": "cpu"})


@pytest.fixture
def latency(graph: Graph) -> LatencyTable:
    call = TimedCall(call="fc:linear#0", kind=0, axes=graph.ops[0].axes)
    return LatencyTable(
        graph=graph,
        calls=(call,),
        units=torch.tensor([[4, 3], [2, 3], [1, 1], [4, 1], [4, 2], [4, 3]]),
        times=torch.tensor([[1.2], [0.6], [0.1], [0.4], [0.8], [1.2]]),
        whole=torch.tensor([1.3, 0.7, 0.2, 0.5, 0.9, 1.3]),
        planned=6,
        seconds=0.5,
        settings={"device": "cpu"},
    )

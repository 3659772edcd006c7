"""The verb: one pass, both models on the same batches, nothing left behind, clear errors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import shapleaf
from shapleaf.data import Batch
from shapleaf.errors import CriterionError, DataError, StaleGraphError
from shapleaf.evaluation import Accuracy, Agreement, Interval, Latency, Loss, Macs, Params, evaluate
from shapleaf.records import Cost, Graph, Group, Plan, Receipt, Scores, TensorInfo


def net(width: int = 8, classes: int = 3) -> nn.Module:
    layers = [nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(), nn.ReLU(), nn.Linear(width, classes)]
    return nn.Sequential(*layers)


def examples(n: int = 50) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(n, 4, generator=draw), torch.randint(3, (n,), generator=draw)


def cut(size: int, at: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(at[0].split(size), at[1].split(size), strict=True))


CHEAP = (Accuracy(), Loss(), Agreement(), Params(), Macs())


def test_all_by_default() -> None:
    report = evaluate(net(4), cut(20, examples()), reference=net(8))
    assert [row.metric for row in report.rows] == [
        "accuracy", "loss", "agreement", "params", "MACs", "latency (wall)", "latency (CPU)",
    ]  # fmt: skip
    assert (report["params"].value, report["params"].reference) == (43, 83)
    assert (report["MACs"].value, report["MACs"].reference) == (28, 56)
    assert report["agreement"].reference is None
    assert report["latency (wall)"].unit == "ms per batch of 20"
    alone = evaluate(net(4), cut(20, examples()), reference=None)
    assert [row.metric for row in alone.rows][:3] == ["accuracy", "loss", "params"]
    assert all(row.reference is None for row in alone.rows)


def test_figures_are_those_of_the_whole_data() -> None:
    model, (x, y) = net().double(), examples()
    x = x.double()
    with torch.no_grad():
        scores = copy.deepcopy(model).eval()(x)
    report = evaluate(model, cut(7, (x, y)), [Accuracy(), Loss()])
    assert report["accuracy"].value == pytest.approx(100 * (scores.argmax(1) == y).double().mean().item())
    assert report["loss"].value == pytest.approx(nn.functional.cross_entropy(scores, y).item(), abs=1e-12)


@pytest.mark.parametrize("size", [1, 7, 50])
def test_batch_size_does_not_matter(size: int) -> None:
    model, reference = net(4).double(), net(8).double()
    x, y = examples()
    ways = [evaluate(model, cut(s, (x.double(), y)), CHEAP, reference=reference).rows for s in (size, 25)]
    for one, other in zip(*ways, strict=True):
        for field in ("value", "low", "high", "reference", "reference_low", "reference_high"):
            assert getattr(one, field) == pytest.approx(getattr(other, field), abs=1e-12), (one.metric, field)


def test_a_model_against_itself_loses_nothing() -> None:
    model = net()
    report = evaluate(model, examples(), CHEAP, reference=model)
    assert report["agreement"].value == 100
    for row in report.rows:
        assert row.metric == "agreement" or row.value == row.reference


def test_any_iterable_is_gone_through_once() -> None:
    visits: list[int] = []

    def stream() -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(cut(20, examples())):
            visits.append(number)
            yield batch

    report = evaluate(net(), stream(), CHEAP, reference=net())
    assert visits == [0, 1, 2]
    assert report.settings["examples"] == "50"
    loader = DataLoader(TensorDataset(*examples()), batch_size=20)
    assert evaluate(net(), loader, [Accuracy()]).settings["batch"] == "20"


def test_metrics_of_the_model_read_one_batch_only() -> None:
    visits: list[int] = []

    def stream() -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(cut(20, examples())):
            visits.append(number)
            yield batch

    report = evaluate(net(), stream(), [Params(), Macs()])
    assert visits == [0]
    assert "examples" not in report.settings


def test_agreement_needs_no_labels() -> None:
    report = evaluate(net(), [examples()[0]], [Agreement()], reference=net())
    assert 0 <= report["agreement"].value <= 100
    with pytest.raises(DataError, match="no target"):
        evaluate(net(), [examples()[0]], [Accuracy()])


def test_outputs_with_logits() -> None:
    class Wrapped(nn.Module):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.net = net(classes=classes)

        def forward(self, x: Tensor) -> Any:
            return SimpleNamespace(logits=self.net(x))

    assert evaluate(Wrapped(3), examples(), CHEAP, reference=Wrapped(3))["agreement"].value <= 100
    with pytest.raises(DataError, match=r"shape \(examples, 3\), the reference \(examples, 5\)"):
        evaluate(Wrapped(3), examples(), CHEAP, reference=Wrapped(5))


class Confidence:
    """A user's own metric, complete: mean probability of the predicted class."""

    name, unit, better, paired = "confidence", "", "higher", False

    def observe(self, output: Any, batch: Batch, reference: Any) -> Tensor:
        return output.softmax(1).amax(1)

    def summarise(self, values: Tensor) -> Interval:
        return Interval(values.mean().item())


def test_a_metric_of_ones_own() -> None:
    row = evaluate(net(), examples(), [Confidence()], reference=net())["confidence"]
    assert 1 / 3 < row.value < 1
    assert row.reference is not None
    assert row.low is row.high is row.reference_low is None


def test_outputs_that_are_no_predictions_are_left_to_the_metric() -> None:
    class Energy(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"energy": x.square().sum(1)}

    def mean_energy(output: dict[str, Tensor], target: Tensor) -> Tensor:
        return output["energy"]

    x, y = examples()
    report = evaluate(Energy(), (x, y), [Loss(mean_energy)], reference=Energy())
    assert report["loss"].value == pytest.approx(x.square().sum(1).mean().item())
    with pytest.raises(DataError, match="the model, batch from example 0: the model returned dict"):
        evaluate(Energy(), (x, y), [Accuracy()], reference=Energy())


class Drawing(nn.Module):
    """Drops inputs at random, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(nn.functional.dropout(x, 0.5))


def test_both_models_draw_the_same_random_numbers() -> None:
    model = Drawing()
    for size in (50, 10):
        report = evaluate(model, cut(size, examples()), [Agreement(), Loss()], reference=model)
        assert report["agreement"].value == 100
        assert report["loss"].value == report["loss"].reference


def test_data_that_draw_random_numbers_go_on_drawing() -> None:
    drawn: list[Tensor] = []

    def augmented() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(4):
            drawn.append(torch.rand(()))
            yield torch.ones(5, 4), torch.zeros(5).long()

    evaluate(Drawing(), augmented(), [Accuracy()])
    assert len({float(value) for value in drawn}) == 4


def state(model: nn.Module) -> list[Any]:
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    flags = [module.training for module in model.modules()]
    grads = [p.grad for p in model.parameters()]
    return [hooks, flags, grads, [set(vars(m)) for m in model.modules()]]


@pytest.mark.parametrize("broken", [False, True])
def test_both_models_are_left_as_they_were(broken: bool) -> None:
    model, reference = net(), net()
    model[2].eval()
    before = [state(m) for m in (model, reference)]
    values = [copy.deepcopy(m.state_dict()) for m in (model, reference)]
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    x, y = examples()
    if broken:
        with pytest.raises(DataError, match="labels run"):
            evaluate(model, [(x, y), (x, y + 1)], reference=reference)
    else:
        evaluate(model, (x, y), [*CHEAP, Latency(threads=threads + 1, repeats=5)], reference=reference)
    assert [state(m) for m in (model, reference)] == before
    for m, old in zip((model, reference), values, strict=True):
        assert all(torch.equal(value, old[name]) for name, value in m.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()


class Nan(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 3), torch.nan)


def test_errors_say_which_model_and_where() -> None:
    x, y = examples()
    with pytest.raises(
        DataError, match=r"the reference, batch from example 0: the output for example 0 is NaN"
    ):
        evaluate(net(), (x, y), [Accuracy()], reference=Nan())
    late = y.clone()
    late[30] = 7
    with pytest.raises(DataError, match=r"the model, batch from example 20: labels run from 0 to 7"):
        evaluate(net(), cut(20, (x, late)), [Accuracy()])
    with pytest.raises(
        CriterionError, match=r"the model, batch from example 0: the loss of example 0 .* nan"
    ):
        evaluate(Nan(), (x, y), [Loss()])


def test_other_classes_and_no_data() -> None:
    with pytest.raises(DataError, match=r"\(examples, 3\), the reference \(examples, 10\); .* same classes"):
        evaluate(net(), examples(), [Accuracy()], reference=net(classes=10))
    with pytest.raises(DataError, match="the data are empty"):
        evaluate(net(), [])
    with pytest.raises(DataError, match="pass reference="):
        evaluate(net(), examples(), [Agreement()])


@pytest.mark.parametrize("wrong", [Accuracy, "accuracy", shapleaf.Macs(keep=0.5), None])
def test_what_is_no_metric_is_refused(wrong: Any) -> None:
    with pytest.raises(CriterionError, match="is no metric; pass instances such as"):
        evaluate(net(), examples(), [wrong])


def records(name: str) -> tuple[Receipt, Scores]:
    graph = Graph(
        groups=(Group(name="0", size=2, slices=(), sites=()),),
        tensors=(TensorInfo(name=name, shape=(2,), dtype="float32", parameter=True),),
    )
    cost = Cost(units=2, params=2, macs=2)
    plan = Plan(graph=graph, keep={"0": (0,)}, before=cost, after=cost)
    return Receipt(plan=plan), Scores(graph=graph, values={"0": torch.ones(2)})


def test_receipt_and_scores_travel_with_the_report() -> None:
    receipt, scores = records("weight")
    report = evaluate(net(), examples(), [Params()], receipt=receipt, scores=scores, title="Mine")
    assert (report.receipt, report.scores, report.title) == (receipt, scores, "Mine")
    with pytest.raises(StaleGraphError, match="receipt and scores belong to different models"):
        evaluate(net(), examples(), [Params()], receipt=receipt, scores=records("other")[1])


def test_settings_say_how_it_was_measured() -> None:
    settings = evaluate(
        net().double(), (examples()[0].double(), examples()[1]), [Accuracy(5 - 3), Loss()]
    ).settings
    assert settings == {
        "examples": "50",
        "metrics": "Accuracy(top=2), Loss()",
        "batch": "50",
        "device": "cpu",
        "dtype": "float64",
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "shapleaf": shapleaf.__version__,
    }

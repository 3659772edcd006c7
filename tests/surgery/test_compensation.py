"""Steps of compensation: their order, what each brought, what goes wrong, and that it is undone."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import shapleaf as sl
from shapleaf.surgery import Compensation
from zoo import conv, example, gap, head, run, settle, state

VECTORS = example(40, 6, seed=3)
LABELS = torch.arange(40) % 3


def mlp(bias: bool = True) -> nn.Module:
    return settle(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3, bias=bias)))


def planned(model: nn.Module) -> sl.Plan:
    return sl.plan(sl.trace(model, VECTORS[:2]), {"0": [0, 3, 5]})


@dataclass(frozen=True)
class Adds:
    """A user's own: adds to the last bias. It has no data."""

    value: float
    log: list[str] = field(default_factory=list, repr=False, compare=False)
    note: str = ""

    def compensate(self, pruned: nn.Module, reference: nn.Module, plan: sl.Plan) -> Sequence[str]:
        self.log.append(repr(self))
        assert reference[0].out_features == 8
        assert pruned[0].out_features == 3
        pruned[2].bias.data = pruned[2].bias.data + self.value
        return (self.note,) if self.note else ()


@dataclass(frozen=True)
class Measured(Adds):
    """The same, with data to be measured on."""

    data: Any = field(default=None, repr=False, compare=False)


def test_steps_run_in_order_and_every_one_has_a_row() -> None:
    model, log = mlp(), []
    steps = [Adds(1.0, log, "one"), Measured(2.0, log, data=(VECTORS, LABELS))]
    with pytest.warns(UserWarning, match="compensation made the"):
        pruned, receipt = sl.prune(model, planned(model), compensate=steps)
    assert log == ["Adds(value=1.0, note='one')", "Measured(value=2.0, note='')"]
    assert torch.allclose(pruned[2].bias, model[2].bias + 3)
    assert [effect.step for effect in receipt.effects] == ["none", *log]
    assert receipt.effects[1].notes == ("one",)
    assert receipt.compensation == " + ".join(log)
    text = str(receipt)
    assert "  one\n" in text
    assert f"after Adds(value=1.0, note='one'): error {receipt.effects[1].error:.4g}, loss" in text


def test_error_and_loss_by_hand() -> None:
    model = mlp()
    data = [(VECTORS[:15], LABELS[:15]), (VECTORS[15:], LABELS[15:])]
    pruned, receipt = sl.prune(model, planned(model), compensate=sl.LeastSquares(data))
    plain = sl.prune(model, planned(model)).model
    with torch.no_grad():
        intact = model(VECTORS)
        for effect, each in zip(receipt.effects, (plain, pruned), strict=True):
            out = each(VECTORS)
            error = (out - intact).square().sum() / (intact - intact.mean(0)).square().sum()
            assert effect.error == pytest.approx(float(error), rel=1e-9)
            assert effect.loss == pytest.approx(float(F.cross_entropy(out, LABELS)), rel=1e-9)


@pytest.mark.parametrize(
    "data",
    [VECTORS, (VECTORS, example(40, 3)), (VECTORS, LABELS + 7), (VECTORS, LABELS[:, None].expand(40, 2))],
)
def test_without_labels_that_fit_there_is_an_error_but_no_loss(data: Any) -> None:
    model = mlp()
    receipt = sl.prune(model, planned(model), compensate=sl.LeastSquares(data)).receipt
    assert [effect.loss for effect in receipt.effects] == [None, None]
    assert all(effect.error is not None for effect in receipt.effects)


def test_without_data_there_are_notes_alone() -> None:
    model = mlp()
    pruned, receipt = sl.prune(model, planned(model), compensate=Adds(1.0, note="added"))
    assert torch.allclose(pruned[2].bias, model[2].bias + 1)
    assert [(e.step, e.error, e.loss, e.notes) for e in receipt.effects] == [
        ("Adds(value=1.0, note='added')", None, None, ("added",))
    ]
    assert "on the calibration data" not in str(receipt)


def test_unmeasured_the_model_is_the_same_and_notes_are_kept(recwarn: Any) -> None:
    model, log = mlp(), []
    steps = [sl.LeastSquares((VECTORS, LABELS)), Measured(2.0, log, "two", data=(VECTORS, LABELS))]
    with pytest.warns(UserWarning, match="compensation made the"):
        one = sl.prune(model, planned(model), compensate=steps).model
    recwarn.clear()
    passes = Counter()
    counting = model.register_forward_pre_hook(lambda module, args: passes.update([len(args[0])]))
    other, receipt = sl.prune(model, planned(model), compensate=steps, measure=False)
    counting.remove()
    assert not recwarn.list
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert [(e.error, e.loss) for e in receipt.effects] == [(None, None)] * 2
    assert receipt.effects[1].notes == ("two",)
    assert passes[len(VECTORS)] == 2  # of LeastSquares, through both networks; none of the receipt
    again = mlp()
    assert sl.prune_(again, planned(again), compensate=steps, measure=False).effects == receipt.effects


@pytest.mark.parametrize("kind", [sl.FoldMean, sl.LeastSquares, sl.RecalibrateBatchNorm, sl.Distill, None])
def test_a_generator_is_refused_before_any_work(kind: Any) -> None:
    model, once, log = mlp(), iter([(VECTORS, LABELS)]), []
    last = Measured(1.0, log, data=once) if kind is None else kind(once)
    before = state(model)
    for call in (sl.prune, sl.prune_):
        with pytest.raises(sl.DataError, match="a list_iterator can be only once"):
            call(model, planned(model), compensate=[Adds(1.0, log), last])
    assert state(model) == before
    assert log == []
    assert len(list(once)) == 1


def test_a_compensation_that_harms_is_warned_of() -> None:
    model = mlp()
    with pytest.warns(
        UserWarning, match=r"made the error .* worse: [\d.e]+ before, .* after Measured\(value=9"
    ):
        sl.prune(model, planned(model), compensate=Measured(9.0, data=VECTORS))


@pytest.mark.parametrize(("value", "worse"), [(1e-4, False), (1e-2, True)])
def test_harm_of_a_rounding_is_none(value: float, worse: bool) -> None:
    """Units that were off go: nothing is lost, so whatever is added makes an error of its square."""
    model = mlp()
    with torch.no_grad():
        model[2].weight[:, [1, 2, 4, 6, 7]] = 0
        spread = float(model(VECTORS).var(0, correction=0).sum())
    expected = 3 * value**2 / spread
    assert (expected > 1e-6) == worse
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        receipt = sl.prune(model, planned(model), compensate=Measured(value, data=VECTORS)).receipt
    assert receipt.effects[0].error < 1e-25
    assert receipt.effects[1].error == pytest.approx(expected, rel=1e-6)
    assert ["compensation made the error" in str(one.message) for one in caught] == [True] * worse


def test_harm_is_relative_to_what_was_lost_before() -> None:
    from shapleaf.surgery.compensation import _compare

    def effect(loss: float) -> sl.records.Effect:
        return sl.records.Effect(step="x", error=None, loss=loss, notes=())

    _compare(effect(5.0), effect(5.0 + 4e-6))
    with pytest.warns(UserWarning, match="compensation made the loss on the calibration data worse: 5 bef"):
        _compare(effect(5.0), effect(5.0 + 6e-6))


def test_the_warning_points_at_the_call() -> None:
    model = mlp()
    for call in (sl.prune, sl.prune_):
        with pytest.warns(UserWarning, match="compensation made") as caught:
            call(mlp(), planned(model), compensate=Measured(9.0, data=VECTORS))
        assert caught[0].filename == __file__


def test_batches_of_sequences_of_several_lengths() -> None:
    model = settle(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    data = [example(4, 5, 6), example(3, 7, 6, seed=2)]
    plan = sl.plan(sl.trace(model, data[0]), {"0": [0, 3, 5]})
    first, last = sl.prune(model, plan, compensate=sl.LeastSquares(data)).receipt.effects
    assert first.error is not None
    assert last.error is not None
    assert 0 <= last.error < first.error


def test_values_that_are_not_finite_are_refused_and_undone() -> None:
    model = mlp()
    before = state(model)
    with pytest.raises(sl.PlanError, match=r"after Measured\(value=inf.*not finite"):
        sl.prune_(model, planned(model), compensate=Measured(math.inf, data=VECTORS))
    assert state(model) == before


class Fails:
    """Changes weights, statistics and sizes of the model, and then fails."""

    def compensate(self, pruned: nn.Module, reference: nn.Module, plan: sl.Plan) -> Sequence[str]:
        for tensor in (*pruned.parameters(), *pruned.buffers()):
            tensor.data = tensor.data + 1
        raise ZeroDivisionError


def test_in_place_a_failure_leaves_model_and_optimizer_as_they_were() -> None:
    model = settle(
        nn.Sequential(
            conv(3, 6), nn.ReLU(), conv(6, 5, bias=False), nn.ReLU(), conv(5, 4), nn.BatchNorm2d(4), head(4)
        )
    )
    maps = example(6, 3, 6, 6)
    optimizer = torch.optim.Adam(model.parameters())
    model(maps).sum().backward()
    optimizer.step()
    plan = sl.plan(sl.trace(model, maps[:2]), {"0": [0, 2], "2": [1, 4]})
    before = state(model, optimizer)
    steps = [sl.FoldMean(maps), sl.LeastSquares(maps), sl.RecalibrateBatchNorm(maps), Fails()]
    with pytest.raises(ZeroDivisionError):
        sl.prune_(model, plan, optimizer=optimizer, compensate=steps)
    assert state(model, optimizer) == before
    assert model[2].bias is None


@pytest.mark.filterwarnings("ignore:compensation made the")
def test_in_place_is_as_on_a_copy_and_trains_on() -> None:
    for step in (sl.FoldMean, sl.LeastSquares, sl.RecalibrateBatchNorm):
        model = mlp()
        expected = sl.prune(model, planned(model), compensate=step(VECTORS)).model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        identities = [id(p) for p in model.parameters()]
        sl.prune_(model, planned(model), optimizer=optimizer, compensate=step(VECTORS))
        assert [id(p) for p in model.parameters()] == identities
        assert gap(run(expected, VECTORS), run(model, VECTORS)) < 1e-12
        model(VECTORS).sum().backward()
        optimizer.step()


def test_a_tuple_of_no_steps_is_none() -> None:
    model = mlp()
    receipt = sl.prune(model, planned(model), compensate=()).receipt
    assert receipt.compensation == "none"
    assert receipt.effects == ()


def test_effects_survive_a_file(tmp_path: Any) -> None:
    model = mlp()
    receipt = sl.prune(model, planned(model), compensate=sl.LeastSquares((VECTORS, LABELS))).receipt
    receipt.save(tmp_path / "receipt.json")
    again = sl.Receipt.load(tmp_path / "receipt.json")
    assert str(again) == str(receipt)
    assert [e.error for e in again.effects] == [e.error for e in receipt.effects]


def test_every_compensation_is_one() -> None:
    for step in (
        sl.FoldMean([]),
        sl.LeastSquares([]),
        sl.RecalibrateBatchNorm([]),
        sl.Distill([]),
        Adds(1.0),
    ):
        assert isinstance(step, Compensation)
    assert not isinstance(Tensor, Compensation)


@pytest.mark.filterwarnings("ignore:compensation made")
def test_shuffled_data_leave_the_random_numbers_of_others_alone() -> None:
    model = settle(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
    x = example(30, 4)
    loader = DataLoader(TensorDataset(x, torch.arange(30) % 3), batch_size=7, shuffle=True)
    plan = sl.plan(sl.trace(model, x[:2]), {"0": range(5)})
    before, found = torch.get_rng_state(), []
    for steps in (sl.LeastSquares(loader), (sl.FoldMean(loader), sl.Distill(loader, steps=2))):
        found.append(sl.prune(model, plan, compensate=steps).receipt.effects)
        assert torch.equal(torch.get_rng_state(), before)
    scores = sl.attribute(model, plan.graph, loader, sl.Taylor())
    for others in (
        lambda: sl.refine(model, plan, loader, sl.Taylor()),
        lambda: sl.pruning_curves(model, scores, loader, rates=(0, 0.5)),
        lambda: sl.compare(model, plan.graph, {"a": sl.Taylor(), "b": sl.WeightNorm()}, loader, loader),
        lambda: sl.assess(
            [sl.Candidate(name="a", model=model)], [sl.Distribution(name="b", data=loader, nominal=True)]
        ),
    ):
        others()
        assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert sl.prune(model, plan, compensate=sl.LeastSquares(loader)).receipt.effects == found[0]

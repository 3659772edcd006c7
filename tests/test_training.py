"""Pruning while training: budgets along the curve, resumed runs, and what is left alone."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DataParallel
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

import shapleaf as sl
from timings import made_up
from zoo import NETS, Apply, conv, gap, head, run, settle, state

pytestmark = pytest.mark.filterwarnings("ignore:compensation made")  # of untrained networks

IMAGES = torch.randn(40, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
DATA = IMAGES, torch.arange(40) % 3
PLANNER = sl.Planner(criterion=sl.Taylor(), strategy=sl.Global(), multiple_of=1)
LINEAR = sl.Linear(steps=3, every=4, start=1)
STEPS = 12


def network() -> nn.Module:
    """BatchNorm, dropout, a shortcut, and a convolution that FoldMean gives a bias."""

    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = x + self.b(F.relu(self.a(x)))
        return self.head(self.drop(F.relu(self.c(x))))

    layers = {"stem": conv(3, 8), "bn": nn.BatchNorm2d(8), "a": conv(8, 9), "b": conv(9, 8, bias=False)}
    return settle(Apply(run, **layers, c=conv(8, 6, bias=False), drop=nn.Dropout(0.2), head=head(6))).train()


def two_groups(model: nn.Module) -> Optimizer:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "lr": 0.003}], lr=0.01)


OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "SGD": lambda model: SGD(model.parameters(), lr=0.01, momentum=0.9),
    "SGD without state": lambda model: SGD(model.parameters(), lr=0.01),
    "Adagrad": lambda model: Adagrad(model.parameters()),
    "AdamW in two groups": two_groups,
    "Adam with names": lambda model: Adam(model.named_parameters(), lr=0.01),
}


class Run:
    """A user's training script, one that can be stopped between any two steps."""

    def __init__(
        self,
        optimizer: str = "SGD",
        budget: sl.Macs | sl.Params | sl.Units = sl.Macs(keep=0.4),  # noqa: B008 - frozen
        schedule: sl.Schedule = LINEAR,
        **options: Any,
    ) -> None:
        self.model = network()
        self.optimizer = OPTIMIZERS[optimizer](self.model)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 5, 0.5)
        options = {"planner": PLANNER} | options
        self.pruner = sl.Pruner(self.model, self.optimizer, DATA, budget, schedule, **options)
        self.ema = torch.optim.swa_utils.AveragedModel(self.model, use_buffers=True)

    def train(self, steps: Sequence[int]) -> None:
        for step in steps:
            torch.manual_seed(step)
            chosen = torch.randperm(40)[:10]
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(DATA[0][chosen]), DATA[1][chosen]).backward()
            self.optimizer.step()
            self.scheduler.step()
            if self.pruner.due(step):
                sl.replay(self.ema.module, self.pruner.step())
            self.ema.update_parameters(self.model)

    def save(self) -> bytes:
        parts = "pruner model optimizer scheduler ema".split()
        file = io.BytesIO()
        torch.save({part: getattr(self, part).state_dict() for part in parts}, file)
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        found = torch.load(io.BytesIO(saved), weights_only=True)
        done = len(self.pruner.receipts)
        self.pruner.load_state_dict(found["pruner"])
        for receipt in self.pruner.receipts[done:]:
            sl.replay(self.ema.module, receipt)
        for part in "model optimizer scheduler ema".split():
            getattr(self, part).load_state_dict(found[part])


def everything(run: Run) -> list[Any]:
    """All numbers of a run, in a form that compares bit by bit."""
    moments = [
        (name, key, value.tolist() if isinstance(value, torch.Tensor) else value)
        for name, parameter in run.model.named_parameters()
        for key, value in run.optimizer.state.get(parameter, {}).items()
    ]
    names = {id(parameter): name for name, parameter in run.model.named_parameters()}
    groups = [
        {k: [names[id(p)] for p in v] if k == "params" else v for k, v in group.items()}
        for group in run.optimizer.param_groups
    ]
    weights = [[(n, t.tolist()) for n, t in m.state_dict().items()] for m in (run.model, run.ema)]
    return [weights, moments, groups, run.scheduler.state_dict(), run.pruner.receipts]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_run_equals_an_uninterrupted_one(name: str) -> None:
    whole = Run(name)
    whole.train(range(STEPS))
    assert whole.pruner.finished
    assert [bool(receipt.biases) for receipt in whole.pruner.receipts].count(True) >= 1
    for stop in (1, 2, 6, 10, STEPS):  # before the first time, right after a time, between two, at the end
        first, second = Run(name), Run(name)
        first.train(range(stop))
        second.load(first.save())
        assert everything(second) == everything(first)
        second.train(range(stop, STEPS))
        assert everything(second) == everything(whole)


def test_added_biases_are_trained_and_stay_with_their_weights_group() -> None:
    run = Run("AdamW in two groups")
    run.train(range(6))
    added = {name for receipt in run.pruner.receipts for name, _ in receipt.biases}
    assert {"b", "c"} >= added > set()
    for name in added:
        bias = run.model.get_parameter(f"{name}.bias")
        assert any(bias is p for p in run.optimizer.param_groups[0]["params"])  # the decayed weights'
        assert run.optimizer.state[bias]["exp_avg"].shape == bias.shape
    held = [id(p) for group in run.optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in run.model.parameters())


def test_names_of_parameters_stay_beside_them() -> None:
    run = Run("Adam with names")
    run.train(range(STEPS))
    (group,) = run.optimizer.param_groups
    named = {id(parameter): name for name, parameter in run.model.named_parameters()}
    assert group["param_names"] == [named[id(parameter)] for parameter in group["params"]]


@pytest.mark.parametrize("keep", [{"keep": 0.4}, {"remove": 0.6}, {"keep": 20_000}])
def test_budgets_refer_to_the_dense_model_and_the_last_is_met(keep: dict[str, Any]) -> None:
    run = Run("SGD", sl.Macs(**keep), sl.Cubic(steps=4, every=1))
    dense = sl.cost(sl.trace(run.model, DATA[0][:1]))
    limit = sl.Macs(**keep).limit(dense)
    share, targets = limit / dense.macs, []
    for done in range(1, 5):
        targets.append(run.pruner.target)
        receipt = run.pruner.step()
        after = receipt.plan.after
        expected = limit if done == 4 else (share + (1 - share) * (1 - done / 4) ** 3) * dense.macs
        assert targets[-1].keep == int(expected)
        assert after.macs <= int(expected)
        biases = sum(len(run.model.get_parameter(f"{name}.bias")) for name, _ in receipt.biases)
        assert replace(after, params=after.params + biases) == sl.cost(sl.trace(run.model, DATA[0][:1]))
    assert targets[-1] == sl.Macs(keep=limit)


def test_one_shot_is_what_the_verbs_do() -> None:
    run = Run("SGD", schedule=sl.OneShot())
    model = network()
    graph = sl.trace(model, DATA[0][:2])
    plan = sl.allocate(sl.attribute(model, graph, DATA, sl.Taylor()), sl.Macs(keep=0.4), multiple_of=1)
    pruned, receipt = sl.prune(model, plan, compensate=sl.LeastSquares(DATA))
    done = run.pruner.step()
    assert done.plan.keep == receipt.plan.keep
    assert done.edits == receipt.edits
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), pruned.parameters(), strict=True))
    assert done.plan.made_by["step"] == "1 of OneShot(start=0) to Macs(keep=0.4)"


def test_units_are_counted_in_the_groups_that_are_pruned() -> None:
    with pytest.raises(sl.CriterionError, match="groups='ac': expected a sequence"):
        replace(PLANNER, groups="ac")
    planner = replace(PLANNER, groups=["a", "c"], strategy=sl.Uniform())
    run = Run("SGD", sl.Units(keep=0.4), sl.Linear(steps=2, every=1), planner=planner)
    assert run.pruner.target == sl.Units(keep=10)  # 0.7 of 9 + 6
    run.pruner.step()
    assert run.pruner.target == sl.Units(keep=6)
    widths = {name: len(units) for name, units in run.pruner.step().plan.keep.items()}
    assert widths["a"] + widths["c"] <= 6
    assert run.model.stem.out_channels == 8


def test_units_that_are_the_last_of_their_group_still_count() -> None:
    def alone(model: nn.Module, data: Any, budget: sl.Units) -> sl.Plan:
        """First all but one unit of a group, then as any planner."""
        if model.a.out_channels > 1:
            return sl.plan(sl.trace(model, data[0][:2]), {"a": [0], "c": range(5)})
        assert budget == sl.Units(keep=11)
        return PLANNER(model, data, budget)

    run = Run("SGD", sl.Units(keep=12), sl.Linear(steps=2, every=1), planner=alone)
    assert run.pruner.target == sl.Units(keep=17)  # half of the way from 23
    run.pruner.step()
    assert [group.name for group in sl.trace(run.model, DATA[0][:1])] == ["stem", "c"]
    run.pruner.step()
    layers = (run.model.stem, run.model.a, run.model.c)
    assert sum(layer.out_channels for layer in layers) == 12


# Latency: a table of the whole model, asked of what the steps before have left

SPEEDS = {
    "stem:conv2d#0": lambda stem: 0.05 * stem,
    "a:conv2d#0": lambda a, stem: 0.01 * a * stem,
    "c:conv2d#0": lambda c, stem: 0.02 * c * stem,
    "head.2:linear#0": lambda c: 0.1 * c,
}


def timed(keep: float) -> sl.Latency:
    return sl.Latency(keep=keep, table=made_up(sl.trace(network(), DATA[0][:2]), SPEEDS))


def predicted(run: Run) -> float:
    """What the model takes by the table, relative to the whole."""
    table = run.pruner.budget.table
    return table.predict(reduce(sl.Plan.compose, [r.plan for r in run.pruner.receipts])) / table.dense


@pytest.mark.parametrize("compensate", [None, sl.LeastSquares])
def test_a_latency_budget_is_met_in_steps(compensate: Any) -> None:
    budget = timed(0.4)
    run = Run("SGD", budget, sl.Linear(steps=3, every=4, start=1), compensate=compensate)
    shares = []
    for step in range(STEPS):
        run.train([step])
        if run.pruner.receipts and step in (1, 5, 9):
            shares.append(predicted(run))
    assert shares == [pytest.approx(share, abs=0.07) for share in (0.8, 0.6, 0.4)]
    assert all(found <= share + 1e-3 for found, share in zip(shares, (0.8, 0.6, 0.4), strict=True))


def test_in_steps_a_latency_budget_ends_at_the_time_of_one_shot() -> None:
    """Scores by weights that do not change: what goes is the same."""
    planner = replace(PLANNER, criterion=sl.WeightNorm(), groups=["c"])
    options: Any = {"planner": planner, "compensate": None}
    gradual = Run("SGD", timed(0.7), sl.Cubic(steps=3, every=1), **options)
    once = Run("SGD", timed(0.7), sl.OneShot(), **options)
    for one in (gradual, once):
        while not one.pruner.finished:
            one.pruner.step()
    assert predicted(gradual) == predicted(once) == pytest.approx(0.7, abs=0.1)
    assert predicted(once) <= 0.7
    assert len(gradual.pruner.receipts) == 3
    pairs = zip(gradual.model.parameters(), once.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_budget_of_a_step_is_for_the_model_as_it_is_by_then() -> None:
    """A planner of the user's own asks it as any budget."""
    seen = []

    def planner(model: nn.Module, data: Any, budget: sl.Latency) -> sl.Plan:
        graph = sl.trace(model, data[0][:2])
        budget.check(graph)
        seen.append((budget.keep, budget.measure(sl.cost(graph))))
        return PLANNER(model, data, budget)

    run = Run("SGD", timed(0.5), sl.Linear(steps=2, every=1), planner=planner)
    dense = run.pruner.budget.table.dense * 1e3
    run.pruner.step()
    assert run.pruner.target.pruned == run.pruner.receipts[0].plan
    middle = predicted(run)
    run.pruner.step()
    assert [keep for keep, _ in seen] == [int(0.75 * round(dense)), int(0.5 * round(dense))]
    assert [time for _, time in seen] == pytest.approx([dense, middle * dense], abs=1)


def test_a_group_down_to_one_unit_still_takes_its_time() -> None:
    def alone(model: nn.Module, data: Any, budget: sl.Latency) -> sl.Plan:
        if model.a.out_channels > 1:
            return sl.plan(sl.trace(model, data[0][:2]), {"a": [0]})
        return PLANNER(model, data, budget)

    run = Run("SGD", timed(0.4), sl.Linear(steps=2, every=1), planner=alone)
    run.pruner.step()
    assert [group.name for group in sl.trace(run.model, DATA[0][:1])] == ["stem", "c"]
    run.pruner.step()
    assert predicted(run) <= 0.4
    assert run.model.a.out_channels == 1


def test_a_run_under_a_latency_budget_is_resumed() -> None:
    whole = Run("SGD", timed(0.4))
    whole.train(range(STEPS))
    first, second = Run("SGD", timed(0.4)), Run("SGD", timed(0.4))
    first.train(range(3))
    second.load(first.save())
    second.train(range(3, STEPS))
    assert everything(second) == everything(whole)


def test_a_latency_table_of_another_model_is_refused_at_the_start() -> None:
    other = sl.trace(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(1, 3))
    budget = sl.Latency(keep=0.5, table=made_up(other, {"0:linear#0": lambda n: 0.1 * n}))
    for planner in (PLANNER, lambda model, data, budget: 1 / 0):
        with pytest.raises(sl.StaleGraphError, match="latency table belongs to another model"):
            Run("SGD", budget, planner=planner)


def test_times_are_kept_whatever_is_asked_and_late_ones_are_made_up_for_one_by_one() -> None:
    pruner = Run(schedule=sl.Linear(steps=3, every=10, start=5)).pruner
    assert [pruner.due(step) for step in (0, 4, 5, 5, 40, 3)] == [False, False, True, True, True, False]
    pruner.step()
    assert [pruner.due(step) for step in (5, 14, 15)] == [False, False, True]
    pruner.step()
    assert pruner.due(40)
    pruner.step()
    assert not pruner.due(40)
    assert pruner.finished
    with pytest.raises(sl.BudgetError, match=r"all 3 steps of Linear\(.*\) are done; ask due\(\)"):
        pruner.step()
    assert repr(pruner) == "Pruner(3 of 3 steps of Linear(steps=3, every=10, start=5) to Macs(keep=0.4) done)"


def test_a_budget_that_is_met_already_removes_nothing() -> None:
    run = Run("SGD", sl.Macs(keep=1.0), sl.Linear(steps=2, every=1))
    before = state(run.model, run.optimizer)
    for _ in range(2):
        receipt = run.pruner.step()
        assert (receipt.plan.pruned, receipt.edits) == ((), ())
    assert state(run.model, run.optimizer) == before


def test_a_budget_that_is_met_by_the_steps_before_removes_nothing_more() -> None:
    def halves(model: nn.Module, data: Any, budget: sl.Macs) -> sl.Plan:
        graph = sl.trace(model, data[0][:2])
        return sl.plan(graph, {group.name: range(group.size // 2) for group in graph})

    run = Run("SGD", sl.Macs(keep=0.5), sl.Linear(steps=3, every=1), planner=halves)
    assert [run.pruner.step().plan.pruned != () for _ in range(3)] == [True, False, False]


def test_modes_hooks_randomness_gradients_and_learning_rates_stay() -> None:
    run = Run("SGD", compensate=None)
    run.train(range(1))
    run.model.bn.eval()
    run.model.a.register_forward_hook(lambda *_: None)
    chosen = run.model(DATA[0][:4])
    F.cross_entropy(chosen, DATA[1][:4]).backward()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*DATA), 7, shuffle=True)
    run.pruner.calibration = loader
    before, rates = state(run.model, run.optimizer), run.scheduler.state_dict()
    gradient = run.model.a.weight.grad.clone()
    receipt = run.pruner.step()
    after = state(run.model, run.optimizer)
    assert {*map(id, run.model.parameters())} <= {*before["objects"].values()}
    for what in ("modules", "hooks", "global hooks", "modes", "random", "grad mode"):
        assert after[what] == before[what], what
    assert run.scheduler.state_dict() == rates
    kept = receipt.plan.keep
    assert torch.equal(run.model.a.weight.grad, gradient[list(kept["a"])][:, list(kept["stem"])])


def test_a_step_that_fails_leaves_everything_as_it_was() -> None:
    class Broken:
        def compensate(self, pruned: nn.Module, reference: nn.Module, plan: sl.Plan) -> list[str]:
            raise sl.PlanError("no")

    run = Run("SGD", compensate=Broken())
    run.train(range(1))
    before, saved = state(run.model, run.optimizer), run.pruner.state_dict()
    with pytest.raises(sl.PlanError, match="no"):
        run.pruner.step()
    assert state(run.model, run.optimizer) == before
    assert run.pruner.state_dict() == saved
    assert run.pruner.due(1)


@pytest.mark.parametrize("how", [sl.FoldMean, partial(sl.FoldMean), sl.FoldMean(DATA), [sl.FoldMean(DATA)]])
def test_compensation_is_made_from_the_calibration_data_or_given(how: Any) -> None:
    run = Run(schedule=sl.OneShot(), compensate=how)
    assert run.pruner.step().compensation == "FoldMean()"


def test_without_compensation_and_without_optimizer() -> None:
    model = network()
    pruner = sl.Pruner(model, None, DATA, sl.Macs(keep=0.4), sl.OneShot(), planner=PLANNER, compensate=None)
    receipt = pruner.step()
    assert (receipt.compensation, receipt.biases) == ("none", ())
    other = network()
    again = sl.Pruner(other, None, DATA, sl.Macs(keep=0.4), sl.OneShot(), planner=PLANNER)
    again.load_state_dict(pruner.state_dict())
    other.load_state_dict(model.state_dict())
    assert again.finished


def test_a_budget_out_of_reach_is_refused_at_the_start() -> None:
    with pytest.raises(sl.BudgetError, match=r"Macs\(keep=0.01\) cannot be met"):
        Run("SGD", sl.Macs(keep=0.01))
    with pytest.raises(sl.BudgetError, match=r"Macs\(keep=0.4\) cannot be met"):
        Run("SGD", planner=replace(PLANNER, groups=["c"]))


def test_a_generator_is_refused_before_any_work() -> None:
    once = iter([DATA])
    with pytest.raises(sl.DataError, match="a list_iterator can be only once"):
        sl.Pruner(network(), None, once, sl.Macs(keep=0.4), sl.OneShot())
    with pytest.raises(sl.DataError, match="a list_iterator can be only once"):
        PLANNER(network(), once, sl.Macs(keep=0.4))
    run = Run()
    run.pruner.calibration = once
    before = state(run.model, run.optimizer)
    with pytest.raises(sl.DataError, match="a list_iterator can be only once"):
        run.pruner.step()
    assert state(run.model, run.optimizer) == before
    assert next(once) is DATA


def test_models_in_wrappers_are_refused() -> None:
    options: Any = (None, DATA, sl.Macs(keep=0.4), sl.OneShot())
    with pytest.raises(sl.PlanError, match=r"DataParallel keeps the shapes .* Pass model.module"):
        sl.Pruner(DataParallel(network()), *options)
    with pytest.raises(sl.PlanError, match=r"compiled model. Pass the model that was given to torch.compile"):
        sl.Pruner(torch.compile(network(), backend="eager"), *options)


def test_what_was_compiled_follows_the_model_that_is_pruned() -> None:
    model = network()
    compiled = torch.compile(model, backend="aot_eager")
    pruner = sl.Pruner(model, None, DATA, sl.Macs(keep=0.4), sl.Linear(steps=2, every=1), planner=PLANNER)
    model.eval()
    for _ in range(2):
        compiled(DATA[0])
        pruner.step()
        torch.testing.assert_close(compiled(DATA[0]), model(DATA[0]), rtol=1e-12, atol=1e-12)


def tampered(found: dict[str, Any]) -> dict[str, Any]:
    return found | {"receipts": [found["receipts"][1], found["receipts"][0]]}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda found: {}, sl.DataError, "this is no state of a Pruner"),
        (lambda found: found | {"receipts": [1]}, sl.DataError, "this is no state of a Pruner"),
        (lambda found: found | {"receipts": [{"record": "{}", "tensors": 3}]}, sl.DataError, "no state of"),
        (lambda found: found | {"receipts": [{"record": 3, "tensors": {}}]}, sl.DataError, "0 is not"),
        (
            lambda found: found | {"receipts": [{"record": "{", "tensors": {}}]},
            sl.DataError,
            "receipt 0 is not",
        ),
        (lambda found: found | {"receipts": [{"record": "{}", "tensors": {}}]}, sl.DataError, "holds a None"),
        (
            lambda found: found | {"budget": "Macs(keep=0.3)"},
            sl.PlanError,
            r"to Macs\(keep=0.3\); this pruner",
        ),
        (lambda found: found | {"schedule": "OneShot()"}, sl.PlanError, r"Load it with the old ones"),
        (tampered, sl.StaleGraphError, "belongs to another model"),
        (lambda found: found | {"receipts": found["receipts"][:1] * 2}, sl.StaleGraphError, "another model"),
    ],
)
def test_states_that_do_not_fit_change_nothing(
    change: Callable[[dict[str, Any]], Any], error: type[Exception], message: str
) -> None:
    source, run = Run("SGD"), Run("SGD")
    source.train(range(6))
    run.train(range(1))
    before = state(run.model, run.optimizer)
    with pytest.raises(error, match=message):
        run.pruner.load_state_dict(change(source.pruner.state_dict()))
    after = state(run.model, run.optimizer)
    assert {**after, "flags": 0} == {**before, "flags": 0}
    assert run.pruner.receipts == ()


def test_units_do_not_come_back() -> None:
    run, earlier = Run("SGD"), Run("SGD")
    earlier.train(range(2))
    run.train(range(6))
    with pytest.raises(sl.PlanError, match="has done 2 of its steps, .*; units do not come back"):
        run.pruner.load_state_dict(earlier.pruner.state_dict())
    saved = run.save()
    run.pruner.load_state_dict(run.pruner.state_dict())  # its own state: nothing to do
    assert run.save() == saved
    earlier.load(saved)  # of the same run, further on
    earlier.train(range(6, STEPS))
    run.train(range(6, STEPS))
    assert everything(earlier) == everything(run)


def test_the_optimizers_state_is_loaded_after_the_pruners() -> None:
    run, other = Run("SGD", compensate=None), Run("SGD", compensate=None)
    run.train(range(6))
    other.optimizer.load_state_dict(run.optimizer.state_dict())
    with pytest.raises(sl.PlanError, match="load the pruner's state before that of the optimizer"):
        other.pruner.load_state_dict(run.pruner.state_dict())


@pytest.mark.parametrize("name", sorted(set(NETS) - {"keywords"}))  # which takes a number beside tensors
def test_any_network_is_pruned_in_steps_and_rebuilt_from_the_state(name: str) -> None:
    (model, inputs), (other, _) = NETS[name](), NETS[name]()
    planner = sl.Planner(criterion=sl.WeightNorm(), strategy=sl.Uniform(), multiple_of=1)
    options: Any = (None, [(inputs, None)], sl.Units(keep=0.6), sl.Geometric(steps=2, every=1))
    pruner = sl.Pruner(model, *options, planner=planner, compensate=None)
    before = sl.cost(sl.trace(model, inputs))
    for _ in range(2):
        pruner.step()
    again = sl.Pruner(other, *options, planner=planner, compensate=None)
    again.load_state_dict(pruner.state_dict())
    other.load_state_dict(model.state_dict())
    assert sum(parameter.numel() for parameter in other.parameters()) < before.params
    assert gap(run(model, inputs), run(other, inputs)) == 0


def test_planner_measures_curves_only_where_the_strategy_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from shapleaf import training

    seen: list[sl.Scores] = []
    monkeypatch.setattr(training, "curved", lambda model, scores, data, loss: seen.append(scores) or 1 / 0)
    for strategy in (sl.Global(), sl.Uniform(), sl.ErrorLevel()):
        sl.Planner(criterion=sl.Taylor(), strategy=strategy)(network(), DATA, sl.Macs(keep=0.5))
    assert seen == []
    with pytest.raises(ZeroDivisionError):
        sl.Planner(criterion=sl.Taylor())(network(), DATA, sl.Macs(keep=0.5))


@pytest.mark.filterwarnings("ignore:.*below what compensation can save")
def test_planner_plans_as_slim_does() -> None:
    model = network().eval()
    planned = sl.Planner()(model, DATA, sl.Macs(keep=0.5))
    slimmed = sl.slim(model, DATA, sl.Macs(keep=0.5), effort="fast")
    assert planned.keep == slimmed.receipt.plan.keep


def test_planner_takes_another_loss() -> None:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).square().mean(1)

    data = DATA[0], torch.zeros(40, 3, dtype=torch.float64)
    plan = sl.Planner(criterion=sl.Taylor(), loss=loss, min_keep=2, multiple_of=1)(
        network(), data, sl.Macs(keep=0.2)
    )
    assert min(len(units) for units in plan.keep.values()) == 2
    assert plan.made_by["loss"].endswith("loss")


def test_copies_follow_by_replaying_receipts() -> None:
    run = Run("SGD")
    fresh = network()
    run.train(range(STEPS))
    for receipt in run.pruner.receipts:
        sl.replay(fresh, receipt)
    fresh.load_state_dict(run.model.state_dict())
    fresh.eval(), run.model.eval()
    assert torch.equal(fresh(DATA[0]), run.model(DATA[0]))
    ema = copy.deepcopy(run.ema.module).eval()
    assert ema(DATA[0]).shape == (40, 3)

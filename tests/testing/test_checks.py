"""The checks for users' tests: they pass what is right and fail what is wrong."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf import criteria
from shapleaf.criteria import Criterion, Needs, Probe
from shapleaf.errors import CriterionError
from shapleaf.testing import assert_masked_equals_pruned, check_criterion, untouched
from zoo import NETS, Apply, example, settle

CRITERIA = [
    getattr(criteria, name)
    for name in criteria.__all__
    if isinstance(getattr(criteria, name), type)
    and hasattr(getattr(criteria, name), "score")
    and name != "Criterion"
]
VARIANTS = [
    sl.WeightNorm(2.0),
    sl.Taylor(signed=True),
    sl.PFP("sum"),
    sl.LeaveOneOut(sl.CalibrationMean()),
    sl.Shapley(sl.Exact()),
    sl.Shapley(sl.Permutation(4)),
    sl.Shapley(sl.Permutation(2, antithetic=False, shared=True)),
    sl.Shapley(sl.Path(2, "gaussian", 2)),
    sl.Shapley(sl.Path(2, "bernoulli", 1)),
    sl.Shapley(sl.Path(2, "line"), sl.CalibrationMean()),
]


def test_every_criterion_of_the_library_is_checked() -> None:
    assert {
        "Random",
        "WeightNorm",
        "APoZ",
        "Sensitivity",
        "Taylor",
        "LeaveOneOut",
        "Shapley",
        "PFP",
        "ThiNet",
    } <= {kind.__name__ for kind in CRITERIA}


@pytest.mark.parametrize("kind", CRITERIA, ids=lambda kind: kind.__name__)
def test_every_criterion_keeps_the_contract_by_default(kind: Callable[[], Criterion]) -> None:
    check_criterion(kind())


@pytest.mark.parametrize("criterion", VARIANTS, ids=repr)
def test_and_with_its_options(criterion: Criterion) -> None:
    check_criterion(criterion)


# What the check finds


@dataclasses.dataclass(frozen=True)
class Good:
    """The base of all that is wrong below: sums of activations."""

    needs: ClassVar[Needs] = Needs.ACTIVATION

    def score(self, probe: Probe) -> Tensor:
        return probe.activation.sum(2)


def test_the_base_of_the_faults_is_good() -> None:
    check_criterion(Good())


class ReadsMore(Good):
    def score(self, probe: Probe) -> Tensor:
        return probe.gradient.sum(2)


class WrongShape(Good):
    def score(self, probe: Probe) -> Tensor:
        return probe.activation.sum((0, 2))


class NotFinite(Good):
    def score(self, probe: Probe) -> Tensor:
        return probe.activation.sum(2) / 0


@pytest.mark.parametrize(
    ("criterion", "message"),
    [(ReadsMore(), "add Needs.GRADIENT"), (WrongShape(), "returned shape"), (NotFinite(), "not finite")],
)
def test_errors_of_attribute_pass_through(criterion: Criterion, message: str) -> None:
    with pytest.raises(CriterionError, match=message):
        check_criterion(criterion)


class DrawsAnew(Good):
    def score(self, probe: Probe) -> Tensor:
        return torch.from_numpy(np.random.default_rng().random((len(probe.ids), probe.group.size)))


class SeesTheBatch(Good):
    def score(self, probe: Probe) -> Tensor:
        return probe.activation.sum(2) / len(probe.ids)


class SeesTheExamplesPlace(Good):
    def score(self, probe: Probe) -> Tensor:
        return probe.activation.sum(2) * (1 + torch.tensor(probe.ids)[:, None])


class SeesTheUnitsPlace(Good):
    def score(self, probe: Probe) -> Tensor:
        return probe.activation.sum(2) * torch.arange(probe.group.size)


class WritesWeights(Good):
    def score(self, probe: Probe) -> Tensor:
        with torch.no_grad():
            next(probe.model.parameters()).mul_(1.01)
        return probe.activation.sum(2)


class LeavesAMark(Good):
    def score(self, probe: Probe) -> Tensor:
        probe.model.score = 3  # type: ignore[assignment]
        return probe.activation.sum(2)


class LeavesAHook(Good):
    def score(self, probe: Probe) -> Tensor:
        probe.model.register_forward_hook(lambda *_: None)
        return probe.activation.sum(2)


class LeavesGradients(Good):
    def score(self, probe: Probe) -> Tensor:
        next(probe.model.parameters()).grad = None
        return probe.activation.sum(2)


class DrawsFromTheGlobalGenerator(Good):
    def score(self, probe: Probe) -> Tensor:
        np.random.random()  # noqa: NPY002
        return probe.activation.sum(2)


@dataclasses.dataclass
class NotHashable:
    needs: ClassVar[Needs] = Needs.ACTIVATION

    def score(self, probe: Probe) -> Tensor:
        return probe.activation.sum(2)


class NoDataclass:
    needs: ClassVar[Needs] = Needs.ACTIVATION

    def score(self, probe: Probe) -> Tensor:
        return probe.activation.sum(2)


@dataclasses.dataclass(frozen=True)
class Remembers:
    seen: tuple[int, ...] = ()
    needs: ClassVar[Needs] = Needs.ACTIVATION

    def score(self, probe: Probe) -> Tensor:
        object.__setattr__(self, "seen", (*self.seen, 1))
        return probe.activation.sum(2)


class NeedsAWord(Good):
    needs = "activation"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (DrawsAnew(), "scores differ by .* with the same seed"),
        (SeesTheBatch(), "with batches of 1"),
        (SeesTheExamplesPlace(), "with examples in another order"),
        (SeesTheUnitsPlace(), "with units in another order"),
        (WritesWeights(), r"0\.weight is not what it was"),
        (LeavesAMark(), "attribute score is not as it was"),
        (LeavesAHook(), "attribute _forward_hooks is not as it was"),
        (LeavesGradients(), r"the gradient of 0\.weight is not as it was"),
        (DrawsFromTheGlobalGenerator(), "a random generator is not in the state it was in"),
        (NoDataclass(), "does not show its configuration"),
        (Remembers(), "changed while it scored"),
        (NeedsAWord(), "needs must be a Needs flag"),
        (object(), "lacks `needs` or `score`"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_broken_contracts_are_found(criterion: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_criterion(criterion)


def test_configuration_must_be_hashable() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        check_criterion(NotHashable())


# untouched


CHANGES: dict[str, Callable[[Any], object]] = {
    "bytes": lambda m: m[0].weight.data.add_(1),
    "parameter": lambda m: setattr(m[0], "weight", nn.Parameter(m[0].weight.detach().clone())),
    "buffer": lambda m: m[1].running_mean.add_(1),
    "gradient": lambda m: setattr(m[0].bias, "grad", torch.zeros(4)),
    "mode": lambda m: m[1].eval(),
    "requires_grad": lambda m: m[0].weight.requires_grad_(False),
    "hook": lambda m: m[1].register_forward_pre_hook(lambda *_: None),
    "module": lambda m: setattr(m, "1", nn.BatchNorm1d(4)),
    "new module": lambda m: m.append(nn.ReLU()),
    "attribute": lambda m: setattr(m[0], "in_features", 7),
    "new attribute": lambda m: setattr(m[0], "score", 7),
    "removed attribute": lambda m: delattr(m[0], "in_features"),
    "torch": lambda m: torch.rand(1),
    "numpy": lambda m: np.random.random(),  # noqa: NPY002
    "python": lambda m: random.random(),
}


@pytest.mark.parametrize("how", CHANGES)
def test_untouched_finds_every_change(how: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    found = "is not as it was|is not what it was|is not in the state"
    with pytest.raises(AssertionError, match=found), untouched(model):
        CHANGES[how](model)


def test_untouched_looks_also_when_the_block_raises() -> None:
    model = nn.Linear(3, 4)
    with pytest.raises(ZeroDivisionError), untouched(model):
        _ = 1 / 0

    def changes_and_raises() -> None:
        with untouched(model):
            model.bias.data += 1
            raise ZeroDivisionError

    with pytest.raises(AssertionError) as caught:
        changes_and_raises()
    assert isinstance(caught.value.__context__, ZeroDivisionError)


def test_untouched_lets_the_model_be_used() -> None:
    model = nn.Linear(3, 4)
    model.weight.data[0, 0] = torch.nan
    with untouched(model):
        model(torch.zeros(2, 3)).detach()


# assert_masked_equals_pruned


@pytest.mark.parametrize("name", ["mlp", "plain", "residual", "depthwise", "dense", "flatten", "tied"])
def test_exact_nets_pass(name: str) -> None:
    model, inputs = NETS[name]()
    for seed in range(3):
        with untouched(model):
            assert_masked_equals_pruned(model, inputs, seed=seed)


def test_single_precision_has_its_own_tolerance() -> None:
    assert_masked_equals_pruned(NETS["plain"]()[0].float(), example(4, 3, 8, 8).float())


def test_a_given_plan_is_used() -> None:
    model, inputs = NETS["mlp"]()
    plan = sl.plan(sl.trace(model, inputs), {"0": (1,)})
    assert_masked_equals_pruned(model, inputs, plan=plan)


def test_a_plan_on_a_group_that_is_not_exact_is_refused() -> None:
    model, inputs = NETS["channel_mean"]()
    graph = sl.trace(model, inputs)
    name = next(group.name for group in graph if not group.exact)
    assert_masked_equals_pruned(model, inputs)  # leaves it whole
    with pytest.raises(AssertionError, match=f"group {name} is not exact .*masked and pruned differ"):
        assert_masked_equals_pruned(model, inputs, plan=sl.plan(graph, {name: (0,)}))


def test_a_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.out(F.relu(self.a(x)))

    model = settle(Apply(run, a=nn.Linear(5, 6), out=nn.Linear(6, 3)))
    plan = sl.plan(sl.trace(model, example(2, 5)), {"a": (0, 1)})
    pruned = sl.prune(model, plan)
    pruned.model.out.bias.data[0] += 1e-9
    monkeypatch.setattr("shapleaf.testing.checks.prune", lambda *_: pruned)
    with pytest.raises(AssertionError, match="masked and pruned outputs differ by 1.0e-09"):
        assert_masked_equals_pruned(model, example(2, 5), plan=plan)


def test_it_needs_no_test_framework() -> None:
    code = "import sys, shapleaf.testing; print('pytest' in sys.modules or 'hypothesis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

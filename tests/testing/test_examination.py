"""examine proves what is right, and finds each kind of fault when one is planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.records import Group
from shapleaf.testing import Examination, assert_prunable, examination, examine, untouched
from zoo import INEXACT, NETS, Apply, between, conv, example, head, settle


@pytest.mark.parametrize("name", NETS)
def test_every_net_is_proven(name: str) -> None:
    model, inputs = NETS[name]()
    with untouched(model):
        found = examine(model, inputs)
    assert found.proven, str(found)
    assert found.poisoned
    assert found.order < 1e-13
    assert bool(found.inexact) == (name in INEXACT)
    for trial in found.trials:
        assert trial.params is not None
        assert trial.params < 0.9
        assert trial.error is not None
        assert trial.error < 1e-13


def test_what_is_found_in_a_plain_net() -> None:
    found = examine(*NETS["mlp"]())
    assert (found.groups, found.units, found.inexact, found.blocked) == (2, 14, 0, {})
    assert found.poisoned == ("0", "2")
    # 4 of 8 and 3 of 6 units stay, of 5 inputs and 3 outputs.
    assert found.trials[0].params == (4 * 6 + 3 * 5 + 3 * 4) / (8 * 6 + 6 * 9 + 3 * 7)


def test_the_same_seed_finds_the_same() -> None:
    first, second, other = (examine(*NETS["dense"](), seed=seed) for seed in (0, 0, 1))
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)
    assert first.trials[1].params != other.trials[1].params


def test_a_record_that_prints_saves_and_is_plain_json(tmp_path: Path) -> None:
    found = examine(*NETS["transformer"]())
    found.save(tmp_path / "found.safetensors")
    assert Examination.load(tmp_path / "found.safetensors") == found
    assert found.to_json()["trials"][0]["name"] == "half"
    lines = str(found).splitlines()
    assert lines[0] == "Examination: proven"
    assert any(line.startswith("groups, units") and line.endswith(" 5, 36") for line in lines)


def test_single_precision_has_its_own_tolerance() -> None:
    assert_prunable(NETS["residual"]()[0].float(), example(1, 3, 8, 8).float())


def test_tied_groups_and_one_that_the_code_holds_back() -> None:
    model = between(lambda x: x.reshape(len(x), 8).reshape(-1, 2, 4).flatten(1))
    found = examine(model, example(2, 6))
    assert found.proven
    assert [*found.blocked] == ["a"]
    assert found.trials[0].params == 1
    assert found.trials[0].error is None
    assert found.poisoned == ("a",)
    assert "a is held back: test_examination.py" in str(found)
    assert_prunable(model, example(2, 6))


def test_only_groups_that_are_not_exact_leave_nothing_to_compare() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(F.layer_norm(self.a(x), (self.a.out_features,)))

    found = examine(settle(Apply(run, a=nn.Linear(6, 8), b=nn.Linear(8, 3))), example(2, 6))
    assert (found.proven, found.inexact, found.poisoned) == (True, 1, ())
    assert [trial.error for trial in found.trials] == [None, None]


def test_nothing_to_remove_is_an_error_of_trace() -> None:
    with pytest.raises(sl.TraceError, match="nothing in this model can be removed"):
        examine(nn.Linear(3, 2), torch.zeros(1, 3))


# What is planted is found


def with_graph(monkeypatch: pytest.MonkeyPatch, change: Callable[[Group], Group]) -> None:
    """Let trace be wrong about the first group."""

    def trace(model: nn.Module, inputs: Any) -> sl.Graph:
        graph = sl.trace(model, inputs)
        return replace(graph, groups=(change(graph.groups[0]), *graph.groups[1:]))

    monkeypatch.setattr(examination, "trace", trace)


def test_a_missing_slice_shows_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    with_graph(monkeypatch, lambda group: replace(group, slices=group.slices[:-1]))
    found = examine(*NETS["residual"]())
    assert any("laid in another order: group stem" in fault for fault in found.wrong)
    assert found.order > 1e-3
    assert found.to_json()["order"] == found.order
    assert "half: the pruned model does not run" in found.refused[0]
    assert [trial.params for trial in found.trials] == [None, None]


def test_a_missing_reader_lets_the_nan_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    with_graph(monkeypatch, lambda group: replace(group, sites=group.sites[1:]))
    found = examine(*NETS["residual"]())
    assert any("group stem: a NaN in all that produces unit" in fault for fault in found.wrong)
    assert found.order < 1e-13
    with pytest.raises(AssertionError, match="gets past the places that read it"):
        assert_prunable(*NETS["residual"]())


def test_a_group_that_is_called_exact_and_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean that reads the units is known, so nothing passes it; but it is a mean of fewer then."""
    with_graph(monkeypatch, lambda group: replace(group, exact=True, reason=""))
    found = examine(*NETS["channel_mean"]())
    assert "differs from the masked one" in found.refused[0]
    assert found.wrong == ()


def test_a_pruned_model_that_computes_something_else_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def prune(model: nn.Module, plan: sl.Plan) -> Any:
        pruned = sl.prune(model, plan)
        pruned.model[4].bias.data[0] += 1  # type: ignore[index]
        return pruned

    monkeypatch.setattr(examination, "prune", prune)
    found = examine(*NETS["mlp"]())
    assert [fault.partition(":")[0] for fault in found.wrong] == ["half", "random"]
    assert "and prune let it pass" in found.wrong[0]
    assert str(found).startswith("Examination: 2 faults")


def test_a_model_that_is_not_as_small_as_planned_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def prune(model: nn.Module, plan: sl.Plan) -> Any:
        pruned = sl.prune(model, plan)
        pruned.model[0].more = nn.Linear(2, 2)  # type: ignore[index]
        return pruned

    monkeypatch.setattr(examination, "prune", prune)
    assert examine(*NETS["mlp"]()).wrong[0] == "half: 57 parameters are left, planned were 51"


def test_a_pruned_model_that_does_not_run_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def prune(model: nn.Module, plan: sl.Plan) -> Any:
        pruned = sl.prune(model, plan)
        pruned.model.append(nn.Linear(9, 9))  # type: ignore[operator]
        return pruned

    monkeypatch.setattr(examination, "prune", prune)
    found = examine(*NETS["mlp"]())
    assert "half: prune let pass what does not run: the model failed on inputs of (2, 5)" in found.wrong[0]
    assert [trial.params for trial in found.trials] == [None, None]


def test_refusals_are_told_with_their_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: nn.Module, plan: sl.Plan) -> Any:
        raise sl.PlanError("not today.")

    monkeypatch.setattr(examination, "prune", refuse)
    found = examine(*NETS["mlp"]())
    assert found.refused == ("half: not today.", "random: not today.")
    assert "REFUSED: half: not today." in str(found)
    with pytest.raises(AssertionError, match=r"half: not today\.\nrandom: not today\."):
        assert_prunable(*NETS["mlp"]())


def test_poisoned_groups_lie_from_the_first_to_the_last() -> None:
    layers = [layer for i in range(12) for layer in (conv(3 if i == 0 else 4, 4), nn.ReLU())]
    found = examine(settle(nn.Sequential(*layers, head(4))), example(1, 3, 5, 5))
    assert found.groups == 12
    assert found.poisoned == ("0", "12", "22")

"""Every call has one name, the same in every forward; nothing of it stays behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as hooks

from shapleaf._calls import Call, Calls, out_of_place
from zoo import Apply, Names


def names(model: nn.Module, *inputs: Tensor) -> list[str]:
    with Names(model) as calls:
        model(*inputs)
    return calls.seen


def test_a_call_is_named_by_module_function_and_count() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 1)))
    assert names(model, torch.zeros(1, 2)) == ["0:linear#0", "1:relu#0", "2.0:linear#0"]


def test_counts_go_on_within_one_forward() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return F.relu(self.a(F.relu(self.a(x))))

    model = Apply(run, a=nn.Linear(2, 2))
    assert names(model, torch.zeros(1, 2)) == ["a:linear#0", ":relu#0", "a:linear#1", ":relu#1"]


def test_only_the_outermost_function_is_seen() -> None:
    model = Apply(lambda self, x: F.normalize(x, dim=1))
    assert names(model, torch.ones(1, 2)) == [":normalize#0"]


def test_names_are_the_same_in_every_forward() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(8, 2)
    ).eval()
    x = torch.zeros(1, 1, 4, 4)
    first = names(model, x)
    assert len(set(first)) == len(first) >= 5
    assert names(model, torch.cat([x, x])) == first


def test_a_module_made_on_the_way_counts_for_the_one_that_made_it() -> None:
    model = nn.Sequential(Apply(lambda self, x: nn.ReLU()(x)))
    assert names(model, torch.zeros(1)) == ["0:relu#0"]


def test_a_shared_module_has_its_first_name() -> None:
    layer = nn.Linear(2, 2)
    assert names(nn.Sequential(layer, layer), torch.zeros(1, 2)) == ["0:linear#0", "0:linear#1"]


def test_an_exception_that_the_model_catches_leaves_the_names_right() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        with pytest.raises(RuntimeError):
            self.broken(x)
        return F.relu(x)

    model = Apply(run, broken=nn.Sequential(nn.Linear(5, 5)))
    assert names(model, torch.zeros(1, 2)) == ["broken.0:linear#0", ":relu#0"]


def test_no_hook_outlives_the_block_not_even_after_an_exception() -> None:
    model = nn.Linear(2, 2)
    before = len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks)
    with pytest.raises(RuntimeError), Calls(model):
        model(torch.zeros(1, 3))
    assert (len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks)) == before
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert torch.overrides._get_current_function_mode_stack() == []


def test_modules_of_another_thread_are_not_mixed_in() -> None:
    import threading

    other, model = nn.Linear(2, 2), nn.Sequential(nn.ReLU())

    def run(self: Any, x: Tensor) -> Tensor:
        thread = threading.Thread(target=other, args=(x,))
        thread.start()
        thread.join()
        return F.relu(x)

    assert names(nn.Sequential(Apply(run), model), torch.zeros(1, 2)) == ["0:relu#0", "1.0:relu#0"]


def test_the_ops_of_a_program_go_by_the_names_of_functions() -> None:
    model = Apply(lambda self, x: torch.ops.aten.relu.default(torch.ops.aten.add.Tensor(x, x)))
    assert names(model, torch.zeros(1)) == [":add#0", ":relu#0"]


def test_a_call_in_place_becomes_one_that_is_not() -> None:
    x = torch.tensor([-1.0, 2.0])
    for call in (
        Call(":relu_#0", torch.relu_, (x,), {}),
        Call(":relu#0", F.relu, (x, True), {}),
        Call(":relu#0", F.relu, (x,), {"inplace": True}),
    ):
        found = out_of_place(call)
        assert found is not None
        assert (found.key, found.func(*found.args, **found.kwargs).tolist()) == ("relu", [0.0, 2.0])
    assert x.tolist() == [-1.0, 2.0]
    for kept in (Call(":relu#0", F.relu, (x,), {}), Call(":__pow__#0", Tensor.__pow__, (x, 3), {})):
        assert out_of_place(kept) is None

"""Recurrent layers in plain functions: PyTorch's own results."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import shapleaf as sl
from shapleaf.layers import EQUIVALENTS, recurrent
from shapleaf.testing import untouched
from zoo import Names

KINDS: dict[str, Any] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "tanh": nn.RNN,
    "relu": lambda *args, **more: nn.RNN(*args, nonlinearity="relu", **more),
}


def built(kind: str, **more: Any) -> nn.RNNBase:
    torch.manual_seed(0)
    return KINDS[kind](5, 4, **more).double()  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("layers", "both", "first", "bias"), [*itertools.product((1, 2), *[(False, True)] * 3)]
)
def test_they_compute_what_pytorch_computes(
    kind: str, layers: int, both: bool, first: bool, bias: bool
) -> None:
    model = built(kind, num_layers=layers, bidirectional=both, batch_first=first, bias=bias)
    x = torch.randn(3, 6, 5, dtype=torch.float64)
    expected = model(x)
    with Names(model) as names:
        received = model(x)
    torch.testing.assert_close(received, expected, rtol=0, atol=1e-14)
    assert f":recur#{layers - 1}{'_reverse' if both else ''}" in names.seen


def test_a_projection_and_a_state_that_is_given() -> None:
    model = built("lstm", proj_size=3, num_layers=2, batch_first=True)
    x, h, c = (torch.randn(*size, dtype=torch.float64) for size in ((3, 6, 5), (2, 3, 3), (2, 3, 4)))
    expected = model(x, (h, c))
    with Names(model):
        received = model(x, (h, c))
    torch.testing.assert_close(received, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_one_sequence_without_a_batch(kind: str) -> None:
    model, x = built(kind), torch.randn(6, 5, dtype=torch.float64)
    with Names(model):
        received = model(x)
    torch.testing.assert_close(received, model(x), rtol=0, atol=1e-14)


def test_packed_sequences_are_left_to_pytorch() -> None:
    model = built("gru")
    packed = pack_padded_sequence(torch.randn(6, 2, 5, dtype=torch.float64), torch.tensor([6, 3]))
    with Names(model) as names:
        received = model(packed)
    assert torch.equal(received[0].data, model(packed)[0].data)
    assert ":gru#0" in names.seen
    assert not any("recur" in name for name in names.seen)


def test_steps_of_a_layer_have_one_name_however_many() -> None:
    model = built("gru", num_layers=2)
    keys = []
    for steps in (2, 7):
        with Names(model) as names:
            model(torch.randn(steps, 1, 5, dtype=torch.float64))
        keys.append({name for name in names.seen if "recur" in name})
    assert keys[0] == keys[1] == {":recur#0", ":recur#1"}


def test_training_drops_out_between_layers() -> None:
    model, x = built("gru", num_layers=2, dropout=0.9), torch.randn(6, 3, 5, dtype=torch.float64)
    with Names(model):
        assert not torch.equal(model(x)[0], model(x)[0])
        model.eval()
        assert torch.equal(model(x)[0], model(x)[0])


def test_every_equivalent_has_its_function() -> None:
    for name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        assert EQUIVALENTS[getattr(torch, name)] is getattr(recurrent, name)


# Units


class Read(nn.Module):
    """A layer, a recurrence over its outputs, and a reader of every step."""

    def __init__(self, kind: str, hidden: int = 5, **more: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.r = nn.Linear(6, 8), KINDS[kind](8, hidden, **more)
        width = (more.get("proj_size") or hidden) * (2 if self.r.bidirectional else 1)
        self.out = nn.Linear(width, 3)
        self.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        states = self.r(x)[0] if self.r.batch_first else self.r(x.transpose(0, 1))[0].transpose(0, 1)
        return self.out(states)


FORMS: dict[str, dict[str, Any]] = {
    "examples first": {"batch_first": True},
    "steps first": {},
    "without biases": {"batch_first": True, "bias": False},
    "two layers": {"batch_first": True, "num_layers": 2},
    "both ways": {"batch_first": True, "bidirectional": True},
    "two layers both ways": {"num_layers": 2, "bidirectional": True},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_units_are_a_group_whatever_the_length(kind: str, form: str) -> None:
    model, x = Read(kind, **FORMS[form]), torch.randn(2, 4, 6, dtype=torch.float64)
    with untouched(model):
        graph = sl.trace(model, x)
    assert {group.name: (group.size, group.exact) for group in graph} == {"a": (8, True), "r": (5, True)}
    plan = sl.plan(graph, {"a": (1, 2, 6), "r": (0, 3)})
    pruned, receipt = sl.prune(model, plan)
    assert receipt.error is not None
    assert receipt.error < 1e-14
    assert (pruned.r.input_size, pruned.r.hidden_size) == (3, 2)
    longer = torch.randn(3, 9, 6, dtype=torch.float64)
    torch.testing.assert_close(sl.masked(model, plan)(longer), pruned(longer), rtol=0, atol=1e-14)
    again = sl.replay(Read(kind, **FORMS[form]), receipt)
    again.load_state_dict(pruned.state_dict())
    assert torch.equal(again(longer), pruned(longer))


def test_a_unit_owns_its_row_of_every_gate_and_its_column() -> None:
    graph = sl.trace(Read("lstm", batch_first=True), torch.randn(2, 4, 6, dtype=torch.float64))
    owned = {(piece.tensor, piece.dim): piece.index.tolist() for piece in graph["r"].slices}
    assert owned["r.weight_ih_l0", 0][1] == owned["r.weight_hh_l0", 0][1] == [1, 6, 11, 16]
    assert owned["r.weight_hh_l0", 1][1] == owned["out.weight", 1][1] == [1]
    assert {site.call for site in graph["r"].sites} == {"r:recur#0", "out:linear#0"}


def test_a_projection_is_a_group_of_its_own() -> None:
    model = Read("lstm", hidden=8, batch_first=True, proj_size=3)
    graph = sl.trace(model, torch.randn(2, 4, 6, dtype=torch.float64))
    assert {group.name: group.size for group in graph} == {"a": 8, "r": 8, "r#2": 3}
    plan = sl.plan(graph, {"r": (0, 1, 4), "r#2": (0, 2)})
    pruned, _ = sl.prune(model, plan)
    assert (pruned.r.hidden_size, pruned.r.proj_size) == (3, 2)
    longer = torch.randn(3, 9, 6, dtype=torch.float64)
    torch.testing.assert_close(sl.masked(model, plan)(longer), pruned(longer), rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_means_fold_into_the_biases_of_the_recurrence(kind: str) -> None:
    """The mean of a unit over all steps goes into the bias that its reader adds."""
    model, x = Read(kind, batch_first=True), torch.randn(20, 4, 6, dtype=torch.float64)
    plan = sl.plan(sl.trace(model, x[:2]), {"r": (0, 3)})
    folded, _ = sl.prune(model, plan, compensate=sl.FoldMean([(x, None)]))
    filled = sl.masked(model, plan, removal=sl.CalibrationMean([(x, None)]))
    torch.testing.assert_close(folded(x), filled(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("criterion", [sl.Taylor(), sl.LeaveOneOut(), sl.Shapley(sl.Path(8, "line"))])
def test_hidden_units_are_scored(criterion: Any) -> None:
    model, x = Read("gru", batch_first=True), torch.randn(6, 4, 6, dtype=torch.float64)

    def loss(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(out[:, -1], target, reduction="none")

    graph, data = sl.trace(model, x[:2]), [(x, torch.arange(6) % 3)]
    with untouched(model):
        scores = sl.attribute(model, graph, data, criterion, loss=loss)
    assert scores.values["r"].shape == (5,)
    assert bool((scores.values["r"] != 0).all())

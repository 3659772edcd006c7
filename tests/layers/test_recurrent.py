"""Recurrent layers in plain functions: PyTorch's own results."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from shapleaf._calls import Calls
from shapleaf.layers import EQUIVALENTS, recurrent

KINDS: dict[str, Any] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "tanh": nn.RNN,
    "relu": lambda *args, **more: nn.RNN(*args, nonlinearity="relu", **more),
}


def built(kind: str, **more: Any) -> nn.RNNBase:
    torch.manual_seed(0)
    return KINDS[kind](5, 4, **more).double()  # type: ignore[no-any-return]


class Names(Calls):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.seen: list[str] = []

    def call(self, key: str, func: Any, args: Any, kwargs: Any) -> Any:
        self.seen.append(key)
        return super().call(key, func, args, kwargs)


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

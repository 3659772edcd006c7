"""LSTM, GRU and plain recurrent layers in plain functions: their hidden units can be seen and masked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name
from torch.overrides import handle_torch_function, has_torch_function

State = tuple[Tensor, ...]
Cell = Callable[[Tensor, Tensor, State], State]
"""What a step makes of the projected input, the projected hidden state and the state."""


def recur(place: str, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What a step of a layer reads of its own; a call of one name, however long the sequence.

    >>> recur("0", torch.ones(1, 2), torch.ones(3, 2), None)
    tensor([[2., 2., 2.]])
    """
    if has_torch_function((hidden, weight)):
        return handle_torch_function(recur, (hidden, weight), place, hidden, weight, bias)
    return F.linear(hidden, weight, bias)


def _lstm(given: Tensor, hidden: Tensor, state: State) -> State:
    enter, forget, value, leave = (given + hidden).chunk(4, -1)
    memory = forget.sigmoid() * state[1] + enter.sigmoid() * value.tanh()
    return leave.sigmoid() * memory.tanh(), memory


def _gru(given: Tensor, hidden: Tensor, state: State) -> State:
    (reset, update, value), (own_reset, own_update, own) = given.chunk(3, -1), hidden.chunk(3, -1)
    update = (update + own_update).sigmoid()
    fresh = (value + (reset + own_reset).sigmoid() * own).tanh()
    return (fresh + update * (state[0] - fresh),)


def _tanh(given: Tensor, hidden: Tensor, state: State) -> State:
    return ((given + hidden).tanh(),)


def _relu(given: Tensor, hidden: Tensor, state: State) -> State:
    return ((given + hidden).relu(),)


def lstm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``torch.lstm`` computes from its arguments, step by step."""
    return _layers(_lstm, args)


def gru(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``torch.gru`` computes from its arguments, step by step."""
    return _layers(_gru, args)


def rnn_tanh(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``torch.rnn_tanh`` computes from its arguments, step by step."""
    return _layers(_tanh, args)


def rnn_relu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``torch.rnn_relu`` computes from its arguments, step by step."""
    return _layers(_relu, args)


def _layers(cell: Cell, args: tuple[Any, ...]) -> Any:
    """All layers and directions: the sequence of outputs, and every last state.

    Packed sequences and positional surprises are left to PyTorch.
    """
    if len(args) != 9 or not isinstance(args[2], list | tuple):
        return NotImplemented
    given, states, weights, biased, count, dropout, train, both_ways, batch_first = args
    states = states if isinstance(states, tuple | list) else (states,)
    x = given if batch_first else given.transpose(0, 1)
    ways = 2 if both_ways else 1
    per_way = len(weights) // (count * ways)
    last: list[State] = []
    for layer in range(count):
        outs = []
        for way in range(ways):
            number = layer * ways + way
            mine = weights[number * per_way : (number + 1) * per_way]
            state = tuple(part[number] for part in states)
            name = f"{layer}{'_reverse' if way else ''}"
            out, state = _one(cell, name, x, state, mine, biased=biased)
            outs.append(out)
            last.append(state)
        x = torch.cat(outs, -1) if both_ways else outs[0]
        if dropout and train and layer < count - 1:
            x = F.dropout(x, dropout)
    ends = tuple(torch.stack(parts) for parts in zip(*last, strict=True))
    return x if batch_first else x.transpose(0, 1), *ends


def _one(
    cell: Cell, name: str, x: Tensor, state: State, weights: Sequence[Tensor], *, biased: bool
) -> tuple[Tensor, State]:
    """One layer in one direction: outputs of every step, (examples, steps, units), and the last state."""
    bias, own_bias = weights[2:4] if biased else (None, None)
    projection = weights[-1] if len(weights) == (5 if biased else 3) else None
    steps = F.linear(x, weights[0], bias).unbind(1)
    outs = []
    for given in reversed(steps) if name.endswith("reverse") else steps:
        state = cell(given, recur(name, state[0], weights[1], own_bias), state)
        if projection is not None:
            state = (recur(f"{name}_projection", state[0], projection, None), *state[1:])
        outs.append(state[0])
    return torch.stack(outs[::-1] if name.endswith("reverse") else outs, 1), state

"""What a rule of the user's own sees and may say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf.tracing.opcall import OpCall
from shapleaf.tracing.ops import RULES
from zoo import between, example, prove


def test_a_rule_sees_arguments_by_place_or_name_and_gives_fields() -> None:
    seen = {}

    def rule(op: OpCall) -> None:
        seen[op.name] = (op.arg(1, "dim"), op.arg(2, "missing", 5), len(op.tensors), len(op.outputs), op.key)
        seen["why"] = op.why("text")
        assert op.active(op.tensors[0])
        op.give(op.outputs[0], list(op.flow.of(op.tensors[0])))

    model = between(lambda x: torch.cumsum(x, dim=0))
    graph = sl.trace(model, example(1, 6), rules={"cumsum": rule})
    assert seen["cumsum"] == (0, 5, 1, 1, ":cumsum#0")
    assert seen["why"].startswith("text (cumsum in the model, test_opcall.py:")
    prove(model, example(1, 6), graph)


def test_giving_no_fields_takes_away_those_there_were() -> None:
    def forget(op: OpCall) -> None:
        op.give(op.tensors[0], [])
        op.give(op.outputs[0], [])

    with pytest.raises(sl.TraceError, match="contracted with an axis without units"):
        sl.trace(between(torch.cos), example(1, 6), rules={"cos": forget})


def test_rules_are_merged_for_one_trace_only() -> None:
    before = dict(RULES)
    sl.trace(
        nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)),
        torch.zeros(1, 2),
        rules={"mm": before["mm"], "x": print},
    )
    assert before == RULES

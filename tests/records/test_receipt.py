"""Receipts print and survive storage; what they do is tested with surgery."""

import dataclasses

import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf.records import Edit, Plan, Receipt


def test_it_prints_its_edits_and_its_proof(receipt: Receipt) -> None:
    assert str(receipt) == (
        "Receipt\n"
        "attribute          before  after\n"
        "─────────────────  ──────  ─────\n"
        "conv.out_channels       4      2\n"
        "rate                  0.5   0.25\n"
        "compensation: FoldMean(); masked against pruned: 1.2e-07"
    )


def test_without_proof_it_says_so(receipt: Receipt) -> None:
    assert str(dataclasses.replace(receipt, error=None)).endswith(
        "masked against pruned: not exact, not compared"
    )


def test_defaults(plan: Plan) -> None:
    receipt = Receipt(plan=plan)
    assert (receipt.edits, receipt.biases, receipt.compensation, receipt.error) == ((), (), "none", None)


@pytest.mark.parametrize(("before", "after"), [(8, 4), (0.5, 0.4), (1, 0.5), (1.0, 0.0)])
def test_numbers_keep_their_kind(plan: Plan, tmp_path, before: float, after: float) -> None:
    edit = Edit(module="m", attribute="p", before=before, after=after)
    Receipt(plan=plan, edits=(edit,)).save(tmp_path / "receipt")
    loaded = Receipt.load(tmp_path / "receipt").edits[0]
    assert [type(loaded.before), type(loaded.after)] == [type(before), type(after)]
    assert loaded == edit


def test_a_real_receipt_replays_from_its_file(tmp_path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 2))

    model = build()
    plan = sl.plan(sl.trace(model, torch.zeros(2, 3)), {"0": (0, 1, 2, 4)})
    pruned, receipt = sl.prune(model, plan, scale_dropout=True)
    receipt.save(tmp_path / "receipt")
    fresh = sl.replay(build(), Receipt.load(tmp_path / "receipt"))
    fresh.load_state_dict(pruned.state_dict())
    x = torch.randn(4, 3)
    assert torch.equal(fresh.eval()(x), pruned.eval()(x))
    assert fresh[1].p == pytest.approx(0.4)  # TorchPruner's own case

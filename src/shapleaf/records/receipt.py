"""Receipt: what was cut and changed, enough to do it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._base import Part, Record
from .plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Edit(Part):
    """One module attribute that surgery changed, such as ``conv1.out_channels``.

    A layer of PyTorch that cannot hold its new sizes becomes one of :mod:`shapleaf.layers`: then the
    attribute is ``__class__``, and the values are names of classes.
    """

    module: str
    attribute: str
    before: int | float | tuple[int, ...] | str
    after: int | float | tuple[int, ...] | str
    index: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Effect(Part):
    """How far the pruned model is from the reference on the calibration data, after a step of compensation.

    Attributes:
        step: the compensation as written in Python; "none" before the first.
        error: the squared distance of the outputs, relative to how the reference's spread over examples.
        loss: the mean cross-entropy, where the data are labelled for it.
        notes: what the step left alone, and why.
    """

    step: str
    error: float | None = None
    loss: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Receipt(Record):
    """What :func:`shapleaf.prune` did.

    Attributes:
        plan: the plan that was carried out.
        edits: the attributes that were set.
        biases: layers that compensation gave a bias, with its length.
        compensation: the compensation, as written in Python, or "none".
        effects: what each step of it brought on the calibration data.
        error: largest difference between the masked and the pruned model on the verification
            inputs, relative to the largest output; None where a group is not exact.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> plan = sl.plan(sl.trace(model, torch.zeros(1, 3)), {"0": (0, 3)})
    >>> print(sl.prune(model, plan).receipt)
    Receipt
    attribute       before  after
    ──────────────  ──────  ─────
    0.out_features       4      2
    2.in_features        4      2
    compensation: none; masked against pruned: ...
    """

    plan: Plan
    edits: tuple[Edit, ...] = ()
    biases: tuple[tuple[str, int], ...] = ()
    compensation: str = "none"
    effects: tuple[Effect, ...] = ()
    error: float | None = None

    def table(self) -> dict[str, Any]:
        rows = [
            [f"{edit.module}.{edit.attribute}" if edit.module else edit.attribute, edit.before, edit.after]
            for edit in self.edits
        ]
        proof = "not exact, not compared" if self.error is None else f"{self.error:.1e}"
        lines = [f"compensation: {self.compensation}; masked against pruned: {proof}"]
        for effect in self.effects:
            figures = (("error", effect.error), ("loss", effect.loss))
            told = ", ".join(f"{name} {value:.4g}" for name, value in figures if value is not None)
            lines += [f"  on the calibration data, after {effect.step}: {told}"] if told else []
            lines += [f"  {note}" for note in effect.notes]
        return {
            "title": "Receipt",
            "header": ["attribute", "before", "after"],
            "rows": rows,
            "footer": "\n".join(lines),
        }

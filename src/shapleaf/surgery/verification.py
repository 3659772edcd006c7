"""Proof that the pruned model computes what the masked one does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from .. import _context
from ..errors import PlanError
from ..masking import Gates, Masked
from ..programs import instead
from ..records import Plan
from ..tracing.inputs import imitate
from ..tracing.norms import batch_norm, group_norm, layer_norm, weight_norm
from ..tracing.ops import RULES
from ..tracing.products import vector_product
from ..tracing.statistics import STATISTICS, normalise, reduce, reduced_axes, total, vector_norm


class Proof:
    """The masked model's outputs on random inputs as traced, to be compared with the pruned model's.

    Make it before the model is sliced. Where a statistic over units makes masking and slicing differ, both
    are also run with such statistics replaced by sums, of which absent units are no part: what is left to
    differ then is the structure.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        self._model, self._plan = model, plan
        self._inputs = imitate(plan.graph.inputs, examples=2, device=_context.device_of(model))
        groups = [plan.graph[name] for name in plan.pruned]
        self._exact = all(group.exact for group in groups)
        self._alike = not self._exact and all(g.exact or g.reason.startswith(STATISTICS) for g in groups)
        function = Masked(model, plan, {}, Gates(groups))
        self._expected = self._run(function)
        self._expected_sums = self._run(function, sums=True) if self._alike else []

    def check(self) -> float | None:
        """The largest difference relative to the largest output; None where a group is not exact.

        Raises:
            PlanError: the pruned model does not run, or computes something else than the masked one.
        """
        try:
            received = self._run(self._model)
            sums = self._run(self._model, sums=True) if self._alike else []
        except Exception as error:
            raise PlanError(
                f"the pruned model does not run{_line(error)}, so nothing was changed. {self._hint} {error}"
            ) from error
        shapes = [tuple(t.shape) for t in self._expected], [tuple(t.shape) for t in received]
        if shapes[0] != shapes[1]:
            raise PlanError(
                f"the pruned model returned shapes {shapes[1]}, expected {shapes[0]}; nothing was changed. "
                f"{self._hint}"
            )
        pairs = (self._expected, received) if self._exact else (self._expected_sums, sums)
        difference, tolerance = relative_gap(*pairs)
        if not self._exact:  # sums in the place of norms grow with depth, and their rounding with them
            tolerance = max(tolerance, 1e-3)
        if difference > tolerance:
            raise PlanError(
                f"the pruned model differs from the masked one by {difference:.1e} of its largest output, "
                f"more than {tolerance:.1e}; nothing was changed. {self._hint}"
            )
        return difference if self._exact else None

    @property
    def _hint(self) -> str:
        return (
            "A size in its Python code does not follow its weights; keep the groups that it concerns "
            f"(of {', '.join(self._plan.pruned[:6])}), or compute it from a tensor's shape."
            f"{instead(self._model)}"
        )

    def _run(self, function: nn.Module, *, sums: bool = False) -> list[Tensor]:
        with torch.no_grad(), _context.inference(self._model), _Sums(self._inputs) if sums else nullcontext():
            return _context.tensors(_context.forward(function, self._inputs))


def _line(error: Exception) -> str:
    """The line of the user's code that failed."""
    line = _context.culprit(error.__cause__ or error)
    return f" ({_context.place(line.filename, line.lineno or 0)}: {line.line})" if line else ""


def relative_gap(expected: list[Tensor], received: list[Tensor]) -> tuple[float, float]:
    """The largest difference relative to the largest value, and how much of it rounding explains."""
    gap = scale = tolerance = 0.0
    for a, b in zip(expected, received, strict=True):
        if a.is_floating_point() and a.numel():
            # Code of a double-precision model may compute its norms in single precision.
            tolerance = max(tolerance, torch.finfo(a.dtype).eps ** 0.5, 1e-5)
            same = (a == b) | (a.isnan() & b.isnan())
            gaps = torch.where(same, 0.0, (a.double() - b.double()).abs())
            gap = max(gap, float(gaps.nan_to_num(torch.inf).max()))
            scale = max(scale, float(torch.where(a.isfinite(), a.abs(), 0.0).max()))
    return (gap / scale if scale else gap), tolerance


class _Sums(TorchDispatchMode):
    """Replaces statistics: of activations by sums over the same axes, of parameters alone by constants."""

    def __init__(self, inputs: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._active: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        for tensor in _context.tensors(inputs):
            self._active[tensor] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _context.tensors((args, kwargs))
        active = any(tensor in self._active for tensor in given)
        out = func(*args, **(kwargs or {}))
        rule = RULES.get(func.overloadpacket.__name__)
        with torch._C.DisableTorchFunction():
            if rule in _REPLACED and given[0].is_floating_point():
                self._replace(rule, args, kwargs or {}, given[0], _context.tensors(out), active=active)
            elif rule is batch_norm and not (active and _runs_on_known_statistics(func, args)):
                out[0].copy_(given[0])
        for tensor in _context.tensors(out) if active else ():
            self._active[tensor] = True
        return out

    def _replace(
        self, rule: Any, args: Any, kwargs: Any, source: Tensor, outs: list[Tensor], *, active: bool
    ) -> None:
        for out in outs if rule is not weight_norm else ():
            if rule is normalise:
                out.copy_(source.sigmoid())
            elif rule is layer_norm:
                _scale(out, source, args[2:4])
            elif rule is group_norm:
                shape = [1, -1, *[1] * (source.ndim - 2)]
                affine = [None if a is None else a.view(shape) for a in args[1:3]]
                _scale(out, source, affine if args[6] == 1 else ())
            elif not active:
                out.fill_(1)
            elif rule is reduce and out.is_floating_point():
                bounded = source.tanh().square()
                out.copy_(bounded.sum(reduced_axes(args, kwargs, source.ndim)).reshape(out.shape))
        if rule is weight_norm:
            outs[0].copy_(args[0] * args[1])


_REPLACED = (
    reduce, total, vector_norm, normalise, layer_norm, group_norm, weight_norm, vector_product
)  # fmt: skip
"""Rules of the ops whose results depend on how many units there are."""


def _scale(out: Tensor, source: Tensor, affine: Sequence[Tensor | None]) -> None:
    """What a norm does without its statistic: weights and biases, as far as there are any."""
    if out.shape != source.shape or not affine:
        return
    scaled = source.tanh()
    weight, bias = (*affine, None)[:2]
    scaled = scaled if weight is None else scaled * weight
    out.copy_(scaled if bias is None else scaled + bias)


def _runs_on_known_statistics(func: Any, args: Any) -> bool:
    names = [argument.name for argument in func._schema.arguments]
    return "training" not in names or not args[names.index("training")]

"""export: a pruned model as a program that runs without its Python code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import _context
from ._store import atomic
from .errors import DataError, PlanError
from .integrations import require
from .programs import exported, one_more

Runner = Callable[[Any], list[Tensor]]


def export(
    model: nn.Module, example_inputs: Any, path: str | os.PathLike[str], *, dynamic_batch: bool = True
) -> float:
    """Write a model as ``.pt2`` (``torch.export``) or ``.onnx``, load it back and compare.

    The program holds the pruned shapes, so it needs neither the model's class nor shapleaf.

    Args:
        model: any module, usually pruned; it is exported in eval mode and left as it is.
        example_inputs: a tensor, or a tuple of positional inputs, the examples along the first dimension.
        path: the suffix decides the format; ONNX needs the extra ``shapleaf[onnx]``.
        dynamic_batch: let the number of examples vary; the comparison takes another number.

    Returns:
        The largest difference of any output, relative to the largest output.

    Raises:
        DataError: another suffix, or the place cannot be written.
        PlanError: the model cannot be exported, or the program computes something else.
        MissingExtraError: ONNX is not installed.

    >>> import tempfile
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(model, torch.randn(2, 3), Path(folder) / "model.pt2") < 1e-6
    True
    """
    target = Path(path)
    if target.suffix not in (".pt2", ".onnx"):
        raise DataError(f"{target}: the suffix must be .pt2 (torch.export) or .onnx.")
    inputs = tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)
    if dynamic_batch:  # of a batch of one, the exporter takes the one for a constant
        inputs = one_more(inputs)
    more = one_more(inputs) if dynamic_batch else inputs
    with torch.no_grad(), _context.inference(model), atomic(target) as temporary:
        try:
            program = exported(model, inputs, dynamic_batch=dynamic_batch)
        except Exception as error:
            raise PlanError(f"the model cannot be exported: {type(error).__name__}: {error}") from error
        run = (_write_pt2 if target.suffix == ".pt2" else _write_onnx)(program, temporary)
        expected = _context.tensors(_context.forward(model, more))
        received = run(more)
        difference = max((_gap(*pair) for pair in zip(expected, received, strict=True)), default=0.0)
        if not difference <= 1e-3:
            raise PlanError(
                f"the exported program differs from the model by {difference:.1e} of its largest output."
            )
    return difference


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)) if a.numel() else 0.0


def _write_pt2(program: Any, path: Path) -> Runner:
    with path.open("wb") as file:
        torch.export.save(program, file)
    with path.open("rb") as file:
        loaded = torch.export.load(file).module()
    return lambda inputs: _context.tensors(loaded(*inputs))


def _write_onnx(program: Any, path: Path) -> Runner:
    for module in ("onnx", "onnxscript"):
        require(module, "onnx")
    runtime = require("onnxruntime", "onnx")
    torch.onnx.export(program, f=str(path), dynamo=True, external_data=False, verbose=False)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def run(inputs: Any) -> list[Tensor]:
        feed = dict(zip(names, (t.numpy() for t in _context.tensors(inputs)), strict=True))
        return [torch.from_numpy(array) for array in session.run(None, feed)]

    return run

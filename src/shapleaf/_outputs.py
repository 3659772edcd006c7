"""What the command line writes and prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from torch import nn

    from .records import Report
    from .records._base import Record
    from .slimming import Slimmed


def save_weights(model: nn.Module, path: Path) -> None:
    """The model's tensors as a safetensors file, atomically."""
    from .retraining.checkpoints import write

    write(model, path)


def write_folder(slimmed: Slimmed, out: Path, *, as_json: bool, quiet: bool) -> None:
    """Weights, receipt, report and its page in a folder; the plan and the report on stdout."""
    from .reporting import write

    save_weights(slimmed.model, out / "weights.safetensors")
    slimmed.receipt.save(out / "receipt.safetensors")
    slimmed.report.save(out / "report.safetensors")
    write(slimmed.report, out / "report.html")
    if not (quiet or as_json):
        typer.echo(f"{slimmed.receipt.plan}\n")
    show(slimmed.report, out / "report.html", as_json=as_json, quiet=quiet)


def write_report(report: Report, out: Path) -> None:
    """A report and its page, in a folder."""
    from .reporting import write

    report.save(out / "report.safetensors")
    write(report, out / "report.html")


def show(record: Record, path: Path, *, as_json: bool, quiet: bool) -> None:
    """The record on stdout: as a table, as JSON, or not at all."""
    if as_json:
        table = record.table()
        summary = {
            "kind": type(record).__name__,
            "rows": [dict(zip(table["header"], row, strict=True)) for row in table["rows"]],
            "notes": table.get("footer", ""),
            "file": str(path),
        }
        typer.echo(json.dumps(summary, indent=2, default=str))
    elif not quiet:
        typer.echo(f"{record}\n\nwritten to {path}")

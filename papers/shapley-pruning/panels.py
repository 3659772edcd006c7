"""How the studies draw: panels of curves side by side, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shapleaf._store import atomic
from shapleaf.integrations import require

Runs = Sequence[Sequence[float]]


def draw(
    path: Path, panels: Mapping[str, Mapping[str, Runs]], rows: Sequence[str], ticks: Sequence[str], x: str
) -> None:
    """Accuracy in %, a panel for each title, in it a line for each row: its mean over runs.

    Bars are standard deviations over runs. A row has the same colour in all panels and figures.

    Args:
        path: the SVG.
        panels: title, row and its runs, each with an accuracy in [0, 1] for every tick.
        rows: all rows that are ever drawn.
        ticks: what stands below the axis.
        x: what the axis is.
    """
    plots = require("matplotlib.pyplot", "plots")
    with plots.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name, "font.size": 8}):
        figure, axes = plots.subplots(
            1, len(panels), figsize=(4 * len(panels), 4.5), sharey=True, squeeze=False, layout="constrained"
        )
        for axis, (title, lines) in zip(axes.flat, panels.items(), strict=True):
            for row in rows:
                if row in lines:
                    runs = 100 * np.array(lines[row])
                    spread = runs.std(0, ddof=1) if len(runs) > 1 else None
                    colour = f"C{rows.index(row)}"
                    axis.errorbar(
                        range(len(ticks)), runs.mean(0), spread, color=colour, label=row, lw=1, elinewidth=0.5
                    )
            axis.set_title(title, fontsize=8)
            slanted = max(map(len, ticks)) > 6
            axis.set_xticks(range(len(ticks)), ticks, rotation=90 if slanted else 0)
        figure.supxlabel(x)
        figure.supylabel("test accuracy in %")
        seen: dict[str, Any] = {}
        for axis in axes.flat:
            lines, texts = axis.get_legend_handles_labels()
            seen.update(zip(texts, lines, strict=True))
        figure.legend(seen.values(), seen.keys(), loc="outside upper center", ncols=2)
        with atomic(path) as new:
            figure.savefig(new, format="svg", metadata={"Date": None})
        plots.close(figure)

"""Report: what was gained and lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ._base import Part, Record
from .comparison import Comparison
from .receipt import Receipt
from .robustness import Robustness
from .scores import Scores


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurement(Part):
    """One metric of the pruned model, beside the reference model's.

    Attributes:
        metric: its name.
        value: the measured figure; ``low`` and ``high`` its 95 % interval or quartiles, if any.
        reference: the same of the reference model, if one was given.
        unit: "%", "ms", "MAC" … or empty.
        better: which direction is good.
    """

    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    reference: float | None = None
    reference_low: float | None = None
    reference_high: float | None = None
    unit: str = ""
    better: Literal["higher", "lower"] = "higher"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report(Record):
    """What :func:`shapleaf.evaluate` measured, with the receipt and scores behind it.

    Attributes:
        title: the heading of the page.
        rows: the measurements.
        receipt: what was cut, if the model was pruned by shapleaf.
        scores: what the cut was decided on.
        robustness: what :func:`shapleaf.robustness` measured on other distributions.
        comparison: what :func:`shapleaf.compare` measured of criteria.
        settings: data, sample counts, device, threads, versions.

    >>> row = Measurement(metric="latency", value=1.5, reference=3.0, unit="ms", better="lower")
    >>> print(Report(title="half as wide", rows=(row,)))
    half as wide
    metric   unit  reference  value  interval  change
    ───────  ────  ─────────  ─────  ────────  ──────
    latency  ms            3    1.5         -  x 0.5
    """

    title: str
    rows: tuple[Measurement, ...]
    receipt: Receipt | None = None
    scores: Scores | None = None
    robustness: Robustness | None = None
    comparison: Comparison | None = None
    settings: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, metric: str) -> Measurement:
        for row in self.rows:
            if row.metric == metric:
                return row
        raise KeyError(f"no metric {metric!r}; measured: {', '.join(row.metric for row in self.rows)}")

    def table(self) -> dict[str, Any]:
        rows = []
        for row in self.rows:
            ratio = row.value / row.reference if row.reference else None
            low_high = None if row.low is None or row.high is None else f"{row.low:.4g} to {row.high:.4g}"
            change = None if ratio is None else f"x {ratio:.3g}"
            if row.unit == "%" and row.reference is not None:
                change = f"{row.value - row.reference:+.2f} points"
            rows.append([row.metric, row.unit, row.reference, row.value, low_high, change])
        return {
            "title": self.title,
            "header": ["metric", "unit", "reference", "value", "interval", "change"],
            "rows": rows,
            "footer": ", ".join(f"{key}={value}" for key, value in self.settings.items()),
        }

    def to_html(self) -> str:
        """The report as one self-contained HTML page."""
        from ..reporting.html import render

        return render(self)

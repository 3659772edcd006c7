"""A report as one HTML page that needs nothing else: no network, no script, no font.

What is said is decided here, how it looks in ``templates/report.html.j2``. Everything is
escaped, numbers included; lists that could grow without bound are cut, and say so, so that
the page stays below 300 KB whatever the model.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from .. import _store
from ..records.graph import Graph
from ..records.plan import Plan
from ..records.receipt import Receipt
from ..records.report import Measurement, Report
from ..records.scores import Scores
from . import charts, comparison, robustness
from .charts import MINUS

_GROUPS, _REASONS, _PLACES, _LINES = 120, 24, 6, 60  # most bars, reasons, places per reason, other lines
_BYTES = 300_000  # of a page
_NAME, _TEXT = 80, 240  # longest name, longest other text taken from a record
_NAMES = {
    "accuracy": ("Accuracy", "share of examples predicted right"),
    "loss": ("Loss", "per example"),
    "agreement": ("Agreement", "share of examples predicted as before"),
    "params": ("Parameters", ""),
    "MACs": ("MACs", "multiply-accumulates per example"),
    "latency (wall)": ("Latency, wall clock", ""),
    "latency (CPU)": ("Latency, CPU time", ""),
}
_MORE = comparison.TITLES | robustness.TITLES
_TITLES = ("", "Units kept", "Scores", "Limits", "Surgery", "How it was made")
_SPACE = "\N{NO-BREAK SPACE}"


def render(report: Report) -> str:
    """The page of a report, as a string.

    Sections for which the report holds nothing are left out: rows alone make a page.

    >>> from shapleaf.records import Measurement
    >>> page = render(Report(title="A < B", rows=(Measurement(metric="loss", value=0.5),)))
    >>> page[:15], "<h1>A &lt; B</h1>" in page, "://" in page
    ('<!doctype html>', True, False)
    """
    for room in (1, 2, 4, 8):
        page = _rendered(report, room)
        if len(page.encode()) < _BYTES:
            break
    return page


def _rendered(report: Report, room: int) -> str:
    """The page, with long lists cut at their usual length divided by ``room``."""
    receipt, scores = report.receipt, report.scores
    plan = receipt.plan if receipt is not None else None
    graph = plan.graph if plan is not None else scores.graph if scores is not None else None
    compared = any(row.reference is not None for row in report.rows)
    parts: dict[str, Any] = {
        "numbers": [_measure(row) for row in report.rows],
        "units": _bars(plan, _GROUPS // room) if plan is not None else None,
        "scores": _scored(scores, plan, room) if scores is not None and scores.values else None,
        "limits": _limits(graph) if graph is not None else None,
        "surgery": _surgery(receipt) if receipt is not None else None,
        "origins": _origins(report, plan, graph),
    }
    titles = ("Before and after" if compared else "The numbers", *_TITLES[1:])
    sections = [(name, title) for name, title in zip(parts, titles, strict=True) if parts[name]]
    lost = robustness.parts(report.robustness, room) if report.robustness else {}
    beside = comparison.parts(report.comparison, room) if report.comparison else {}
    head = [part["headline"] for part in (lost.get("verdict"), beside.get("criteria")) if part]
    return _template().render(
        title=_clip(report.title),
        lead=_lead(report) if report.rows or not head else head.pop(0),
        support=[*_support(report, plan), *head],
        sections=[*((name, _MORE[name]) for name in (*beside, *lost)), *sections],
        beside=beside,
        lost=lost,
        canvas=charts,
        compared=compared,
        ranges=any(row["before_range"] or row["after_range"] for row in parts["numbers"]),
        **parts,
    )


def write(report: Report, path: str | os.PathLike[str]) -> None:
    """Write the page to a file, atomically: what was there stays until the new page is complete.

    Raises:
        DataError: the place cannot be written.
    """
    page = render(report)
    with _store.atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


@lru_cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("shapleaf.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


# ── numbers ──────────────────────────────────────────────────────────────────────────────────


def figure(value: float, unit: str = "") -> str:
    r"""A measured figure with its unit, four digits at most where that is enough.

    >>> figure(97.412, "%"), figure(313733120), figure(0.07214), figure(4096)
    ('97.41\xa0%', '313.7\xa0M', '0.07214', '4,096')
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinite" if value > 0 else f"{MINUS}infinite"
    if unit == "%":
        return f"{value:.2f}{_SPACE}%"
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scale = min(size, 1e3 if prefix == "k" else size)
            return f"{value / scale:.4g}{_SPACE}{prefix}".replace("-", MINUS)
    timed = unit.startswith("ms")
    text = f"{value:,.0f}" if float(value).is_integer() and not timed else f"{value:{'#' * timed}.4g}"
    return text.replace("-", MINUS)


def percent(fraction: float) -> str:
    r"""A share or relative change for running text; 0 and 100 % only when it is exactly that.

    >>> percent(0.4312), percent(0.9971), percent(0.0042)
    ('43\xa0%', '99.7\xa0%', '0.4\xa0%')
    """
    value = 100 * fraction
    for digits in (0, 1, 2):
        text = f"{value:,.{digits}f}"
        if value in (0, 100) or value > 101 or 1 <= float(text) <= 99 or (digits and 0 < float(text) < 100):
            return f"{text}{_SPACE}%"
    return f"{'under 0.01' if value < 1 else 'over 99.99'}{_SPACE}%"


def scientific(value: float) -> str:
    """A tiny number in powers of ten.

    >>> scientific(3.1e-7) == "3.1 \N{MULTIPLICATION SIGN} 10⁻⁷", scientific(0.0)
    (True, '0')
    """
    if value == 0 or not math.isfinite(value):
        return figure(value)
    digits, power = f"{value:.1e}".split("e")
    return f"{digits} \N{MULTIPLICATION SIGN} 10{str(int(power)).translate(charts.SUPERSCRIPT)}"


def _clip(text: str, length: int = _TEXT) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _some(items: Sequence[str], most: int) -> str:
    """The first items in words, and how many more there are."""
    shown = ", ".join(_clip(item, _NAME) for item in items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most:,} more"


# ── what was gained and lost ─────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The step from the reference to the model: its size in words, and whether it is for the better."""

    text: str
    verdict: str  # better, worse, same
    note: str = ""


def change(row: Measurement) -> Change | None:
    r"""How a figure moved: points for a share, percent for all else; None without a reference.

    >>> change(Measurement(metric="MACs", value=57.0, reference=100.0, better="lower")).text[1:]
    '43.0\xa0%'
    """
    before, after = row.reference, row.value
    if before is None or not math.isfinite(before) or not math.isfinite(after):
        return None
    delta = after - before
    if delta == 0:
        return Change(text="no change", verdict="same")
    if row.unit == "%":
        size = f"{abs(delta):.{1 if abs(delta) >= 1 else 2}f} points"
    elif before == 0 or abs(delta / before) >= 10:
        size = f"{abs(delta):.3g}" if before == 0 else f"{100 * abs(delta / before):,.0f}{_SPACE}%"
    else:
        size = f"{100 * abs(delta / before):.1f}{_SPACE}%"
    verdict = "better" if (delta > 0) == (row.better == "higher") else "worse"
    ends = (row.low, row.high, row.reference_low, row.reference_high)
    overlap = None not in ends and row.low <= row.reference_high and row.reference_low <= row.high  # type: ignore[operator]
    return Change(
        text=f"{'+' if delta > 0 else MINUS}{size}",
        verdict=verdict,
        note="intervals overlap" if overlap else "",
    )


def _measure(row: Measurement) -> dict[str, Any]:
    name, meaning = _NAMES.get(row.metric, (row.metric, ""))
    unit = row.unit if row.unit not in ("%", "MAC") else ""
    return {
        "name": _clip(name, _NAME),
        "meaning": ", ".join(_clip(part, _NAME) for part in (meaning, unit) if part),
        "before": "\N{EN DASH}" if row.reference is None else figure(row.reference, row.unit),
        "before_range": _range(row.reference_low, row.reference_high, row.unit),
        "after": figure(row.value, row.unit),
        "after_range": _range(row.low, row.high, row.unit),
        "broken": not math.isfinite(row.value),
        "change": change(row),
    }


def _range(low: float | None, high: float | None, unit: str) -> str:
    if low is None or high is None:
        return ""
    return (
        f"{figure(low, unit).removesuffix(f'{_SPACE}%')} to {figure(high, unit).removesuffix(f'{_SPACE}%')}"
    )


def _lead(report: Report) -> str:
    """The report in one sentence: what it saves, and what that costs."""
    rows = {row.metric: row for row in report.rows}
    saved = [
        _saved(rows[metric], noun)
        for metric, noun in (("MACs", "MACs"), ("params", "parameters"))
        if metric in rows and rows[metric].reference
    ]
    quality = next((rows[m] for m in ("accuracy", "loss") if m in rows), None)
    pieces = [" and ".join(saved)] if saved else []
    if quality is not None:
        digits = 1 if quality.unit == "%" else 3
        values = [v for v in (quality.reference, quality.value) if v is not None]
        unit = f"{_SPACE}%" if quality.unit == "%" else ""
        steps = [f"{value:.{digits}f}{unit}" if math.isfinite(value) else "NaN" for value in values]
        pieces.append(f"{quality.metric} {' → '.join(steps)}")
    if not pieces:
        pieces = [f"{_clip(row.metric, _NAME)} {figure(row.value, row.unit)}" for row in report.rows[:3]]
    sentence = "; ".join(pieces)
    return f"{sentence[0].upper()}{sentence[1:]}." if sentence else "Nothing was measured."


def _saved(row: Measurement, noun: str) -> str:
    before, after = row.reference or 0.0, row.value
    if after == before:
        return f"the same {noun}"
    return f"{percent(abs(after - before) / before)} {'fewer' if after < before else 'more'} {noun}"


def _support(report: Report, plan: Plan | None) -> list[str]:
    """What the lead leaves out: time, agreement, units."""
    rows = {row.metric: row for row in report.rows}
    said = []
    time = rows.get("latency (wall)")
    if time is not None and time.reference and time.value > 0:
        factor = time.reference / time.value
        said.append(
            f"A batch takes {time.value:.3g}{_SPACE}ms instead of {time.reference:.3g}{_SPACE}ms, "
            + (f"{factor:.3g} times as fast." if factor >= 1 else f"{1 / factor:.3g} times as long.")
        )
    if "agreement" in rows and math.isfinite(rows["agreement"].value):
        said.append(f"{rows['agreement'].value:.1f}{_SPACE}% of the predictions are the same as before.")
    if plan is not None:
        pruned, groups = len(plan.pruned), len(plan.graph)
        stay = f"{plan.after.units:,} of {plan.before.units:,} units stay"
        where = f"all {groups:,}" if pruned == groups else f"{pruned:,} of {groups:,}"
        said.append(f"{stay}; units were removed from {where} groups." if groups > 1 else f"{stay}.")
    return said


# ── units and scores ─────────────────────────────────────────────────────────────────────────


def _bars(plan: Plan, most: int) -> dict[str, Any]:
    groups = list(plan.graph)
    if len(groups) > most:
        chosen = {g.name for g in sorted(groups, key=lambda g: len(plan.keep[g.name]) - g.size)[:most]}
        groups = [group for group in groups if group.name in chosen]
    rows = [
        {
            "name": _clip(group.name, _NAME),
            "size": group.size,
            "kept": len(plan.keep[group.name]),
            "width": round(100 * len(plan.keep[group.name]) / group.size, 2),
        }
        for group in groups
    ]
    return {"rows": rows, "groups": len(plan.graph)}


def _scored(scores: Scores, plan: Plan | None, room: int) -> dict[str, Any]:
    drawn = charts.charts(scores, plan, room)
    return {
        "charts": drawn,
        "groups": len(scores.values),
        "criterion": _clip(scores.criterion),
        "samples": scores.samples,
        "errors": any(chart.bars or chart.cut_bars for chart in drawn),
        "cut": any(chart.crosses for chart in drawn),
        "negative": any(chart.low < 0 for chart in drawn),
        "thinned": any(chart.drawn + chart.broken < chart.size for chart in drawn),
        "averaged": any(values.ndim > 1 for values in scores.values.values()),
        "plan": plan is not None,
        "canvas": charts,
    }


# ── constraints, surgery, origins ────────────────────────────────────────────────────────────


def _limits(graph: Graph) -> dict[str, Any] | None:
    reasons: dict[str, list[str]] = {}
    for block in graph.blocked:
        reasons.setdefault(block.reason, []).append(f"{block.tensor}, axis {block.dim} ({block.size:,})")
    inexact: dict[str, list[str]] = {}
    for group in graph:
        if not group.exact:
            inexact.setdefault(group.reason or "no reason given", []).append(group.name)
    if not (reasons or inexact or graph.ties or graph.notes):
        return None
    return {
        "blocked": _table(reasons),
        "inexact": _table(inexact),
        "ties": _lines(_some(tie, _PLACES) for tie in graph.ties),
        "notes": _lines(graph.notes),
    }


def _table(reasons: dict[str, list[str]]) -> list[tuple[str, int, str]]:
    """Reasons, the most frequent first, with how many places they hold for and some of them."""
    ranked = sorted(reasons.items(), key=lambda item: -len(item[1]))
    rows = [(_clip(reason), len(places), _some(places, _PLACES)) for reason, places in ranked[:_REASONS]]
    rest = ranked[_REASONS:]
    if rest:
        rows.append((f"{len(rest):,} other reasons", sum(len(places) for _, places in rest), ""))
    return rows


def _lines(items: Iterable[str]) -> list[str]:
    clipped = [_clip(item) for item in items]
    rest = len(clipped) - _REASONS
    return clipped if rest <= 0 else [*clipped[:_REASONS], f"and {rest:,} more"]


def _surgery(receipt: Receipt) -> dict[str, Any]:
    modules: dict[str, list[str]] = {}
    for edit in receipt.edits:
        step = f"{edit.attribute} {edit.before:,}{_SPACE}→{_SPACE}{edit.after:,}"
        modules.setdefault(edit.module or "the model itself", []).append(step)
    rows = [(_clip(module, _NAME), _some(steps, 6)) for module, steps in modules.items()]
    return {
        "compensation": _clip(receipt.compensation),
        "error": None if receipt.error is None else scientific(receipt.error),
        "biases": _some([f"{name} ({length:,})" for name, length in receipt.biases], _PLACES),
        "edits": rows[:_LINES],
        "more": max(0, len(rows) - _LINES),
        "count": len(receipt.edits),
    }


def _origins(report: Report, plan: Plan | None, graph: Graph | None) -> dict[str, Any] | None:
    """Where everything came from, stage by stage."""
    scores = report.scores
    stages: list[tuple[str, dict[str, str]]] = []
    if graph is not None:
        stages.append(("Model", {"fingerprint": graph.fingerprint, "groups": f"{len(graph):,}"}))
    if scores is not None:
        made = {"criterion": scores.criterion, "examples": f"{scores.samples:,}"}
        if scores.evaluations:
            made["evaluations per batch"] = f"{sum(scores.evaluations.values()):,}"
        stages.append(("Attribution", {**made, **scores.settings}))
    if plan is not None:
        stages.append(("Allocation", plan.made_by))
    measured = {name: value for name, value in report.settings.items() if name != "command"}
    stages.append(("Evaluation", measured))
    command = _clip(report.settings.get("command", ""), 8 * _TEXT)
    named = [
        (stage, [(_clip(name, _NAME), _clip(value)) for name, value in list(items.items())[:_REASONS]])
        for stage, items in stages
        if items
    ]
    return {"stages": named, "command": command} if named or command else None

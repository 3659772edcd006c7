"""The page of a study: what was measured, beside the numbers of the paper."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import shapleaf as sl
from shapleaf._store import atomic
from shapleaf.records import Report
from shapleaf.reporting import plots
from shapleaf.reporting import write as write_html

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shapley-pruning"))
from results import table, versions

PAPER = {
    "resnet20": {"WT": 84.9, "SiPP": 84.9, "FT": 52.1, "PFP": 44.9},
    "voc": {"WT": 58.9, "SiPP": 42.3, "FT": 0.0, "PFP": 20.2},
}
"""The talk's prune potential on nominal data, in % of the parameters, for half a point of error."""


def write(measured: sl.Robustness, title: str, command: str, out: Path, kept: Path) -> None:
    """``RESULTS-TITLE.md`` with its figures; and what is too large to stay beside them, in another folder.

    These are the record of all measures and the page ``report-TITLE.html`` for a browser.
    """
    for folder in (out, kept):
        folder.mkdir(parents=True, exist_ok=True)
    measured.save(kept / f"robustness-{title}.safetensors")
    report = Report(title=f"Lost in pruning: {title}", rows=(), robustness=measured)
    write_html(report, kept / f"report-{title}.html")
    print(f"{kept} has the record and the report of {title}.", flush=True)
    figures = plots.write(few(measured), out / f"figures-{title}")
    for old in {*(out / f"figures-{title}").glob("*.svg")} - {*figures}:
        old.unlink()
    parts = [f"# {title}", f"`{command}`", lead(measured), *sections(measured, title.partition("-")[0])]
    parts += [f"![{path.stem}]({path.relative_to(out)})" for path in figures]
    with atomic(out / f"RESULTS-{title}.md") as new:
        new.write_text("\n\n".join(parts) + "\n")


def few(measured: sl.Robustness) -> sl.Robustness:
    """With the curves of the nominal distributions, and of those that allow some method the least.

    There is a figure for each distribution; the report for a browser has them all.
    """
    methods = measured.potential.methods
    weakest = {measured.potential.over(method, "shifted").weakest for method in methods}
    shown = tuple(one for one in measured.curves if one.nominal or one.distribution in weakest)
    return replace(measured, curves=shown)


def lead(measured: sl.Robustness) -> str:
    """What the page is about."""
    nets = sum(one.role == "reference" for one in measured.subjects)
    pruned = sum(one.role == "pruned" for one in measured.subjects)
    names = {one.distribution for one in measured.curves}
    made = ", ".join(f"{name} {version}" for name, version in versions().items())
    return (
        f"{nets} network{'s' * (nets > 1)}, {pruned} pruned and retrained ones, {len(names)} test "
        f"distributions; {made}. Intervals are 95 % ones, as the test images vary."
    )


def sections(measured: sl.Robustness, network: str) -> Iterator[str]:
    """The tables with their headings."""
    yield "## Prune potential, in % of the parameters"
    yield potential(measured, network)
    yield "## Prune potential on each distribution, in %"
    if control(measured):
        yield (
            f"The last column is of the control, which is retrained as often and never pruned: by how many "
            f"points its last network has a higher {measured.curves[0].metric} than the one before. Where it "
            "is lower by about as much as delta, half a point, retraining alone takes the potential away."
        )
    yield by_distribution(measured)
    yield "## Nominal data"
    yield levels(measured, nominal=True)
    if not all(one.nominal for one in measured.curves):
        yield "## Shifted data, mean over the shifts"
        yield levels(measured, nominal=False)
    if measured.excess is not None:
        yield "## Excess error"
        yield (
            "Points of error that shifts add to a pruned network, more than to the one before pruning, if "
            "all of its parameters were removed and it grew in proportion. The paper's slopes for WT and "
            "SiPP are about 2 points."
        )
        yield table(
            ["method", "points", "95 %", "networks"],
            [
                [s.method, f"{100 * s.value:.2f}", f"{100 * s.low:.2f} to {100 * s.high:.2f}", str(s.points)]
                for s in measured.excess.slopes
            ],
        )
    if measured.similarity is not None:
        yield "## Under noise"
        yield from noise(measured.similarity)
    if measured.features is not None:
        yield "## Informative pixels"
        yield features(measured.features)
    yield "## Verdict"
    yield "\n".join(f"- {sentence}" for sentence in measured.verdict.sentences)


def potential(measured: sl.Robustness, network: str) -> str:
    """Nominal, mean and worst over shifts, beside the paper's."""
    paper = PAPER.get(network, {})
    rows = []
    for method in measured.potential.methods:
        row = [method]
        for scope in ("nominal", "shifted"):
            one = measured.potential.over(method, scope)
            row.append(f"{100 * one.mean:.1f} ({100 * one.mean_low:.1f} to {100 * one.mean_high:.1f})")
            if scope == "shifted":
                row.append(f"{100 * one.worst:.1f} ({one.weakest})")
        rows.append([*row, f"{paper[method]}" if method in paper else "-"])
    return table(["method", "nominal", "shifted, mean", "shifted, worst", "paper, nominal"], rows)


def by_distribution(measured: sl.Robustness) -> str:
    """A row for each distribution, a column for each method, and one for what retraining alone does."""
    methods, changes = measured.potential.methods, control(measured)
    found: dict[str, dict[str, list[float]]] = {}
    for one in measured.potential.limits:
        if one.delta == measured.potential.deltas[0]:
            found.setdefault(one.distribution, {}).setdefault(one.method, []).append(100 * one.value)
    rows = [
        [name, *(f"{fmean(values[method]):.1f}" for method in methods)]
        + ([f"{changes[name]:+.1f}"] if changes else [])
        for name, values in found.items()
    ]
    return table(["distribution", *methods, *(["control, points"] if changes else [])], rows)


def control(measured: sl.Robustness) -> dict[str, float]:
    """On each distribution, how much better retraining alone made the networks: the control's last ones.

    In points, mean over nets; empty without a control.
    """
    pairs = []
    for net in dict.fromkeys(one.net for one in measured.subjects):
        mine = [one for one in measured.subjects if one.net == net]
        dense = [one.name for one in mine if one.role == "reference"]
        last = [one.name for one in mine if one.role == "control"][-1:]
        pairs += zip(last, dense, strict=False)
    changes = {}
    for name in dict.fromkeys(one.distribution for one in measured.curves):
        values = {one.subject: one.value for one in measured.curve(measured.curves[0].metric, name)}
        changes[name] = [values[last] - values[dense] for last, dense in pairs]
    return {name: fmean(change) for name, change in changes.items() if change}


def levels(measured: sl.Robustness, *, nominal: bool) -> str:
    """Share removed and accuracy, mean over the nominal or the shifted distributions, network by network."""
    subjects = {one.name: one for one in measured.subjects}
    metric = measured.curves[0].metric
    values: dict[str, list[float]] = {}
    for one in measured.curves:
        if (one.metric, one.nominal) == (metric, nominal):
            values.setdefault(one.subject, []).append(one.value)
    chains: dict[str, list[str]] = {}
    for name, found in values.items():
        subject = subjects[name]
        label = subject.method if subject.role in ("pruned", "control") else name
        chains.setdefault(label, []).append(f"{fmean(found):.1f} at {100 * subject.removed:.1f}")
    rows = [[label, ", ".join(points)] for label, points in chains.items()]
    return table(["network", f"{metric} in % at % of the parameters removed"], rows)


def noise(found: sl.NoiseSimilarity) -> Iterator[str]:
    """How alike the answers are, and what may be removed under noise."""
    places = [i for i, subject in enumerate(found.subjects) if subject.role != "reference"]
    shown = found.epsilons[:: max(1, len(found.epsilons) // 4)]
    rows = [
        [
            found.subjects[i].name,
            *(
                f"{100 * found.matching[i, found.epsilons.index(eps)].mean():.1f} | "
                f"{found.distance[i, found.epsilons.index(eps)].mean():.3f}".replace(" | ", ", ")
                for eps in shown
            ),
        ]
        for i in places
    ]
    yield (
        "Labels that match the reference's, in %, and the distance of the class probabilities, under noise "
        f"of at most epsilon standard deviations; {found.examples} images."
    )
    yield table(["network", *(f"epsilon {eps:g}" for eps in shown)], rows)
    limits = found.potential()
    yield "Prune potential under noise, in %, mean over draws:"
    yield table(
        ["method", *(f"{eps:g}" for eps in limits.epsilons)],
        [
            [method, *(f"{100 * value:.1f}" for value in limits.removed[i].mean(-1).tolist())]
            for i, method in enumerate(limits.methods)
        ],
    )


def features(found: sl.HeatMap) -> str:
    """Rows: whose pixels; columns: who looks at them."""
    names = [one.name for one in found.subjects]
    rows = [
        [name, *(f"{value:.2f}" for value in row)]
        for name, row in zip(names, found.confidence.tolist(), strict=True)
    ]
    rows.append(["(all pixels)", *(f"{value:.2f}" for value in found.whole.tolist())])
    text = (
        f"Confidence in the true class where {found.kept} of {found.features} pixels are left, mean of "
        f"{found.examples} images: rows, whose informative pixels; columns, who sees them."
    )
    return text + "\n\n" + table(["pixels of", *names], rows)

"""The page on what is covered: a table of examined architectures, and every failure with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

_HEAD = """# Architectures, told nothing

Each model is built from its configuration with random weights, in double precision, and examined in a
process of its own: traced, pruned by half of every group and by a random share of each, and run. Then it is
proven right by means that do not rely on each other: the masked and the pruned model agree for all groups
that are exact; a NaN in all that produces a unit goes nowhere but where the graph says that the unit is
read; and laying the units of every group in another order leaves the function as it is. Where masked and
pruned differ, `prune` must have *refused*; if it has not, the model is called *wrong*.

The same for a model of yours, as a test and as a table:

```python
import torch
from shapleaf.testing import assert_prunable, examine

model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).double()
inputs = torch.randn(2, 8, dtype=torch.float64)
assert_prunable(model, inputs)
print(examine(model, inputs))
```

The page itself, resumed where it stopped; a spec of yours names a function that returns a model and its
inputs:

```console
python -m shapleaf.testing.architectures
python -m shapleaf.testing.architectures 'timm:vit*' mypackage.models:build --results mine --jobs 2
```
"""

_LEGEND = """\
Params: the share of them that is left. Error: masked against pruned for the exact groups, relative to the
largest output. Order: by how much outputs move when units are reordered. NaN: groups with a poisoned unit.
Not exact: groups whose units meet in a statistic, so that masking and slicing differ by design. Held back:
groups that the model's own code cannot do without. Attention: modules in which activations are multiplied
with activations, and how many of them became narrower. Code that computes in single precision shows as
errors of 1e-7."""

_COLUMNS = (
    "model", "", "groups", "units", "not exact", "held back", "attention, narrower", "half: params, error",
    "random: params, error", "order", "NaN", "trace s",
)  # fmt: skip


def verdict(row: Row) -> str:
    """One word for a row: proven, wrong, refused or failed.

    >>> verdict({"failure": "more than 240 s"})
    'failed'
    """
    if "failure" in row:
        return "failed"
    return "wrong" if row["wrong"] else "refused" if row["refused"] else "proven"


def page(found: Mapping[str, Any], listed: Iterable[str]) -> str:
    """The page as Markdown.

    Args:
        found: ``environment``, versions by name, and ``models``, rows by spec: an
            :class:`~shapleaf.testing.Examination` as JSON values, or ``{"failure": why}``.
        listed: the specs that should be there.

    >>> print(page({"environment": {"torch": "2.6"}, "models": {}}, ["timm:a"]))
    # Architectures, told nothing
    ...
    Not examined: `timm:a`.
    """
    rows: Mapping[str, Row] = found["models"]
    absent = [f"`{spec}`" for spec in listed if spec not in rows]
    versions = ", ".join(f"{name} {version}" for name, version in found["environment"].items())
    parts = [
        _HEAD,
        "## What was found\n",
        _summary(rows),
        f"\nMade with {versions}.\n",
        *_section("What failed, and why", _faults(rows)),
        *_section("Attention modules that keep their full width", _some(rows, "given_up", "attention")),
        *_section("Groups that the model's own code holds back", _some(rows, "blocked", "groups")),
        "## The table\n",
        f"{_LEGEND}\n",
        f"| {' | '.join(_COLUMNS)} |",
        f"| --- | --- |{' ---: |' * (len(_COLUMNS) - 2)}",
        *(f"| {' | '.join(_cells(spec, row))} |" for spec, row in rows.items()),
    ]
    if absent:
        parts.append(f"\nNot examined: {', '.join(absent)}.")
    return "\n".join(parts) + "\n"


def _summary(rows: Mapping[str, Row]) -> str:
    words = [verdict(row) for row in rows.values()]
    ran = [row for row in rows.values() if "failure" not in row]
    free = [row for row in ran if verdict(row) == "proven" and not row["blocked"]]
    attentive = [row for row in ran if row["attention"]]
    partly = [row for row in attentive if row["given_up"]]
    wholly = [row for row in partly if len(row["given_up"]) == row["attention"]]
    lines = [
        (
            f"{len(rows)} models: {_share(words.count('proven'), len(rows))} are proven, "
            f"{words.count('wrong')} wrong, {words.count('refused')} refused, {words.count('failed')} failed."
        ),
        (
            "What is left is always the user's own module, and no exported program. In "
            f"{_share(len(free), len(rows))} every group can lose units; in the others the model's code "
            "holds some back, as listed."
        ),
        (
            f"{len(attentive)} models have attention; {len(partly)} of them keep its full width somewhere, "
            f"{len(wholly)} everywhere."
        ),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / max(whole, 1):.1%})"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}\n", *(f"- {line}" for line in lines), ""] if lines else []


def _faults(rows: Mapping[str, Row]) -> list[str]:
    lines = []
    for spec, row in rows.items():
        reasons = [row["failure"]] if "failure" in row else [*row["wrong"], *row["refused"]]
        lines += [f"`{spec}` {verdict(row)}: {_plain(reason)}" for reason in reasons]
    return lines


def _some(rows: Mapping[str, Row], what: str, among: str) -> list[str]:
    """How many parts of each model the field ``what`` names, and the first with its reason."""
    lines = []
    for spec, row in rows.items():
        for name, reason in [*row.get(what, {}).items()][:1]:
            lines.append(f"`{spec}`: {len(row[what])} of {row[among]}, `{name}`: {_plain(reason)}")
    return lines


def _plain(text: str) -> str:
    """One line that Markdown leaves alone."""
    line = " ".join(text.split())
    return (
        (line if len(line) <= 300 else f"{line[:300]} …")
        .replace("|", "/")
        .replace("*", "\\*")
        .replace("<", "&lt;")
    )


def _cells(spec: str, row: Row) -> list[str]:
    if "failure" in row:
        return [spec, verdict(row), *[""] * (len(_COLUMNS) - 2)]
    attention = (
        f"{row['attention']}, {row['attention'] - len(row['given_up'])}" if row["attention"] else "none"
    )
    return [
        spec,
        verdict(row),
        *(f"{row[name]:,}" for name in ("groups", "units", "inexact")),
        str(len(row["blocked"])),
        attention,
        *(_trial(trial) for trial in row["trials"]),
        f"{row['order']:.0e}",
        str(len(row["poisoned"])),
        f"{row['seconds']:.2f}",
    ]


def _trial(trial: Row) -> str:
    if trial["params"] is None:
        return "refused"
    return f"{trial['params']:.3f}, {'none' if trial['error'] is None else format(trial['error'], '.0e')}"

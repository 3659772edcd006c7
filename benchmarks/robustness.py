"""What the whole robustness suite costs: making the data, running the models, working out the measures.

    python benchmarks/robustness.py
    python benchmarks/robustness.py --threads 2

ResNet-20 and what is left of it without half of its weights are tested on CIFAR-10: clean, and under 19
corruptions at five severities. Times are of the whole process: of all its threads, and by the clock. What the
machine did besides is told by its load. Every distribution is kept at once; a re-run does what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, ROOT, environment, save, table

import shapleaf as sl
from shapleaf.data import Batch
from shapleaf.integrations.datasets import load_data
from shapleaf.shifts import CORRUPTIONS

sys.path.insert(0, str(ROOT / "papers" / "shapley-pruning"))
from models import load

SEVERITIES = (1, 2, 3, 4, 5)
TARGET = 600.0
"""Seconds that the suite may take on two cores."""


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    record = options.cache / "robustness-outcomes.safetensors"
    found = resumed(options, record)

    def kept() -> None:
        found["load"].append(round(os.getloadavg()[0], 2))
        save(options.out, "robustness", found, markdown(found))

    watch = Watch(found["distributions"], kept)
    suite = [
        replace(one, data=Timed(one.name, one.data, watch))
        for one in sl.distributions(images(options), names=options.corruptions, severities=SEVERITIES)
    ]
    outcomes = sl.assess(subjects(options), suite, path=record)
    watch.assessed()
    start = spent()
    measured = sl.robustness(outcomes)
    found["measures"] = since(start)
    found["accuracy"] = accuracy(measured)
    kept()
    print(markdown(found).partition("\n\n## Milliseconds")[0])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of robustness.json and .md")
    parser.add_argument("--cache", type=Path, default=ROOT / "build", help="of what the models predicted")
    parser.add_argument("--images", type=int, default=2_000, help="of the test set")
    parser.add_argument("--corruptions", nargs="+", default=CORRUPTIONS, choices=CORRUPTIONS)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def resumed(options: argparse.Namespace, record: Path) -> dict[str, Any]:
    """What an earlier run with the same settings found; what it predicted counts only with its times."""
    settings = {
        "images": options.images,
        "threads": options.threads,
        "corruptions": list(options.corruptions),
    }
    found: dict[str, Any] = {"command": f"python benchmarks/robustness.py --threads {options.threads}"}
    found |= {"settings": settings, "environment": environment(), "load": [], "distributions": {}}
    path = options.out / "robustness.json"
    if path.exists():
        earlier = json.loads(path.read_text())
        if earlier["settings"] != settings:
            raise SystemExit(f"{path} was made with {earlier['settings']}, not {settings}; remove it.")
        found |= {key: earlier[key] for key in ("load", "distributions")}
    predicted = {one.distribution for one in sl.Outcomes.load(record).observed} if record.exists() else set()
    if predicted != set(found["distributions"]):
        record.unlink(missing_ok=True)
        found |= {"load": [], "distributions": {}}
    record.parent.mkdir(parents=True, exist_ok=True)
    return found


def images(options: argparse.Namespace) -> Any:
    network = load("resnet20", options.data)
    every = load_data(f"{network.source}:{options.data}", split="test", mean=network.mean, std=network.std)
    return every.sample(options.images, seed=0)


def subjects(options: argparse.Namespace) -> list[sl.Candidate]:
    """Dense, and with half of the parameters zero: such a network takes as long as the dense one."""
    dense = load("resnet20", options.data).model
    half = sl.sparsified(dense, sl.sparsify(dense, sl.Nonzeros(remove=0.5)))
    return [
        sl.Candidate(name="dense", model=dense, role="reference"),
        sl.Candidate(name="WT 0.5", model=half, method="WT", removed=0.5),
    ]


Times = tuple[float, float]


def spent() -> Times:
    """CPU seconds of the process so far, and the clock."""
    return time.process_time(), time.perf_counter()


def since(start: Times) -> dict[str, float]:
    return {name: round(b - a, 4) for name, a, b in zip(("cpu", "wall"), start, spent(), strict=True)}


class Watch:
    """Notes what each distribution takes: until its data are there, and from then to the next one's start.

    Data are made as a whole before the models see them, as they take less memory than one block.
    """

    def __init__(self, found: dict[str, Any], kept: Callable[[], None]) -> None:
        self.found, self.kept = found, kept
        self.name, self.start, self.making = "", spent(), dict[str, float]()

    def begins(self, name: str) -> None:
        """Data of that name are asked for, so that those before are done with."""
        self.assessed()
        self.name, self.start = name, spent()

    def made(self) -> None:
        """All of them are there."""
        self.making, self.start = since(self.start), spent()

    def assessed(self) -> None:
        """The models have seen them, and what they predict is on disk."""
        if self.name:
            self.found[self.name] = {"making": self.making, "running": since(self.start)}
            self.kept()
            self.name = ""


class Timed:
    """Batches whose making is watched."""

    def __init__(self, name: str, data: Any, watch: Watch) -> None:
        self.name, self.data, self.watch = name, data, watch

    def __iter__(self) -> Iterator[Batch]:
        self.watch.begins(self.name)
        yield from self.data
        self.watch.made()


def accuracy(measured: sl.Robustness) -> dict[str, dict[str, float]]:
    """Of each model: clean, and the mean over the corruptions."""
    rows: dict[str, dict[str, list[float]]] = {}
    for one in measured.curves:
        if one.metric == "accuracy":
            where = "clean" if one.nominal else "corrupted"
            rows.setdefault(one.subject, {}).setdefault(where, []).append(one.value)
    return {
        name: {where: round(sum(values) / len(values), 2) for where, values in row.items()}
        for name, row in rows.items()
    }


def markdown(found: dict[str, Any]) -> str:
    """The results as a page."""
    distributions, count = found["distributions"], found["settings"]["images"]
    parts = {
        part: [sum(one[part][clock] for one in distributions.values()) for clock in ("cpu", "wall")]
        for part in ("making", "running")
    }
    names = {"making": "making the data", "running": "running the two models"}
    rows = [(names[part], *seconds) for part, seconds in parts.items()]
    if "measures" in found:
        rows.append(("working out the measures", *found["measures"].values()))
    total = [sum(row[k] for row in rows) for k in (1, 2)]
    where = ", ".join(f"{name} {value}" for name, value in found["environment"].items())
    load, threads = found["load"] or [0.0], found["settings"]["threads"]
    lead = (
        f"`{found['command']}`; {where}. {len(distributions)} distributions of {count:,} CIFAR-10 images, "
        f"ResNet-20 and the same without half of its weights. While it ran on {threads} thread"
        f"{'s' * (threads > 1)}, the machine's load was {min(load):.1f} to {max(load):.1f}, and it had "
        f"{total[0] / max(total[1], 1e-9):.0%} of a core: what the clock would say on an idle one was not "
        f"measured, CPU seconds were. The target is {TARGET:.0f} s on two cores."
    )
    told = (
        "CPU time of making one image, by severity; the last column is of running both models, mean over "
        "severities."
    )
    return "\n\n".join(
        [
            "# The whole robustness suite",
            lead,
            table(
                ["part", "CPU, s", "clock, s"],
                [[name, f"{cpu:.1f}", f"{wall:.1f}"] for name, cpu, wall in (*rows, ("all", *total))],
            ),
            *accuracies(found.get("accuracy", {})),
            "## Milliseconds per image",
            told,
            table(["corruption", *map(str, SEVERITIES), "both models"], by_corruption(found, count)),
        ]
    )


def accuracies(found: dict[str, dict[str, float]]) -> Iterator[str]:
    if found:
        told = (f"{name} {row['clean']:.1f} and {row['corrupted']:.1f}" for name, row in found.items())
        yield f"Accuracy in %, clean and mean over the corruptions: {', '.join(told)}."


def by_corruption(found: dict[str, Any], count: int) -> list[Sequence[str]]:
    rows: dict[str, dict[str, tuple[float, float]]] = {}
    for name, one in found["distributions"].items():
        kind, _, severity = name.rpartition(" ")
        times = [1000 * one[part]["cpu"] / count for part in ("making", "running")]
        rows.setdefault(kind or name, {})[severity if kind else "1"] = (times[0], times[1])
    return [
        [
            kind,
            *(f"{row[str(s)][0]:.3f}" if str(s) in row else "-" for s in SEVERITIES),
            f"{sum(running for _, running in row.values()) / len(row):.3f}",
        ]
        for kind, row in rows.items()
    ]


if __name__ == "__main__":
    main()

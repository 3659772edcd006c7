"""What the poster claims, as questions to the networks at hand.

    python papers/pruning-by-explaining/questions.py

Measures how many reference images are enough, in ``questions.json``, every finished cell at once; a re-run
does what is missing. All else is read off what ``areas.py`` has measured. Writes ``QUESTIONS.md``; what has
not been run is said to be so.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from areas import HERE
from attributions import EPSILON, FAITHFUL, PXP, SHAPLEY, SIGNED_EPSILON, Attribution, attributions
from measuring import FOLDED, PLAIN, Study, curves, measured, unpacked, with_error
from subjects import CACHE, CIFAR10, TRAINED, kind, load

import shapleaf as sl
from shapleaf.records import PruningCurve, PruningCurves

from common import spearman  # isort: skip - of benchmarks, which transformer puts on the path
from results import Results, made_by, table  # isort: skip

FEW = (1, 2, 5, 10, 30, 100)
OTHER = 1000
"""The seed of the images that rankings are compared with."""
NOT_RUN = "Not run."

Records = dict[str, PruningCurves]


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(1)
    results = resumed(options)
    for row, name in itertools.product(options.criteria, options.networks):
        every = {one.name: one for one in attributions(kind(name, CIFAR10))}
        if row not in every:
            raise SystemExit(f"{row!r} is no row of {name}; expected one of {', '.join(every)}.")
        fill(results, every[row], name, options)
    results.write()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=TRAINED, help="folder of CIFAR-10 and of weights")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the transformer's weights")
    parser.add_argument(
        "--out", type=Path, default=HERE, help="folder of the results, with those of areas.py"
    )
    parser.add_argument("--networks", nargs="*", default=list(CIFAR10), metavar="NAME")
    parser.add_argument(
        "--criteria", nargs="+", default=[PXP, SHAPLEY], metavar="ROW", help="rows of areas.py"
    )
    parser.add_argument(
        "--references", nargs="+", type=int, default=FEW, help="training images of each class"
    )
    parser.add_argument("--most", type=int, default=100, help="so many of each class rank as it should be")
    parser.add_argument("--most-slow", type=int, default=30, help="the same for criteria that take a minute")
    parser.add_argument("--test-images", type=int, default=200)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the references")
    return parser.parse_args(arguments)


def resumed(options: argparse.Namespace) -> Results:
    """What earlier runs with the same settings found."""
    settings = {name: getattr(options, name) for name in ("test_images", "most", "most_slow")}
    command = f"python papers/pruning-by-explaining/questions.py --test-images {options.test_images}"
    files = options.out / "questions.json", options.out / "QUESTIONS.md"
    return Results(*files, command, settings, lambda found: markdown(found, options.out))


def fill(results: Results, row: Attribution, name: str, options: argparse.Namespace) -> None:
    """Score on so many images of each class, compare the ranking with that by many others, and prune."""
    most = options.most_slow if row.slow else options.most
    todo = [
        (key, n, seed)
        for n, seed in itertools.product(options.references, options.seeds)
        if n <= most and (key := f"{name} | {row.name} | {n} | {seed}") not in results.cells
    ]
    if not todo:
        return
    one = load(name, options.data, cache=options.cache)
    study = Study(one, classes=None, test_images=options.test_images)
    ideal = flat(study.scores(row, most, OTHER)[0])
    for key, n, seed in todo:
        cell = study.curve(row, n, seed) | {"network": name, "references": n, "most": most}
        cell["correlation"] = round(spearman(flat(study.scores(row, n, seed)[0]), ideal), 4)
        results.add(key, cell, f"{unpacked(cell).area:.4f}, correlation {cell['correlation']}")


def flat(scores: sl.Scores) -> torch.Tensor:
    """The scores of all groups, one after the other: pruning ranks them together."""
    return torch.cat(list(scores.values.values()))


def markdown(found: dict[str, Any], folder: Path) -> str:
    """All questions with their answers."""
    known = {name: json.loads(path.read_text()) for name in CIFAR10
             if (path := folder / f"areas-{name}.json").exists()}  # fmt: skip
    records = {name: curves(one["cells"].values()) for name, one in known.items()}
    lead = (
        "A_PR, Top-PR, networks and criteria are those of the tables AREAS-*.md. Differences are those of "
        "A_PR, with 95 % intervals by a bootstrap over test images and seeds, the same for both sides; an "
        f"interval without zero tells a difference. {made_by(found)}."
    )
    parts = ["# What the poster claims, and what came out here", f"`{found['command']}`", lead]
    for title, section in (
        ("Are 10 images of each class enough for CNNs, and is 1 for transformers?", enough(found)),
        ("Are transformers more overparametrised?", spare(records)),
        ("Is epsilon everywhere a strong default?", default(records)),
        ("Do composites that explain inputs faithfully prune well?", faithful(records)),
        ("Least relevant first: near zero, or most negative?", signs(records)),
    ):
        parts += [f"## {title}", *(section or [NOT_RUN])]
    return "\n\n".join(parts)


def enough(found: dict[str, Any]) -> list[str]:
    """How areas and rankings depend on the number of reference images."""
    cells, settings = list(found["cells"].values()), found["settings"]
    lines, answers = [], []
    for name, row in dict.fromkeys((cell["network"], cell["criterion"]) for cell in cells):
        mine = [cell for cell in cells if (cell["network"], cell["criterion"]) == (name, row)]
        numbers = sorted({cell["references"] for cell in mine})
        sides = {n: [unpacked(cell) for cell in mine if cell["references"] == n] for n in numbers}
        fewest = None
        for n, side in sides.items():
            correlation = with_error([c["correlation"] for c in mine if c["references"] == n], 3)
            change = difference(side, sides[numbers[-1]])
            if fewest is None and (n == numbers[-1] or (change is not None and change[2] >= 0)):
                fewest = n
            area = with_error([one.area for one in side], 3)
            lines.append(
                [f"{name}, {row}", str(n), area, shown(change) if n < numbers[-1] else "", correlation]
            )
        answers.append(f"- {name}, {row}: {fewest} of each class cannot be told from {numbers[-1]}.")
    if not lines:
        return []
    text = (
        f"A_PR on {settings['test_images']} test images, its difference from that with most images, and the "
        f"rank correlation (Spearman, all candidates) with the scores on {settings['most']} other images of "
        f"each class, {settings['most_slow']} for Shapley values. Mean ± standard error over seeds."
    )
    header = [
        "network, criterion",
        "images of each class",
        "A_PR",
        "difference from most",
        "rank correlation",
    ]
    return [text, table(header, lines), "\n".join(answers)]


def spare(records: Records) -> list[str]:
    """How much goes before accuracy does, by network."""
    lines = []
    for name, record in records.items():
        if tops := {row: mean([one.top() for one in some]) for row, some in rows(record)}:
            best = max(tops, key=lambda row: tops[row])
            texts = [f"{100 * tops[row]:.0f}" if row in tops else "-" for row in (PXP, "random")]
            lines.append([name, *texts, f"{100 * tops[best]:.0f}", best])
    header = ["network", "Top-PR in %, PXP", "random", "best", "by"]
    return [table(header, lines)] if lines else []


def default(records: Records) -> list[str]:
    """Epsilon against the best row of each network."""
    lines = []
    for name, record in records.items():
        for how, word in ((PLAIN, "no"), (FOLDED, "yes")):
            areas = {row: mean([one.area for one in some]) for row, some in rows(record, how)}
            if EPSILON in areas:
                order = sorted(areas, key=lambda row: -areas[row])
                other = next((row for row in order if row != EPSILON), EPSILON)
                sides = [measured(record, row, "least", how) for row in (EPSILON, other)]
                rank = f"{order.index(EPSILON) + 1} of {len(order)}"
                pair = f"{areas[EPSILON]:.3f}", f"{areas[other]:.3f}"
                lines.append([name, word, pair[0], rank, f"{other}, {pair[1]}", shown(difference(*sides))])
    header = ["network", "compensated", EPSILON, "rank", "best of the others", "difference"]
    return [table(header, lines)] if lines else []


def faithful(records: Records) -> list[str]:
    """The composites made for explaining inputs, against epsilon."""
    return against(
        records, lambda name: [row for row in FAITHFUL[kind(name, CIFAR10).transformer] if row != EPSILON]
    )


def signs(records: Records) -> list[str]:
    """Relevance with its sign, so that the most negative goes first, against its absolute value."""
    return against(records, lambda name: [SIGNED_EPSILON])


def against(records: Records, chosen: Callable[[str], Sequence[str]]) -> list[str]:
    """Rows of each network against epsilon, without and with compensation."""
    lines = []
    for name, record in records.items():
        for row, how in itertools.product(chosen(name), (PLAIN, FOLDED)):
            one, other = (measured(record, each, "least", how) for each in (row, EPSILON))
            if change := difference(one, other):
                pair = (f"{mean([curve.area for curve in some]):.3f}" for some in (one, other))
                lines.append([name, row, "no" if how == PLAIN else "yes", *pair, shown(change)])
    header = ["network", "row", "compensated", "A_PR", EPSILON, "difference"]
    return [table(header, lines)] if lines else []


def rows(record: PruningCurves, how: str = PLAIN) -> Iterator[tuple[str, Sequence[PruningCurve]]]:
    """Every row that was run, with its curves."""
    for row in record.criteria:
        if some := measured(record, row, "least", how):
            yield row, some


def difference(a: Sequence[PruningCurve], b: Sequence[PruningCurve]) -> tuple[float, float, float] | None:
    """By how much the A_PR of a exceeds that of b, and its interval, over the seeds that both have."""
    shared = sorted({one.seed for one in a} & {one.seed for one in b})
    if not shared:
        return None
    sides = [[replace(next(c for c in side if c.seed == s), criterion=name) for s in shared]
             for name, side in (("a", a), ("b", b))]  # fmt: skip
    return PruningCurves(curves=(*sides[0], *sides[1])).difference("a", "b", compensation=None)


def shown(change: tuple[float, float, float] | None) -> str:
    """A difference with its interval, and whether it tells anything.

    >>> shown((0.021, 0.01, 0.03)), shown((0.001, -0.01, 0.012))
    ('**+0.021** (+0.010 to +0.030)', '+0.001 (-0.010 to +0.012)')
    """
    if change is None:
        return "-"
    value, low, high = change
    text = f"{value:+.3f}"
    return f"{f'**{text}**' if low > 0 or high < 0 else text} ({low:+.3f} to {high:+.3f})"


if __name__ == "__main__":
    main()

"""The area under the accuracy curve as units go, by every criterion: Pruning by eXplaining's A_PR.

    python papers/pruning-by-explaining/areas.py --compensate
    python papers/pruning-by-explaining/areas.py --imagenet DIR --weights DIR --networks resnet18 --classes 3

Ten training images of each class are what a criterion sees; then the units with the lowest scores go, 5 %
of them after the other, and nothing is trained. Every finished curve is written to ``areas-NETWORK.json``
and ``AREAS-NETWORK.md`` at once; a re-run does what is missing. Criteria that take minutes come last. At
the end the curves are drawn in ``areas-NETWORK.svg``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from attributions import EPSILON, LINE, PXP, SHAPLEY, ZPLUS, Attribution, attributions
from measuring import FOLDED, PLAIN, Study, curves, measured, unpacked, with_error
from subjects import CACHE, CIFAR10, IMAGENET, TRAINED, Subject, kind, load, load_imagenet

from shapleaf.evaluation import RATES
from shapleaf.integrations import require
from shapleaf.records import PruningCurve, PruningCurves
from shapleaf.records.pruning_curves import Order

from panels import draw  # isort: skip - of papers/shapley-pruning, which subjects puts on the path
from results import Cell, Results, made_by, table  # isort: skip

HERE = Path(__file__).resolve().parent
DRAWN = (
    PXP,
    EPSILON,
    ZPLUS,
    SHAPLEY,
    LINE,
    "Taylor",
    "Taylor, signed",
    "conductance",
    "weight norm",
    "random",
)
"""The rows whose curves are drawn."""
KINDS: tuple[tuple[Order, str], ...] = (("least", PLAIN), ("least", FOLDED))
"""The columns that rank the rows."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A curve to be measured."""

    row: Attribution
    seed: int
    order: Order = "least"
    compensation: str = PLAIN

    @property
    def key(self) -> str:
        return f"{self.row.name} | {self.compensation} | {self.order} | {self.seed}"


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    require("matplotlib.pyplot", "plots")
    for name in options.networks:
        every = attributions(kind(name, IMAGENET if options.imagenet else CIFAR10))
        rows = [row for row in every if any(part in row.name for part in options.criteria)]
        results = resumed(name, every, options)
        work = wanted(rows, options.seeds, compensate=options.compensate)
        todo = [one for one in work if one.key not in results.cells]
        if todo:
            fill(results, todo, subject(name, options), options)
        if results.cells:
            results.write()
            picture(results)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=TRAINED, help="folder of CIFAR-10 and of weights")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the transformer's weights")
    parser.add_argument("--imagenet", type=Path, metavar="DIR", help="take networks and images of ImageNet")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="folder of the weights for ImageNet")
    parser.add_argument("--library", choices=["torchvision", "timm"], default="torchvision")
    parser.add_argument("--image-size", type=int, default=224, help="of ImageNet")
    parser.add_argument("--classes", type=int, help="restrict the network to so many, drawn by the seed")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    parser.add_argument("--networks", nargs="+", metavar="NAME")
    parser.add_argument("--criteria", nargs="+", default=[""], metavar="PART", help="of the rows' names")
    parser.add_argument("--references", type=int, default=10, help="training images of each class")
    parser.add_argument("--test-images", type=int, default=200)
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="of the references and every draw"
    )
    parser.add_argument("--compensate", action="store_true", help="with compensation, too")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.imagenet and not options.weights:
        parser.error("--imagenet needs --weights, the folder of the networks' weights")
    options.networks = options.networks or list(IMAGENET if options.imagenet else CIFAR10)
    return options


def subject(name: str, options: argparse.Namespace) -> Subject:
    """The network of that name."""
    if not options.imagenet:
        return load(name, options.data, cache=options.cache)
    return load_imagenet(
        name, options.imagenet, options.weights, library=options.library, size=options.image_size
    )


def wanted(rows: Sequence[Attribution], seeds: Sequence[int], *, compensate: bool) -> list[Wanted]:
    """What is to be measured, in order: the first seed of all rows, then others; what takes long last.

    >>> import shapleaf as sl
    >>> fast, slow = Attribution("a", sl.Taylor()), Attribution("b", sl.LeaveOneOut(), slow=2)
    >>> found = wanted([slow, fast], [0, 1], compensate=False)
    >>> [f"{one.row.name} {one.order} {one.seed}" for one in found]
    ['a least 0', 'a most 0', 'a least 1', 'b least 0', 'b most 0', 'b least 1']
    """
    kinds = KINDS if compensate else KINDS[:1]
    first, found = (kinds[0], ("most", PLAIN), *kinds[1:]), list[Wanted]()
    for some in ([row for row in rows if row.slow < 2], [row for row in rows if row.slow == 2]):
        others = [(row, seed) for seed in seeds[1:] for row in some]
        found.extend(Wanted(row, seeds[0], *one) for row in some for one in first)
        # What compensates is drawn for every row.
        found.extend(
            Wanted(row, seed, *one) for one in kinds for row, seed in others if row.drawn or one != KINDS[0]
        )
    return found


def fill(results: Results, todo: Sequence[Wanted], one: Subject, options: argparse.Namespace) -> None:
    """Measure what is missing, each curve written at once."""
    study = Study(one, classes=options.classes, test_images=options.test_images)
    results.intact.setdefault(one.name, study.intact())
    for want in todo:
        cell = study.curve(want.row, options.references, want.seed, want.order, want.compensation)
        spent = f"{cell['attribution_cpu_seconds']} + {cell['curve_cpu_seconds']} s"
        results.add(want.key, cell, f"{unpacked(cell).area:.4f} ({spent})")


def resumed(name: str, rows: Sequence[Attribution], options: argparse.Namespace) -> Results:
    """What earlier runs with the same settings found."""
    # Which cells one run was asked for makes no difference to them, so it is not part of the command.
    settings = {
        "references": options.references,
        "test_images": options.test_images,
        "classes": options.classes or "all",
        "images": f"ImageNet, {options.library}" if options.imagenet else "CIFAR-10",
    }
    words = ["python papers/pruning-by-explaining/areas.py --compensate --networks", name]
    words += ["--imagenet DIR --weights DIR"] if options.imagenet else []
    words += [f"--classes {options.classes}"] if options.classes else []
    words += [f"--references {options.references} --test-images {options.test_images}"]
    stem = f"{name}-{options.classes}-classes" if options.classes else name
    json, tables = options.out / f"areas-{stem}.json", options.out / f"AREAS-{stem}.md"
    return Results(json, tables, " ".join(words), settings, lambda found: markdown(stem, rows, found))


def markdown(name: str, rows: Sequence[Attribution], found: dict[str, Any]) -> str:
    """The table, with a dash for what has not been run."""
    cells = list(found["cells"].values())
    record = curves(cells)
    best = [
        max(
            (mean([c.area for c in some]) for row in rows if (some := measured(record, row.name, *one))),
            default=0,
        )
        for one in KINDS
    ]
    lines = []
    for row in rows:
        line = [row.name]
        for one, top in zip(KINDS, best, strict=True):
            line += _texts(measured(record, row.name, *one), top)
        most = measured(record, row.name, "most")
        spent = {c["seed"]: c["attribution_cpu_seconds"] for c in cells if c["criterion"] == row.name}
        line += [f"{most[0].area:.3f}" if most else "-", f"{mean(spent.values()):.1f}" if spent else "-"]
        lines.append(line)
    header = "criterion, A_PR, Top-PR in %, A_PR compensated, Top-PR in %, A_PR most first, seconds"
    parts = [f"# {name}: accuracy as units go", f"`{found['command']}`", _lead(found), *_sizes(record)]
    return "\n\n".join([*parts, table(header.split(", "), lines), f"![{name}](areas-{name}.svg)"])


def _lead(found: dict[str, Any]) -> str:
    settings, intact = found["settings"], next(iter(found["intact"].values()))
    cell: Cell = next(iter(found["cells"].values()))
    return (
        f"{intact['units']:,} candidates in {intact['groups']} groups of the library's graph: a unit goes "
        f"with all that is coupled to it. A criterion sees {settings['references']} training images of each "
        f"class ({settings['images']}, {settings['classes']} classes); accuracy is that on "
        f"{cell['examples']:,} test images, intact {cell['accuracy'][0]:.1f} %. A_PR is its mean, a share, "
        f"over {len(RATES)} rates from 0 to {RATES[-1]:.0%} of the candidates, those with the lowest scores "
        "wherever they are; Top-PR the highest rate that keeps 95 % of the accuracy. Nothing is trained. "
        "Compensated: the mean of the removed units is folded into what reads them, then BatchNorms are "
        "recalibrated, both on half of the reference images. Most first: A_PR when those with the highest "
        "scores go, a control, of one seed. Mean ± standard error over seeds, which draw reference images "
        "and random numbers; no ± where nothing is drawn or there is one. Seconds are CPU seconds of one "
        "seed's scores. "
        f"A dash: not run. {made_by(found)}."
    )


def _texts(some: Sequence[PruningCurve], best: float) -> list[str]:
    if not some:
        return ["-", "-"]
    areas, tops = [one.area for one in some], [100 * one.top() for one in some]
    text = with_error(areas, 3)
    return [f"**{text}**" if mean(areas) == best else text, with_error(tops, 0)]


def _sizes(record: PruningCurves) -> list[str]:
    """What is left of the network: units are not alike in size."""
    found = []
    for row in (EPSILON, "random"):
        if some := measured(record, row):
            half = len(RATES) // 2
            found.append(
                f"By {row}, half of the candidates gone leaves {some[0].params[half]:.0%} of the parameters "
                f"and {some[0].macs[half]:.0%} of the MACs."
            )
    return [" ".join(found)] if found else []


def picture(results: Results) -> None:
    """Accuracy against the share of candidates that is gone, without and with compensation."""
    record, panels = curves(results.cells.values()), {}
    for title, one in zip(("nothing compensated", "compensated"), KINDS, strict=True):
        lines = {row: [(c.accuracy / 100).tolist() for c in measured(record, row, *one)] for row in DRAWN}
        panels[title] = {row: runs for row, runs in lines.items() if runs}
    shown = {title: lines for title, lines in panels.items() if lines}
    if shown:
        ticks = [f"{100 * rate:.0f}" for rate in RATES]
        path = results.json.with_suffix(".svg")
        draw(path, shown, DRAWN, ticks, "share of the candidates removed in %, lowest scores first")


if __name__ == "__main__":
    main()

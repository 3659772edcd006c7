"""The area under the accuracy curve as units go, by every criterion: Pruning by eXplaining's A_PR.

    python papers/pruning-by-explaining/areas.py --compensate
    python papers/pruning-by-explaining/areas.py --imagenet DIR --weights DIR --networks resnet18 --classes 3

Ten training images of each class are what a criterion sees; then the units with the lowest scores go, 5 %
of them after the other, and nothing is trained. Every finished curve is written to ``areas-NETWORK.json``,
``AREAS-NETWORK.md`` and ``areas-NETWORK.svg`` at once; a re-run does what is missing. Criteria that take
minutes come last.
"""

from __future__ import annotations

import argparse
import base64
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import numpy as np
import torch
from attributions import EPSILON, LINE, PXP, SHAPLEY, ZPLUS, Attribution, attributions
from subjects import CACHE, CIFAR10, IMAGENET, TRAINED, kind, load, load_imagenet
from torch import Tensor

import shapleaf as sl
from shapleaf.data import Batches
from shapleaf.evaluation import RATES
from shapleaf.integrations import require
from shapleaf.records import PruningCurve, PruningCurves

from panels import draw  # isort: skip - of papers/shapley-pruning, which subjects puts on the path
from results import Cell, Results, made_by, table  # isort: skip

HERE = Path(__file__).resolve().parent
DRAWN = (PXP, EPSILON, ZPLUS, SHAPLEY, LINE, "Taylor", "Taylor, signed", "conductance", "weight norm", "random")
"""The rows whose curves are drawn."""
PLAIN, FOLDED = "none", "means and statistics"
"""Without compensation, and with both kinds of it."""

Order = Literal["least", "most"]


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
        results = resumed(name, every, options)
        rows = [row for row in every if any(part in row.name for part in options.criteria)]
        todo = [
            one
            for one in wanted(rows, options.seeds, compensate=options.compensate)
            if one.key not in results.cells
        ]
        study = Study(name, options) if todo else None
        for one in todo:
            results.intact.setdefault(name, study.intact())
            cell = study.run(one)
            seconds = f"{cell['attribution_cpu_seconds']} + {cell['curve_cpu_seconds']} s"
            results.add(one.key, cell, f"{unpacked(cell).area:.4f} ({seconds})")
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
    parser.add_argument("--test-images", type=int, default=500)
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


def rows(name: str, options: argparse.Namespace) -> list[Attribution]:
    """The rows of a network with one of the parts in their name."""
    every = attributions(kind(name, IMAGENET if options.imagenet else CIFAR10))
    return [row for row in every if any(part in row.name for part in options.criteria)]


def wanted(rows: Sequence[Attribution], seeds: Sequence[int], *, compensate: bool) -> list[Wanted]:
    """What is to be measured, in order: fast criteria first, and of each the first seed first.

    >>> fast, slow = Attribution("a", sl.Taylor()), Attribution("b", sl.Shapley(), slow=True)
    >>> [one.key for one in wanted([slow, fast], [0, 1], compensate=False)]
    ['a | none | least | 0', 'a | none | most | 0', 'a | none | least | 1', 'b | none | least | 0', \
'b | none | most | 0', 'b | none | least | 1']
    """
    folded = [FOLDED] if compensate else []
    found = []
    for slow in (False, True):
        some = [row for row in rows if row.slow == slow]
        found += [
            Wanted(row, seeds[0], order, how)
            for row in some
            for order, how in (("least", PLAIN), ("most", PLAIN), *(("least", how) for how in folded))
        ]
        found += [
            Wanted(row, seed, "least", how)
            for how in (PLAIN, *folded)
            for seed in seeds[1:]
            for row in some
            if row.drawn
        ]
    return found


class Study:
    """A network, the images that its units are scored on and those it is tested on."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.options = options
        if options.imagenet:
            self.subject = load_imagenet(
                name, options.imagenet, options.weights, library=options.library, size=options.image_size
            )
        else:
            self.subject = load(name, options.data, cache=options.cache)
        self.graph = self.subject.trace()
        self.train, self.test = (self.subject.images(split) for split in ("train", "test"))
        self.references: dict[int, Batches] = {}
        self.tests: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
        self.known: dict[tuple[str, int], tuple[sl.Scores, float]] = {}

    def reference(self, seed: int) -> Batches:
        """So many training images of each class."""
        if seed not in self.references:
            self.references[seed] = sl.per_class(
                self.train, self.options.references, classes=self.options.classes, seed=seed
            )
        return self.references[seed]

    def classes(self, seed: int) -> tuple[int, ...]:
        """Those that the network is restricted to; none if it is not."""
        if not self.options.classes:
            return ()
        return tuple(torch.cat([batch.target for batch in self.reference(seed)]).unique().tolist())

    def tested(self, classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The test images, of these classes if there are any."""
        if classes not in self.tests:
            other = ~torch.isin(self.test.labels, torch.tensor(classes or range(len(self.test.classes))))
            some = self.test.without(self.test.ids[other])
            self.tests[classes] = some.sample(min(self.options.test_images, len(some)), seed=0).tensors()
        return self.tests[classes]

    def scores(self, row: Attribution, seed: int) -> tuple[sl.Scores, float]:
        """Of all candidates, and the CPU seconds they took; computed once."""
        if (row.name, seed) not in self.known:
            reference, classes = self.reference(seed), self.classes(seed)
            start = time.process_time()
            scores = row.scores(self.subject, self.graph, reference, seed, classes)
            self.known[row.name, seed] = scores, time.process_time() - start
        return self.known[row.name, seed]

    def run(self, one: Wanted) -> Cell:
        """Score, prune and test."""
        scores, seconds = self.scores(one.row, one.seed)
        reference, classes = self.reference(one.seed), self.classes(one.seed)
        start = time.process_time()
        found = sl.pruning_curves(
            self.subject.model,
            {one.row.name: scores},
            self.tested(classes),
            orders=(one.order,),
            compensate=[sl.FoldMean(reference), sl.RecalibrateBatchNorm(reference)]
            if one.compensation == FOLDED
            else None,
            restricted=sl.Restricted(classes) if classes else None,
        )
        curve = replace(found.curves[0], seed=one.seed, compensation=one.compensation)
        spent = round(seconds, 2), round(time.process_time() - start, 2)
        return packed(curve) | {"attribution_cpu_seconds": spent[0], "curve_cpu_seconds": spent[1]}

    def intact(self) -> Cell:
        """The network as it is, and its candidates."""
        cost = sl.cost(self.graph)
        candidates = self.graph.select(*self.subject.kind.groups)
        return {
            "units": sum(group.size for group in candidates),
            "groups": len(candidates),
            "params": cost.params,
            "macs": cost.macs,
        }


def packed(curve: PruningCurve) -> Cell:
    """A curve as JSON; which images are right by bits.

    >>> right = torch.tensor([[True, False, True], [False, False, True]])
    >>> curve = PruningCurve(criterion="a", rates=(0.0, 0.5), removed=(0.0, 0.4), params=(1.0, 0.7),
    ...     macs=(1.0, 0.6), right=right)
    >>> packed(curve)["right"], torch.equal(unpacked(packed(curve)).right, right)
    ('pA==', True)
    """
    names = ("criterion", "order", "compensation", "seed")
    shares = {name: [round(x, 4) for x in getattr(curve, name)] for name in ("rates", "removed", "params", "macs")}
    return {
        **{name: getattr(curve, name) for name in names},
        **shares,
        "accuracy": [round(x, 2) for x in curve.accuracy.tolist()],
        "examples": curve.right.shape[1],
        "right": base64.b64encode(np.packbits(curve.right.numpy())).decode(),
    }


def unpacked(cell: Cell) -> PruningCurve:
    """The curve of a cell."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(cell["right"]), np.uint8))
    shape = len(cell["rates"]), cell["examples"]
    names = ("criterion", "order", "compensation", "seed", "rates", "removed", "params", "macs")
    values = {k: tuple(cell[k]) if isinstance(cell[k], list) else cell[k] for k in names}
    right = torch.from_numpy(bits[: shape[0] * shape[1]].reshape(shape).astype(bool))
    return PruningCurve(**values, right=right)


def curves(cells: Iterable[Cell]) -> PruningCurves:
    """The record of all cells, which knows areas, Top-PR, and differences with their intervals."""
    return PruningCurves(curves=tuple(map(unpacked, cells)))


def resumed(name: str, rows: Sequence[Attribution], options: argparse.Namespace) -> Results:
    """What earlier runs with the same settings found."""
    # Which cells one run was asked for makes no difference to them, so it is not part of the command.
    settings = {
        "references": options.references,
        "test_images": options.test_images,
        "classes": options.classes or "all",
        "images": "ImageNet" if options.imagenet else "CIFAR-10",
    }
    words = ["python papers/pruning-by-explaining/areas.py --compensate --networks", name]
    if options.imagenet:
        words.append("--imagenet DIR --weights DIR")
    words += [f"--{k} {v}" for k, v in (("classes", options.classes), ("test-images", options.test_images)) if v]
    stem = name if not options.classes else f"{name}-{options.classes}-classes"
    json, tables = options.out / f"areas-{stem}.json", options.out / f"AREAS-{stem}.md"
    return Results(json, tables, " ".join(words), settings, lambda found: markdown(stem, rows, found))


def markdown(name: str, rows: Sequence[Attribution], found: dict[str, Any]) -> str:
    """The table, with a dash for what has not been run."""
    settings, intact = found["settings"], next(iter(found["intact"].values()))
    cells = list(found["cells"].values())
    record = curves(cells)
    lead = (
        f"{intact['units']:,} candidates in {intact['groups']} groups of the library's graph: a unit goes with "
        f"all that is coupled to it. A criterion sees {settings['references']} training images of each of "
        f"{settings['classes']} classes of {settings['images']}; accuracy, intact "
        f"{cells[0]['accuracy'][0]:.1f} %, is that on {cells[0]['examples']:,} test images. A_PR is its mean, "
        f"as a share, over {len(RATES)} rates from 0 to {RATES[-1]:.0%} of the candidates, those with the "
        "lowest scores wherever they are; Top-PR the highest rate that keeps 95 % of the accuracy. Nothing is "
        "trained. Compensated: the mean of the removed units is folded into what reads them, then BatchNorms "
        "are recalibrated, both on the reference images. Most first: A_PR when those with the highest scores "
        "go, a control, of one seed. Mean ± standard error over seeds, which draw reference images and random "
        "numbers; the test images are the same for all. Seconds are CPU seconds of one seed's scores. A dash: "
        f"not run. {made_by(found)}."
    )
    header = ["criterion", "A_PR", "Top-PR in %", "A_PR, compensated", "Top-PR in %", "A_PR, most first", "seconds"]
    kinds = (("least", PLAIN), ("least", FOLDED))
    best = [
        max((mean([c.area for c in some]) for row in rows if (some := measured(record, row.name, *one))), default=0)
        for one in kinds
    ]
    lines = []
    for row in rows:
        line = [row.name]
        for one, top in zip(kinds, best, strict=True):
            line += _texts(measured(record, row.name, *one), top)
        most = measured(record, row.name, "most", PLAIN)
        spent = {c["seed"]: c["attribution_cpu_seconds"] for c in cells if c["criterion"] == row.name}
        line += [f"{most[0].area:.3f}" if most else "-", f"{mean(spent.values()):.1f}" if spent else "-"]
        lines.append(line)
    parts = [f"# {name}: accuracy as units go", f"`{found['command']}`", lead, table(header, lines)]
    return "\n\n".join([*parts, *_sizes(record), f"![{name}](areas-{name}.svg)"])


def measured(record: PruningCurves, row: str, order: Order = "least", how: str = PLAIN) -> tuple[PruningCurve, ...]:
    """The curves of a row, one for each seed; none if it was not run."""
    return tuple(
        one for one in record.curves if (one.criterion, one.order, one.compensation) == (row, order, how)
    )


def _texts(some: Sequence[PruningCurve], best: float) -> list[str]:
    if not some:
        return ["-", "-"]
    areas = [one.area for one in some]
    text = with_error(areas, 3)
    return [f"**{text}**" if mean(areas) == best else text, with_error([100 * one.top() for one in some], 0)]


def with_error(values: Sequence[float], digits: int) -> str:
    """Mean ± standard error; no ± for a single value.

    >>> with_error([1.0, 3.0], 1), with_error([2.0], 0)
    ('2.0 ± 1.0', '2')
    """
    text = f"{mean(values):.{digits}f}"
    return f"{text} ± {stdev(values) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else text


def _sizes(record: PruningCurves) -> list[str]:
    """What is left of the network, by the rows that the study is about."""
    found = []
    for row in (EPSILON, "random"):
        if some := measured(record, row):
            one, half = some[0], len(RATES) // 2
            found.append(
                f"By {row}, half of the candidates gone leaves {one.params[half]:.0%} of the parameters and "
                f"{one.macs[half]:.0%} of the MACs."
            )
    return [" ".join(found)] if found else []


def picture(results: Results) -> None:
    """Accuracy against the share of candidates that is gone, without and with compensation."""
    record, panels = curves(results.cells.values()), {}
    for title, how in (("nothing compensated", PLAIN), ("compensated", FOLDED)):
        lines = {row: [(c.accuracy / 100).tolist() for c in measured(record, row, "least", how)] for row in DRAWN}
        panels[title] = {row: runs for row, runs in lines.items() if runs}
    shown = {title: lines for title, lines in panels.items() if lines}
    if shown:
        ticks = [f"{100 * rate:.0f}" for rate in RATES]
        path = results.json.with_suffix(".svg")
        draw(path, shown, DRAWN, ticks, "share of the candidates removed in %, lowest scores first")


if __name__ == "__main__":
    main()

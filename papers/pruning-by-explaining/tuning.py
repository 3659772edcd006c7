"""Rules of relevance chosen for pruning, and whether what they gain holds on other images.

    python papers/pruning-by-explaining/tuning.py

Ten training images of each class are attributed, 500 others choose among rules for each band of depth, and
1,000 test images say what the choice is worth beside epsilon everywhere. Every trial is kept: stop the
command whenever you like, a re-run goes on, and with more ``--trials`` too; several at the same time share
the trials. The results are ``tuning.json`` and ``TUNING.md``, and ``presets/NETWORK.json`` for
``sl.LRP.preset``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from subjects import CACHE, CIFAR10, TRAINED, Subject, load

import shapleaf as sl
from shapleaf.integrations.datasets import Images

from results import Cell, Results, made_by, table  # isort: skip - of papers/shapley-pruning, see subjects

HERE = Path(__file__).resolve().parent


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    results = resumed(options)
    for name in options.networks:
        if results.cells.get(name, {}).get("trials", 0) < options.trials:
            subject = load(name, options.data, cache=options.cache)
            found, seconds = tuned(subject, options)
            sl.LRP.from_json(found.preset).save(options.out / "presets" / f"{name}.json")
            results.add(name, cell(found, seconds), str(found).splitlines()[-1])
    results.write()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=TRAINED, help="folder with the data and the weights")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the transformer and the trials")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    parser.add_argument("--networks", nargs="+", default=[*CIFAR10], choices=[*CIFAR10])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--rates", type=int, default=20, help="0 to below 100 %% in so many steps")
    parser.add_argument("--reference", type=int, default=10, help="training images of each class")
    parser.add_argument("--selection", type=int, default=500, help="other training images")
    parser.add_argument("--test", type=int, default=1000, help="test images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def resumed(options: argparse.Namespace) -> Results:
    """What earlier runs with the same settings found."""
    settings = {name: getattr(options, name) for name in ("rates", "reference", "selection", "test", "seed")}
    defaults = vars(parse([]))
    given = [f" --{name} {value}" for name, value in settings.items() if value != defaults[name]]
    command = f"python papers/pruning-by-explaining/tuning.py{''.join(given)}"
    return Results(options.out / "tuning.json", options.out / "TUNING.md", command, settings, markdown)


def parts(subject: Subject, options: argparse.Namespace) -> tuple[Images, Images, Images]:
    """Training images to attribute, other training images to choose by, and test images."""
    train, test = subject.images("train"), subject.images("test")
    drawn = sl.per_class((train.ids, train.labels), options.reference, seed=options.seed)
    rest = train.without(torch.cat([batch.inputs for batch in drawn]))
    selection = rest.sample(options.selection, options.seed)
    return train.without(rest.ids), selection, test.sample(options.test, options.seed)


def tuned(subject: Subject, options: argparse.Namespace) -> tuple[sl.Tuned, float]:
    """What is best of so many trials, and the CPU seconds of those that this run did."""
    absolute = ("token", "sample") if subject.kind.transformer else ("sample", "token")
    settings = sl.Tuning(
        trials=options.trials,
        seed=options.seed,
        bands=subject.kind.bands,
        absolute=absolute,
        aggregate=sl.Mean(),
        rates=tuple(step / options.rates for step in range(options.rates)),
        groups=subject.kind.groups,
    )
    held = [images.batches() for images in parts(subject, options)]
    folder = options.cache / "tuning" / f"{subject.name}-{options.seed}-{options.rates}"
    start = time.process_time()
    found = sl.tune(subject.model, subject.trace(), *held, settings=settings, folder=folder)
    return found, time.process_time() - start


def cell(found: sl.Tuned, seconds: float) -> Cell:
    return {
        "trials": len(found.trials),
        "best": found.best.number,
        "choices": found.best.choices,
        "areas": found.areas,
        "gain": list(found.gain),
        "holds": found.holds,
        "tried": [round(trial.area, 5) for trial in found.trials],
        "cpu_seconds": round(seconds),
    }


def markdown(found: dict[str, Any]) -> str:
    """The tables."""
    settings, cells = found["settings"], found["cells"]
    rows, chosen = [], []
    for name, one in cells.items():
        tuned_, epsilon = one["areas"]["tuned"], one["areas"]["epsilon"]
        mean, low, high = one["gain"]
        rows.append([
            name, str(one["trials"]), f"{epsilon['test']:.3f}", f"{tuned_['test']:.3f}",
            f"{tuned_['reference'] - epsilon['reference']:+.3f}",
            f"{tuned_['selection'] - epsilon['selection']:+.3f}",
            f"{mean:+.3f} ({low:+.3f} to {high:+.3f})", "yes" if one["holds"] else "no",
        ])  # fmt: skip
        words = (f"{k} {v if isinstance(v, str) else f'{v:.3f}'}" for k, v in one["choices"].items())
        chosen.append([name, ", ".join(words)])
    header = ["network", "trials", "epsilon", "tuned", "gain, reference", "selection", "test", "holds"]
    said = (
        f"A_PR over {settings['rates']} rates on {settings['test']:,} test images, by the relevance of "
        f"{settings['reference']} training images of each class; rules chosen on {settings['selection']} "
        "other training images. Gains are over epsilon everywhere, on the images that were attributed, on "
        "those that chose, and on the test images, with the 95 % interval of a paired bootstrap over these; "
        f"a gain holds if the interval lies above zero. {made_by(found)}."
    )
    lines = [
        "# Rules chosen for pruning",
        "",
        f"`{found['command']}`",
        "",
        said,
        "",
        table(header, rows),
        "",
        "What was chosen, by band of depth (`presets/NETWORK.json` for `sl.LRP.preset`):",
        "",
        table(["network", "choices"], chosen),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

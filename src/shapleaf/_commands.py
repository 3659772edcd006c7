"""The commands that measure many models or criteria: assess, compare, sweep and tune."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import _options, _progress
from ._options import (
    Bands,
    Batch,
    Calibration,
    Classes,
    Corruptions,
    CriteriaNames,
    Data,
    Delta,
    Draws,
    Features,
    Folder,
    GroupPatterns,
    Json,
    Model,
    Noise,
    Normalise,
    Out,
    Patience,
    PerClass,
    Plots,
    Pruned,
    Quiet,
    Rates,
    Refit,
    Samples,
    Seed,
    Selection,
    Separate,
    Severities,
    Size,
    Split,
    StudyFile,
    Test,
    Trials,
    Weights,
    Workers,
)
from ._outputs import show, write_report
from .errors import DataError

if TYPE_CHECKING:
    from torch import nn

    from .evaluation import Candidate
    from .integrations.datasets import Images
    from .records import Report, Robustness, Sweep
    from .shifts import Distribution


def assess(
    model: Model,
    pruned: Pruned,
    data: Data,
    weights: Weights = None,
    num_classes: Classes = None,
    separate: Separate = None,
    split: Split = "test",
    image_size: Size = None,
    normalise: Normalise = None,
    calibration: Calibration = 100,
    test: Test = None,
    corruption: Corruptions = None,
    severity: Severities = None,
    noise: Noise = None,
    draws: Draws = 5,
    features: Features = 0,
    delta: Delta = 0.005,
    plots: Plots = False,
    seed: Seed = 0,
    out: Out = Path("shapleaf-assess"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure what pruned models lost beside accuracy, on shifted data; says how far to prune."""
    from .evaluation import Candidate, heat_map, noise_similarity, robustness
    from .evaluation import assess as run

    _progress.quiet(quiet)
    images = _options.images(data, split, image_size, normalise)
    rest = _options.divide(images, calibration, seed, test)[1]
    wanted = _distributions(rest, corruption, severity or [3], noise or (), seed)
    fresh = _options.network(model, None, num_classes)
    found = [
        Candidate(name="unpruned", model=_options.network(model, weights, num_classes), role="reference")
    ]
    found += _of_one_net([one for words in pruned for one in _pruned(words, fresh)])
    if separate is not None:
        other = _options.network(model, separate, num_classes)
        found.append(Candidate(name="separate", model=other, role="separate"))
    files = [Path(words.rpartition("=")[2]) for words in pruned]
    _begin(out, model, rest, [path for path in (weights, separate) if path is not None] + files, seed)
    outcomes = run(found, wanted, path=out / "outcomes.safetensors", classes=images.classes)
    similarity = noise_similarity(found, rest.batches(), draws=draws, seed=seed) if draws else None
    seen = heat_map(found, rest.sample(min(features, len(rest)), seed).batches()) if features else None
    record = robustness(outcomes, similarity=similarity, features=seen, delta=delta, seed=seed)
    write_report(_lost(record, model), out)
    if plots:
        from .reporting.plots import write

        write(record, out / "plots")
    show(record.verdict, out / "report.html", as_json=as_json, quiet=quiet)


def compare(
    model: Model,
    data: Data,
    criterion: CriteriaNames = None,
    weights: Weights = None,
    num_classes: Classes = None,
    split: Split = "test",
    image_size: Size = None,
    normalise: Normalise = None,
    batch_size: Batch = 100,
    calibration: Calibration = 100,
    test: Test = None,
    groups: GroupPatterns = None,
    rates: Rates = 20,
    samples: Samples = None,
    refit: Refit = False,
    plots: Plots = False,
    seed: Seed = 0,
    out: Out = Path("shapleaf-compare"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure criteria side by side: whom they agree with, what they are good for, and what they cost.

    Scores some examples of the split and measures on the others.
    """
    import shapleaf as sl

    _progress.quiet(quiet)
    criteria = _options.criteria(criterion)
    network = _options.network(model, weights, num_classes)
    images = _options.images(data, split, image_size, normalise)
    sample, rest = _options.divide(images, calibration, seed, test)
    sampled = list(sample.batches(batch_size))
    settings = sl.Comparing(
        groups=groups,
        rates=_options.rates(rates),
        samples=_options.samples(samples, calibration),
        compensate=sl.LeastSquares(sampled) if refit else None,
    )
    graph = sl.trace(network, sl.take(sampled, 1)[0].inputs)
    found = sl.compare(
        network, graph, criteria, sampled, rest.batches(batch_size), settings=settings, seed=seed
    )
    found.save(out / "comparison.safetensors")
    report = sl.Report(
        title=f"{model}: {len(criteria)} criteria", rows=(), comparison=found, settings=found.settings
    )
    write_report(report, out)
    if plots:
        from .reporting.plots import comparison, save

        save(comparison(found), out / "comparison.svg")
    show(found, out / "report.html", as_json=as_json, quiet=quiet)


def _begin(out: Path, model: str, images: Images, files: Sequence[Path], seed: int) -> None:
    """Forget the outcomes in the folder unless they are of these very models and images."""
    from ._store import atomic

    what = f"{model} {images} {images.ids.tolist()} {images.mean} {images.std} {seed}"
    digest = hashlib.blake2b(what.encode(), digest_size=16)
    for path in sorted(
        one for file in files for one in ([file] if file.is_file() else file.glob("*.safetensors"))
    ):
        digest.update(str(path).encode() + path.read_bytes())
    mark, outcomes = out / "outcomes.digest", out / "outcomes.safetensors"
    if not mark.exists() or mark.read_text(encoding="utf-8") != digest.hexdigest():
        outcomes.unlink(missing_ok=True)
        with atomic(mark) as temporary:
            temporary.write_text(digest.hexdigest(), encoding="utf-8")


def _distributions(
    images: Images,
    corruption: Sequence[str] | None,
    severities: Sequence[int],
    noise: Sequence[float],
    seed: int,
) -> list[Distribution]:
    from .shifts import GaussianNoise, distributions

    names = None if corruption is None else [name for name in corruption if name != "none"]
    extra = [GaussianNoise(std, seed) for std in noise]
    return distributions(images, names=names, severities=severities, noise=extra, seed=seed)


def _pruned(words: str, fresh: nn.Module) -> list[Candidate]:
    """The models in a folder: one that was pruned, or all of a cycle."""
    from .records import Cycle

    method, _, place = words.rpartition("=")
    folder = Path(place)
    if (folder / "cycle.safetensors").exists():
        return Cycle.load(folder / "cycle.safetensors").candidates(fresh, folder)
    if not (folder / "receipt.safetensors").exists():
        raise DataError(
            f"{folder} holds neither receipt.safetensors nor cycle.safetensors: expected what shapleaf "
            "prune, slim or a cycle wrote."
        )
    return [_one(folder, method, fresh)]


def _of_one_net(found: list[Candidate]) -> list[Candidate]:
    """Compared with the one reference, whatever their cycles called it; refused if these are of several."""
    nets = {one.net for one in found}
    if len(nets) > 1:
        listed = ", ".join(sorted(nets))
        raise DataError(f"these models are pruned from several networks ({listed}); measure each on its own.")
    return [replace(one, net="0") for one in found]


def _one(folder: Path, method: str, fresh: nn.Module) -> Candidate:
    from ._context import copied
    from .evaluation import Candidate
    from .records import Receipt

    receipt = Receipt.load(folder / "receipt.safetensors")
    plan = receipt.plan

    def load() -> nn.Module:
        return _options.rebuilt(copied(fresh), receipt, folder).eval()

    criterion = plan.made_by.get("criterion", "pruned").partition("(")[0]
    removed = 1 - plan.after.params / plan.before.params
    return Candidate(name=str(folder), model=load, method=method or criterion, removed=removed)


def sweep(
    study: StudyFile,
    out: Out = Path("shapleaf-sweep"),
    workers: Workers = 1,
    patience: Patience = 120.0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the trials of a study: methods, seeds, networks.

    Run it again to go on, or with more trials to extend it; run it on several machines to share the work.
    Writes the table as sweep.csv and sweep.json, and what pruning loses as report.html.
    """
    import shapleaf as sl

    _progress.quiet(quiet)
    described = sl.Study.read(study)
    found = sl.sweep(described, out, workers=workers, patience=patience)
    told = _reported(found, out)
    show(found, told, as_json=as_json, quiet=quiet)
    if found.failed:
        first = found.failed[0]
        raise DataError(
            f"{len(found.failed)} of {len(described.trials)} trials failed, {first.trial} with "
            f"{first.error}. The same command tries them again."
        )


def _reported(found: Sweep, out: Path) -> Path:
    """Write the report, if pruned models were measured, and each net unpruned; the file to look at."""
    import shapleaf as sl

    if found.outcomes is None:
        return out / "sweep.csv"
    nets: dict[str, set[str]] = {}
    for one in found.outcomes.subjects:
        nets.setdefault(one.role, set()).add(one.net)
    others = nets.get("pruned", set()) | nets.get("control", set())
    if not nets.get("pruned") or not others <= nets.get("reference", set()):
        return out / "sweep.csv"
    write_report(_lost(sl.robustness(found.outcomes), found.study), out)
    return out / "report.html"


def tune(
    model: Model,
    data: Data,
    weights: Weights = None,
    num_classes: Classes = None,
    split: Split = "train",
    image_size: Size = None,
    normalise: Normalise = None,
    batch_size: Batch = 100,
    per_class: PerClass = 10,
    selection: Selection = 500,
    test: Test = None,
    trials: Trials = 50,
    bands: Bands = "0.3,0.7",
    folder: Folder = None,
    seed: Seed = 0,
    out: Out = Path("preset.json"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose the rules of relevance by which pruning keeps most accuracy, and test the gain on other data.

    Writes the preset, for --criterion lrp:preset.json.
    """
    import shapleaf as sl

    _progress.quiet(quiet)
    settings = sl.Tuning(trials=trials, seed=seed, bands=_options.depths(bands))
    network = _options.network(model, weights, num_classes)
    images = _options.images(data, split, image_size, normalise)
    found = _options.tuning_parts(images, per_class, selection, seed, test)
    graph = sl.trace(network, images[0][0][None])
    parts = [part.batches(batch_size) for part in found]
    tuned = sl.tune(network, graph, *parts, settings=settings, folder=folder)
    sl.LRP.from_json(tuned.preset).save(out)
    show(tuned, out, as_json=as_json, quiet=quiet)


def _lost(found: Robustness, what: str) -> Report:
    from .records import Report

    return Report(title=f"{what}: what pruning loses", rows=(), robustness=found, settings=found.settings)

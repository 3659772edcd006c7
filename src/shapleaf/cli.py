"""The command line: the verbs of the library over saved records."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from . import __version__, _commands, _options, _progress
from ._options import (
    Batch,
    Bf16,
    Calibration,
    Classes,
    Confidence,
    CriterionName,
    Data,
    EffortName,
    Evaluations,
    Journal,
    Json,
    Keep,
    MaybeData,
    Memory,
    Model,
    Normalise,
    Out,
    Quiet,
    Remove,
    Seconds,
    Seed,
    Size,
    Split,
    StrategyName,
    Table,
    Test,
    Weights,
    What,
)
from ._outputs import save_weights, show, write_folder
from .errors import ShapleafError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Make a trained PyTorch model smaller and faster, with an honest account of what was lost.",
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"shapleaf {__version__}")
        raise typer.Exit


@app.command()
def demo(
    out: Out = Path("shapleaf-demo"), seed: Seed = 0, quiet: Quiet = False, as_json: Json = False
) -> None:
    """Train a small network on built-in digits, halve its MACs by Shapley values, write the report."""
    from .demo import train
    from .integrations.datasets import load_data
    from .slimming import slim as run

    _progress.quiet(quiet)
    model = train(load_data("digits", split="train"), seed=seed)
    save_weights(model, out / "dense.safetensors")
    sample, rest = _options.divide(load_data("digits", split="test"), 100, seed, None)
    limit = _options.budget("macs", "0.5", None)
    write_folder(run(model, sample.batches(), limit, test=rest.batches()), out, as_json=as_json, quiet=quiet)


@app.command()
def slim(
    model: Model,
    data: Data,
    weights: Weights = None,
    num_classes: Classes = None,
    split: Split = "test",
    image_size: Size = None,
    normalise: Normalise = None,
    batch_size: Batch = 100,
    calibration: Calibration = 100,
    test: Test = None,
    budget: What = "macs",
    keep: Keep = None,
    remove: Remove = None,
    table: Table = None,
    effort: EffortName = "balanced",
    criterion: CriterionName = "optimal-brain-surgeon",
    strategy: StrategyName = "tradeoff",
    seed: Seed = 0,
    out: Out = Path("shapleaf-slim"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The whole flow: trace, attribute, allocate, prune, evaluate, report.

    Calibrates on some examples of the split and tests on the others.
    """
    from .slimming import slim as run

    _progress.quiet(quiet)
    limit, chosen, order = (
        _options.budget(budget, keep, remove, table),
        _options.criterion(criterion),
        _options.strategy(strategy),
    )
    network = _options.network(model, weights, num_classes)
    images = _options.images(data, split, image_size, normalise)
    sample, rest = _options.divide(images, calibration, seed, test)
    slimmed = run(
        network,
        sample.batches(batch_size),
        limit,
        test=rest.batches(batch_size),
        effort=effort,
        criterion=chosen,
        strategy=order,
    )
    write_folder(slimmed, out, as_json=as_json, quiet=quiet)


@app.command()
def trace(
    model: Model,
    shape: Annotated[str, typer.Option(help="Shape of one example, such as 3,224,224.")],
    weights: Weights = None,
    num_classes: Classes = None,
    out: Out = Path("graph.safetensors"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the units that can be removed and everything each of them owns."""
    import torch

    from .tracing import trace as run

    sizes = _options.shape(shape)
    graph = run(_options.network(model, weights, num_classes), torch.zeros(1, *sizes))
    graph.save(out)
    show(graph, out, as_json=as_json, quiet=quiet)


@app.command()
def attribute(
    model: Model,
    graph: Annotated[Path, typer.Argument(help="What trace wrote.")],
    data: Data,
    weights: Weights = None,
    num_classes: Classes = None,
    split: Split = "test",
    image_size: Size = None,
    normalise: Normalise = None,
    batch_size: Batch = 100,
    calibration: Calibration = 100,
    criterion: CriterionName = "shapley",
    groups: Annotated[list[str] | None, typer.Option(help="Shell pattern of groups; repeatable.")] = None,
    curves: Annotated[bool, typer.Option(help="Also scan how the loss rises, for tradeoff.")] = True,
    confidence: Confidence = None,
    evaluations: Evaluations = None,
    seconds: Seconds = None,
    journal: Journal = None,
    memory: Memory = None,
    bf16: Bf16 = False,
    seed: Seed = 0,
    out: Out = Path("scores.safetensors"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score every unit: higher means needed more. Under torchrun the examples are shared among ranks."""
    import torch

    from ._ranks import joined, ranks
    from .attribution import attribute as run
    from .records import Graph
    from .scanning import curved

    _progress.quiet(quiet)
    chosen = _options.sampling(
        _options.criterion(criterion), confidence, evaluations, seconds, journal, memory
    )
    known, network = Graph.load(graph), _options.network(model, weights, num_classes)
    sample = _options.images(data, split, image_size, normalise).sample(calibration, seed)
    with joined(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        scores = run(network, known, sample.batches(batch_size), chosen, groups=groups or None, seed=seed)
        if curves:
            scores = curved(network, scores, sample.batches(batch_size))
        if not ranks()[0]:
            scores.save(out)
            show(scores, out, as_json=as_json, quiet=quiet)


@app.command()
def profile(
    model: Model,
    graph: Annotated[Path, typer.Argument(help="What trace wrote.")],
    weights: Weights = None,
    num_classes: Classes = None,
    batch_size: Batch = 100,
    threads: Annotated[int | None, typer.Option(help="CPU threads; as many as PyTorch takes.")] = None,
    runs: Annotated[int, typer.Option(help="Pruned models to measure.")] = 120,
    out: Out = Path("latency.safetensors"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure layers at many widths on this machine, for latency budgets; goes on where it was stopped."""
    from .evaluation.latency import threads as limited
    from .profiling import profile as run
    from .records import Graph
    from .tracing.inputs import imitate

    _progress.quiet(quiet)
    known, network = Graph.load(graph), _options.network(model, weights, num_classes)
    with limited(threads):
        table = run(network, known, imitate(known.inputs, examples=batch_size), runs=runs, path=out)
    show(table, out, as_json=as_json, quiet=quiet)


@app.command()
def allocate(
    scores: Annotated[Path, typer.Argument(help="What attribute wrote.")],
    budget: What = "macs",
    keep: Keep = None,
    remove: Remove = None,
    table: Table = None,
    strategy: StrategyName = "tradeoff",
    min_keep: Annotated[int, typer.Option(help="Every group keeps at least so many.")] = 1,
    multiple_of: Annotated[int, typer.Option(help="Kept counts are multiples of this.")] = 8,
    out: Out = Path("plan.safetensors"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Decide which units stay within a budget."""
    from .allocation import allocate as run
    from .records import Scores

    limit, order = _options.budget(budget, keep, remove, table), _options.strategy(strategy)
    plan = run(Scores.load(scores), limit, strategy=order, min_keep=min_keep, multiple_of=multiple_of)
    plan.save(out)
    show(plan, out, as_json=as_json, quiet=quiet)


@app.command()
def prune(
    model: Model,
    plan: Annotated[Path, typer.Argument(help="What allocate wrote.")],
    weights: Weights = None,
    num_classes: Classes = None,
    data: MaybeData = None,
    split: Split = "test",
    image_size: Size = None,
    normalise: Normalise = None,
    calibration: Calibration = 100,
    effort: EffortName = "balanced",
    seed: Seed = 0,
    out: Out = Path("shapleaf-pruned"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Slice the model; writes the weights and the receipt that rebuilds it."""
    from .records import Plan
    from .slimming import steps
    from .surgery import prune as run

    _progress.quiet(quiet)
    chosen, network = Plan.load(plan), _options.network(model, weights, num_classes)
    images = _options.images(data, split, image_size, normalise) if data is not None else None
    compensate = steps(effort, images.sample(calibration, seed).batches()) if images else None
    pruned, receipt = run(network, chosen, compensate=compensate)
    save_weights(pruned, out / "weights.safetensors")
    receipt.save(out / "receipt.safetensors")
    show(receipt, out, as_json=as_json, quiet=quiet)


@app.command()
def evaluate(
    model: Model,
    pruned: Annotated[Path, typer.Argument(help="The folder that prune or slim wrote.")],
    data: Data,
    weights: Weights = None,
    num_classes: Classes = None,
    split: Split = "test",
    image_size: Size = None,
    normalise: Normalise = None,
    batch_size: Batch = 100,
    calibration: Calibration = 100,
    test: Test = None,
    seed: Seed = 0,
    out: Out = Path("report.safetensors"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a pruned model beside the original, on the examples that calibration did not use."""
    from .evaluation import evaluate as run
    from .records import Receipt

    _progress.quiet(quiet)
    receipt = Receipt.load(pruned / "receipt.safetensors")
    reference = _options.network(model, weights, num_classes)
    fresh = _options.rebuilt(_options.network(model, None, num_classes), receipt, pruned)
    images = _options.images(data, split, image_size, normalise)
    rest = _options.divide(images, calibration, seed, test)[1].batches(batch_size)
    report = run(fresh, rest, reference=reference, receipt=receipt, title=f"{model} pruned")
    report.save(out)
    show(report, out, as_json=as_json, quiet=quiet)


@app.command()
def report(
    record: Annotated[Path, typer.Argument(help="What evaluate or slim wrote.")],
    out: Out = Path("report.html"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the HTML page of a saved report."""
    from .records import Report
    from .reporting import write

    loaded = Report.load(record)
    write(loaded, out)
    show(loaded, out, as_json=as_json, quiet=quiet)


app.command()(_commands.assess)
app.command()(_commands.compare)
app.command()(_commands.sweep)
app.command()(_commands.tune)


def main() -> NoReturn:
    """Run the command line; a user's mistake is one line on stderr and exit status 1."""
    try:
        app()
    except ShapleafError as error:
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)
    sys.exit(0)

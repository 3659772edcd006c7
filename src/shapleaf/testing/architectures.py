"""Which architectures are traced, pruned and proven right, told nothing: the table that the docs show.

    python -m shapleaf.testing.architectures                      # all of them, resumed where it stopped
    python -m shapleaf.testing.architectures 'timm:vit*' 'hf:*'   # some of them
    python -m shapleaf.testing.architectures mypackage.models:build    # yours: returns a model and inputs

Every model is built from its configuration with random weights, in double precision, and examined in a
process of its own with a time limit. What was found is written after every model.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatchcase
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from .._store import atomic
from ..errors import DataError, ShapleafError
from . import catalogue
from .coverage import page, verdict
from .examination import examine

NAME = "architectures"
Rows = dict[str, dict[str, Any]]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def examine_spec(spec: str) -> dict[str, Any]:
    """What was found in one model as JSON values, or ``{"failure": why}``.

    >>> examine_spec("no.such.module:build")
    {'failure': "DataError: cannot import no.such.module: No module named 'no'. Give a module ..."}
    """
    torch.manual_seed(0)
    try:
        found: dict[str, Any] = examine(*catalogue.build(spec)).to_json()
    except Exception as error:  # noqa: BLE001 - whatever a model does is a row of the table
        return {"failure": f"{type(error).__name__}: {error}"[:1000]}
    return found


def examine_apart(spec: str, limit: float) -> dict[str, Any]:
    """:func:`examine_spec` in a process of its own, which is ended after ``limit`` seconds.

    The process imports what started this one, as ``multiprocessing`` does, so what a script sets up at
    its top holds there too.

    >>> examine_apart("no.such.module:build", limit=0.01)
    {'failure': 'more than 0.01 s'}
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(spec, sender), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(limit):
            return {"failure": f"more than {limit:g} s"}
        row: dict[str, Any] = receiver.recv()
    except EOFError:
        process.join()
        return {"failure": f"the process ended with exit code {process.exitcode}, out of memory perhaps"}
    else:
        return row
    finally:
        process.kill()
        process.join()


def _work(spec: str, sender: Connection) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere:
        # What models print is nobody's concern; the table is.
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
        sender.send(examine_spec(spec))


def chosen(patterns: Sequence[str]) -> list[str]:
    """The listed specs that match any shell pattern, and what is no pattern: specs that are not listed.

    Raises:
        DataError: a pattern matches nothing.

    >>> chosen(["hf:bert", "mypackage.models:build"])
    ['hf:bert', 'mypackage.models:build']
    """
    listed = [spec for spec in catalogue.SPECS if any(fnmatchcase(spec, pattern) for pattern in patterns)]
    others = [p for p in patterns if not any(fnmatchcase(spec, p) for spec in catalogue.SPECS)]
    for pattern in others:
        if ":" not in pattern or any(sign in pattern for sign in "*?["):
            raise DataError(
                f"no listed architecture matches {pattern!r}; expected a pattern such as 'timm:vit*', or a "
                "spec such as 'timm:vit_small_patch16_224' or 'mypackage.models:build'."
            )
    return listed + others


def environment() -> dict[str, str]:
    """The versions that results depend on.

    >>> sorted(environment())[:2]
    ['python', 'shapleaf']
    """
    names = ("shapleaf", "torch", "torchvision", "timm", "transformers")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def load(path: Path) -> Rows:
    """The rows of earlier runs.

    Raises:
        DataError: the file is damaged, or was made with other versions than those installed.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
        made_with, rows = found["environment"], dict(found["models"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} holds no results of this command ({error}); choose other --results."
        ) from error
    if made_with != environment():
        raise DataError(
            f"{path} was made with {_versions(made_with)}, but installed are {_versions(environment())}. "
            "Results of different versions are not mixed: choose other --results, or delete the file."
        )
    return rows


def _versions(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def save(folder: Path, rows: Rows) -> None:
    """Write the rows as JSON and as a page, both whole or not at all."""
    order = [*catalogue.SPECS, *(spec for spec in rows if spec not in catalogue.SPECS)]
    found = {"environment": environment(), "models": {spec: rows[spec] for spec in order if spec in rows}}
    for suffix, text in (
        (".json", json.dumps(found, indent=1) + "\n"),
        (".md", page(found, catalogue.SPECS)),
    ):
        with atomic(folder / f"{NAME}{suffix}") as temporary:
            temporary.write_text(text)


def run(specs: Iterable[str], *, limit: float, jobs: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Specs and what was found in them, as it comes.

    >>> dict(run(["no.such.module:build"], limit=0.01, jobs=1))
    {'no.such.module:build': {'failure': 'more than 0.01 s'}}
    """
    pool = ThreadPoolExecutor(jobs)
    try:
        waiting = {pool.submit(examine_apart, spec, limit): spec for spec in specs}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
    finally:
        pool.shutdown(cancel_futures=True)


@app.command()
def command(
    patterns: Annotated[
        list[str] | None, typer.Argument(help="Shell patterns of listed specs, or package.module:NAME.")
    ] = None,
    results: Annotated[Path, typer.Option(help="The folder that is written and resumed from.")] = Path(
        "shapleaf-architectures"
    ),
    again: Annotated[bool, typer.Option("--again", help="Examine anew what was not proven.")] = False,
    limit: Annotated[float, typer.Option(help="Seconds for each model.")] = 240,
    jobs: Annotated[int, typer.Option(min=1, help="How many processes at once.")] = 1,
) -> None:
    """Trace, prune and prove a list of architectures, told nothing; write the table."""
    specs = chosen(patterns or ["*"])
    rows = load(results / f"{NAME}.json")
    absent = {spec: how for spec in specs if (how := catalogue.missing(spec))}
    for how in dict.fromkeys(absent.values()):
        count = sum(other == how for other in absent.values())
        typer.echo(f"{count} of {len(specs)} models are not installed: {how}", err=True)
    open_ = [
        spec
        for spec in specs
        if spec not in absent and (spec not in rows or (again and verdict(rows[spec]) != "proven"))
    ]
    for number, (spec, row) in enumerate(run(open_, limit=limit, jobs=jobs), 1):
        rows[spec] = row
        save(results, rows)
        typer.echo(f"{number}/{len(open_)} {spec}: {verdict(row)}", err=True)
    save(results, rows)
    typer.echo(str(results / f"{NAME}.md"))


def main() -> None:
    """Run :func:`command`; a user's mistake is one line on stderr and exit status 1."""
    try:
        app()
    except ShapleafError as error:
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

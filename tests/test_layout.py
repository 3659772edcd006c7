"""The shape of the code: who imports whom, tests beside modules, sizes, and examples in every docstring."""

from __future__ import annotations

import ast
import graphlib
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import shapleaf as sl
from shapleaf import criteria, testing

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "shapleaf"

ROWS = """
    errors
    layers
    _table _store _objects _context _rng _calls _progress _ranks _ridge _grids _draws _intervals
    records
    data
    shifts
    cuts
    tracing
    programs
    costs
    masking
    linear
    watching
    sensitivity backward
    relevance
    game
    criteria
    consumers passes
    contrasts
    aggregation
    attribution
    scanning
    budgets
    weights
    strategies
    allocation
    idling
    surgery
    refining
    schedules
    training
    evaluation
    comparison
    retraining
    integrations
    reporting
    profiling
    exporting
    slimming
    sweeps
    tuning
    testing
    demo
    _options _outputs
    _commands
    cli
"""
"""A module imports from rows above its own; within a package or a row in any order without a circle."""

LATE = {
    ("records.report", "reporting.html"),
    ("records.cycle", "retraining.rebuilding"),
    ("shifts.digital", "integrations"),
}
"""Imports inside functions that point down: a report renders itself, a cycle builds its networks, JPEG needs
Pillow."""

UNMIRRORED = {"errors"}
"""Modules without behaviour of their own."""

CROSSING = {"docs", "init", "layout", "lost", "oracles", "benchmarks", "papers", "explaining", "examples"}
"""Tests of no single module."""


CALLED = {"forward", "on_train_begin", "on_step_end", "on_save"}
"""Functions that others call, with keywords of theirs."""


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(SOURCE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imports(name: str) -> Iterator[tuple[str, bool]]:
    """Modules of this package that a module imports, and whether only inside a function.

    Imports for type checkers alone run never and are left out.
    """
    package = name.split(".") if MODULES[name].name == "__init__.py" else name.split(".")[:-1]

    def walk(node: ast.AST, late: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ImportFrom) and child.level:
                base = [*package[: len(package) - child.level + 1], *(child.module or "").split(".")]
                for alias in child.names:
                    whole = ".".join(part for part in [*base, alias.name] if part)
                    yield (whole if whole in MODULES else ".".join(part for part in base if part)), late
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, late or inside)

    return walk(TREES[name], late=False)


def row(name: str) -> int:
    rows = [line.split() for line in ROWS.strip().splitlines()]
    return next(i for i, names in enumerate(rows) if name.split(".", maxsplit=1)[0] in names)


def test_every_module_has_a_row() -> None:
    listed = ROWS.split()
    assert len(set(listed)) == len(listed)
    assert {name.split(".")[0] for name in MODULES if name} == set(listed)


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_imports_point_up(name: str) -> None:
    for other, late in imports(name):
        if not other or other.split(".")[0] == name.split(".", maxsplit=1)[0]:
            continue  # the package's version; a sibling
        above = row(other) <= row(name) if row(name) == 1 else row(other) < row(name)
        assert above or (late and (name, other) in LATE), f"{name} imports {other}, which is not above it"


def test_imports_make_no_circle() -> None:
    graph = {
        name: {other for other, late in imports(name) if not late and other and other != name}
        for name in MODULES
        if name
    }
    order = [*graphlib.TopologicalSorter(graph).static_order()]  # raises on a circle
    assert set(order) == set(graph)
    assert order.index("errors") < order.index("records.graph") < order.index("slimming")


def has_content(name: str) -> bool:
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in TREES[name].body)


def mirror(name: str) -> str:
    """The test file of a module; what a package itself holds is tested in its folder."""
    if MODULES[name].name == "__init__.py":
        return name.replace(".", "/")
    folder, _, last = name.rpartition(".")
    return f"{folder.replace('.', '/')}/test_{last.lstrip('_')}.py".lstrip("/")


def test_every_module_has_its_tests() -> None:
    missing = [
        mirror(name)
        for name in MODULES
        if name and has_content(name) and name not in UNMIRRORED and not (TESTS / mirror(name)).exists()
    ]
    assert missing == []


def test_every_test_has_its_module() -> None:
    expected = {mirror(name) for name in MODULES if name} | {f"test_{name}.py" for name in CROSSING}
    found = {str(path.relative_to(TESTS)) for path in TESTS.rglob("test_*.py")}
    assert {path for path in found - expected if not path.startswith("properties/")} == set()


def functions(name: str) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(TREES[name]) if isinstance(node, ast.FunctionDef))


def parameters(node: ast.FunctionDef) -> list[str]:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


@pytest.mark.parametrize("name", MODULES)
def test_modules_and_functions_are_small(name: str) -> None:
    assert len(MODULES[name].read_text().splitlines()) <= 400
    for node in functions(name):
        lines = (node.end_lineno or 0) - node.lineno + 1
        if ast.get_docstring(node):
            lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
        assert lines <= 60, f"{name}.{node.name} has {lines} lines beside its docstring"


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("cli", "_commands", "_options")])
def test_signatures_are_short(name: str) -> None:
    """Those of the command line are lists of options."""
    for node in functions(name):
        if not node.name.startswith("_"):
            assert len(parameters(node)) <= 8, f"{name}.{node.name} takes {parameters(node)}"
            assert node.args.kwarg is None or node.name in CALLED, f"{name}.{node.name} swallows keywords"


PUBLIC = {
    **{name: getattr(sl, name) for name in sl.__all__ if name != "__version__"},
    **{name: getattr(criteria, name) for name in criteria.__all__},
    **{name: getattr(testing, name) for name in testing.__all__},
}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_docstring_with_an_example(name: str) -> None:
    thing = PUBLIC[name]
    text = inspect.getdoc(thing) or ""
    assert text.split("\n")[0].endswith((".", ":")), f"{name}: {text[:80]!r}"
    if isinstance(thing, type) and issubclass(thing, sl.ShapleafError):
        return  # one example, at their root, shows how they are caught
    assert ">>> " in text, f"{name} has no example"


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__main__"])
def test_every_module_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(TREES[name]), f"{name} has no docstring"


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith("cli")])
def test_public_functions_and_classes_are_documented(name: str) -> None:
    module = importlib.import_module(f"shapleaf.{name}" if name else "shapleaf")
    for label, thing in vars(module).items():
        if label.startswith("_") or not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        if thing.__module__ == module.__name__:
            own = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
            undocumented = not own or own.startswith(f"{label}(")  # what dataclass puts there
            assert not undocumented, f"{module.__name__}.{label} has no docstring"

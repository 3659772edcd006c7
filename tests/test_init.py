"""The public face: every name resolves, and importing it costs nothing."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import shapleaf as sl


@pytest.mark.parametrize("name", sl.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(sl, name) is not None
    assert name in dir(sl)


def test_scripts_use_names_that_are_there() -> None:
    """Of papers, benchmarks and examples, whose tests do not run every line."""
    root = Path(__file__).parents[1]
    scripts = [
        path for folder in ("papers", "benchmarks", "examples") for path in (root / folder).rglob("*.py")
    ]
    assert len(scripts) > 10
    for script in scripts:
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sl":
                package = importlib.util.find_spec(f"shapleaf.{node.attr}")
                assert package or hasattr(sl, node.attr), f"{script.name}, line {node.lineno}: sl.{node.attr}"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'shapleaf' has no attribute 'prunes'"):
        _ = sl.prunes


def test_names_are_unique_and_loaded_once() -> None:
    assert len(set(sl.__all__)) == len(sl.__all__)
    assert sl.Graph is sl.Graph
    assert "Graph" in vars(sl)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "code", ["import shapleaf", "import shapleaf.cli", "from shapleaf import TraceError"]
)
def test_importing_loads_neither_torch_nor_any_extra(code: str) -> None:
    heavy = "torch torchvision timm numpy safetensors pydantic matplotlib PIL pyarrow scipy jinja2".split()
    if "cli" in code:
        heavy.remove("jinja2")
    loaded = run(f"import sys; {code}; print(*[name for name in {heavy} if name in sys.modules])")
    assert loaded == ""


def test_no_verb_loads_an_extra() -> None:
    code = """
import sys, torch, shapleaf as sl
model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
data = [(torch.randn(8, 3), torch.randint(2, (8,)))]
scores = sl.attribute(model, sl.trace(model, data[0][0]), data)
plan = sl.allocate(scores, sl.Macs(keep=0.5))
pruned, receipt = sl.prune(model, plan, compensate=sl.FoldMean(data))
sl.evaluate(pruned, data, reference=model)
extras = "torchvision timm matplotlib PIL pyarrow sklearn scipy".split()
print(*[name for name in extras if name in sys.modules])
"""
    assert run(code) == ""


def test_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert sl.__version__ == version("shapleaf")

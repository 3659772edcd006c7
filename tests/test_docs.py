"""Every snippet and every command of the README and the docs runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

ROOT = Path(__file__).parent.parent
# Nothing is trained here, so that compensation has nothing to keep.
pytestmark = pytest.mark.filterwarnings(
    "ignore:compensation made the", "ignore:.*below what compensation can save"
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_snippets_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = type(sys)("snippets")
    monkeypatch.setitem(sys.modules, "snippets", module)
    torch.manual_seed(0)
    namespace = module.__dict__
    snippets = blocks(page, "python")
    for snippet in snippets:
        exec(compile(snippet, str(page), "exec", dont_inherit=True), namespace)
    assert snippets, f"{page.name} shows nothing"


def test_make_commands_are_targets_of_the_makefile() -> None:
    pages = [*PAGES, ROOT / "CONTRIBUTING.md"]
    commands = {line for page in pages for line in re.findall(r"^make \w+", page.read_text(), re.MULTILINE)}
    assert {"make demo", "make test"} <= commands
    for command in commands:
        made = subprocess.run(
            [*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, made.stderr


def test_local_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


QUICK = {
    "slim": ("--calibration", "8", "--test", "8", "--effort", "fast"),
    "assess": ("--test", "50", "--draws", "1"),
    "sweep": (),
}
"""Options that make each command quick; one without an entry is not run, and fails."""


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    return [line for line in lines if line.startswith("shapleaf ")]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_shapleaf_commands_run_in_order(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shapleaf.cli import app

    monkeypatch.chdir(tmp_path)
    if page.name == "README.md":
        pytest.importorskip("torchvision")
        prepare_files(tmp_path, request.getfixturevalue("shared"))
    prepare_demo(tmp_path)
    for text in blocks(page, "toml"):
        (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text)
    for line in commands(page):
        words = shlex.split(line)[1:]
        result = CliRunner().invoke(app, [*words, *QUICK[words[0]], "--quiet"])
        assert result.exit_code == 0, f"{line}: {result.exception!r}"
    reports = list(tmp_path.glob("*/report.html"))
    assert reports
    assert all(report.stat().st_size < 300_000 for report in reports)


def prepare_demo(folder: Path) -> None:
    """What make demo leaves, hardly trained."""
    from safetensors.torch import save_file

    from shapleaf.demo import train
    from shapleaf.integrations.datasets import load_data

    model = train(load_data("digits", split="train").sample(200, seed=0), epochs=1)
    (folder / "shapleaf-demo").mkdir()
    save_file(model.state_dict(), folder / "shapleaf-demo" / "dense.safetensors")


def prepare_files(folder: Path, shared: Path) -> None:
    """What the README's commands name: photos, weights, the user's package, CIFAR-10."""
    import torchvision
    from safetensors.torch import save_file

    torch.save(torchvision.models.resnet18(num_classes=1000).state_dict(), folder / "resnet18.pth")
    for label in ("cat", "dog"):
        (folder / "photos" / label).mkdir(parents=True)
        for i in range(8):
            pixels = np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / label / f"{i}.png")
    (folder / "data").mkdir()
    (folder / "data" / "cifar10").symlink_to(shared)
    package = folder / "mypackage"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "models.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),\n"
        "                         nn.Linear(256, 10))\n"
    )
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(256, 10),
    )
    save_file(model.state_dict(), folder / "best.safetensors")

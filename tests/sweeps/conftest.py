"""A study of toys whose runs can be counted, and the processes that work on it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from shapleaf.sweeps import Study

TOYS = '''
import os, time
from pathlib import Path
from shapleaf.records import Sweep

def slow(trial, folder, seconds=0.0):
    """Two steps, of which the first is kept; every start and step is noted."""
    with (folder / "runs.txt").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    half = folder / "half"
    if not half.exists():
        time.sleep(seconds / 2)
        half.write_text(str(trial["x"]))
    time.sleep(seconds / 2)
    return Sweep.of("toy", [{"x": trial["x"], "step": step, "value": trial["x"] ** step} for step in (1, 2)])

def picky(trial, folder, bad=()):
    if trial["x"] in bad and not (folder.parent / "mended").exists():
        raise RuntimeError(f"{trial['x']} is bad")
    return Sweep.of("toy", [{"x": trial["x"]}])

def deadly(trial, folder):
    with (folder / "runs.txt").open("a") as file:
        file.write("1\\n")
    if trial["x"] == 1:
        os._exit(9)
    return Sweep.of("toy", [{"x": trial["x"]}])

def wrong(trial, folder):
    return trial["x"]

constant = 3
'''


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module ``sweeptoys``, importable here and in new processes."""
    folder = tmp_path_factory.mktemp("toys")
    (folder / "sweeptoys.py").write_text(TOYS)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).strip(":")
    return folder


@pytest.fixture
def study(toys: Path) -> Study:
    """Six trials at once."""
    return Study(name="toy", run="sweeptoys:slow", trials=tuple({"x": x} for x in range(6)))

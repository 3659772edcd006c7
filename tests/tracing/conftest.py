"""Golden texts: what was printed must be printed again; ``pytest tests/tracing --regen`` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", help="write the golden texts instead of comparing")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with ``tests/golden/<name>.txt``, file and line numbers aside."""

    def check(name: str, text: str) -> None:
        path = FOLDER / f"{name}.txt"
        text = re.sub(r", \w+\.py:\d+", "", text) + "\n"
        if request.config.getoption("--regen", default=False):
            path.write_text(text)
        assert text == path.read_text(), f"{path} differs; if the change is meant, regenerate it"

    return check

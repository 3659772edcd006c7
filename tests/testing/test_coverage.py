"""The page: counts by hand, a reason for every failure, and nothing that breaks a table."""

from __future__ import annotations

from typing import Any

import pytest

from shapleaf.testing import examine
from shapleaf.testing.coverage import page, verdict
from zoo import NETS

GOOD: dict[str, Any] = {
    "seconds": 0.5, "groups": 2, "units": 1234, "inexact": 1, "blocked": {}, "attention": 0, "given_up": {},
    "trials": [{"name": "half", "params": 0.25, "error": 2e-16},
               {"name": "random", "params": 0.5, "error": None}],
    "order": 1e-15, "poisoned": ["a"], "refused": [], "wrong": [], "notes": [],
}  # fmt: skip
ROWS: dict[str, Any] = {
    "x:good": GOOD,
    "x:held": {**GOOD, "blocked": {"g": "m.py:3 holds a size", "h": "too"}},
    "x:half": {**GOOD, "attention": 4, "given_up": {"m.attn": "rotary * | <b>"}},
    "x:whole": {**GOOD, "attention": 1, "given_up": {"m": "why"}},
    "x:wrong": {**GOOD, "wrong": ["half: they differ"], "refused": ["random: no"]},
    "x:refused": {**GOOD, "refused": ["half: does\nnot run"], "trials": [{"name": "half", "params": None,
                  "error": None}, GOOD["trials"][1]]},
    "x:slow": {"failure": "more than 240 s"},
}  # fmt: skip
FOUND = {"environment": {"torch": "2.6", "timm": "not installed"}, "models": ROWS}


def lines(listed: list[str] | None = None) -> list[str]:
    return page(FOUND, listed or [*ROWS]).splitlines()


@pytest.mark.parametrize(
    ("spec", "word"),
    [("x:good", "proven"), ("x:held", "proven"), ("x:wrong", "wrong"), ("x:refused", "refused"),
     ("x:slow", "failed")],
)  # fmt: skip
def test_one_word_for_a_row(spec: str, word: str) -> None:
    assert verdict(ROWS[spec]) == word


def test_counts() -> None:
    assert [line for line in lines() if line.startswith("- ")][:3] == [
        "- 7 models: 4 (57.1%) are proven, 1 wrong, 1 refused, 1 failed.",
        (
            "- What is left is always the user's own module, and no exported program. In 3 (42.9%) every "
            "group can lose units; in the others the model's code holds some back, as listed."
        ),
        "- 2 models have attention; 2 of them keep its full width somewhere, 1 everywhere.",
    ]
    assert "Made with torch 2.6, timm not installed." in lines()


def test_every_failure_has_its_reason() -> None:
    text = lines()
    start = text.index("## What failed, and why")
    assert text[start + 2 : start + 6] == [
        "- `x:wrong` wrong: half: they differ",
        "- `x:wrong` wrong: random: no",
        "- `x:refused` refused: half: does not run",
        "- `x:slow` failed: more than 240 s",
    ]
    assert "- `x:held`: 2 of 2, `g`: m.py:3 holds a size" in text
    assert r"- `x:half`: 1 of 4, `m.attn`: rotary \* / &lt;b>" in text


def test_rows_of_the_table() -> None:
    table = {line.split(" | ")[0]: line for line in lines() if line.startswith("| x:")}
    cells = "| x:good | proven | 2 | 1,234 | 1 | 0 | none | 0.250, 2e-16 | 0.500, none | 1e-15 | 1 | 0.50 |"
    assert table["| x:good"] == cells
    assert " | 4, 3 | " in table["| x:half"]
    assert " | refused | 0.500, none | " in table["| x:refused"]
    assert {line.count("|") for line in table.values()} == {13}


def test_nothing_failed_and_nothing_is_said_of_it() -> None:
    text = page({"environment": {}, "models": {"x:good": GOOD}}, ["x:good", "x:other"])
    assert "What failed" not in text
    assert "held back" not in text.partition("## The table")[0]
    assert text.endswith("\nNot examined: `x:other`.\n")


def test_what_examine_finds_is_a_row() -> None:
    row = examine(*NETS["transformer"]()).to_json()
    assert "| x:net | proven | 5 | 36 | 1 | 0 | 2, 2 |" in page(
        {"environment": {}, "models": {"x:net": row}}, []
    )

"""Verdict: sentences, printing and saving."""

from __future__ import annotations

from pathlib import Path

from shapleaf.records import Advice, Verdict


def found() -> Verdict:
    numbers = {"remove": 0.0, "worst": 0.04, "low": 0.0, "high": 0.15, "mean": 0.5, "nominal": 0.85}
    one = Advice(
        method="WT", expected="shifted", extent="not at all", weakest="shot 3", below=0.0, above=0.15,
        certain=False, sentence="do not.", **numbers,
    )  # fmt: skip
    return Verdict(advice=(one,), notes=("Beware.",), delta=0.005, settings={"full": "0.9"})


def test_sentences_are_those_of_the_advice_then_the_notes() -> None:
    assert found().sentences == ("do not.", "Beware.")


def test_it_prints_evidence_beside_the_advice() -> None:
    lines = str(found()).splitlines()
    assert lines[0].endswith("error up to 0.5 points higher")
    assert lines[3].split("  ")[-1].strip() == "no"
    assert "0.0 to 15.0" in lines[3]
    assert lines[4:] == ["do not.", "Beware."]


def test_it_comes_back_from_a_file(tmp_path: Path) -> None:
    found().save(tmp_path / "verdict")
    assert Verdict.load(tmp_path / "verdict") == found()
    assert found().to_json()["advice"][0]["extent"] == "not at all"

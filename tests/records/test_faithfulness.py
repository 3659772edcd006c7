"""Faithfulness: look-up of curves, the area where pruning happens, printing and saving."""

from __future__ import annotations

from pathlib import Path

import pytest

from shapleaf.records import Correlation, Faithfulness


def curve(heights: dict[int, float | None], units: int = 8, criterion: str = "mine") -> list[Correlation]:
    return [
        Correlation(
            group="fc",
            criterion=criterion,
            removed=k,
            units=units,
            sets=100,
            pooled=r,
            predicted=1.5,
            rise=-2.0,
        )
        for k, r in heights.items()
    ]


def test_area_is_the_mean_height_between_a_quarter_and_four_fifths() -> None:
    # 8 units: from 2 to 6. At 2 the line from (1, 1.0) to (3, 0.6) is at 0.8, at 6 that to (7, 0.2) at 0.3.
    found = Faithfulness(rows=tuple(curve({7: 0.2, 1: 1.0, 3: 0.6})))
    by_hand = ((0.8 + 0.6) / 2 * 1 + (0.6 + 0.3) / 2 * 3) / 4
    assert found.area("fc", "mine") == pytest.approx(by_hand, abs=1e-15)
    assert [row.removed for row in found.curve("fc", "mine")] == [1, 3, 7]


@pytest.mark.parametrize(
    ("heights", "units", "area"),
    [
        ({2: 0.5, 6: 0.5}, 8, 0.5),
        ({1: -9.0, 2: 0.5, 6: 0.7, 8: None}, 8, 0.6),
        ({3: 0.5, 6: 0.5}, 8, None),
        ({1: 0.5, 5: 0.5}, 8, None),
        ({1: 0.5, 4: None, 8: 0.5}, 8, None),
        ({1: 0.25, 2: None}, 2, 0.25),
        ({1: None}, 1, None),
    ],
)
def test_area_needs_both_ends(heights: dict[int, float | None], units: int, area: float | None) -> None:
    found = Faithfulness(rows=tuple(curve(heights, units)))
    assert found.area("fc", "mine") == (None if area is None else pytest.approx(area, abs=1e-15))
    assert found.area("fc", "mine", "example") is None


def test_unknown_curves_are_key_errors() -> None:
    found = Faithfulness(rows=tuple(curve({1: 0.5})))
    with pytest.raises(KeyError, match="no curve of group 'fc' and criterion 'yours'; measured: fc/mine"):
        found.area("fc", "yours")


def test_it_prints_an_area_only_where_there_is_one() -> None:
    rows = [*curve({1: 0.5, 8: 1.0}), *curve({1: None}, criterion="other")]
    assert str(Faithfulness(rows=tuple(rows), settings={"seed": "0"})) == (
        "Faithfulness to the loss when units are removed\n"
        "group  criterion  removed  example  examples  pooled  spearman  predicted  rise\n"
        "─────  ─────────  ───────  ───────  ────────  ──────  ────────  ─────────  ────\n"
        "fc     mine       1              -         0     0.5         -        1.5    -2\n"
        "fc     mine       8              -         0       1         -        1.5    -2\n"
        "fc     mine       2 to 6         -         -  0.7143         -          -     -\n"
        "fc     other      1              -         0       -         -        1.5    -2\n"
        "seed=0"
    )


def test_it_comes_back_from_a_file(tmp_path: Path) -> None:
    found = Faithfulness(rows=tuple(curve({1: 0.5, 3: None, 8: -1.0})), settings={"seed": "0"})
    found.save(tmp_path / "found.faithfulness")
    assert Faithfulness.load(tmp_path / "found.faithfulness") == found
    assert found != Faithfulness(rows=found.rows)

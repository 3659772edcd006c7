"""Words and cells."""

from __future__ import annotations

import pytest

from shapleaf.reporting.cells import Cell, clip, left_out, share, signed, some


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "nothing"), (1.0, "100 %"), (0.004, "0 %"), (0.855, "86 %")]
)
def test_shares(value: float, said: str) -> None:
    assert share(value).replace("\N{NO-BREAK SPACE}", " ") == said


@pytest.mark.parametrize(("value", "said"), [(0.0, "0.0"), (-0.04, "0.0"), (-0.06, "−0.1"), (12.0, "+12.0")])
def test_signs(value: float, said: str) -> None:
    assert signed(value) == said


def test_lists_keep_both_ends_and_say_what_is_missing() -> None:
    assert some(list(range(9)), 3) == [0, 4, 8]
    assert some([1, 2], 5) == [1, 2]
    assert left_out(1000, 2000, "models") == "1,000 of 2,000 models are shown."
    assert left_out(2, 2, "models") == ""
    assert clip("x" * 60) == "x" * 47 + "…"
    assert Cell("1") == ("1", "", "", None)

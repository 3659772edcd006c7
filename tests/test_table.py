"""The table: numbers, alignment, and the same as HTML."""

import pytest

from shapleaf._table import count, number, text, to_html


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (-0.0, "0"),
        (12, "12"),
        (3.0, "3"),
        (-1.5, "-1.5"),
        (0.123456, "0.1235"),
        (0.00001234, "1.234e-05"),
        (99.996, "100"),
        (999.4, "999.4"),
        (1234.5, "1,234"),
        (-98765.4321, "-98,765"),
        (1234567, "1,234,567"),
        (10**20, "1e+20"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
    ],
)
def test_numbers_are_short(value: float, shown: str) -> None:
    assert number(value) == shown


def test_counts_agree_with_their_noun() -> None:
    assert [count(n, "unit") for n in (0, 1, 2, 1000)] == ["0 units", "1 unit", "2 units", "1,000 units"]
    assert count(3, "axis", "axes") == "3 axes"


def test_columns_of_numbers_are_right_aligned() -> None:
    rows = [["a", 1, None, True], ["long name", 1000, 0.5, False]]
    assert text("title", ["name", "n", "x", "flag"], rows, footer="end") == (
        "title\n"
        "name           n    x  flag\n"
        "─────────  ─────  ───  ────\n"
        "a              1    -  yes\n"
        "long name  1,000  0.5  no\n"
        "end"
    )


def test_a_column_with_one_word_is_left_aligned() -> None:
    assert text("t", ["x"], [[1], ["many"]]) == "t\nx\n────\n1\nmany"


def test_no_rows_leave_the_header() -> None:
    assert text("t", ["name", "n"], []) == "t\nname  n\n────  ─"


def test_no_header_leaves_the_title() -> None:
    assert text("t", [], [], footer="f") == "t\nf"


def test_html_has_the_same_cells_escaped() -> None:
    assert to_html("a < b", ["n&m"], [[1000], ["<i>"]], footer="one\ntwo & three") == (
        "<table><caption>a &lt; b</caption><thead><tr><th>n&amp;m</th></tr></thead>"
        "<tbody><tr><td>1,000</td></tr><tr><td>&lt;i&gt;</td></tr></tbody></table>"
        "<p>one<br>two &amp; three</p>"
    )


def test_html_without_footer() -> None:
    assert to_html("t", [], []).endswith("</tbody></table>")

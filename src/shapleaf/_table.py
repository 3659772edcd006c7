"""The one renderer of tables, for the terminal and the notebook."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence

Rows = Sequence[Sequence[object]]


def number(value: float) -> str:
    """A count or measure, short enough for a table cell.

    >>> number(1234567), number(0.123456), number(3.0), number(12)
    ('1,234,567', '0.1235', '3', '12')
    """
    if abs(value) < 1e15 and (float(value).is_integer() or abs(value) >= 1000):
        return f"{value + 0:,.0f}"  # no minus before 0
    return f"{value:.4g}"


def count(number: int, noun: str, nouns: str = "") -> str:
    """A number of things.

    >>> count(1, "group"), count(1200, "group"), count(2, "axis", "axes")
    ('1 group', '1,200 groups', '2 axes')
    """
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def enumerated(names: Sequence[str], most: int = 3) -> str:
    """Names in a sentence; of very many the first.

    >>> enumerated(["a"]), enumerated(["a", "b", "c"]), enumerated(["a", "b", "c", "d"])
    ('a', 'a, b and c', 'a, b and 2 others')
    """
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} others"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def percent(share: float | None) -> float | None:
    """A share in percent, rounded for a table cell.

    >>> percent(0.123456), percent(None)
    (12.35, None)
    """
    return None if share is None else round(100 * share, 2)


def interval(low: float | None, high: float | None, digits: int = 1) -> str | None:
    """The ends of an interval of shares, in percent.

    >>> interval(0.5, 0.75), interval(None, None)
    ('50.0 to 75.0', None)
    """
    return None if low is None or high is None else f"{100 * low:.{digits}f} to {100 * high:.{digits}f}"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) else str(value)


def text(title: str, header: Sequence[str], rows: Rows, *, footer: str = "") -> str:
    """An aligned plain-text table; columns that hold numbers are right-aligned.

    >>> print(text("units", ["group", "kept"], [["conv1", 8], ["fc", 120]]))
    units
    group  kept
    ─────  ────
    conv1     8
    fc      120
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    right = [bool(rows) and all(_numeric(row[i]) for row in rows) for i in range(len(header))]
    out = io.StringIO()
    print(title, file=out)
    for row in ([list(header), ["─" * width for width in widths], *cells]) if header else []:
        pieces = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        print("  ".join(pieces).rstrip(), file=out)
    if footer:
        print(footer, file=out)
    return out.getvalue().rstrip("\n")


def _numeric(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def to_html(title: str, header: Sequence[str], rows: Rows, *, footer: str = "") -> str:
    """The same table as an HTML fragment, for ``_repr_html_``."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row) + "</tr>" for row in rows
    )
    caption = html.escape(title)
    note = f"<p>{html.escape(footer).replace(chr(10), '<br>')}</p>" if footer else ""
    rows_html = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f"<table><caption>{caption}</caption>{rows_html}</table>{note}"

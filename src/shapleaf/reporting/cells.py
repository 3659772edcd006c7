"""Tables under charts, and the words of a page: cells, shares, signs, and what is cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from .charts import MINUS, spread

METHODS = 8  # most methods that a page tells apart
_NAME = 48
_SPACE = "\N{NO-BREAK SPACE}"
T = TypeVar("T")


class Cell(NamedTuple):
    """A cell of a table: its text, what stands small below, its style, and its shade from 0 to 10."""

    text: str
    small: str = ""
    style: str = ""
    shade: int | None = None


class Table(NamedTuple):
    """A table under a chart: its column heads, and rows that begin with their name."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    more: str = ""


def share(value: float) -> str:
    r"""A share of the parameters for running text.

    >>> share(0.853), share(0.0)
    ('85\xa0%', 'nothing')
    """
    return f"{100 * value:.0f}{_SPACE}%" if value else "nothing"


def clip(text: str, length: int = _NAME) -> str:
    """A text from a record, cut at some length.

    >>> clip("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= length else f"{text[: length - 1]}…"


def worded(name: str) -> str:
    """The name of a distribution, such that it can be broken into lines.

    >>> worded("gaussian_noise 3")
    'gaussian noise 3'
    """
    return clip(name.replace("_", " "))


def signed(value: float, digits: int = 1) -> str:
    """A change, with its sign.

    >>> signed(1.26), signed(-0.01), signed(-0.25, 2) == "\N{MINUS SIGN}0.25"
    ('+1.3', '0.0', True)
    """
    text = f"{value:+.{digits}f}"
    return (text[1:] if float(text) == 0 else text).replace("-", MINUS)


def some(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly apart, both ends included.

    >>> some("abcdef", 3)
    ['a', 'c', 'f']
    """
    return [items[place] for place in spread(range(len(items)), most)]


def left_out(shown: int, every: int, what: str) -> str:
    """That something is not shown; empty if nothing is left out.

    >>> left_out(2, 3, "models"), left_out(3, 3, "models")
    ('2 of 3 models are shown.', '')
    """
    return f"{shown:,} of {every:,} {what} are shown." if shown < every else ""
